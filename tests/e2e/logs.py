"""What stands on a bus: of the settings' own, whichever kind it is, or of another that is named."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.cli.frame import opened, settings
from streamproc.topics import partition_of, topic
from tests import brokers

EITHER = ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)]
"""For a fixture that calls `chosen`."""


def chosen(kind: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """This bus, for what the test calls and what it starts: a file in `folder`, or a Kafka with a prefix of its own."""
    monkeypatch.chdir(folder)
    bus = "embedded:./streamproc.db"
    if kind == "kafka":
        if (why := brokers.missing()) and not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
            (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
        bus = f"kafka://{brokers.shared()}"
        monkeypatch.setenv("STREAMPROC_TOPIC_PREFIX", f"test-{uuid4().hex[:8]}-")
    monkeypatch.setenv("STREAMPROC_BUS", bus)


def copied(ran: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bus on which something has run, once more: this test may do to it what it likes."""
    shutil.copytree(ran, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")
    return folder


def records(name: str, stream: str, bus: str | None = None) -> list[Any]:
    """All that a topic holds of a stream, in the order of the log; what was said twice is there twice."""
    found: list[Any] = looked(lambda log: _records(log, name, stream), bus)
    return found


def until(there: Callable[[Bus], Awaitable[bool]], *, within_s: float = 120) -> None:
    """Back once it is so: other processes write it."""

    async def wait(log: Bus) -> None:
        async with asyncio.timeout(within_s):
            while not await there(log):  # noqa: ASYNC110  # another process writes it
                await asyncio.sleep(0.02)

    looked(wait)


def until_some(name: str, stream: str, *, most: int = 0) -> None:
    """Back once there are more records of a stream than that."""

    async def there(log: Bus) -> bool:
        return len(await _records(log, name, stream)) > most

    until(there)


def looked(work: Callable[[Bus], Awaitable[Any]], bus: str | None = None) -> Any:
    async def with_bus() -> Any:
        async with opened(settings(bus=bus)) as log:
            return await work(log)

    return asyncio.run(with_bus())


async def _records(log: Bus, name: str, stream: str) -> list[Any]:
    p, found = partition_of(stream, log.partitions), list[Any]()
    at, end = await log.span(name, p)
    while at < end and (some := await log.read(name, p, at, max_records=5_000, max_bytes=2**26)):
        found += [wire.decode(topic(name), s) for s in some if s.value is not None and _of(stream, s.key)]
        at = some[-1].offset + 1
    return found


def _of(stream: str, key: bytes) -> bool:
    """A table's keys have more behind the stream."""
    return key.partition(b"\0")[0] == stream.encode()
