"""Disjoint half-open ranges of integers in order. Progress, guard, coverage and gaps are all this one thing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """A set of integers kept as ranges; neighbours that touch are one range."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, pairs: Iterable[Iterable[int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for lo, hi in pairs:
            self.add(lo, hi)

    def add(self, lo: int, hi: int) -> None:
        """Put [lo, hi) in."""
        if lo >= hi:
            return
        starts, ends = self._starts, self._ends
        if not ends or lo > ends[-1]:  # by far the most frequent: behind everything
            starts.append(lo)
            ends.append(hi)
            return
        if lo >= starts[-1]:  # and next: the last range grows
            if hi > ends[-1]:
                ends[-1] = hi
            return
        first = bisect_left(ends, lo)  # the first range that touches
        last = bisect_right(starts, hi)  # one past the last that does
        if first < last:
            lo, hi = min(lo, starts[first]), max(hi, ends[last - 1])
        starts[first:last] = [lo]
        ends[first:last] = [hi]

    def remove(self, lo: int, hi: int) -> None:
        """Take [lo, hi) out."""
        if lo >= hi:
            return
        kept = [(a, b) for a, b in self if b <= lo or a >= hi]
        for a, b in self:
            if a < hi and b > lo:
                kept += [(a, min(b, lo)), (max(a, hi), b)]
        pairs = sorted((a, b) for a, b in kept if a < b)
        self._starts, self._ends = [a for a, _ in pairs], [b for _, b in pairs]

    def has(self, lo: int, hi: int) -> bool:
        """All of [lo, hi) is in."""
        i = bisect_right(self._starts, lo) - 1
        return i >= 0 and self._ends[i] >= hi

    def missing(self, lo: int, hi: int) -> list[tuple[int, int]]:
        """What of [lo, hi) is not in, in order."""
        holes = []
        for i in range(bisect_right(self._ends, lo), len(self._ends)):
            a, b = self._starts[i], self._ends[i]
            if a >= hi:
                break
            if lo < a:
                holes.append((lo, a))
            lo = b
        if lo < hi:
            holes.append((lo, hi))
        return holes

    def base(self, start: int = 0) -> int:
        """The first integer ≥ start that is not in."""
        i = bisect_right(self._starts, start) - 1
        return self._ends[i] if i >= 0 and self._ends[i] > start else start

    def drop_below(self, start: int) -> None:
        """Forget everything below start."""
        i = bisect_right(self._ends, start)
        del self._starts[:i], self._ends[:i]
        if self._starts and self._starts[0] < start:
            self._starts[0] = start

    @property
    def end(self) -> int:
        """One past the last integer; 0 when empty."""
        return self._ends[-1] if self._ends else 0

    @property
    def total(self) -> int:
        """How many integers are in."""
        return sum(self._ends) - sum(self._starts)

    def pairs(self) -> list[tuple[int, int]]:
        return list(zip(self._starts, self._ends, strict=True))

    def copy(self) -> Ranges:
        new = Ranges()
        new._starts, new._ends = self._starts[:], self._ends[:]
        return new

    def __or__(self, other: Ranges) -> Ranges:
        new = self.copy()
        for lo, hi in other:
            new.add(lo, hi)
        return new

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        """How many ranges."""
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self.pairs() == other.pairs()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Ranges({self.pairs()})"
