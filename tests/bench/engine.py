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

import uvloop

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.bus.embedded import Embedded
from streamproc.bus.kafka import Kafka
from streamproc.messages import Caption, Description, Detection, Window
from streamproc.runner import Bounds, Service
from streamproc.stage import Each, Look
from streamproc.topics import partition_of, topic
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
        self.began.append(time.perf_counter())
        await asyncio.sleep(self.latency_s)
        return Detection.of(record, events=())


async def until_landed(service: Service, records: int, *, bounded_s: float = 120.0) -> float:
    """Seconds from now until so many outcomes have landed; then the service is drained."""
    began = time.perf_counter()
    async with asyncio.timeout(bounded_s), asyncio.TaskGroup() as tasks:
        tasks.create_task(service.run())
        while service.shared.counts.landed < records:  # noqa: ASYNC110  # an event would be on the path that is measured
            await asyncio.sleep(0.005)
        took = time.perf_counter() - began
        await service.drain()
    return took


# Kafka: throughput against plain loops ------------------------------------------------------------------------------

ROUNDS = 3


async def backlog_for_runners(loops: Loops) -> None:
    """The same records once more, where the runner can read them: as bare bytes, and with their sources named."""
    await loops.bus.create([t for name in ("bytes.in", "captions") for t in (topic(name), topic(name).dlq)])
    await loops.bus.create([topic(name) for name in ("bytes.out", "sources", "coverage")])
    each = loops.records // kafka_loops.PARTITIONS
    for p in range(kafka_loops.PARTITIONS):
        for first in range(0, each, 2000):
            numbers = range(first, min(first + 2000, each))
            await loops.bus.publish([Entry("bytes.in", p, b"stream-%03d" % p, b"%0100d" % i) for i in numbers])


async def name_services(bus: Bus, services: list[str]) -> None:
    for p in range(kafka_loops.PARTITIONS):
        source = toys.source(f"game/{p}", services=services, count=10, generation=1, revision=1)
        entry = wire.encode(source, partitions=bus.partitions, time="", sub=("1.1",))
        await bus.publish([Entry(entry.topic, p, entry.key, entry.value, entry.headers)])


async def run_through(bus: Bus, name: str, stage: Each, records: int) -> float:
    bounds = Bounds(calls=64, batch=1000, unlanded=2000)
    return await until_landed(Service(name, stage, bus, bounds=bounds), records)


async def throughput(bootstrap: str, records: int) -> list[Line]:
    ratios: dict[str, list[float]] = {"bytes": [], "records": []}
    names = [f"runner{i}" for i in range(ROUNDS)]
    async with kafka_loops.backlog(bootstrap, records) as loops:
        await backlog_for_runners(loops)
        await name_services(loops.bus, names)
        for name in names:
            plain = await kafka_loops.plain(loops, contract=False)
            ratios["bytes"].append(plain / await run_through(loops.bus, f"{name}.bytes", Copy(), loops.records))
            plain = await kafka_loops.plain(loops, contract=True)
            ratios["records"].append(plain / await run_through(loops.bus, name, Echo(), loops.records))
    lines: list[Line] = []
    for kind, goal in (("bytes", 1.8), ("records", 1.2)):
        value = statistics.median(ratios[kind])
        lines.append((f"runner / plain loop, Kafka, {kind}", value, goal, value >= goal))
    return lines


# an endpoint kept busy ----------------------------------------------------------------------------------------------


async def busy(bus: Bus, *, slots: int, latency_s: float, seconds: float = 8.0) -> float:
    """The share of what the endpoint could do that was asked of it, with a backlog, after two seconds to begin."""
    await bus.create([t for name in ("windows", "detections") for t in (topic(name), topic(name).dlq)])
    await bus.create([topic("sources"), topic("coverage")])
    count = int(slots / latency_s * (seconds + 6)) // 16 + 1
    for s in range(16):
        source = toys.source(f"s{s}", services=("detect.stub",), count=count + 1)
        await bus.publish([wire.encode(source, partitions=bus.partitions, time="", sub=("0.0",))])
        await bus.publish([_window(source, i, bus.partitions) for i in range(count)])
    stage = Busy(latency_s=latency_s)
    service = Service("detect.stub", stage, bus, bounds=Bounds(calls=slots))
    task = asyncio.create_task(service.run())
    while not stage.began:  # noqa: ASYNC110  # as above
        await asyncio.sleep(0.05)
    await asyncio.sleep(2 + seconds)
    await service.drain()
    await task
    first = stage.began[0] + 2
    return sum(first <= t < first + seconds for t in stage.began) / (slots / latency_s * seconds)


def _window(source: Any, index: int, partitions: int) -> Entry:
    made = toys.window(source, index, index + 1, source.task["count"])
    placed = Window.of(made, id=f"decode/decode/{source.stream}/0/{index}", service="decode", root="decode")
    return wire.encode(placed, partitions=partitions, time="")


# members that come and go -------------------------------------------------------------------------------------------


async def settle(open_bus: Callable[[], Any], *, streams: int = 1000) -> tuple[float, float]:
    """Seconds until four members hold everything after the last joined (and after one left); the worst share's excess."""
    buses = [await open_bus() for _ in range(4)]
    await buses[0].create(
        [t for name in ("sources", "windows", "detections", "coverage") for t in (topic(name), topic(name).dlq)]
    )
    weights = [0] * buses[0].partitions
    for i in range(streams):
        weights[partition_of(f"camera/{i}", len(weights))] += 1
    services = [Service("detect.stub", Busy(latency_s=0.1), bus, weights=lambda: weights) for bus in buses]
    began = time.perf_counter()
    tasks = [asyncio.create_task(s.run()) for s in services]
    source = toys.source("s0", services=("detect.stub",), count=10)
    await buses[0].publish([wire.encode(source, partitions=buses[0].partitions, time="", sub=("0.0",))])

    async def settled(alive: list[Service], began: float) -> float:
        while True:
            held = await buses[-1].members("detect.stub")
            mine = [sum(weights[p] for p in partitions) for partitions in held.values()]
            every = sorted(p for partitions in held.values() for p in partitions)
            fair = streams / len(alive)
            if (
                every == list(range(len(weights)))
                and len(mine) == len(alive)
                and max(abs(m - fair) for m in mine) <= 0.1 * fair
            ):
                return time.perf_counter() - began
            if time.perf_counter() - began > 30:
                return time.perf_counter() - began
            await asyncio.sleep(0.05)

    joined = await settled(services, began)
    began = time.perf_counter()
    await services[0].drain()
    await tasks[0]
    left = await settled(services[1:], began)
    for service, task in zip(services[1:], tasks[1:], strict=True):
        await service.drain()
        await task
    for bus in buses:
        await bus.close()
    return joined, left


# the bench ----------------------------------------------------------------------------------------------------------


def run(records: int = 40_000) -> Iterator[Line]:
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as folder:
        yield from uvloop.run(_embedded(Path(folder)))
    if named:
        yield from uvloop.run(_kafka(named, records))
    else:
        with brokers.start() as own:
            yield from uvloop.run(_kafka(own.bootstrap, records))


async def _embedded(folder: Path) -> list[Line]:
    async with opened(lambda: Embedded.open(folder / "busy.db", partitions=8)) as bus:
        share = await busy(bus, slots=50, latency_s=0.1)
    lines: list[Line] = [("endpoint busy, embedded, share of K/L", share, 0.97, share >= 0.97)]
    joined, left = await settle(lambda: Embedded.open(folder / "settle.db", partitions=16))
    lines.append(("a join settles, embedded, s", joined, 10.0, joined <= 10))
    lines.append(("a leave settles, embedded, s", left, 10.0, left <= 10))
    return lines


async def _kafka(bootstrap: str, records: int) -> list[Line]:
    lines = await throughput(bootstrap, records)
    async with opened(lambda: Kafka.open(bootstrap, prefix=f"busy-{uuid.uuid4().hex[:8]}.", partitions=8)) as bus:
        share = await busy(bus, slots=50, latency_s=0.1)
    lines.append(("endpoint busy, Kafka, share of K/L", share, 0.97, share >= 0.97))
    prefix = f"settle-{uuid.uuid4().hex[:8]}."
    joined, left = await settle(lambda: Kafka.open(bootstrap, prefix=prefix, partitions=16))
    lines.append(("a join settles, Kafka, s", joined, 10.0, joined <= 10))
    lines.append(("a leave settles, Kafka, s", left, 10.0, left <= 10))
    return lines


@asynccontextmanager
async def opened(open_bus: Callable[[], Any]) -> AsyncIterator[Any]:
    bus = await open_bus()
    try:
        yield bus
    finally:
        await bus.close()
