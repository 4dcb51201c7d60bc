"""What tests of this bus share: topics of bare bytes, leases asked for, conditions waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from streamproc.bus.contract import Landing
from streamproc.bus.kafka import Kafka
from streamproc.bus.kafka.lease import KafkaLease
from streamproc.bus.kafka.membership import KafkaMembership
from streamproc.topics import Topic
from streamproc.wire import Entry, Stored

PATIENCE_S = 30.0
SESSION_S = 2.0


def bare(name: str, *, compacted: bool = False, max_bytes: int = 2**20) -> Topic:
    return Topic(name, "for a test", None, "application/octet-stream", compacted, 1, max_bytes)


def entries(count: int, *, topic: str = "in", partition: int = 0, start: int = 0) -> list[Entry]:
    return [Entry(topic, partition, b"k", b"%d" % i) for i in range(start, start + count)]


@asynccontextmanager
async def working(
    bus: Kafka, service: str = "svc", topics: Sequence[str] = ("in",), *, hand_over_s: float = 0
) -> AsyncIterator[KafkaMembership]:
    """Nobody here listens whether a lease is wanted, so it is lost at once, unless `hand_over_s` says otherwise."""
    async with bus.join(service, topics, weights=lambda: [0] * bus.partitions, hand_over_s=hand_over_s) as member:
        yield member


async def leases(member: KafkaMembership, count: int) -> list[KafkaLease]:
    """That many leases, in the order of their partitions."""
    found: list[KafkaLease] = []

    async def collect() -> None:
        async for lease in member.leases():
            found.append(lease)
            if len(found) == count:
                return

    await asyncio.wait_for(collect(), PATIENCE_S)
    return sorted(found, key=lambda lease: lease.partition)


async def fetched(lease: KafkaLease, count: int) -> list[Stored]:
    """At least that many records, in as many fetches as it takes."""
    found: list[Stored] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records came"
        found += await lease.fetch(max_records=count - len(found), max_bytes=2**24, wait_s=1)
    return found


def landing(
    lease: KafkaLease, outputs: Sequence[Entry] = (), *, done: int | None = None, **state: bytes | None
) -> Landing:
    """The lease's next landing; `done`: the first offset of topic "in" that is not."""
    return Landing(lease.serial + 1, list(outputs), dict(state), {} if done is None else {"in": done})


async def values(bus: Kafka, topic: str, partition: int = 0) -> list[bytes]:
    """All that can be read there now."""
    found: list[bytes] = []
    offset = (await bus.span(topic, partition)).begin
    while some := await bus.read(topic, partition, offset, max_records=1000, max_bytes=2**24):
        found += [stored.value or b"" for stored in some]
        offset = some[-1].offset + 1
    return found


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Back once it holds: what has landed is readable a moment later."""
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)
