"""How far every service is, as the coverage table says: when to do harm, who has something to do, and when it is over.

Not the room of the pipeline that knows the same: what is tried does not judge itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.messages import Coverage, Source
from streamproc.ranges import Ranges
from streamproc.stages.options import AHEAD
from streamproc.topics import topic
from streamproc.wire import Stored
from tests.chaos.pipeline_weather import DESCRIBE, SERVICES, A, B

OWES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(SERVICES, ("decode",)),
    DESCRIBE: ("dedup", "locate.c"),
    "ensemble": ("dedup",),
}
"""Service → those whose numbers it accounts for."""
BEHIND: dict[str, tuple[str, ...]] = {
    "context.c": ("decode",),
    "caption.c": ("decode",),
    A: ("decode",),
    B: ("decode",),
    "dedup": (A, B),
    "locate.c": ("caption.c",),
    DESCRIBE: ("dedup", "locate.c"),
    "ensemble": (DESCRIBE,),
}
"""Service → whom it reads."""


class Heard:
    """Made by `follow`."""

    services = SERVICES

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str, str], Ranges] = defaultdict(Ranges)
        self._counts: dict[tuple[str, str, str], int] = {}

    @classmethod
    @asynccontextmanager
    async def follow(cls, bus: Bus) -> AsyncIterator[Heard]:
        heard, stops = cls(), []
        for p in range(bus.partitions):
            table = await bus.follow("coverage", p)
            stops.append(table.on_change(heard.hear))
        try:
            yield heard
        finally:
            for stop in stops:
                stop()

    def hear(self, stored: Stored) -> None:
        if stored.value is None:
            return
        record: Coverage = wire.decode(topic("coverage"), stored)
        key = (record.stream, record.service, record.root)
        for first, until in record.taken:
            self._taken[key].add(first, until)
        if record.count is not None:
            self._counts[key] = record.count

    def total(self, source: Source, service: str) -> int:
        return sum(self._taken[source.stream, service, root].total for root in OWES[service])

    def end(self, source: Source, service: str) -> int:
        return self._taken[source.stream, service, OWES[service][0]].end

    def through(self, source: Source, service: str) -> bool:
        keys = [(source.stream, service, root) for root in OWES[service]]
        return all(key in self._counts and self._taken[key].has(0, self._counts[key] + 1) for key in keys)

    def complete(self, source: Source) -> bool:
        return all(self.through(source, service) for service in SERVICES)

    def has_work(self, source: Source, service: str) -> bool:
        """Something that it could account for is there."""
        if self.through(source, service):
            return False
        if service == "decode" and self._is_ahead(source):
            return False
        behind = BEHIND.get(service, ())
        if service in (DESCRIBE, "ensemble"):
            return all(self.through(source, s) for s in behind)
        return all(self.total(source, s) > self.total(source, service) for s in behind)

    def _is_ahead(self, source: Source) -> bool:
        """It waits for its readers: what it makes next may not fit."""
        readers = [s for s, behind in BEHIND.items() if behind == ("decode",)]
        return self.total(source, "decode") - min(self.total(source, s) for s in readers) > AHEAD // 2

    def windows(self) -> int:
        """Looked at by one of the models."""
        return sum(taken.total for (_, service, _), taken in self._taken.items() if service == A)

    def left(self, sources: Iterable[Source]) -> dict[str, list[str]]:
        return {s.stream: [n for n in SERVICES if not self.through(s, n)] for s in sources if not self.complete(s)}
