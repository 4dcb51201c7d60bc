"""A file cut into slices that workers decode at the same time: evenly, and where little must be decoded twice."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from streamproc.video.choice import Chosen
from streamproc.video.plan import Stretch, begin, plan
from streamproc.video.table import Table
from streamproc.video.windows import Cut

SHORT_S = 4
"""Only to have work for all workers no file is cut into slices shorter than that: each opens it anew."""
ROUNDS = 4
"""At most so many slices for each worker, of a short file: whichever number lets them end together."""
OPENING = 4
"""What opening a file costs, in packets that are decoded instead."""
NEAR = 1.03
"""More slices are better where they cost no more than this: the first comes sooner, and a worker that is slow takes fewer."""
SLACK = 0.25
"""A slice may be so much shorter or longer than the others, to end where a GOP does."""
SOON_S = 20
"""The first slice of a long file: whoever looks at its opening waits for no more."""
UNCUT = 1.5
"""Slices that would decode so many times what one pass does are not made: a file with one key frame, say."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Windows [begin, until) that start in one stretch of time, and what must be decoded for them."""

    begin: int
    until: int
    chosen: tuple[Chosen, ...]
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where a file may be cut, and at what cost."""

    cut: Cut
    table: Table
    found: Sequence[tuple[int, Chosen]]
    """What is wanted of it: packets, in the order of their samples."""
    most: int = sys.maxsize
    """So many pictures of a slice at most, if it has more than one window: an answer must be held in memory."""

    def slices(self, first: int, until: int, *, slice_s: float, workers: int) -> tuple[tuple[Slice, ...], bool]:
        """Of windows [first, until), none longer than `slice_s`. True: there is but one, however long, for cutting it
        would cost too much."""
        if first >= until:
            return (), False
        counts = self._counts(first, until, slice_s, workers)
        cuttings = [self._cuttings(first, until, count, slice_s) for count in counts]
        ends = [_busy(each, workers) for each in cuttings]
        slices = next(each for each, end in zip(cuttings, ends, strict=True) if end <= NEAR * min(ends))
        if sum(map(_packets, slices)) > UNCUT * len(self.table.pts):
            return (self._slice(first, until),), True
        return self._sooner(slices) if len(slices) > ROUNDS * workers else slices, False

    def _sooner(self, slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
        """The first of many in two."""
        head, soon = slices[0], self._windows(SOON_S)
        if head.until - head.begin < 2 * soon:
            return slices
        at = self._near(head.begin, soon, soon * 2)
        return self._slice(head.begin, at), self._slice(at, head.until), *slices[1:]

    def _counts(self, first: int, until: int, slice_s: float, workers: int) -> Iterator[int]:
        """How many slices there might be, the most first; a long file ends in a round of all workers."""
        least = ceil((until - first) / self._windows(slice_s))
        if least > ROUNDS * workers:
            yield least + -least % workers
            return
        most = max(least, min(ROUNDS * workers, (until - first) // self._windows(SHORT_S)))
        yield most
        yield from (count for count in range(most - most % workers, least - 1, -workers) if 0 < count < most)

    def _windows(self, length_s: float) -> int:
        return max(1, int(Fraction(length_s) / self.cut.sampling.step_s))

    def _cuttings(self, first: int, until: int, count: int, slice_s: float) -> tuple[Slice, ...]:
        bounds = self._bounds(first, until, count, self._windows(slice_s))
        return tuple(part for a, b in bounds for part in self._held(a, b))

    def _held(self, first: int, until: int) -> Iterator[Slice]:
        """As a slice, or where it has too many pictures its halves."""
        windows = until - first
        if windows == 1 or len(self._samples(first, until)) <= self.most:
            yield self._slice(first, until)
            return
        middle = self._near(first, windows / 2, windows - 1)
        yield from self._held(first, middle)
        yield from self._held(middle, until)

    def _slice(self, first: int, until: int) -> Slice:
        here = self._samples(first, until)
        stretches = tuple(plan(self.table, (packet for packet, _ in here)))
        return Slice(first, until, tuple(chosen for _, chosen in here), stretches)

    def _samples(self, first: int, until: int) -> Sequence[tuple[int, Chosen]]:
        a, b = self.cut.samples(first, until)
        low = bisect_left(self.found, a, key=lambda one: one[1].k)
        return self.found[low : bisect_left(self.found, b, lo=low, key=lambda one: one[1].k)]

    def _bounds(self, first: int, until: int, left: int, most: int) -> Iterator[tuple[int, int]]:
        """Windows of one slice after the other; at least one window each."""
        while first < until:
            left = max(left, ceil((until - first) / most))
            end = self._near(first, (until - first) / left, most) if left > 1 else until
            yield first, end
            first, left = end, left - 1

    def _near(self, first: int, size: float, most: int) -> int:
        """The best place to cut, for a slice of about that size."""
        low, high = first + ceil(size * (1 - SLACK)), first + min(most, int(size * (1 + SLACK)))
        return min(range(low, max(low, high) + 1), key=lambda at: (self._twice(at), abs(at - first - size)))

    def _twice(self, at: int) -> int:
        """Packets that would be decoded on both sides of a cut before this window."""
        before, behind = self._samples(at - 1, at), self._samples(at, at + 1)
        return max(0, before[-1][0] - begin(self.table, behind[0][0]) + 1) if before and behind else 0


def _packets(each: Slice) -> int:
    return sum(stretch.last - stretch.first + 1 for stretch in each.stretches)


def _busy(slices: Sequence[Slice], workers: int) -> int:
    """When the last worker ends, each taking the next slice when it has none: in packets, of which a picture costs another."""
    ends = [0] * workers
    for each in slices:
        ends[0] += OPENING + _packets(each) + len(each.chosen)
        ends.sort()
    return ends[-1]
