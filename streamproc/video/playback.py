"""What workers do with recordings of feeds: pictures by time, how far they go, a stretch as a file."""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from av.video.frame import VideoFrame

from streamproc.errors import Rejected
from streamproc.messages import Frame
from streamproc.video import address, sampling
from streamproc.video.address import Address
from streamproc.video.choice import Chosen, Every
from streamproc.video.clip import clip
from streamproc.video.container import Opened, opened
from streamproc.video.jobs import Clip, Clipped, ClipRecording, Extents, PickTimes, Reach
from streamproc.video.keep import NEAR_S, UNREACHABLE, Recording, Segment
from streamproc.video.picture import Painter
from streamproc.video.plan import plan
from streamproc.video.table import Table

log = logging.getLogger(__name__)

HOLE_S = Fraction(2)
"""A picture that much behind the time asked for shows something else."""


def pick_times(job: PickTimes) -> Iterator[list[Frame]]:
    there, todo = Recording(job.keep).segments(), sorted(set(job.times_s))
    starts = [segment.start_s for segment in there]
    found: dict[int, Frame] = {}
    while todo:
        first = max(0, bisect_right(starts, todo[0] + NEAR_S) - 1)
        if first == len(there):
            break
        until_s = starts[first + 1] - NEAR_S if first + 1 < len(there) else None
        here = [t for t in todo if until_s is None or t < until_s]
        todo = todo[len(here) :]
        left = _had(job, there[first], here, found)
        if left and first + 1 < len(there):  # behind the segment's last frame: the next one's first
            _had(job, there[first + 1], left, found)
    yield [found[t_ms] for t_ms in sorted(found)]


def _had(job: PickTimes, segment: Segment, times_s: Sequence[Fraction], found: dict[int, Frame]) -> Sequence[Fraction]:
    """As `_pick`; of a segment that cannot be read, nothing: it has just been begun, or is making room."""
    try:
        return _pick(job, segment, times_s, found)
    except Rejected as e:
        log.warning("%s", e)
        return times_s


def _pick(job: PickTimes, segment: Segment, times_s: Sequence[Fraction], found: dict[int, Frame]) -> list[Fraction]:
    """What the segment has; times behind its end come back."""
    with Recording(job.keep).at_hand(segment) as path, opened(address.parse(path), job.limits) as video:
        painter = Painter(job.look, video.stream.sample_aspect_ratio)
        table = sampling.index(video)
        if not table.regular:
            raise Rejected(f"{segment.path}: {table.why}")
        shown = table.shown()
        at_s = [(table.pts[i] - table.pts[shown[0]]) * table.time_base + segment.start_s for i in shown]
        places = {bisect_left(at_s, t - NEAR_S): t for t in times_s}  # of times that one frame answers the nearest
        wanted = {place: t for place, t in places.items() if place < len(shown) and at_s[place] - t <= HOLE_S}
        chosen = [
            Chosen(place, at_s[place], place + 1, table.pts[shown[place]], at_s[place]) for place in sorted(wanted)
        ]
        for one, frame in _frames(video, chosen, [shown[place] for place in sorted(wanted)], table):
            t_ms = round(1000 * one.time_s)
            found[t_ms] = Frame(t_ms=t_ms, jpeg=painter.jpeg(frame).data)
        return [t for t in times_s if bisect_left(at_s, t - NEAR_S) == len(shown)]


def _frames(
    video: Opened, chosen: Sequence[Chosen], packets: Sequence[int], table: Table
) -> Iterator[tuple[Chosen, VideoFrame]]:
    if chosen:
        yield from sampling.planned(video, Every(1), chosen, list(plan(table, packets)))


def extents(job: Extents) -> Iterator[Reach | None]:
    recording = Recording(job.keep)
    there = recording.segments()
    for last in reversed(there):
        try:
            with recording.at_hand(last) as path, opened(address.parse(path), job.limits) as video:
                table = sampling.index(video)
        except Rejected:  # it has just been begun
            continue
        rate = len(table.shown()) / table.shown_s if table.shown_s else Fraction(1)
        yield Reach(float(there[0].start_s), float(last.start_s + table.shown_s), float(rate))
        return
    yield None


def clip_recording(job: ClipRecording) -> Iterator[Clipped]:
    recording = Recording(job.keep)
    there = recording.segments()
    starts = [segment.start_s for segment in there]
    first, last = max(0, bisect_right(starts, job.from_s) - 1), bisect_left(starts, job.until_s)
    if not there[first:last]:
        raise Rejected(UNREACHABLE)
    begin_s = starts[first]
    with ExitStack() as stack:
        joined = Path(stack.enter_context(TemporaryDirectory())) / "segments"
        paths = [stack.enter_context(recording.at_hand(segment)) for segment in there[first:last]]
        joined.write_text("".join(_listed(path, there, i) for i, path in enumerate(paths, first)))
        whole = Address(str(joined), str(job.keep.folder), "file", format="concat", options={"safe": "0"})
        part = Clip(whole, job.limits, job.from_s - begin_s, job.until_s - begin_s, job.path)
        for clipped in clip(part):
            yield replace(clipped, begin_s=clipped.begin_s + begin_s, end_s=clipped.end_s + begin_s)


def _listed(path: Path, there: Sequence[Segment], i: int) -> str:
    """For FFmpeg's concat: how long a segment is must be said, or the next begins where its last packet ends."""
    quoted = str(path.absolute()).replace("'", "'\\''")
    if i + 1 == len(there):
        return f"file 'file:{quoted}'\n"
    return f"file 'file:{quoted}'\nduration {float(there[i + 1].start_s - there[i].start_s):.6f}\n"
