"""Health and metrics over real HTTP."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from streamproc.errors import Rejected
from streamproc.messages import Detection, Window
from streamproc.runner import Service
from streamproc.runner.observe import observed
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


@asynccontextmanager
async def watched(service: Service) -> AsyncIterator[str]:
    async with observed([service], host="127.0.0.1", port=0) as port:
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
        assert (status, body) == (503, '{"ready":false,"services":{"detect.a":false}}')
        task = asyncio.create_task(service.run())
        await until(base, "streamproc_in_flight", 3.0)
        assert (await fetch(f"{base}/health/ready"))[0] == 200
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


async def test_serving_leaves_the_logging_of_the_process_alone() -> None:
    closed = []

    class Theirs(logging.Handler):
        def close(self) -> None:
            closed.append(self)
            super().close()

    theirs = Theirs()
    async with observed([], host="127.0.0.1", port=0):
        pass
    assert not closed
    theirs.close()
