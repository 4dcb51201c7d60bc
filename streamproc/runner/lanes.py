"""Lanes: what waits for its row, by stream and root. Pure memory; the fold decides what is a row, and what is not."""

from __future__ import annotations

from dataclasses import dataclass, field

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


@dataclass(slots=True, eq=False)
class Lane:
    """One sequence's root in one stream: what waits, and whether somebody works on it."""

    stream: str
    generation: int
    root: str
    index: int
    waiting: dict[str, dict[int, Input]] = field(default_factory=dict)
    """Service → index at which it has its turn → input."""
    busy: bool = False
    stopped: bool = False
    """A row waits for a table: nothing moves before."""
    latest_ms: int = 0
    """How far stream time has come, by what was read."""

    def sequence(self, service: str) -> messages.Sequence:
        """What a service says here. Nobody's, the one of the empty name, holds the numbers that are not owed."""
        return messages.Sequence(service, self.root, self.stream, self.generation)

    def add(self, given: Input) -> None:
        turn = max(given.index, self.index)  # a range may begin before and reach beyond
        self.waiting.setdefault(given.sequence.service, {})[turn] = given
        self.latest_ms = max(self.latest_ms, given.place.start_ms)

    def beyond(self) -> tuple[int, Input] | None:
        """The next index at which anybody says something, and who."""
        firsts = [(min(w), w) for w in self.waiting.values() if w]
        if not firsts:
            return None
        index, waiting = min(firsts, key=lambda first: first[0])
        return index, waiting[index]

    def pass_to(self, index: int) -> list[Input]:
        """The lane stands at `index` now; who has nothing more to say leaves, ranges that reach beyond stay."""
        left = []
        for waiting in self.waiting.values():
            for turn in sorted(t for t in waiting if t < index):
                given = waiting.pop(turn)
                if given.until > index:
                    waiting[index] = given
                else:
                    left.append(given)
        self.index = index
        return left
