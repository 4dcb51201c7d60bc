"""The decode stage at work: on the real runner, on an embedded bus, with what a story needs around it.

`python -m tests.stages.rig BUS` is a process that does nothing else until it is told to stop, or killed.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamproc import wire
from streamproc.bus.embedded import Embedded
from streamproc.messages import Detection, Grid, Source, Window
from streamproc.runner import Backoff, Service
from streamproc.runner.look import source_key
from streamproc.stage import Each, Look, Stage
from streamproc.stages.decode import Decode
from streamproc.topics import deployment, topic
from streamproc.video.workers import Workers
from streamproc.wire import Stored

SLICE_S = 2.0
SAMPLING: dict[str, Any] = {"fps": "5", "window_s": "2", "step_s": "1", "longest": 64}
READER = "detect.slow"


@dataclass
class Rig:
    bus: Embedded

    @classmethod
    @asynccontextmanager
    async def on(cls, path: Path) -> AsyncIterator[Rig]:
        bus = await Embedded.open(path, partitions=2, floor_bytes=0, session_s=1)
        try:
            await bus.create(deployment())
            yield cls(bus)
        finally:
            await bus.close()

    # what goes in

    async def source(self, uri: str | Path, **options: Any) -> Source:
        """The next revision of stream `m`, or what the options say."""
        made = source(uri, **options)
        sub = source_key(made.stream, made.generation, made.revision).split("\0")[1:]
        await self.bus.publish([wire.encode(made, partitions=self.bus.partitions, time="", sub=tuple(sub))])
        return made

    # who works

    @asynccontextmanager
    async def running(self, name: str, stage: Stage) -> AsyncIterator[Service]:
        service = Service(name, stage, self.bus, backoff=Backoff(first_s=0.01, most_s=0.1))
        task = asyncio.create_task(service.run())
        try:
            yield service
        finally:
            await service.drain()
            await task

    # what came out

    async def stored(self, name: str) -> list[Stored]:
        found: list[Stored] = []
        for partition in range(self.bus.partitions):
            at, end = await self.bus.span(name, partition)
            while at < end:
                some = await self.bus.read(name, partition, at, max_records=1000, max_bytes=2**26)
                found += some
                at = some[-1].offset + 1
        return found

    async def records(self, name: str = "windows") -> list[Any]:
        return [wire.decode(topic(name), stored) for stored in await self.stored(name)]

    async def until(self, true: Callable[[list[Any]], bool], name: str = "windows") -> list[Any]:
        """The records of a topic, once they are as told."""
        async with asyncio.timeout(90):
            while not true(found := await self.records(name)):  # noqa: ASYNC110  # what is waited for lies on the bus
                await asyncio.sleep(0.02)
        return found


def source(uri: str | Path, **options: Any) -> Source:
    """A file of 5 samples a second, in windows of 2 s every second."""
    task = {"sampling": SAMPLING | options.pop("sampling", {})} | options.pop("task", {})
    stream, generation = options.pop("stream", "m"), options.pop("generation", 0)
    revision = options.pop("revision", 0)
    whole: dict[str, Any] = {
        "id": f"cli/cli/{stream}/{generation}/{revision}",
        "service": "cli",
        "root": "cli",
        "stream": stream,
        "generation": generation,
        "revision": revision,
        "index": revision,
        "start_ms": 0,
        "end_ms": 0,
        "outcome": "done",
        "uri": str(uri),
        "live": False,
        "state": "active",
        "from_index": 0,
        "grid": Grid(root="decode", origin="0", step="1", first=0),
        "task": task,
        "services": ("decode",),
        "readers": {},
        "lag": "block",
    }
    return Source(**(whole | options))


def ended(records: list[Window]) -> bool:
    return any(record.ended for record in records)


def in_order(records: list[Window]) -> list[Window]:
    """Each number once, none left out, the end behind the last."""
    found = sorted(records, key=lambda record: record.index)
    at = 0
    for record in found:
        assert record.index == at, f"window {at}: {record}"
        at = record.index if record.ended else record.until
    return found


class Reader(Each):
    """Reads windows once it is let."""

    reads, writes = ("windows",), ("detections",)

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def handle(self, record: Window, look: Look) -> Detection:
        await self.go.wait()
        return Detection.of(record, events=())


async def main(path: str) -> None:
    async with Rig.on(Path(path)) as rig, Workers(2) as workers:
        service = Service("decode", Decode(workers, slice_s=SLICE_S), rig.bus)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(service.run())
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: tasks.create_task(service.drain()))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
