"""What a worker process is asked to do, and what it answers. All of it plain data; the worker runs it, nobody else.

A job is answered by any number of parts and one end. A file is surveyed once; then its slices are jobs of their own,
for any worker. A file that cannot be cut (its packets do not tell what is shown) is one job, answered as it goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from av.video.frame import VideoFrame

from streamproc.video import sampling
from streamproc.video.address import Address
from streamproc.video.choice import Chosen
from streamproc.video.container import Limits, Opened, opened
from streamproc.video.held import Held
from streamproc.video.picture import Painter
from streamproc.video.slices import Cuts, Slice
from streamproc.video.windows import Cut, Picture

SLICE_S = 60.0
BATCH = 32
"""Pictures of one answer, where a file is decoded in one go."""
HELD = Held()
"""Of the process that runs the jobs: slices of a file come to it one after the other."""


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
            cuts = Cuts(cut, table, found)
            slices, at_once = cuts.slices(self.begin, extent.count, slice_s=self.slice_s, workers=self.workers)
            yield Surveyed(extent, slices, at_once)


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
        with HELD.opened(self.address, self.limits) as video:
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


def _extent(video: Opened, cut: Cut, samples: int, shown_s: Fraction) -> Extent:
    end_s = cut.end_s(samples, shown_s)
    count, declared = cut.count(end_s), 0
    if (said_s := video.declared_s) is not None and said_s - shown_s > max(Fraction(1), cut.sampling.step_s):
        declared = cut.count(said_s)
    return Extent(end_s, count, max(count, declared), video.damage)
