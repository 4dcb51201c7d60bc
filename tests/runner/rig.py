"""A runner on a bus in memory, in virtual time, with the little that most stories need around it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from streamproc import wire
from streamproc.messages import Record, Source, record_id
from streamproc.runner import Backoff, Bounds, Service
from streamproc.runner.look import source_key
from streamproc.stage import Stage
from streamproc.topics import topic
from streamproc.wire import Entry, Stored
from tests.bus.memory import MemoryBus, MemoryLog
from tests.sim import clock, toys


@dataclass
class Rig:
    log: MemoryLog

    @classmethod
    def of(cls, partitions: int = 2) -> Rig:
        return cls(MemoryLog(partitions=partitions, rng=random.Random(1)))

    # what goes in

    def source(self, stream: str, *services: str, **options: Any) -> Source:
        made = toys.source(stream, services=services, count=options.pop("count", 10), **options)
        sub = source_key(stream, made.generation, made.revision).split("\0")[1:]
        self.log.put(made, sub=sub)
        return made

    def window(self, of: Source, index: int, until: int | None = None, **fields: Any) -> Entry:
        made = toys.window(of, index, until or index + 1, of.task["count"])
        mine = {
            "id": record_id("decode", "decode", of.stream, of.generation, index),
            "service": "decode",
            "root": "decode",
        }
        kept = {"outcome": made.outcome, "reason": made.reason, "count": made.count}
        whole = type(made).of(made, **(kept | mine | fields))
        return wire.encode(whole, partitions=self.log.partitions, time="")

    def windows(self, of: Source, *indexes: int) -> None:
        self.log.append([self.window(of, i) for i in indexes])

    # who works

    def service(self, name: str, stage: Stage, **options: Any) -> Service:
        loop = asyncio.get_running_loop()
        options.setdefault("bounds", Bounds(calls=8, batch=16))
        options.setdefault("backoff", Backoff(first_s=0.01, most_s=1.0))
        bus = options.pop("bus", None) or MemoryBus(self.log)
        options.setdefault("now", loop.time)
        options.setdefault("rng", random.Random(2))
        return Service(name, stage, bus, **options)

    @asynccontextmanager
    async def running(self, name: str, stage: Stage, **options: Any) -> AsyncIterator[Service]:
        """Works until the context ends; drained then, and what it raised is raised."""
        service = self.service(name, stage, **options)
        task = asyncio.create_task(service.run())
        try:
            yield service
        finally:
            await service.drain()
            await task

    @asynccontextmanager
    async def killed(self, name: str, stage: Stage, **options: Any) -> AsyncIterator[Service]:
        """Works until the context ends; killed then, in the middle of whatever it was at."""
        bus = MemoryBus(self.log)
        service = self.service(name, stage, bus=bus, **options)
        task = asyncio.create_task(service.run())
        try:
            yield service
        finally:
            self.log.kill(bus)
            task.cancel()
            await asyncio.wait([task])

    async def until(self, true: Callable[[], bool], *, within_s: float = 100.0, every_s: float = 0.05) -> None:
        deadline = asyncio.get_running_loop().time() + within_s
        while not true():
            assert asyncio.get_running_loop().time() < deadline, "it never came true"
            await asyncio.sleep(every_s)  # virtual: costs nothing

    # what came out

    def records(self, name: str) -> list[Any]:
        return [wire.decode(topic(name), s) for p in range(self.log.partitions) for s in self.log.all(name, p)]

    def records_at(self, name: str) -> list[Stored]:
        """As they lie there."""
        return [s for p in range(self.log.partitions) for s in self.log.all(name, p)]

    def said(self, name: str) -> dict[tuple[str, int], Record]:
        found: dict[tuple[str, int], Record] = {}
        for record in self.records(name):
            key = (record.stream, record.index)
            assert key not in found, f"twice: {record}"
            found[key] = record
        return found

    def dead(self, name: str) -> list[Entry]:
        return [s for p in range(self.log.partitions) for s in self.log.all(f"{name}.dlq", p)]


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A story in virtual time as a test."""

    def test() -> None:
        clock.run(story())

    test.__name__, test.__doc__ = story.__name__, story.__doc__
    return test
