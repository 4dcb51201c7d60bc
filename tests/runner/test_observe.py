"""Health and metrics over real HTTP."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamproc.bus.contract import Span
from streamproc.errors import Rejected, Unreachable
from streamproc.messages import Detection, Window
from streamproc.runner import Backoff, Service
from streamproc.runner.observe import listening, observed
from streamproc.stage import Each, Look
from tests.bus.memory import MemoryBus, MemoryLog
from tests.runner.rig import Rig


class Picky(Each):
    reads, writes = ("windows",), ("detections",)

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def handle(self, record: Window, look: Look) -> Detection:
        await self.go.wait()
        if record.index == 1:
            raise Rejected("400")
        return Detection.of(record, events=())


class Elsewhere(Each):
    reads, writes = ("detections",), ("events",)


@asynccontextmanager
async def watched(*services: Service, session_s: float = 10.0) -> AsyncIterator[str]:
    with listening("127.0.0.1", 0) as at:
        port = at.getsockname()[1]
        async with observed(services, at=at, session_s=session_s):
            yield f"http://127.0.0.1:{port}"


async def fetch(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def metrics(base: str) -> dict[str, float]:
    _, text = await fetch(f"{base}/metrics")
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("service") == "detect.a" and "le" not in sample.labels
    }


async def until(base: str, name: str, value: float) -> None:
    async with asyncio.timeout(20):
        while (await metrics(base)).get(name) != value:  # noqa: ASYNC110  # what is waited for is behind HTTP
            await asyncio.sleep(0.02)


async def test_a_process_says_whether_it_lives_is_ready_and_what_it_does() -> None:
    rig = Rig(MemoryLog(partitions=2, rng=random.Random(1)))
    rig.windows(rig.source("m", "detect.a"), 0, 1, 2, 2)
    stage = Picky()
    service = Service("detect.a", stage, MemoryBus(rig.log))
    async with watched(service) as base:
        assert await fetch(f"{base}/health/live") == (200, '{"status":"live"}')
        status, body = await fetch(f"{base}/health/ready")
        assert (status, body) == (
            503,
            '{"ready":false,"services":{"detect.a":false},"why":{"detect.a":"is no member of its group"}}',
        )
        task = asyncio.create_task(service.run())
        await until(base, "streamproc_in_flight", 3.0)
        assert (await fetch(f"{base}/health/ready"))[0] == 200
        assert await fetch(f"{base}/health") == await fetch(f"{base}/health/ready")
        assert (await metrics(base))["streamproc_lag_stream_seconds"] == 4.0
        stage.go.set()
        await until(base, "streamproc_landed_total", 4.0)
        said = await metrics(base)
        assert said["streamproc_records_in_total"] == 4
        assert said["streamproc_records_out_total"] == 3
        assert said["streamproc_duplicate_total"] == 1
        assert said["streamproc_dead_total"] == said["streamproc_failed_total"] == 1
        assert said["streamproc_in_flight"] == said["streamproc_parked"] == said["streamproc_circuit_open"] == 0
        assert said["streamproc_landing_seconds_count"] == said["streamproc_landings_total"] > 0
        await service.drain()
        await task
        assert (await fetch(f"{base}/health/ready"))[0] == 503


class Away(MemoryBus):
    """A bus of which one topic, or none, gives no answer; `why` it fails, where it says so at all."""

    silent = ""
    why: Unreachable | None = None

    async def span(self, topic: str, partition: int) -> Span:
        if topic == self.silent:
            if self.why:
                raise self.why
            await asyncio.Event().wait()
        return await super().span(topic, partition)


@asynccontextmanager
async def at_work(service: Service) -> AsyncIterator[None]:
    task = asyncio.create_task(service.run())
    try:
        yield
    finally:
        await service.drain()
        await task


async def until_ready(base: str, *, says: str = '"ready":true') -> str:
    async with asyncio.timeout(20):
        while True:
            status, body = await fetch(f"{base}/health/ready")
            assert (status == 200) is ("why" not in body)
            if says in body:
                return body
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("why", [None, Unreachable("broker", "does not answer", remedy="Is it up?")])
@pytest.mark.parametrize("busy", [True, False])
async def test_a_service_whose_bus_does_not_answer_is_not_ready_and_does_not_know_its_lag(
    why: Unreachable | None, busy: bool
) -> None:
    rig = Rig(MemoryLog(partitions=2, rng=random.Random(1)))
    if busy:
        rig.windows(rig.source("m", "detect.a"), 0)
    bus, stage = Away(rig.log), Picky()
    stage.go.set()
    service = Service("detect.a", stage, bus)
    async with watched(service, session_s=0.5) as base, at_work(service):
        await until_ready(base)
        await until(base, "streamproc_lag_records", 0)
        bus.silent, bus.why = "windows", why
        await until_ready(base, says="the bus has not answered")
        said = await metrics(base)
        assert said["streamproc_ready"] == 0
        assert not [name for name in said if "_lag_" in name]
        bus.silent = ""
        if why:  # a question that hangs has to end before the next is asked
            await until_ready(base)
            await until(base, "streamproc_lag_records", 0)


async def test_a_topic_that_does_not_answer_costs_those_who_read_others_nothing() -> None:
    rig = Rig(MemoryLog(partitions=2, rng=random.Random(1)))
    bus, stage = Away(rig.log), Picky()
    bus.silent = "detections"
    theirs, ours = Service("dedup.a", Elsewhere(), bus), Service("detect.a", stage, bus)
    async with watched(theirs, ours, session_s=0.5) as base, at_work(theirs), at_work(ours):
        assert '"detect.a":true' in await until_ready(base, says='"dedup.a":"the bus')


async def test_a_service_whose_landings_do_not_come_through_is_not_ready_and_says_for_how_long() -> None:
    rig = Rig(MemoryLog(partitions=2, rng=random.Random(1)))
    stage = Picky()
    stage.go.set()
    service = Service("detect.a", stage, MemoryBus(rig.log), backoff=Backoff(first_s=0.01, most_s=0.05))
    async with watched(service, session_s=0.5) as base, at_work(service):
        await until_ready(base)
        assert (await metrics(base))["streamproc_landing_under_way_seconds"] == 0
        rig.log.disk_full = True
        rig.windows(rig.source("m", "detect.a"), 0)
        await until_ready(base, says="a landing has been under way")
        assert (await metrics(base))["streamproc_landing_under_way_seconds"] > 0.5
        rig.log.disk_full = False
        await until_ready(base)
        await until(base, "streamproc_landing_under_way_seconds", 0)


async def test_the_root_names_what_is_there() -> None:
    async with watched() as base:
        status, text = await fetch(base)
        assert status == 200
        for path in ("/health", "/health/ready", "/health/live", "/metrics"):
            assert path in text
            assert (await fetch(base + path))[0] == 200


async def test_serving_leaves_the_logging_of_the_process_alone() -> None:
    closed = []

    class Theirs(logging.Handler):
        def close(self) -> None:
            closed.append(self)
            super().close()

    theirs = Theirs()
    async with watched():
        pass
    assert not closed
    theirs.close()
