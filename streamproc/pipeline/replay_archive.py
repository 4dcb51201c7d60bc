"""What streams have left on the bus, for those that are made of it: windows as they stand in the log, results in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.errors import Expired
from streamproc.messages import Source, Window
from streamproc.pipeline.reading import record_of
from streamproc.pipeline.trace_find import Finder
from streamproc.stages.replay import Original
from streamproc.topics import partition_of, stream_of

BATCH, BATCH_BYTES = 200, 8 * 2**20
SETTLE_S = 5.0
"""Progress may be readable a moment before the records that it is of."""
LOOK_EVERY_S = 0.25


class Archive:
    """The `stages.replay.Archive` of a bus."""

    def __init__(self, bus: Bus, *, claims: Claims | None = None, clock: Callable[[], float] | None = None) -> None:
        self._bus, self._claims = bus, claims
        self._clock = clock or asyncio.get_running_loop().time

    def finder(self, source: Source) -> Finder:
        """Of single records of a stream."""
        return Finder(self._bus, source, self._claims)

    async def windows(self, original: Original, offset: int) -> AsyncGenerator[tuple[Sequence[Window], int]]:
        """Over with the last of the range. What does not stand in the log although it was written has expired, or will
        be readable in a moment: the end of the log is looked at for a while."""
        missed_at: float | None = None
        while True:
            found, behind = await self._some(original.stream, original.generation, offset)
            if behind == offset:
                missed_at = self._clock() if missed_at is None else missed_at
                if self._clock() - missed_at > SETTLE_S:
                    return
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            offset, missed_at = behind, None
            if found:
                yield found, offset
                if max(w.until for w in found) >= original.until:
                    return

    async def _some(self, stream: str, generation: int, offset: int) -> tuple[list[Window], int]:
        """Windows of a life of a stream among the next records, in order, and the offset behind those."""
        records, behind = await self.read("windows", stream, offset, most_bytes=BATCH_BYTES)
        ours = [r for r in records if r.generation == generation]
        return sorted(ours, key=lambda w: w.index), behind

    async def read(self, name: str, stream: str, offset: int, *, most_bytes: int) -> tuple[list[Any], int]:
        """Records of one stream among the next ones of a topic; the same offset where there are no more."""
        p = partition_of(stream, self._bus.partitions)
        try:
            batch = await self._bus.read(name, p, offset, max_records=BATCH, max_bytes=most_bytes)
        except Expired as e:
            return [], e.begin
        if not batch:
            return [], offset
        ours = [s for s in batch if s.value is not None and stream_of(s.key) == stream]
        read = [await record_of(s, self._claims) for s in ours]  # what cannot be read is as good as gone
        return [r for r in read if r is not None], batch[-1].offset + 1

    async def first_window(self, stream: str, generation: int) -> tuple[Window | None, int]:
        """The oldest window that is left of a life of a stream, and the offset at or before which it stands."""
        p = partition_of(stream, self._bus.partitions)
        offset = (await self._bus.span("windows", p)).begin
        while True:
            found, behind = await self._some(stream, generation, offset)
            if found:
                return found[0], offset
            if behind == offset:
                return None, offset
            offset = behind

    async def offset_at(self, stream: str, utc_ms: int) -> int:
        """Windows of a feed that begin then stand behind this offset of theirs."""
        return await self._bus.offset_at("windows", partition_of(stream, self._bus.partitions), utc_ms)

    async def results(self, name: str, stream: str, generation: int) -> list[Any]:
        """All records of a topic that a life of a stream has, each once, as a torn writer may have said one twice."""
        p = partition_of(stream, self._bus.partitions)
        offset, found = (await self._bus.span(name, p)).begin, dict[str, Any]()
        while True:
            records, behind = await self.read(name, stream, offset, most_bytes=BATCH_BYTES)
            found |= {r.id: r for r in records if r.generation == generation}
            if behind == offset:
                return list(found.values())
            offset = behind
