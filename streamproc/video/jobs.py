"""What a worker process is asked to do, and what it answers. All of it plain data; the worker runs it, nobody else.

A job is answered by any number of parts and one end. A file is surveyed once; then its slices are jobs of their own,
for any worker. A file that cannot be cut (its packets do not tell what is shown) is one job, answered as it goes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, Protocol

from av.video.frame import VideoFrame

from streamproc.video import sampling
from streamproc.video.address import Address
from streamproc.video.choice import Chosen
from streamproc.video.container import Limits, Opened, opened
from streamproc.video.picture import Painter
from streamproc.video.plan import Stretch, begin, plan
from streamproc.video.table import Table
from streamproc.video.windows import Cut, Picture

SLICE_S = 60.0
BATCH = 32
"""Pictures of one answer, where a file is decoded in one go."""
SHORT_S = 4
"""No file is worth cutting into slices shorter than that: each opens it anew."""
ROUNDS = 2
"""Slices for each worker, of a short file: so that none waits for long at its end."""
SLACK = 0.25
"""A slice may be so much shorter or longer than the others, to end where a GOP does."""
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
class Extent:
    """How far a file goes."""

    end_s: Fraction
    """In the grid's time."""
    count: int
    """Windows of what could be read."""
    declared: int
    """Windows that the file says it has; more than `count` where some of it cannot be read."""
    damage: str | None


@dataclass(frozen=True, slots=True)
class Survey:
    """Read the packets and cut the file into slices. Answer: Surveyed."""

    address: Address
    limits: Limits
    cut: Cut
    begin: int
    slice_s: float = SLICE_S
    workers: int = 1
    """How many will share the slices."""

    def run(self) -> Iterator[Surveyed]:
        cut = self.cut
        with opened(self.address, self.limits) as video:
            table = sampling.index(video)
            if not table.regular:
                yield Surveyed(None, ())
                return
            found = sampling.wanted(table, cut.sampling.rule)
            extent = _extent(video, cut, len(found), table.shown_s)
            slices = []
            cuts = _Cuts(cut, table, found)
            for begin, until in cuts.between(self.begin, extent.count, slice_s=self.slice_s, workers=self.workers):
                slices.append(_slice(table, begin, until, cuts.samples(begin, until)))
            cost = sum(s.last - s.first + 1 for each in slices for s in each.stretches)
            if cost > UNCUT * len(table.pts):
                a, _ = cut.samples(self.begin, self.begin + 1)
                slices = [_slice(table, self.begin, extent.count, [one for one in found if one[1].k >= a])]
            yield Surveyed(extent, tuple(slices), at_once=cost > UNCUT * len(table.pts))


@dataclass(frozen=True, slots=True)
class Surveyed:
    extent: Extent | None
    """None: only decoding can tell."""
    slices: tuple[Slice, ...]
    at_once: bool = False
    """One slice, and no answer should hold all of its pictures."""


@dataclass(frozen=True, slots=True)
class DecodeSlice:
    """Answer: the pictures of one slice."""

    address: Address
    limits: Limits
    cut: Cut
    part: Slice

    def run(self) -> Iterator[list[Picture]]:
        cut = self.cut
        with opened(self.address, self.limits) as video:
            painter = Painter(cut.sampling.look, video.stream.sample_aspect_ratio)
            frames = sampling.planned(video, cut.sampling.rule, self.part.chosen, self.part.stretches)
            yield [Picture(chosen, painter.jpeg(frame)) for chosen, frame in frames]


@dataclass(frozen=True, slots=True)
class DecodeAll:
    """Answers: the pictures from window `begin` on, some at a time, then the Extent."""

    address: Address
    limits: Limits
    cut: Cut
    begin: int

    part: Slice | None = None
    """Where a survey could plan, but its slices would decode the same packets again and again."""

    def run(self) -> Iterator[list[Picture] | Extent]:
        cut = self.cut
        with opened(self.address, self.limits) as video:
            painter = Painter(cut.sampling.look, video.stream.sample_aspect_ratio)
            first, _ = cut.samples(self.begin, self.begin + 1)
            if self.part:
                frames = sampling.planned(video, cut.sampling.rule, self.part.chosen, self.part.stretches)
                yield from _batches(painter, ((chosen, frame) for chosen, frame in frames if chosen.k >= first))
                return
            count = sampling.Count()
            every = sampling.sequential(video, cut.sampling.rule, count=count)
            yield from _batches(painter, ((chosen, frame) for chosen, frame in every if chosen.k >= first))
            yield _extent(video, cut, count.samples, count.ticks * video.time_base)


class Job(Protocol):
    """Whatever a worker can run."""

    def run(self) -> Iterator[Any]: ...


def _slice(table: Table, begin: int, until: int, here: Sequence[tuple[int, Chosen]]) -> Slice:
    stretches = tuple(plan(table, (packet for packet, _ in here)))
    return Slice(begin, until, tuple(chosen for _, chosen in here), stretches)


def _batches(painter: Painter, frames: Iterator[tuple[Chosen, VideoFrame]]) -> Iterator[list[Picture]]:
    """A frame is painted before the next is decoded: a decoder has few to give away."""
    batch: list[Picture] = []
    for chosen, frame in frames:
        batch.append(Picture(chosen, painter.jpeg(frame)))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Where a file is cut into slices: evenly, so that all workers end together, and where little is decoded twice."""

    cut: Cut
    table: Table
    found: Sequence[tuple[int, Chosen]]

    def samples(self, begin: int, until: int) -> Sequence[tuple[int, Chosen]]:
        """Of windows [begin, until)."""
        a, b = self.cut.samples(begin, until)
        low = bisect_left(self.found, a, key=lambda one: one[1].k)
        return self.found[low : bisect_left(self.found, b, lo=low, key=lambda one: one[1].k)]

    def between(self, first: int, count: int, *, slice_s: float, workers: int) -> Iterator[tuple[int, int]]:
        """Windows of one slice after the other; at least one window each."""
        most, least = (max(1, int(Fraction(s) / self.cut.sampling.step_s)) for s in (slice_s, SHORT_S))
        left = workers * max(
            ceil((count - first) / (most * workers)), min(ROUNDS, (count - first) // (least * workers))
        )
        while first < count:
            left = max(left, ceil((count - first) / most))
            until = self._near(first, (count - first) / left, most) if left > 1 else count
            yield first, until
            first, left = until, left - 1

    def _near(self, first: int, size: float, most: int) -> int:
        """The best place to cut, for a slice of about that size."""
        low, high = first + ceil(size * (1 - SLACK)), first + min(most, int(size * (1 + SLACK)))
        return min(range(low, max(low, high) + 1), key=lambda at: (self.twice(at), abs(at - first - size)))

    def twice(self, at: int) -> int:
        """Packets decoded on both sides of a cut before this window."""
        before, behind = self.samples(at - 1, at), self.samples(at, at + 1)
        return max(0, before[-1][0] - begin(self.table, behind[0][0]) + 1) if before and behind else 0


def _extent(video: Opened, cut: Cut, samples: int, shown_s: Fraction) -> Extent:
    end_s = cut.end_s(samples, shown_s)
    count, declared = cut.count(end_s), 0
    if (said_s := video.declared_s) is not None and said_s - shown_s > max(Fraction(1), cut.sampling.step_s):
        declared = cut.count(said_s)
    return Extent(end_s, count, max(count, declared), video.damage)
