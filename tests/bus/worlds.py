"""Buses of every kind to test: each world has a folder, log or prefix of its own, opened by as many "processes" as asked.

`python -m tests.bus.worlds` is a process that works in one of them until it is killed.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from streamproc.bus.contract import Bus
from streamproc.bus.embedded import Embedded
from streamproc.bus.kafka import Kafka
from tests.bus.at_work import LIMIT, PARTITIONS, eventually, live
from tests.bus.memory import MemoryBus, MemoryLog

SESSION_S = 4.0


class Dying(Protocol):
    """A process that takes leases, lands once with each, and has not long to live."""

    async def die(self) -> None:
        """Without a word to anybody."""


class World(Protocol):
    """One bus, and the ways in."""

    kind: str
    holds_for_readers: bool
    """Retention waits for those who have not read."""

    async def open(self, *, partitions: int = PARTITIONS, deployment: str = "") -> Bus:
        """As another process would have it. Closed with the world."""

    async def expire(self, bus: Bus, topic: str, partition: int) -> None:
        """All that is there now falls to retention (of an hour, see `at_work.bare`)."""

    async def dying(self, service: str, *, leases: int) -> Dying:
        """Back once it has landed with so many leases."""

    async def close(self) -> None: ...


class _Opened:
    """Buses, closed in the end."""

    def __init__(self) -> None:
        self.buses: list[Bus] = []
        self.processes: list[asyncio.subprocess.Process] = []

    async def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        for bus in self.buses:
            await bus.close()

    async def process(self, service: str, leases: int, bus: Bus, *words: str) -> _Process:
        words = (sys.executable, "-m", "tests.bus.worlds", *words, service)
        process = await asyncio.create_subprocess_exec(*words, cwd=Path(__file__).parents[2])
        self.processes.append(process)
        await eventually(lambda: _landed(bus, service, leases))
        return _Process(process)


class _Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def die(self) -> None:
        self._process.kill()
        await self._process.wait()


async def _landed(bus: Bus, service: str, leases: int) -> bool:
    return len(await bus.progress(service)) == leases


class MemoryWorld(_Opened):
    kind = "memory"
    holds_for_readers = False

    def __init__(self, bus_type: type[MemoryBus] = MemoryBus, **knobs: Any) -> None:
        super().__init__()
        quick: dict[str, Any] = {
            "landing_s": (0, 0.002),
            "read_s": (0, 0.001),
            "notice_s": (0, 0.02),
            "settle_s": (0, 0.02),
            "session_s": 0.2,
            "heartbeat_s": 0.02,
            "markers": True,
        }
        self._logs: dict[str, MemoryLog] = {}
        self._knobs = quick | knobs
        self._type = bus_type

    def log(self, deployment: str = "") -> MemoryLog:
        if deployment not in self._logs:
            self._logs[deployment] = MemoryLog(partitions=PARTITIONS, rng=random.Random(7), **self._knobs)
        return self._logs[deployment]

    async def open(self, *, partitions: int = PARTITIONS, deployment: str = "") -> MemoryBus:
        bus = self._type(self.log(deployment), partitions=partitions)
        self.buses.append(bus)
        return bus

    async def expire(self, bus: Bus, topic: str, partition: int) -> None:
        self.log().expire(topic, partition, before=self.log().span(topic, partition).end)

    async def dying(self, service: str, *, leases: int) -> Dying:
        doomed = _Doomed(self._type(self.log()), service)
        await eventually(lambda: _landed(doomed.bus, service, leases))
        return doomed


class _Doomed:
    """Stands for a process where all of them are one."""

    def __init__(self, bus: MemoryBus, service: str) -> None:
        self.bus = bus
        self._life = asyncio.create_task(live(bus, service))

    async def die(self) -> None:
        self.bus.log.kill(self.bus)
        self._life.cancel()
        await asyncio.wait([self._life])


class EmbeddedWorld(_Opened):
    kind = "embedded"
    holds_for_readers = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = str(folder / "bus.db")
        self._ahead_s = 0.0

    async def open(self, *, partitions: int = PARTITIONS, deployment: str = "") -> Bus:
        bus = await _embedded(self._path, deployment, partitions=partitions, clock=lambda: time.time() + self._ahead_s)
        self.buses.append(bus)
        return bus

    async def expire(self, bus: Bus, topic: str, partition: int) -> None:
        self._ahead_s += 2 * 3600
        await bus.trim()

    async def dying(self, service: str, *, leases: int) -> Dying:
        return await self.process(service, leases, await self.open(), "embedded", self._path, "")


class KafkaWorld(_Opened):
    kind = "kafka"
    holds_for_readers = False

    def __init__(self, bootstrap: str) -> None:
        super().__init__()
        self._bootstrap, self._prefix = bootstrap, f"c{uuid4().hex[:10]}."

    async def open(self, *, partitions: int = PARTITIONS, deployment: str = "") -> Bus:
        bus = await _kafka(self._bootstrap, self._prefix + deployment, partitions=partitions)
        self.buses.append(bus)
        return bus

    async def expire(self, bus: Bus, topic: str, partition: int) -> None:
        assert isinstance(bus, Kafka)
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            end = (await bus.span(topic, partition)).end
            await admin.delete_records({bus.names.at(topic, partition): RecordsToDelete(before_offset=end)})
        finally:
            await admin.close()

    async def dying(self, service: str, *, leases: int) -> Dying:
        return await self.process(service, leases, await self.open(), "kafka", self._bootstrap, self._prefix)


async def _embedded(
    path: str, prefix: str, *, partitions: int = PARTITIONS, clock: Callable[[], float] = time.time
) -> Bus:
    return await Embedded.open(path, prefix=prefix, partitions=partitions, session_s=SESSION_S, clock=clock)


async def _kafka(bootstrap: str, prefix: str, *, partitions: int = PARTITIONS) -> Bus:
    return await Kafka.open(bootstrap, prefix=prefix, partitions=partitions, session_s=SESSION_S)


async def _main(kind: str, where: str, prefix: str, service: str) -> None:
    bus = await (_embedded if kind == "embedded" else _kafka)(where, prefix)
    await live(bus, service)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))

__all__ = ["LIMIT", "EmbeddedWorld", "KafkaWorld", "MemoryWorld", "World"]
