"""Guards: which numbers of which sequences have been taken, so that what comes again is known. Of one lease.

Why they are kept, and when they may go, `ends` tells; that they land with what was taken is the book's business.
"""

from __future__ import annotations

from collections.abc import Collection

from streamproc.messages import Sequence
from streamproc.ranges import Ranges
from streamproc.runner.ends import Life, life_of
from streamproc.runner.state import guard_key


class Guard:
    """The numbers taken of one sequence."""

    __slots__ = ("key", "over", "taken")

    def __init__(self, key: str, pairs: list[tuple[int, int]] | None = None) -> None:
        self.key = key
        self.taken = Ranges(pairs or ())
        self.over = False
        """Somebody has said its last; what comes now comes again, or late."""


class Guards:
    """See the head of this file."""

    def __init__(self) -> None:
        self._guards: dict[Sequence, Guard] = {}
        self._lives: dict[Life, list[Sequence]] = {}
        self._bare: dict[str, Guard] = {}
        """Topic → its offsets, which stand in for numbers where records have none."""
        self.writers: set[tuple[str, str]] = set()
        """(service, root) of what has been read: who keeps which numbers."""

    def __len__(self) -> int:
        return len(self._guards)

    def taken(self, sequence: Sequence, index: int, until: int) -> bool:
        guard = self._guards.get(sequence)
        return guard is not None and guard.taken.has(index, until)

    def untaken(self, sequence: Sequence, index: int, until: int) -> list[tuple[int, int]]:
        """The parts of [index, until) that nobody has taken yet."""
        guard = self._guards.get(sequence)
        return guard.taken.missing(index, until) if guard else [(index, until)]

    def base(self, sequence: Sequence, start: int = 0) -> int:
        """The first number from `start` on that is not taken."""
        guard = self._guards.get(sequence)
        return guard.taken.base(start) if guard else start

    def taken_bare(self, topic: str, offset: int) -> bool:
        guard = self._bare.get(topic)
        return guard is not None and guard.taken.has(offset, offset + 1)

    def get(self, sequence: Sequence) -> Guard | None:
        """None where nothing of it was taken, or all of it has been forgotten."""
        return self._guards.get(sequence)

    def add(self, sequence: Sequence, pairs: list[tuple[int, int]] | None = None) -> Guard:
        guard = self._guards[sequence] = Guard(guard_key(sequence), pairs)
        self._lives.setdefault(life_of(sequence), []).append(sequence)
        if not sequence.stream:
            self._bare[sequence.root] = guard
        elif sequence.service:
            self.writers.add(sequence[:2])
        return guard

    # by life

    @property
    def lives(self) -> Collection[Life]:
        return self._lives.keys()

    def of(self, life: Life) -> list[tuple[Sequence, Guard]]:
        return [(sequence, self._guards[sequence]) for sequence in self._lives.get(life, ())]

    def forget(self, life: Life) -> list[tuple[Sequence, Guard]]:
        """What there was."""
        return [(sequence, self._guards.pop(sequence)) for sequence in self._lives.pop(life, ())]

    # bare bytes

    def trim_bare(self, topic: str, base: int) -> None:
        """Below base, progress says it all."""
        if guard := self._bare.get(topic):
            guard.taken.drop_below(base)
