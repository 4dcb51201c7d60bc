"""Footage: where the pictures of a stream can be fetched again, at any rate. Files are their own; feeds are recorded.

What a recording is stands in `keep`; writing it is `recorder`'s, reading it `playback`'s, and single pictures of a file are
`pick`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from streamproc.errors import Rejected
from streamproc.messages import Frame, Source
from streamproc.video import address
from streamproc.video.jobs import Clip, Clipped, ClipRecording, Extents, PickTimes, Reach
from streamproc.video.keep import UNREACHABLE, Keep
from streamproc.video.limits import Limits
from streamproc.video.look import Look
from streamproc.video.pick import Files
from streamproc.video.workers import Workers


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
