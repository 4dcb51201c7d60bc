"""How streams stand: how old the last picture of a feed is, how far its readers are behind, and who decodes it.

The last picture stands in the newest windows of a partition, which are looked through once for all of its streams, and only
so far back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from streamproc.bus.contract import Bus
from streamproc.messages import Source, Window
from streamproc.pipeline.parts import DECODE
from streamproc.pipeline.progress import Progress
from streamproc.pipeline.reading import record_of, stored_in
from streamproc.topics import partition_of

BACK = 256
"""Windows of a partition that are looked through."""


@dataclass(frozen=True, slots=True)
class Standing:
    source: Source
    age_s: float | None
    """Since the last picture of a feed was taken; None of others, and where it is too long ago to be found."""
    lag_s: float
    """Stream time between the furthest of its services and the last."""
    owner: str | None
    """The process that decodes it, or would."""
    complete: bool


async def of(bus: Bus, progress: Progress, sources: Sequence[Source], *, now: datetime) -> list[Standing]:
    holders = {p: member for member, held in (await bus.members(DECODE)).items() for p in held}
    feeds = {s.stream: s for s in sources if s.live}
    taken: dict[str, datetime] = {}
    for p in sorted({partition_of(name, bus.partitions) for name in feeds}):
        taken |= await _last_pictures(bus, p, feeds)
    return [
        Standing(
            source=s,
            age_s=round((now - taken[s.stream]).total_seconds(), 1) if s.stream in taken else None,
            lag_s=_lag_s(progress, s),
            owner=holders.get(partition_of(s.stream, bus.partitions)) if DECODE in s.services else None,
            complete=progress.complete(s, s.services),
        )
        for s in sources
    ]


def _lag_s(progress: Progress, source: Source) -> float:
    fronts = [progress.of(source, s).front_ms for s in source.services]
    through = [progress.of(source, s).complete() for s in source.services]
    last = [front for front, over in zip(fronts, through, strict=True) if not over]
    return max(0, max(fronts, default=0) - min(last)) / 1000 if last else 0.0


async def _last_pictures(bus: Bus, partition: int, feeds: dict[str, Source]) -> dict[str, datetime]:
    """Stream → when its newest picture was taken, as far as it stands among the last windows of a partition."""
    begin, end = await bus.span("windows", partition)
    found: dict[str, datetime] = {}
    async for stored in stored_in(bus, "windows", partition, max(begin, end - BACK), end):
        window: Window | None = await record_of(stored, None)  # claims are as good as not there
        source = feeds.get(window.stream) if window else None
        if window and source and source.generation == window.generation and window.frames and window.utc:
            begun_s = datetime.fromisoformat(window.utc).timestamp() - window.start_ms / 1000
            at = datetime.fromtimestamp(begun_s + window.frames[-1].t_ms / 1000, tz=datetime.now().astimezone().tzinfo)
            found[window.stream] = max(at, found.get(window.stream, at))
    return found
