"""What every service has accounted for of every stream, as the coverage table says. Whoever shows it decides what matters."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.errors import Unparseable
from streamproc.messages import Coverage, Source
from streamproc.ranges import Ranges
from streamproc.topics import topic
from streamproc.wire import Stored

KINDS = ("done", "failed", "skipped")


class Account:
    """One service and one stream: all its hours taken together."""

    def __init__(self) -> None:
        self.count: int | None = None
        self.numbers = Ranges()
        self._hours: dict[int, Coverage] = {}

    def hear(self, hour: Coverage) -> None:
        """An hour is said whole each time, and what it has only grows."""
        self._hours[hour.hour] = hour
        for first, until in hour.taken:
            self.numbers.add(first, until)
        if hour.count is not None:
            self.count = hour.count

    def complete(self, first: int = 0) -> bool:
        """Every number from the first that is owed, the end included, has its outcome."""
        return self.count is not None and self.numbers.has(first, self.count + 1)

    def times(self, kind: str) -> Ranges:
        """`done`, `failed`, `skipped` or `missing`, in stream time."""
        return Ranges(stretch for _, hour in sorted(self._hours.items()) for stretch in getattr(hour, kind))

    def seconds(self, kind: str) -> float:
        return self.times(kind).total / 1000

    @property
    def front_ms(self) -> int:
        """How far it has come in stream time."""
        return max((end for h in self._hours.values() for k in KINDS for _, end in getattr(h, k)), default=0)


class Progress:
    """Of all streams of a bus, followed. Made by `followed`."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, int], dict[str, Account]] = defaultdict(dict)
        self._moved = asyncio.Event()

    def of(self, source: Source, service: str) -> Account:
        return self._accounts[source.stream, source.generation].get(service) or Account()

    def services(self, source: Source) -> list[str]:
        """Those that have spoken."""
        return sorted(self._accounts[source.stream, source.generation])

    def complete(self, source: Source, services: Iterable[str]) -> bool:
        return all(self.of(source, service).complete() for service in services)

    async def moved(self, *, within_s: float) -> None:
        """Back when something has been heard, or after a while."""
        self._moved.clear()
        try:
            async with asyncio.timeout(within_s):
                await self._moved.wait()
        except TimeoutError:
            return

    def hear(self, stored: Stored) -> None:
        if stored.value is None:
            return
        try:
            hour: Coverage = wire.decode(topic("coverage"), stored)
        except Unparseable:
            return  # the one before stays in force; `topics tail coverage` shows this one, with the reason
        accounts = self._accounts[hour.stream, hour.generation]
        accounts.setdefault(hour.service, Account()).hear(hour)
        self._moved.set()


@asynccontextmanager
async def followed(bus: Bus) -> AsyncIterator[Progress]:
    progress = Progress()
    stops = []
    for p in range(bus.partitions):
        table = await bus.follow("coverage", p)
        for stored in table.under(b""):
            progress.hear(stored)
        stops.append(table.on_change(progress.hear))
    try:
        yield progress
    finally:
        for stop in stops:
            stop()
