"""How many streams each partition has, by service: what partitions are spread over processes by.

Feeds count, for they go on; where there are none, files do. What a file has left to do is not asked: each that ended would
move partitions about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from streamproc import wire
from streamproc.bus.contract import Bus, Table
from streamproc.messages import Source
from streamproc.pipeline.streams import version
from streamproc.wire import Stored


class Loads:
    """Made by `loads`."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        self._counted: dict[int, Counter[tuple[str, bool]]] = {}
        """Partition → (service, live) → streams; counted again once something has changed there."""

    def changed(self, stored: Stored) -> None:
        self._counted.pop(stored.partition, None)

    def of(self, service: str) -> list[int]:
        """Streams of each partition that name the service."""
        counted = [self._count(p) for p in range(len(self._tables))]
        live = any(found[service, True] for found in counted)
        return [found[service, live] for found in counted]

    def _count(self, partition: int) -> Counter[tuple[str, bool]]:
        if (found := self._counted.get(partition)) is None:
            newest: dict[str, Source] = {}
            for stored in self._tables[partition].under(b""):
                if (source := wire.row(stored)) is not None:
                    newest[source.stream] = max(source, newest.get(source.stream, source), key=version)
            found = self._counted[partition] = Counter(
                (service, source.live)
                for source in newest.values()
                if source.state == "active"
                for service in source.services
            )
        return found


@asynccontextmanager
async def loads(bus: Bus) -> AsyncIterator[Loads]:
    found = Loads([await bus.follow("sources", p) for p in range(bus.partitions)])
    stops = [table.on_change(found.changed) for table in found._tables]
    try:
        yield found
    finally:
        for stop in stops:
            stop()
