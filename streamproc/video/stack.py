"""Two videos as one, a picture above the other: a heat map of where the driver looks, over what the camera saw.

Sample k of the pair is sample k of both. Both are as wide as the narrower, all sides are even, and the shorter video ends
the pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame

from streamproc.video import sampling
from streamproc.video.choice import Chosen, Rule
from streamproc.video.container import Opened, opened
from streamproc.video.jobs import DecodeStack, Extent
from streamproc.video.look import Jpeg, Look, shown_size
from streamproc.video.picture import Painter, encoded
from streamproc.video.plan import plan
from streamproc.video.slicing import BATCH
from streamproc.video.windows import Cut, Picture

Size = tuple[int, int]


def decode_stack(job: DecodeStack) -> Iterator[list[Picture] | Extent]:
    cut, batch, count = job.cut, list[Picture](), 0
    assert job.address.under, "this is for pairs"
    first, _ = cut.samples(job.begin, job.begin + 1)
    with opened(job.address, job.limits) as top, opened(job.address.under, job.limits) as bottom:
        halves = (Half(top, cut.sampling.rule), Half(bottom, cut.sampling.rule))
        stacker = Stacker(cut.sampling.look, (top, bottom))
        for chosen, above, below in paired(*halves):
            count = chosen.k + 1
            if chosen.k < first:
                continue
            batch.append(Picture(chosen, stacker.jpeg(above, below)))
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch
        yield _extent(cut, count, halves)


class Half:
    """One video of a pair: its samples, and how long it is once they have been taken."""

    def __init__(self, video: Opened, rule: Rule) -> None:
        self.video, self._rule, self._count = video, rule, sampling.Count()
        self._table = sampling.index(video)
        self.frames = self._frames()

    def _frames(self) -> Iterator[tuple[Chosen, VideoFrame]]:
        if not self._table.regular:
            return sampling.sequential(self.video, self._rule, count=self._count)
        found = sampling.wanted(self._table, self._rule)
        stretches = list(plan(self._table, (packet for packet, _ in found)))
        return sampling.planned(self.video, self._rule, [chosen for _, chosen in found], stretches)

    def shown_s(self) -> Fraction:
        if self._table.regular:
            return self._table.shown_s
        for _ in self.frames:  # only its end tells how long it is
            pass
        return self._count.ticks * self.video.time_base


def paired(top: Half, bottom: Half) -> Iterator[tuple[Chosen, VideoFrame, VideoFrame]]:
    """Samples that both have; what is only in one is left out."""
    above, below = next(top.frames, None), next(bottom.frames, None)
    while above and below:
        if above[0].k == below[0].k:
            yield above[0], above[1], below[1]
            above, below = next(top.frames, None), next(bottom.frames, None)
        elif above[0].k < below[0].k:
            above = next(top.frames, None)
        else:
            below = next(bottom.frames, None)


class Stacker:
    """Makes a JPEG of two frames."""

    def __init__(self, look: Look, videos: tuple[Opened, Opened]) -> None:
        self._look = look
        self._aspects = [video.stream.sample_aspect_ratio or Fraction(1) for video in videos]
        self._painters = [Painter(look, aspect) for aspect in self._aspects]

    def jpeg(self, above: VideoFrame, below: VideoFrame) -> Jpeg:
        frames = (above, below)
        turned = [painter.turn(frame).swap for painter, frame in zip(self._painters, frames, strict=True)]
        upright = [
            _flip(shown_size(frame.width, frame.height, aspect, None), swap)
            for frame, aspect, swap in zip(frames, self._aspects, turned, strict=True)
        ]
        planes = [
            painter.planes(frame, *_flip(size, swap))
            for painter, frame, size, swap in zip(
                self._painters, frames, stacked(upright[0], upright[1], self._look.longest), turned, strict=True
            )
        ]
        y, u, v = (np.vstack(pair) for pair in zip(*planes, strict=True))
        return encoded((y, u, v), self._look.quality)


def stacked(top: Size, bottom: Size, longest: int | None) -> tuple[Size, Size]:
    """Sizes of both, upright: equally wide, even, and together no longer than asked."""
    width = min(top[0], bottom[0])
    heights = [Fraction(height * width, wide) for wide, height in (top, bottom)]
    scale = min(Fraction(1), longest / max(Fraction(width), sum(heights, Fraction(0)))) if longest else Fraction(1)
    wide, high, low = (_even(side * scale) for side in (Fraction(width), *heights))
    if longest:  # where one was made higher than it is, to have two lines, the other makes room
        high, low = min(high, _even(Fraction(longest - low))), min(low, _even(Fraction(longest - high)))
    return (wide, high), (wide, low)


def _even(side: Fraction) -> int:
    """The even number at or below, but 2 at the least: a JPEG's chroma is half as large."""
    return max(2, int(side) // 2 * 2)


def _flip(size: Size, swap: bool) -> Size:
    return (size[1], size[0]) if swap else size


def _extent(cut: Cut, samples: int, halves: tuple[Half, Half]) -> Extent:
    shown_s = min(half.shown_s() for half in halves)
    end_s = cut.end_s(samples, shown_s)
    count, declared = cut.count(end_s), 0
    said = [half.video.declared_s for half in halves]
    said_s = min((s for s in said if s is not None), default=None) if None not in said else None
    if said_s is not None and said_s - shown_s > max(Fraction(1), cut.sampling.step_s):
        declared = cut.count(said_s)
    damage = next((half.video.damage for half in halves if half.video.damage), None)
    return Extent(end_s, count, max(count, declared), damage)
