"""See the package. Exit code 1 where an invariant does not hold; the seed is printed with everything."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
import uuid
from pathlib import Path

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.errors import Retryable
from streamproc.messages import Window, record_id
from streamproc.runner.look import source_key
from streamproc.topics import topic
from tests import brokers
from tests.chaos import pipeline, weather
from tests.chaos.check import Findings, check
from tests.chaos.endpoint import Endpoint
from tests.chaos.stages import DETECT, SUM, open_bus, rows
from tests.chaos.weather import Workers
from tests.sim import toys

STREAMS = 32
WORKERS = 3
TOPICS = ("sources", "windows", "detections", "events", "coverage")


async def publish_all(bus: Bus, streams: dict[str, int]) -> None:
    await bus.create([t for name in TOPICS for t in (topic(name), topic(name).dlq)])
    for stream, count in streams.items():
        source = toys.source(stream, services=("decode", DETECT, SUM), count=count)
        sub = tuple(source_key(stream, 0, 0).split("\0")[1:])
        await bus.publish([wire.encode(source, partitions=bus.partitions, time="", sub=sub)])
        for first in range(0, count + 1, 1000):
            windows = [window(stream, i, count) for i in range(first, min(first + 1000, count + 1))]
            await bus.publish([wire.encode(w, partitions=bus.partitions, time="") for w in windows])


def window(stream: str, index: int, count: int) -> Window:
    source = toys.source(stream, services=(DETECT,), count=count)
    made = toys.window(source, index, index + 1, count)
    return Window.of(
        made, id=record_id("decode", "decode", stream, 0, index), service="decode", root="decode", count=made.count
    )


class Sums:
    """How far everything is: the sums that have landed, the last link of the chain. They are counted, for on Kafka an
    offset counts what is no record."""

    def __init__(self, bus: Bus, streams: dict[str, int]) -> None:
        self.bus, self.total = bus, sum(len(rows(count)) for count in streams.values())
        self._offsets = [0] * bus.partitions
        self._numbers = set[tuple[str, int]]()

    async def look(self) -> int:
        for p in range(self.bus.partitions):
            while batch := await self.bus.read("events", p, self._offsets[p], max_records=2000, max_bytes=2**24):
                records = [wire.decode(topic("events"), stored) for stored in batch]
                self._numbers |= {(r.stream, r.index) for r in records if r.event is not None}
                self._offsets[p] = batch[-1].offset + 1
        return len(self._numbers)


async def storm(
    asked: argparse.Namespace,
    rng: random.Random,
    where: str,
    session_s: float,
    cluster: brokers.Brokers | None,
    disk: weather.SmallDisk | None,
) -> tuple[Findings, Workers]:
    streams = {f"s{i}": asked.inputs // STREAMS for i in range(STREAMS)}
    streams["s0"] += asked.inputs % STREAMS
    bus = await open_bus(where, session_s=session_s)
    async with Endpoint(rng, asked.latency) as endpoint:
        workers = Workers(where, endpoint.port, session_s)
        try:
            await publish_all(bus, streams)
            for _ in range(WORKERS):
                await workers.start()
            back = await ride(asked, rng, bus, workers, cluster, disk, Sums(bus, streams))
            for number in list(workers.running):
                await workers.drain(number)
            found = await check(bus, endpoint, streams, workers)
            found.went_back = back
        finally:
            await workers.close()
            await bus.close()
    return found, workers


async def ride(
    asked: argparse.Namespace,
    rng: random.Random,
    bus: Bus,
    workers: Workers,
    cluster: brokers.Brokers | None,
    disk: weather.SmallDisk | None,
    sums: Sums,
) -> int:
    """Until everything has landed. Returns how often progress went back."""
    many = cluster is not None and len(cluster.cluster.nodes) > 1
    now_and_then = max(1, asked.kills // 25)
    upsets = weather.schedule(
        rng,
        inputs=sums.total,
        kills=asked.kills,
        brokers=now_and_then if cluster else 0,
        disks=now_and_then if disk and disk.mounted else 0,
    )
    progress: dict[tuple[str, str, int], int] = {}
    back = 0
    background: set[asyncio.Task[None]] = set()
    deadline = time.monotonic() + asked.bounded
    while time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        await workers.look()
        try:
            now = await sums.look()
            back += await went_back(bus, progress)
        except Retryable:
            continue  # the broker is being restarted: workers have to bear it too
        if now == sums.total and not upsets and not background:
            break
        while upsets and upsets[0][0] <= now:
            _, kind = upsets.pop(0)
            if kind in (weather.STOP, weather.BROKER, weather.DISK):
                task = asyncio.create_task(lasting(kind, rng, workers, cluster, disk, many))
                background.add(task)
                task.add_done_callback(background.discard)
            else:
                await act(kind, rng, workers)
            break  # the others may have fallen due meanwhile: let work go on between
    return back


async def lasting(
    kind: str,
    rng: random.Random,
    workers: Workers,
    cluster: brokers.Brokers | None,
    disk: weather.SmallDisk | None,
    many: bool,  # read off the cluster
) -> None:
    """What takes its time, while the rest goes on."""
    if kind == weather.STOP:
        await workers.stop(workers.pick(rng))
    elif kind == weather.DISK:
        assert disk is not None
        await disk.full_for(rng.uniform(1, 4))
    else:
        await broker(cluster, rng, workers, many)


async def act(kind: str, rng: random.Random, workers: Workers) -> None:
    match kind:
        case weather.KILL:
            await workers.kill(workers.pick(rng))
        case weather.DRAIN:
            await workers.drain(workers.pick(rng))
        case weather.JOIN:
            if len(workers.running) > WORKERS:
                await workers.drain(workers.pick(rng))
    if len(workers.running) < WORKERS + (kind == weather.JOIN):
        await workers.start()


async def broker(
    cluster: brokers.Brokers | None, rng: random.Random, workers: Workers, many: bool
) -> None:  # read off the cluster
    """One of three replicated brokers dies; a single one is told to stop. It comes back."""
    assert cluster is not None
    i = rng.randrange(len(cluster.cluster.nodes))
    since = time.time()
    await asyncio.to_thread(cluster.kill if many else cluster.stop, i)
    await asyncio.sleep(rng.uniform(0, 3))
    await asyncio.to_thread(cluster.start, i)
    await asyncio.sleep(5 if many else 0)  # the promise holds while the in-sync replicas are whole between two deaths
    workers.harm(None, since, slack_s=2 * workers.session_s)  # whose session ended meanwhile hears it when it is back


async def went_back(bus: Bus, progress: dict[tuple[str, str, int], int]) -> int:
    back = 0
    for service in (DETECT, SUM):
        for (name, partition), offset in (await bus.progress(service)).items():
            key = (service, name, partition)
            back += offset < progress.get(key, 0)
            progress[key] = offset
    return back


async def run(asked: argparse.Namespace) -> int:
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(2**31)
    rng = random.Random(seed)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="streamproc-chaos-"))
    own = disk = None
    try:
        if asked.bus == "embedded":
            disk = weather.SmallDisk(folder, size_mb=512 + asked.inputs // 200)
            if not disk.mounted:
                sys.stderr.write("no tmpfs could be mounted here: the disk is never full in this run\n")
            where, session_s = f"embedded:{folder / 'chaos.db'}", 2.0
        else:
            named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
            session_s = 6.0 if named else 2.0
            if not named:
                own = await asyncio.to_thread(
                    brokers.start, asked.brokers, settings={"group.min.session.timeout.ms": "1000"}
                )
            where = f"kafka:chaos-{uuid.uuid4().hex[:8]}.@{named or (own.bootstrap if own else '')}"
        found, workers = await storm(asked, rng, where, session_s, own, disk)
    finally:
        if own:
            own.close()
        if disk:
            disk.close()
        shutil.rmtree(folder, ignore_errors=True)
    for line in (*found.examples, *workers.failures):
        sys.stderr.write(f"{line}\n")
    result = {
        "inputs": asked.inputs,
        "kills": asked.kills,
        "lost": found.lost,
        "doubled": found.doubled,
        "inexact": found.inexact,
        "dead": found.dead,
        "went_back": found.went_back,
        "repeated": found.repeated,
        "needless": found.needless,
        "in_hand": found.in_hand,
        "in_flight": found.in_flight,
        "repeated_landed": found.repeated_landed,
        "on_waking": found.on_waking,
        **{name: workers.counts[name] for name in ("handed_over", "cut", "fenced")},
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed,
        "ok": found.ok and not workers.failures,
    }
    print(json.dumps(result) if asked.json else "\n".join(f"{k:18} {v}" for k, v in result.items()))
    return 0 if result["ok"] else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--bus", choices=("embedded", "kafka"), default="embedded")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="3: one at a time is killed with -9")
    parser.add_argument("--latency", type=float, default=0.02, help="of a call, seconds")
    parser.add_argument("--bounded", type=float, default=3600.0, help="give up after so many seconds")
    parser.add_argument("--json", action="store_true")
    whole = parser.add_argument_group("--pipeline: every stage of the pipeline as processes of their own")
    whole.add_argument("--pipeline", action="store_true")
    whole.add_argument("--windows", type=int, default=5_000)
    whole.add_argument("--length", type=int, default=pipeline.LENGTH, help="windows of a stream")
    whole.add_argument("--together", action="store_true", help="several services a process, so that few are started")
    whole.add_argument("--keep", action="store_true", help="leave the logs, settings and bus where they are")
    asked = parser.parse_args()
    return asyncio.run((pipeline.run if asked.pipeline else run)(asked))


if __name__ == "__main__":
    sys.exit(main())
