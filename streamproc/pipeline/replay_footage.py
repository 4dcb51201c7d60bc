"""Footage of replays: it is the original's, under the name and in the place where that has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from streamproc.messages import Frame, Source
from streamproc.stages.replay import Original, is_replay
from streamproc.video.footage import Footage
from streamproc.video.jobs import Clipped, Reach


class AnyFootage(Footage):
    """Of any stream, replays too."""

    async def reach(self, source: Source) -> Reach:
        return await super().reach(whose(source))

    async def numbered(self, source: Source, numbers: Sequence[int], *, longest: int | None) -> Sequence[Frame]:
        return await super().numbered(whose(source), numbers, longest=longest)

    async def timed(self, source: Source, times_s: Sequence[float], *, longest: int | None) -> Sequence[Frame]:
        return await super().timed(whose(source), times_s, longest=longest)

    async def clip(self, source: Source, *, from_s: float, until_s: float, path: Path) -> Clipped:
        return await super().clip(whose(source), from_s=from_s, until_s=until_s, path=path)


def whose(source: Source) -> Source:
    """The stream that has the pictures. A file that nobody knows any more has the replay's own address, and is not there."""
    if not is_replay(source.uri):
        return source
    stream, generation, live = Original.parse(source.uri).footage_of
    return replace(source, stream=stream, generation=generation, live=live, uri=source.footage or source.uri)
