"""Ends: which sequences are over, and when they may be forgotten. What is kept of them, the book knows.

A service runs for months and meets thousands of streams. Of each it keeps which numbers were taken, because a record may
come again: read again after a takeover, or told again by a torn writer. The guard may go, and all else with it, once

    1. the end has been taken, and every number before it: nothing is in a call, nothing waits, nothing is missing,
    2. the base has passed all that was read of it: no takeover reads any of it again,
    3. nothing has been heard of it since for as long as topics that are read here keep their records. Who would tell it
       again reads records that are as old: what it has not done by then, it cannot do any more.

What comes again although it is over begins 2 and 3 anew. A paused stream, a feed that is silent, a file that waits for a
service are not over, however long nothing is heard of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from streamproc.messages import Sequence
from streamproc.topics import topic

Life = tuple[str, int, str]
"""Stream, generation, and the root whose numbers are spoken of."""

TABLES_KEEP_H = 720.0
"""For those who read nothing but tables, which keep their records for ever."""
LOOK_EVERY_S = 600.0


def life_of(sequence: Sequence) -> Life:
    return sequence.stream, sequence.generation, sequence.root


class End(Struct, array_like=True, frozen=True):
    """The end of one life, as it is kept in the state."""

    since_ms: int
    """When something was last heard of it, by the wall clock."""
    upto: dict[str, int]
    """Topic → how far it had been read by then."""
    counts: dict[str, int]
    """Service → how many numbers it said there are."""


class Ends:
    """Of one lease."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ends: dict[Life, End] = {}

    def __contains__(self, life: Life) -> bool:
        return life in self._ends

    def __len__(self) -> int:
        return len(self._ends)

    def load(self, ends: Mapping[Life, End]) -> None:
        self._ends = dict(ends)

    def heard(self, life: Life, upto: dict[str, int], counts: Mapping[str, int] | None = None) -> End:
        """Its end, or something else of what is over; now."""
        before = self._ends.get(life)
        end = End(round(self._now() * 1000), upto, {**(before.counts if before else {}), **(counts or {})})
        self._ends[life] = end
        return end

    def counts(self, life: Life) -> Mapping[str, int]:
        return self._ends[life].counts

    def drop(self, life: Life) -> bool:
        """It goes on after all, or is forgotten."""
        return self._ends.pop(life, None) is not None

    def old(self, keep_s: float, bases: Mapping[str, int]) -> Iterator[Life]:
        """Those of which nothing was heard for `keep_s`, and nothing can be read again."""
        before_ms = (self._now() - keep_s) * 1000
        for life, end in list(self._ends.items()):
            if end.since_ms <= before_ms and all(bases.get(name, 0) >= upto for name, upto in end.upto.items()):
                yield life


def keep_s(reads: tuple[str, ...]) -> float:
    """How long what is over is remembered by a stage that reads these topics."""
    return 3600 * max(topic(name).retention_hours or TABLES_KEEP_H for name in reads)
