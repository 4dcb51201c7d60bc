"""Records of one stream that speak of a stretch of it, out of long topics, without reading them whole.

A stream's records lie in its partition about in the order of its time: exactly so where one writer lands them one after
the other (windows, and all that a fold writes), and a few thousand records off where many are under way at once. So the
place is bisected for, and read on from until nothing of the stretch can come any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.messages import Record, Source
from streamproc.pipeline.reading import BATCH, record_of, stored_in
from streamproc.stages.replay import Original, is_replay
from streamproc.topics import partition_of, stream_of
from streamproc.wire import Stored

NEAR = 128
"""Offsets; closer than this reading on is cheaper than looking again."""
OFF = 4096 + 2000
"""How far records of many calls at once may land from their place: what a lease reads ahead, and what waits to be landed."""
PROBES = 16
"""Records looked at in one place, so that a straggler does not speak for those around it."""


class Landed(NamedTuple):
    """A record, and where it landed."""

    stored: Stored
    record: Any


@dataclass(frozen=True, slots=True)
class Finder:
    """Looks through the topics of one life of a stream. `claims`: where payloads lie that were too large."""

    bus: Bus
    source: Source
    claims: Claims | None = None

    async def over(
        self, name: str, from_ms: int, until_ms: int, *, in_order: bool, whole: bool = False
    ) -> list[Landed]:
        """What touches [from_ms, until_ms), as it landed. `whole`: the topic from its beginning, for what is not near."""
        begin, end = await self.bus.span(name, self._partition)
        at = begin if whole else await self._before(name, begin, end, from_ms, in_order=in_order)
        beyond, most = 0, 1 if in_order else OFF
        found = []
        async for landed in self._from(name, at, end):
            record = landed.record
            if record.start_ms >= until_ms and not record.ended:
                beyond += 1
                if beyond >= most and not whole:
                    break
            elif record.end_ms > from_ms or record.ended:
                found.append(landed)
        return found

    async def began_ms(self) -> int | None:
        """When the stream time of a feed was 0, as far as anything that it left says so; None of files."""
        if is_replay(self.source.uri) and (told_ms := Original.parse(self.source.uri).began_ms) is not None:
            return told_ms
        for name in ("windows", "detections", "captions", "events", "incidents"):
            begin, end = await self.bus.span(name, self._partition)
            async for landed in self._from(name, begin, end, batch=1):
                record: Record = landed.record
                if record.utc is not None:
                    return round(datetime.fromisoformat(record.utc).timestamp() * 1000) - record.start_ms
                if name == "windows":
                    return None  # all of them have it, or none
        return None

    @property
    def _partition(self) -> int:
        return partition_of(self.source.stream, self.bus.partitions)

    async def _before(self, name: str, begin: int, end: int, from_ms: int, *, in_order: bool) -> int:
        """An offset with nothing of the stretch before it."""
        low, high = begin, end
        while high - low > NEAR:
            middle = (low + high) // 2
            latest = await self._latest(name, middle, high, 1 if in_order else PROBES)
            if latest is None or latest >= from_ms:
                high = middle
            else:
                low = middle
        return max(begin, low - (2 if in_order else OFF))  # the one before may be a gap that reaches into it

    async def _latest(self, name: str, at: int, end: int, probes: int) -> int | None:
        """The latest end of the records next behind `at`."""
        ends: list[int] = []
        async for _, record in self._from(name, at, end, batch=probes):
            ends.append(record.end_ms)
            if len(ends) >= probes:
                break
        return max(ends, default=None)

    async def _from(self, name: str, at: int, end: int, *, batch: int = BATCH) -> AsyncIterator[Landed]:
        """Ours, in [at, end), that can be read. Others' records may lie between them."""
        async for stored in stored_in(self.bus, name, self._partition, at, end, first=batch):
            if stream_of(stored.key) != self.source.stream or stored.value is None:
                continue
            record: Record | None = await record_of(stored, self.claims)
            if record is not None and record.generation == self.source.generation:
                yield Landed(stored, record)
