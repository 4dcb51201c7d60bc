"""A million records through the runner: does it grow? Contract records of 64 streams, so that guards and coverage work too."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from streamproc import wire
from streamproc.bus.embedded import Embedded
from streamproc.messages import Caption, Description, record_id
from streamproc.runner import Bounds, Service
from streamproc.stage import Each, Look
from streamproc.topics import topic
from streamproc.wire import Entry
from tests.sim import toys

STREAMS = 64
CHUNK = 10_000


class Echo(Each):
    reads, writes = ("captions",), ("descriptions",)

    def handle(self, record: Caption, look: Look) -> Description:
        return Description.of(record)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def caption(stream: str, index: int, partitions: int) -> Entry:
    said = Caption(
        id=record_id("caption", "decode", stream, 0, index), service="caption", root="decode", stream=stream, generation=0,
        revision=0, index=index, start_ms=2000 * index, end_ms=2000 * index + 4000, outcome="done", text="a pass",
    )  # fmt: skip
    return wire.encode(said, partitions=partitions, time="")


def run(records: int = 1_000_000) -> Iterator[tuple[str, float, float | None, bool | None]]:
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as folder:
        warm, end = asyncio.run(_measure(Path(folder) / "memory.db", records))
    yield "resident after warm-up, MB", warm, None, None
    yield f"growth over {records} records, MB", end - warm, 20.0, end - warm <= 20


async def _measure(path: Path, records: int) -> tuple[float, float]:
    bus = await Embedded.open(path, partitions=8)
    await bus.create([t for name in ("captions", "descriptions") for t in (topic(name), topic(name).dlq)])
    await bus.create([topic("sources"), topic("coverage")])
    for s in range(STREAMS):
        source = toys.source(f"s{s}", services=("echo",), count=records)
        await bus.publish([wire.encode(source, partitions=8, time="", sub=("0.0",))])
    service = Service("echo", Echo(), bus, bounds=Bounds(calls=64))
    task = asyncio.create_task(service.run())
    warm = 0.0
    for first in range(0, records, CHUNK):
        numbers = range(first // STREAMS, (first + CHUNK) // STREAMS)
        await bus.publish([caption(f"s{s}", i, 8) for s in range(STREAMS) for i in numbers])
        while service.shared.counts.landed < numbers.stop * STREAMS:  # noqa: ASYNC110  # an event would be on the path that is measured
            await asyncio.sleep(0.01)
        gc.collect()
        if first + CHUNK == records // 5:
            warm = resident_mb()
    end = resident_mb()
    await service.drain()
    await task
    await bus.close()
    return warm, end
