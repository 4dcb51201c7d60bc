"""One, two and four processes of `detect` on Kafka: how far from linear, with calls capped in each and a model that takes a while.

64 streams, as many on each of 16 partitions; their windows are there before. What is measured is what the model answers in
a while, after the processes have found their feet.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import simplejpeg

from streamproc import wire
from streamproc.bus.kafka import Kafka
from streamproc.messages import Frame, Grid, Source, Window, record_id
from streamproc.pipeline import streams
from streamproc.pipeline.streams import Wanted
from streamproc.task import Task
from streamproc.topics import deployment, partition_of
from tests import brokers
from tests.bench import _people

STREAMS, PARTITIONS = 64, 16
CALLS, LATENCY_S = 16, 0.25
"""In flight in one process, and how long each takes: 64 calls a second."""
SETTLES_S, MEASURED_S = 12.0, 12.0
GOAL = 0.95
PROCESSES = (2, 4)
STEP = "1"

Line = tuple[str, float, float | None, bool | None]


def run() -> Iterator[Line]:
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    with ExitStack() as stack:
        bootstrap = named or stack.enter_context(brokers.start()).bootstrap
        one = _rate(1, bootstrap)
        yield f"detect on Kafka, 1 process of {CALLS} calls: calls a second", one, None, None
        yield "detect on Kafka, 1 process: share of what its calls allow", one / (CALLS / LATENCY_S), None, None
        for n in PROCESSES:
            value = _rate(n, bootstrap) / (n * one)
            yield f"detect on Kafka, {n} processes over {n} times one", value, GOAL, value >= GOAL


def _rate(processes: int, bootstrap: str) -> float:
    """Answers a second. Each number of processes has a deployment of its own, with a backlog of its own."""
    prefix = f"scaling-{uuid.uuid4().hex[:8]}."
    needs = int(processes * CALLS / LATENCY_S * (SETTLES_S + MEASURED_S) * 1.2)
    asyncio.run(_backlog(bootstrap, prefix, needs // STREAMS + 1))
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        asked = stack.enter_context(_people.model(latency_s=LATENCY_S, slots=CALLS * max(PROCESSES) * 2))
        _people.settle(folder, asked, f'bus = "kafka://{bootstrap}"', f'topic_prefix = "{prefix}"')
        told = {"log": "up.log", "STREAMPROC_BOUNDS__CALLS": str(CALLS)}
        service = f"detect.{_people.NAME}"
        running = []
        for _ in range(processes):
            process = stack.enter_context(_people.started(folder, ["up", service, "--workers", "1"], **told))
            stack.callback(process.kill)
            running.append(process)
        _people.busy(asked, processes * CALLS / LATENCY_S)
        time.sleep(SETTLES_S / 2)
        rate = _people.rate(asked, MEASURED_S)
        for process in running:
            process.send_signal(signal.SIGTERM)
        return rate


async def _backlog(bootstrap: str, prefix: str, windows: int) -> None:
    bus = await Kafka.open(bootstrap, prefix=prefix, partitions=PARTITIONS)
    try:
        await bus.create(deployment())
        task = Task.model_validate(
            {
                "name": "bench",
                "sampling": {"fps": "1", "window_s": STEP, "step_s": STEP},
                "detect": {"models": [_people.NAME]},
            }
        )
        grid = Grid(root="decode", origin="0", step=STEP, first=0)
        sources = [
            streams.first(Wanted(name=name, uri="nowhere.mp4", live=False, grid=grid, task=task)) for name in _spread()
        ]
        await streams.publish(bus, sources)
        picture = simplejpeg.encode_jpeg(memoryview(bytes(384 * 216 * 3)).cast("B", (216, 384, 3)))
        for source in sources:
            made = [_window(source, i, picture) for i in range(windows)]
            await bus.publish([wire.encode(w, partitions=PARTITIONS, time="") for w in made])
    finally:
        await bus.close()


def _spread() -> list[str]:
    """Names of streams, as many on each partition."""
    found: dict[int, list[str]] = {p: [] for p in range(PARTITIONS)}
    number = 0
    while any(len(names) < STREAMS // PARTITIONS for names in found.values()):
        names = found[partition_of(f"camera-{number}", PARTITIONS)]
        if len(names) < STREAMS // PARTITIONS:
            names.append(f"camera-{number}")
        number += 1
    return [name for names in found.values() for name in names]


def _window(source: Source, index: int, picture: bytes) -> Window:
    place = Window.of(source, index=index, start_ms=1000 * index, end_ms=1000 * index + 1000)
    frames = tuple(Frame(t_ms=1000 * index + i, jpeg=picture) for i in range(4))
    return msgspec.structs.replace(
        place,
        id=record_id("decode", "decode", source.stream, source.generation, index),
        service="decode",
        root="decode",
        frames=frames,
        width=384,
        height=216,
    )
