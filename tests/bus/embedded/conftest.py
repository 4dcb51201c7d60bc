"""What the tests of the embedded bus share: buses in a folder of their own, and workers in processes of their own."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streamproc.bus.contract import Lease, Membership
from streamproc.bus.embedded import Embedded
from streamproc.topics import Topic
from streamproc.wire import Entry

DEADLINE_S = 30.0
LARGE = 40_000
"""Bytes of a value that goes into a segment."""


def topic(name: str, *, compacted: bool = False, hours: float = 168, max_bytes: int = 2**24) -> Topic:
    return Topic(name, "", None, "", compacted=compacted, retention_hours=hours, max_bytes=max_bytes)


def entry(name: str, value: bytes | None, *, key: bytes = b"k", partition: int = 0) -> Entry:
    return Entry(name, partition, key, value)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition, not for a time."""
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.01)


async def first(membership: Membership) -> Lease:
    async for lease in membership.leases():
        return lease
    raise AssertionError("no lease came")


class Worker:
    """A process at work; see `worker.py` for what it can do."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, *words: object) -> Worker:
        """Back once it says that it is ready."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bus.embedded.worker", *map(str, words), stdout=asyncio.subprocess.PIPE
        )
        worker = cls(process)
        await worker.hear("ready")
        return worker

    async def hear(self, word: str) -> None:
        assert self._process.stdout
        async with asyncio.timeout(DEADLINE_S):
            said = await self._process.stdout.readline()
        assert said.decode().strip() == word

    def signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self._process.wait()


@pytest.fixture
async def workers() -> AsyncIterator[Callable[..., Awaitable[Worker]]]:
    """Starts workers; whatever still runs at the end is killed."""
    started: list[Worker] = []

    async def start(*words: object) -> Worker:
        started.append(await Worker.start(*words))
        return started[-1]

    yield start
    for worker in started:
        await worker.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[Callable[..., Awaitable[Embedded]]]:
    """Opens buses on `path`, two partitions each; all are closed at the end."""
    buses: list[Embedded] = []

    async def open_(**options: Any) -> Embedded:
        buses.append(await Embedded.open(path, **({"partitions": 2, "floor_bytes": 0} | options)))
        return buses[-1]

    yield open_
    for bus in buses:
        await bus.close()


@pytest.fixture
async def bus(opened: Callable[..., Awaitable[Embedded]]) -> Embedded:
    """One bus with the topics `in`, `out` and the compacted `table`."""
    made = await opened()
    await made.create([topic("in"), topic("out"), topic("table", compacted=True)])
    return made


@asynccontextmanager
async def leased(bus: Embedded, service: str = "count", *, topics: Sequence[str] = ("in",)) -> AsyncIterator[Lease]:
    """A lease of partition 0."""
    async with bus.join(service, topics, weights=lambda: [1] * bus.partitions) as membership:
        async for lease in membership.leases():
            if lease.partition == 0:
                yield lease
                return
