"""Windows of a feed made once more, out of what was recorded of it: on any grid, at any rate, at the times they had.

A picture answers the last sample time that it is not before, as it did when it came. Where nothing was recorded is a gap:
`expired` where the recording no longer reaches back so far, else `missing`. How a recording is kept is `video.footage`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Protocol

from msgspec.structs import replace

from streamproc import jpeg
from streamproc.errors import Rejected
from streamproc.messages import Frame, Source, Window
from streamproc.video.choice import Chosen
from streamproc.video.jobs import Reach
from streamproc.video.keep import NEAR_S
from streamproc.video.look import Jpeg
from streamproc.video.windows import Cut, Picture, windows


class Footage(Protocol):
    """Whoever has pictures of streams. What cannot be had is Rejected."""

    async def reach(self, source: Source) -> Reach: ...

    async def timed(self, source: Source, times_s: Sequence[float], *, longest: int | None) -> Sequence[Frame]: ...


async def again(footage: Footage, source: Source, cut: Cut, begin: int, until: int, *, reach: Reach) -> list[Window]:
    """Windows [begin, until), in order, each number once."""
    a, b = cut.samples(begin, until)
    times_s = [float(k * cut.sampling.sample_s) for k in range(a, b)]
    try:
        frames = await footage.timed(source, times_s, longest=cut.sampling.look.longest)
    except Rejected:
        frames = ()  # of a recording that is there: nothing was recorded then
    expired = sum(cut.start_s(index + 1) <= Fraction(reach.begin_s) for index in range(begin, until))
    pictures = _pictures(cut, frames)
    before = [replace(w, reason="expired") for w in windows(cut, source, pictures, begin, begin + expired, None)]
    return before + list(windows(cut, source, pictures, begin + expired, until, None))


def _pictures(cut: Cut, frames: Sequence[Frame]) -> Mapping[int, Picture]:
    """By the number of their sample."""
    found: dict[int, Picture] = {}
    for frame in frames:
        time_s = Fraction(frame.t_ms, 1000)
        k = (time_s + NEAR_S) // cut.sampling.sample_s
        width, height = jpeg.size_of(frame.jpeg)
        chosen = Chosen(k, k * cut.sampling.sample_s, 0, 0, time_s)
        found.setdefault(k, Picture(chosen, Jpeg(frame.jpeg, width, height)))
    return found
