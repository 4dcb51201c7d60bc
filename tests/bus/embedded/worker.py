"""What other processes do in the tests of the embedded bus: `python -m tests.bus.embedded.worker WHAT PATH …`."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import sys
from pathlib import Path

from streamproc.bus.contract import Landing, Lease
from streamproc.bus.embedded import Embedded
from streamproc.errors import Fenced
from streamproc.wire import Entry


def say(word: str) -> None:
    print(word, flush=True)  # noqa: T201 - how the test hears of it


async def count(path: Path, session_s: str) -> None:
    """A service that says every record of `in` once more in `out`, and keeps how many there were in its state."""
    bus = await Embedded.open(path, session_s=float(session_s), floor_bytes=0)
    say("ready")
    weights = [1] * bus.partitions
    async with asyncio.TaskGroup() as tasks, bus.join("count", ["in"], weights=lambda: weights) as membership:
        async for lease in membership.leases():
            tasks.create_task(_count(lease))


async def _count(lease: Lease) -> None:
    seen = int(lease.state.get("seen", b"0"))
    serial = lease.serial
    try:
        while True:
            records = await lease.fetch(max_records=7, max_bytes=2**20, wait_s=60)
            if not records:
                continue
            seen, serial = seen + len(records), serial + 1
            outputs = [Entry("out", r.partition, r.key, r.value) for r in records]
            await lease.land(Landing(serial, outputs, {"seen": b"%d" % seen}, {"in": records[-1].offset + 1}))
    except Fenced:
        say("fenced")


async def publish(path: Path) -> None:
    """One record after the other into `in`, as fast as it goes; large ones among them."""
    bus = await Embedded.open(path, floor_bytes=0)
    say("ready")
    n = 0
    while True:
        n += 1
        pair = [Entry("in", p, b"%d.%d" % (os.getpid(), n), b"x" * (n % 3 * 20_000)) for p in (0, 1)]
        await bus.publish(pair)


async def listen(path: Path) -> None:
    """Says `heard` for each record of `in` that comes."""
    bus = await Embedded.open(path, floor_bytes=0)
    weights, left = [1] * bus.partitions, bus.partitions
    async with asyncio.TaskGroup() as tasks, bus.join("listen", ["in"], weights=lambda: weights) as membership:
        async for lease in membership.leases():
            tasks.create_task(_listen(lease))
            left -= 1
            if not left:
                say("ready")


async def _listen(lease: Lease) -> None:
    while True:
        for _ in await lease.fetch(max_records=1, max_bytes=1, wait_s=60):
            say("heard")


async def hold_gate(path: Path) -> None:
    fd = os.open(f"{path}.d/gate", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    say("ready")
    await asyncio.sleep(60)


async def hold_transaction(path: Path) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    say("ready")
    await asyncio.sleep(60)


if __name__ == "__main__":
    what, path_, *rest = sys.argv[1:]
    asyncio.run(globals()[what](Path(path_), *rest))
