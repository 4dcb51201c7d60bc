"""The runner on real buses: against plain loops that do the same by hand, and against an endpoint's own limit."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.bus.embedded import Embedded
from streamproc.bus.kafka import Kafka
from streamproc.messages import Caption, Description, Window
from streamproc.runner import Bounds, Service
from streamproc.stage import Each, Look
from streamproc.topics import topic
from streamproc.wire import Entry, Stored
from tests import brokers
from tests.bench import kafka_loops
from tests.bench.kafka_loops import Loops
from tests.sim import toys

Line = tuple[str, float, float | None, bool | None]


class Copy(Each):
    """A stage that does nothing, over bare bytes."""

    reads, writes = ("bytes.in",), ("bytes.out",)

    def handle(self, record: Stored, look: Look) -> Entry:
        return Entry("bytes.out", record.partition, record.key, record.value)


class Echo(Each):
    """A stage that does nothing, over contract records."""

    reads, writes = ("captions",), ("descriptions",)

    def handle(self, record: Caption, look: Look) -> Description:
        return Description.of(record)


class Busy(Each):
    """An endpoint of so many slots and such a latency, and nothing else: what it could do is known to the call."""

    reads, writes = ("windows",), ("detections",)

    def __init__(self, *, latency_s: float) -> None:
        self.latency_s = latency_s
        self.began: list[float] = []

    async def handle(self, record: Window, look: Look) -> Any:
        from streamproc.messages import Detection

        self.began.append(time.perf_counter())
        await asyncio.sleep(self.latency_s)
        return Detection.of(record, events=())


async def until_landed(service: Service, records: int, *, bounded_s: float = 120.0) -> float:
    """Seconds from now until so many outcomes have landed; then the service is drained."""
    began = time.perf_counter()
    async with asyncio.timeout(bounded_s), asyncio.TaskGroup() as tasks:
        tasks.create_task(service.run())
        while service.shared.counts.landed < records:
            await asyncio.sleep(0.005)
        took = time.perf_counter() - began
        await service.drain()
    return took


# Kafka: throughput ---------------------------------------------------------------------------------------------------


async def runner(loops: Loops, stage: Each) -> float:
    """The runner over the backlog."""
    name = f"runner{uuid.uuid4().hex[:6]}"
    service = Service(name, stage, loops.bus, bounds=Bounds(calls=64, batch=1000, unlanded=2000))
    return await until_landed(service, loops.records)
