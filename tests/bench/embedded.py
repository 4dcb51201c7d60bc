"""What the embedded bus is held to: ratios to what the disk and SQLite can do by themselves, interleaved in one run.

A no-op stage here is a loop over `lease.fetch` and `lease.land`, bare bytes.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from streamproc.bus.contract import Landing, Lease
from streamproc.bus.embedded import Embedded
from streamproc.topics import Topic
from streamproc.wire import Entry

PARTITIONS = 16
ROUNDS = 7
WINDOW_BYTES = 90_000
CACHE = Path(__file__).parents[2] / ".cache" / "bench"
"""On the disk at hand; /tmp may be memory."""
SMALL = b"x" * 100

Line = tuple[str, float, float | None, bool | None]


def run() -> Iterator[Line]:
    yield from asyncio.run(_run())


async def _run() -> list[Line]:
    lines: list[Line] = []

    def at_most(name: str, value: float, goal: float) -> None:
        lines.append((name, value, goal, value <= goal))

    def at_least(name: str, value: float, goal: float) -> None:
        lines.append((name, value, goal, value >= goal))

    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        async with _bus(Path(folder)) as (bus, landers):
            at_most("landing of one output / bare FULL commit", await _one_landing(Path(folder), landers[0]), 2.5)
            for windows, goal in ((4, 0.35), (16, 0.45)):
                share = await _windows(Path(folder), landers[0], windows)
                at_least(f"bytes a second, {windows} windows a landing / raw write + fdatasync", share, goal)
            at_least("landings a second, 8 in flight / 1", await _in_flight(landers), 3)
            rates = await _no_op(bus, landers[0], {1: 300, 20: 4_000, 500: 20_000})
            at_least("no-op stage, batches of 20 / of 1", statistics.median(b / a for a, b, _ in rates), 10)
            for n, batch in enumerate((1, 20, 500)):
                rate = statistics.median(r[n] for r in rates)
                lines.append((f"no-op stage, batches of {batch}, records a second", rate, None, None))
            lines.append(
                ("from a landing's end to another bus's fetch, ms", await _wake(Path(folder), bus), None, None)
            )
            at_most("ten waiting stages, % of a CPU", await _waiting(bus), 2)
    return lines


class Lander:
    """A lease, and how far it has landed."""

    def __init__(self, lease: Lease) -> None:
        self.lease, self.serial = lease, lease.serial

    async def land(self, outputs: list[Entry], done: int) -> None:
        self.serial += 1
        await self.lease.land(Landing(self.serial, outputs, progress={"in": done}))

    async def one(self) -> None:
        await self.land([Entry("out", self.lease.partition, b"k", SMALL)], 0)


@asynccontextmanager
async def _bus(folder: Path) -> AsyncIterator[tuple[Embedded, list[Lander]]]:
    bus = await Embedded.open(folder / "bus.db", partitions=PARTITIONS)
    await bus.create([Topic(name, "", None, "", False, 168, 2**24) for name in ("in", "out")])
    try:
        async with bus.join("bench", ["in"], weights=lambda: [1] * PARTITIONS) as membership:
            landers = []
            async for lease in membership.leases():
                landers.append(Lander(lease))
                if len(landers) == PARTITIONS:
                    break
            yield bus, landers
    finally:
        await bus.close()


async def _timed(work: Awaitable[object]) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


def _timed_now(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


async def _one_landing(folder: Path, lander: Lander) -> float:
    db = sqlite3.connect(folder / "bare.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, value BLOB)")

    def commit() -> None:
        db.execute("INSERT INTO t(value) VALUES (?)", (SMALL,))

    ratios: list[float] = []
    for _ in range(ROUNDS):
        pairs = [(_timed_now(commit), await _timed(lander.one())) for _ in range(60)]
        bare, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios.append(ours / bare)
    db.close()
    return statistics.median(ratios)


async def _windows(folder: Path, lander: Lander, many: int) -> float:
    windows = [os.urandom(WINDOW_BYTES) for _ in range(many)]
    fd = os.open(folder / "raw", os.O_RDWR | os.O_CREAT, 0o600)

    def write() -> None:
        for window in windows:
            os.write(fd, window)
        os.fdatasync(fd)

    def landing() -> Awaitable[None]:
        return lander.land([Entry("out", lander.lease.partition, b"k", window) for window in windows], 0)

    shares: list[float] = []
    for _ in range(ROUNDS):
        pairs = [(_timed_now(write), await _timed(landing())) for _ in range(20)]
        raw, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        shares.append(raw / ours)
    os.close(fd)
    return statistics.median(shares)


async def _in_flight(landers: list[Lander]) -> float:
    async def many(lander: Lander) -> None:
        for _ in range(100):
            await lander.one()

    ratios = []
    for _ in range(ROUNDS):
        one_s = await _timed(many(landers[0]))
        eight_s = await _timed(asyncio.gather(*map(many, landers[:8])))
        ratios.append(8 * one_s / eight_s)
    return statistics.median(ratios)


async def _no_op(bus: Embedded, lander: Lander, batches: dict[int, int]) -> list[list[float]]:
    """Records a second for each size of a batch, a list a round."""
    lease, rates = lander.lease, []
    for _ in range(ROUNDS):
        round_ = []
        for batch, total in batches.items():
            for _ in range(0, total, 500):
                await bus.publish([Entry("in", lease.partition, b"k", SMALL) for _ in range(min(500, total))])

            async def stage(batch: int = batch, total: int = total) -> None:
                while total > 0:
                    records = await lease.fetch(max_records=batch, max_bytes=2**24, wait_s=10)
                    outputs = [Entry("out", r.partition, r.key, r.value, r.headers) for r in records]
                    await lander.land(outputs, records[-1].offset + 1)
                    total -= len(records)

            round_.append(total / await _timed(stage()))
            while await lease.fetch(max_records=500, max_bytes=2**24, wait_s=0):
                pass  # what the last portion was more than the total
        rates.append(round_)
    return rates


async def _wake(folder: Path, bus: Embedded) -> float:
    other = await Embedded.open(folder / "bus.db")
    waits = []
    async with other.join("wake", ["out"], weights=lambda: [1] * PARTITIONS) as membership:
        async for lease in membership.leases():
            while await lease.fetch(max_records=10_000, max_bytes=2**30, wait_s=0):
                pass
            for _ in range(50):
                waiting = asyncio.create_task(lease.fetch(max_records=1, max_bytes=1, wait_s=10))
                await asyncio.sleep(0.005)
                await bus.publish([Entry("out", lease.partition, b"k", SMALL)])
                waits.append(await _timed(waiting))
            break
    await other.close()
    return 1000 * statistics.median(waits)


async def _waiting(bus: Embedded) -> float:
    async with AsyncExitStack() as stack:
        waiting = []
        for n in range(10):
            membership = await stack.enter_async_context(
                bus.join(f"waiting{n}", ["in"], weights=lambda: [1] * PARTITIONS)
            )
            async for lease in membership.leases():
                waiting.append(lease)
                break
        for lease in waiting:
            while await lease.fetch(max_records=10_000, max_bytes=2**30, wait_s=0):
                pass
        used_s = time.process_time()
        wall_s = await _timed(asyncio.gather(*(lease.fetch(max_records=1, max_bytes=1, wait_s=5) for lease in waiting)))
        return 100 * (time.process_time() - used_s) / wall_s
