"""Footage: where the pictures of a stream can be fetched again, at any rate. Files are their own; feeds are recorded.

What a recording is stands in `keep`; writing it is `recorder`'s, single pictures of a file are `pick`'s.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from av.video.frame import VideoFrame

from streamproc.errors import Rejected
from streamproc.messages import Frame, Source
from streamproc.video import address, sampling
from streamproc.video.address import Address
from streamproc.video.choice import Chosen, Every
from streamproc.video.clip import Clip, Clipped
from streamproc.video.container import Limits, Opened, opened
from streamproc.video.keep import Keep, Recording, Segment
from streamproc.video.pick import UNREACHABLE, Files, Reach
from streamproc.video.picture import Look, Painter
from streamproc.video.plan import plan
from streamproc.video.table import Table
from streamproc.video.workers import Workers

log = logging.getLogger(__name__)

NEAR_S = Fraction(1, 1000)
"""Times of frames are told in whole ms: a frame so much before the time asked for is the one that is meant."""
HOLE_S = Fraction(2)
"""A picture that much behind the time asked for shows something else."""


@dataclass(frozen=True, slots=True)
class PickTimes:
    """Job: the first frame at or after each of these times, out of a recording. Answer: a list; what is not there is left out."""

    keep: Keep
    limits: Limits
    times_s: tuple[Fraction, ...]
    look: Look

    def run(self) -> Iterator[list[Frame]]:
        there, todo = Recording(self.keep).segments(), sorted(set(self.times_s))
        starts = [segment.start_s for segment in there]
        found: dict[int, Frame] = {}
        while todo:
            first = max(0, bisect_right(starts, todo[0] + NEAR_S) - 1)
            if first == len(there):
                break
            until_s = starts[first + 1] - NEAR_S if first + 1 < len(there) else None
            here = [t for t in todo if until_s is None or t < until_s]
            todo = todo[len(here) :]
            left = self._had(there[first], here, found)
            if left and first + 1 < len(there):  # behind the segment's last frame: the next one's first
                self._had(there[first + 1], left, found)
        yield [found[t_ms] for t_ms in sorted(found)]

    def _had(self, segment: Segment, times_s: Sequence[Fraction], found: dict[int, Frame]) -> Sequence[Fraction]:
        """As `_pick`; of a segment that cannot be read, nothing: it has just been begun, or is making room."""
        try:
            return self._pick(segment, times_s, found)
        except Rejected as e:
            log.warning("%s", e)
            return times_s

    def _pick(self, segment: Segment, times_s: Sequence[Fraction], found: dict[int, Frame]) -> list[Fraction]:
        """What the segment has; times behind its end come back."""
        with Recording(self.keep).at_hand(segment) as path, opened(address.parse(path), self.limits) as video:
            painter = Painter(self.look, video.stream.sample_aspect_ratio)
            table = sampling.index(video)
            if not table.regular:
                raise Rejected(f"{segment.path}: {table.why}")
            shown = table.shown()
            at_s = [(table.pts[i] - table.pts[shown[0]]) * table.time_base + segment.start_s for i in shown]
            places = {bisect_left(at_s, t - NEAR_S): t for t in reversed(times_s)}
            wanted = {place: t for place, t in places.items() if place < len(shown) and at_s[place] - t <= HOLE_S}
            chosen = [
                Chosen(place, at_s[place], place + 1, table.pts[shown[place]], at_s[place]) for place in sorted(wanted)
            ]
            for one, frame in self._frames(video, chosen, [shown[place] for place in sorted(wanted)], table):
                t_ms = round(1000 * one.time_s)
                found[t_ms] = Frame(t_ms=t_ms, jpeg=painter.jpeg(frame).data)
            return [t for t in times_s if bisect_left(at_s, t - NEAR_S) == len(shown)]

    def _frames(
        self, video: Opened, chosen: Sequence[Chosen], packets: Sequence[int], table: Table
    ) -> Iterator[tuple[Chosen, VideoFrame]]:
        if chosen:
            yield from sampling.planned(video, Every(1), chosen, list(plan(table, packets)))


@dataclass(frozen=True, slots=True)
class Extents:
    """Job: from when to when a recording goes. Answer: Reach, or None where there is none."""

    keep: Keep
    limits: Limits

    def run(self) -> Iterator[Reach | None]:
        recording = Recording(self.keep)
        there = recording.segments()
        for last in reversed(there):
            try:
                with recording.at_hand(last) as path, opened(address.parse(path), self.limits) as video:
                    table = sampling.index(video)
            except Rejected:  # it has just been begun
                continue
            rate = len(table.shown()) / table.shown_s if table.shown_s else Fraction(1)
            yield Reach(float(there[0].start_s), float(last.start_s + table.shown_s), float(rate))
            return
        yield None


@dataclass(frozen=True, slots=True)
class ClipRecording:
    """Job: the same as Clip, of a recording. Where nothing was recorded for a while the picture before stands."""

    keep: Keep
    limits: Limits
    from_s: Fraction
    until_s: Fraction
    path: Path

    def run(self) -> Iterator[Clipped]:
        recording = Recording(self.keep)
        there = recording.segments()
        starts = [segment.start_s for segment in there]
        first, last = max(0, bisect_right(starts, self.from_s) - 1), bisect_left(starts, self.until_s)
        if not there[first:last]:
            raise Rejected(UNREACHABLE)
        begin_s = starts[first]
        with ExitStack() as stack:
            joined = Path(stack.enter_context(TemporaryDirectory())) / "segments"
            paths = [stack.enter_context(recording.at_hand(segment)) for segment in there[first:last]]
            joined.write_text("".join(_listed(path, there, i) for i, path in enumerate(paths, first)))
            whole = Address(str(joined), str(self.keep.folder), "file", format="concat", options={"safe": "0"})
            clip = Clip(whole, self.limits, self.from_s - begin_s, self.until_s - begin_s, self.path)
            for clipped in clip.run():
                yield replace(clipped, begin_s=clipped.begin_s + begin_s, end_s=clipped.end_s + begin_s)


def _listed(path: Path, there: Sequence[Segment], i: int) -> str:
    """For FFmpeg's concat: how long a segment is must be said, or the next begins where its last packet ends."""
    quoted = str(path.absolute()).replace("'", "'\\''")
    if i + 1 == len(there):
        return f"file 'file:{quoted}'\n"
    return f"file 'file:{quoted}'\nduration {float(there[i + 1].start_s - there[i].start_s):.6f}\n"


class Footage:
    """Of any stream: the same to ask, whether it is a file or was recorded. All raise Rejected, `footage-unreachable`; and
    Unreachable where it is in an object store that does not answer, which may be asked again."""

    def __init__(
        self, workers: Workers, *, limits: Limits | None = None, secrets: Mapping[str, str] | None = None
    ) -> None:
        self._workers, self._limits, self._secrets = workers, limits or Limits(), secrets
        self._files = Files(workers, limits=limits, secrets=secrets)

    async def reach(self, source: Source) -> Reach:
        if not source.live:
            return await self._files.reach(source)
        found: Reach | None = await self._workers.one(Extents(self._keep(source), self._limits))
        if found is None:
            raise Rejected(UNREACHABLE)
        return found

    async def numbered(self, source: Source, numbers: Sequence[int], *, longest: int | None) -> Sequence[Frame]:
        if source.live:
            raise Rejected(UNREACHABLE)  # frames of a feed have no numbers
        return await self._files.numbered(source, numbers, longest=longest)

    async def timed(self, source: Source, times_s: Sequence[float], *, longest: int | None) -> Sequence[Frame]:
        if not source.live:
            return await self._files.timed(source, times_s, longest=longest)
        times = tuple(Fraction(t).limit_denominator(10**6) for t in times_s)
        job = PickTimes(self._keep(source), self._limits, times, Look(longest))
        found: list[Frame] = await self._workers.one(job)
        if times and not found:
            raise Rejected(UNREACHABLE)
        return found

    async def around(
        self, source: Source, time_s: float, *, rate: float, before_s: float, behind_s: float, longest: int | None
    ) -> Sequence[Frame]:
        """At any rate, around a time."""
        count = int((before_s + behind_s) * rate) + 1
        times = [t for i in range(count) if (t := time_s - before_s + i / rate) >= 0]
        return await self.timed(source, times, longest=longest)

    async def clip(self, source: Source, *, from_s: float, until_s: float, path: Path) -> Clipped:
        """A stretch as a file: of a file itself, or of the recording, whichever segments it lies in."""
        begin, until = (Fraction(t).limit_denominator(10**6) for t in (from_s, until_s))
        if source.live:
            job: Clip | ClipRecording = ClipRecording(self._keep(source), self._limits, begin, until, path)
        else:
            job = Clip(address.parse(source.uri, secrets=self._secrets), self._limits, begin, until, path)
        clipped: Clipped = await self._workers.one(job)
        return clipped

    def _keep(self, source: Source) -> Keep:
        if source.footage is None:
            raise Rejected(UNREACHABLE)  # nobody recorded it
        return Keep.parse(source.footage).of(source)
