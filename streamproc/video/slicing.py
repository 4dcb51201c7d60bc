"""What workers do with files: a glance, a survey, a slice, or all of it in one go."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from av.video.frame import VideoFrame

from streamproc.video import sampling
from streamproc.video.choice import Chosen
from streamproc.video.container import Opened, length_s, opened
from streamproc.video.held import Held
from streamproc.video.jobs import DecodeAll, DecodeSlice, Extent, Glance, Glanced, Survey, Surveyed
from streamproc.video.look import shown_size
from streamproc.video.picture import Painter
from streamproc.video.slices import Cuts
from streamproc.video.windows import Cut, Picture

BATCH = 32
"""Pictures of one answer, where a file is decoded in one go."""
ANSWER_BYTES, PIXELS_A_BYTE = 2**27, 4
"""Of a slice, which is answered at once: a minute of 4K would come to gigabytes. Some are held by whoever asked, one more than
there are workers. A JPEG of a film is so large, and one of noise some times that."""
HELD = Held()
"""Of the process that runs the jobs: slices of a file come to it one after the other."""


def glance(job: Glance) -> Iterator[Glanced]:
    with opened(job.address, job.limits) as video:
        context, duration_s = video.stream.codec_context, video.declared_s or length_s(video.container)
        yield Glanced(video.stream.average_rate, duration_s, context.width, context.height)


def survey(job: Survey) -> Iterator[Surveyed]:
    cut = job.cut
    with opened(job.address, job.limits) as video:
        table = sampling.index(video)
        if not table.regular:
            yield Surveyed(None, ())
            return
        found = sampling.wanted(table, cut.sampling.rule)
        extent = _extent(video, cut, len(found), table.shown_s)
        cuts = Cuts(cut, table, found, most=_most(video, cut))
        slices, at_once = cuts.slices(job.begin, extent.count, slice_s=job.slice_s, workers=job.workers)
        yield Surveyed(extent, slices, at_once)


def _most(video: Opened, cut: Cut) -> int:
    """Pictures of one answer."""
    context = video.stream.codec_context
    width, height = shown_size(context.width, context.height, Fraction(1), cut.sampling.look.longest)
    return max(1, ANSWER_BYTES * PIXELS_A_BYTE // (width * height))


def decode_slice(job: DecodeSlice) -> Iterator[list[Picture]]:
    cut = job.cut
    with HELD.opened(job.address, job.limits) as video:
        painter = Painter(cut.sampling.look, video.stream.sample_aspect_ratio)
        frames = sampling.planned(video, cut.sampling.rule, job.part.chosen, job.part.stretches)
        yield [Picture(chosen, painter.jpeg(frame)) for chosen, frame in frames]


def decode_all(job: DecodeAll) -> Iterator[list[Picture] | Extent]:
    cut = job.cut
    with opened(job.address, job.limits) as video:
        painter = Painter(cut.sampling.look, video.stream.sample_aspect_ratio)
        first, _ = cut.samples(job.begin, job.begin + 1)
        if job.part:
            frames = sampling.planned(video, cut.sampling.rule, job.part.chosen, job.part.stretches)
            yield from _batches(painter, ((chosen, frame) for chosen, frame in frames if chosen.k >= first))
            return
        count = sampling.Count()
        every = sampling.sequential(video, cut.sampling.rule, count=count)
        yield from _batches(painter, ((chosen, frame) for chosen, frame in every if chosen.k >= first))
        yield _extent(video, cut, count.samples, count.ticks * video.time_base)


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
