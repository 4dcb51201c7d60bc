"""Lanes: what waits for its row, by stream and root. Pure memory; the fold decides what is a row, and what is not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from streamproc import messages
from streamproc.runner.inputs import Input
from streamproc.runner.tracing import Handling


@dataclass(slots=True)
class Heads:
    """What stands at the next index of a lane: services that have spoken, and what stands in for those that have not."""

    spoken: dict[str, Input]
    absent: dict[str, tuple[str, int]]
    """Service → (reason, until)."""
    until: int
    handling: Handling | None = None
    """What it takes, where anybody wants to know."""


class Line:
    """What one service has said, in the order of turns. Who is far ahead of the others costs them nothing: a day's file
    that was looked at by one model before the other waits here whole."""

    __slots__ = ("_by_turn", "_turns")

    def __init__(self) -> None:
        self._by_turn: dict[int, Input] = {}
        self._turns: list[int] = []
        """A heap of these."""

    def add(self, turn: int, given: Input) -> None:
        if turn not in self._by_turn:
            heappush(self._turns, turn)
        self._by_turn[turn] = given

    def at(self, turn: int) -> Input | None:
        return self._by_turn.get(turn)

    @property
    def first(self) -> tuple[int, Input] | None:
        """The next turn at which it says something, and what."""
        return (turn := self._turns[0], self._by_turn[turn]) if self._turns else None

    def leave(self, index: int) -> list[Input]:
        """Those whose turn was before `index`, in order."""
        left = []
        while self._turns and self._turns[0] < index:
            left.append(self._by_turn.pop(heappop(self._turns)))
        return left

    def __iter__(self) -> Iterator[Input]:
        return iter(self._by_turn.values())

    def __len__(self) -> int:
        return len(self._by_turn)


@dataclass(slots=True, eq=False)
class Lane:
    """One sequence's root in one stream: what waits, and whether somebody works on it."""

    stream: str
    generation: int
    root: str
    index: int
    waiting: dict[str, Line] = field(default_factory=lambda: defaultdict(Line))
    """By service."""
    busy: bool = False
    stopped: bool = False
    """A row waits for a table: nothing moves before."""
    live: bool = False
    """It is a feed's, which does not wait for files and replays."""
    latest_ms: int = 0
    """How far stream time has come, by what was read."""

    def sequence(self, service: str) -> messages.Sequence:
        """What a service says here. Nobody's, the one of the empty name, holds the numbers that are not owed."""
        return messages.Sequence(service, self.root, self.stream, self.generation)

    def add(self, given: Input) -> None:
        turn = max(given.index, self.index)  # a range may begin before and reach beyond
        self.waiting[given.sequence.service].add(turn, given)
        self.latest_ms = max(self.latest_ms, given.place.start_ms)

    def spoken(self) -> dict[str, Input]:
        """Who says something of the index in turn."""
        return {service: given for service, line in self.waiting.items() if (given := line.at(self.index))}

    def further(self, service: str) -> int | None:
        """The next index at which a service says something."""
        first = line.first if (line := self.waiting.get(service)) else None
        return first[0] if first else None

    def beyond(self) -> tuple[int, Input] | None:
        """The next index at which anybody says something, and who."""
        firsts = [first for line in self.waiting.values() if (first := line.first)]
        return min(firsts, key=lambda first: first[0], default=None)

    def pass_to(self, index: int) -> list[Input]:
        """The lane stands at `index` now; who has nothing more to say leaves, ranges that reach beyond stay."""
        left = []
        for line in self.waiting.values():
            for given in line.leave(index):
                if given.until > index:
                    line.add(index, given)
                else:
                    left.append(given)
        self.index = index
        return left
