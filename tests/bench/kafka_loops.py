"""How fast the Kafka bus lands: its bare lease loop against plain consume → transaction loops, in one run, interleaved.

The loops are functions, so that the engine's bench can put the runner beside them. Every loop reads one topic and writes
one record for each into another, with the offsets in the same transaction; what differs is who does it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streamproc import wire
from streamproc.bus.contract import Landing
from streamproc.bus.kafka import Kafka
from streamproc.messages import Caption, record_id
from streamproc.topics import Topic, topic
from streamproc.wire import Entry
from tests import brokers

PARTITIONS = 4
BATCH = 500
BARE = Topic(
    "bare", "for a bench", None, "application/octet-stream", compacted=False, retention_hours=1, max_bytes=2**20
)
"""Ten bytes of key and a hundred of value, a record."""

_fresh = itertools.count()


class Loops(NamedTuple):
    """A bus with a backlog: `records` in topic "bare", and as many captions in "captions"."""

    bus: Kafka
    records: int


@asynccontextmanager
async def backlog(bootstrap: str, records: int) -> AsyncIterator[Loops]:
    bus = await Kafka.open(bootstrap, prefix=f"bench-{uuid.uuid4().hex[:8]}.", partitions=PARTITIONS)
    try:
        out = Topic(
            "out", "for a bench", None, "application/octet-stream", compacted=False, retention_hours=1, max_bytes=2**20
        )
        await bus.create([BARE, out, topic("captions"), topic("descriptions")])
        each = records // PARTITIONS
        for p in range(PARTITIONS):
            for first in range(0, each, 2000):
                numbers = range(first, min(first + 2000, each))
                await bus.publish([Entry("bare", p, b"stream-%03d" % p, b"%0100d" % i) for i in numbers])
                await bus.publish([caption(p, i) for i in numbers])
        yield Loops(bus, each * PARTITIONS)
    finally:
        await bus.close()


def caption(partition: int, index: int) -> Entry:
    """A contract record, as the wire carries it, in the partition asked for."""
    stream = f"game/{partition}"
    said = Caption(
        id=record_id("caption", "decode", stream, 1, index), service="caption", root="decode", stream=stream, generation=1,
        revision=1, index=index, start_ms=1000 * index, end_ms=1000 * index + 1000, outcome="done", text="a pass", raw="a pass",
    )  # fmt: skip
    entry = wire.encode(said, partitions=PARTITIONS, time=NOW)
    return Entry(entry.topic, partition, entry.key, entry.value, entry.headers)


NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()


def answer(stored: Entry) -> Entry:
    """Parse a contract record, and encode another: what a stage that does nothing costs at the least."""
    record = wire.decode(topic("captions"), stored)
    entry = wire.encode(record, partitions=PARTITIONS, time=NOW)
    return Entry("out", stored.partition, entry.key, entry.value, entry.headers)


def copy(stored: Entry) -> Entry:
    return Entry("out", stored.partition, stored.key, stored.value)


# the loops: seconds for all records, the beginning included (what is read ahead before a clock starts would be a gift) ---


async def plain(loops: Loops, *, contract: bool) -> float:
    """What one would write by hand: a consumer, a transactional producer, batches of 500, `send` for each record."""
    bus, source = loops.bus, "captions" if contract else "bare"
    group = f"{bus.names.prefix}plain{next(_fresh)}"
    consumer = AIOKafkaConsumer(
        bus.names.topic(source), bootstrap_servers=bus.bootstrap, group_id=group, enable_auto_commit=False,
        isolation_level="read_committed", auto_offset_reset="earliest",
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=bus.bootstrap, transactional_id=group, retry_backoff_ms=5)
    out = bus.names.topic("out")
    began, done = time.perf_counter(), 0
    await consumer.start()
    await producer.start()
    try:
        while done < loops.records:
            got = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
            await producer.begin_transaction()
            sent = []
            for records in got.values():
                for r in records:
                    if contract:
                        stored = Entry(source, r.partition, r.key, r.value, r.headers)
                        e = answer(stored)
                        sent.append(await producer.send(out, e.value, e.key, e.partition, headers=list(e.headers)))
                    else:
                        sent.append(await producer.send(out, r.value, r.key, r.partition))
            offsets = {tp: records[-1].offset + 1 for tp, records in got.items()}
            if offsets:
                await producer.send_offsets_to_transaction(offsets, group)
            await asyncio.gather(*sent)
            await producer.commit_transaction()
            done += sum(map(len, got.values()))
        return time.perf_counter() - began
    finally:
        await producer.stop()
        await consumer.stop()


async def leased(loops: Loops, *, contract: bool, batch: int = 2 * BATCH) -> float:
    """The bus's own: fetch, answer, land, on every lease at once."""
    bus, source = loops.bus, "captions" if contract else "bare"
    make = answer if contract else copy
    began = time.perf_counter()
    async with bus.join(f"leased{next(_fresh)}", [source], weights=lambda: [0] * PARTITIONS) as member:
        leases = member.leases()
        held = [await anext(leases) for _ in range(PARTITIONS)]

        async def work(i: int) -> None:
            lease, done = held[i], 0
            while done < loops.records // PARTITIONS:
                got = await lease.fetch(max_records=batch, max_bytes=2**22, wait_s=1)
                if got:
                    await lease.land(
                        Landing(lease.serial + 1, [make(s) for s in got], {}, {source: got[-1].offset + 1})
                    )
                    done += len(got)

        await asyncio.gather(*map(work, range(PARTITIONS)))
        return time.perf_counter() - began


async def quiet(loops: Loops, landings: int = 300) -> list[float]:
    """Milliseconds of one landing after the other, of one record each."""
    async with loops.bus.join(f"quiet{next(_fresh)}", ["bare"], weights=lambda: [0] * PARTITIONS) as member:
        lease = await anext(member.leases())
        took = []
        for _ in range(landings):
            (stored,) = await lease.fetch(max_records=1, max_bytes=2**20, wait_s=5)
            began = time.perf_counter()
            await lease.land(Landing(lease.serial + 1, [copy(stored)], {"s\0k": b"1"}, {"bare": stored.offset + 1}))
            took.append(1000 * (time.perf_counter() - began))
        return sorted(took[20:])


# the bench ----------------------------------------------------------------------------------------------------------


def run(records: int = 40_000, rounds: int = 3) -> Iterator[tuple[str, float, float | None, bool | None]]:
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        yield from asyncio.run(_measure(named, records, rounds))
    else:
        with brokers.start() as own:
            yield from asyncio.run(_measure(own.bootstrap, records, rounds))


async def _measure(bootstrap: str, records: int, rounds: int) -> list[tuple[str, float, float | None, bool | None]]:
    took: dict[str, list[float]] = {"plain bytes": [], "leased bytes": [], "plain records": [], "leased records": []}
    async with backlog(bootstrap, records) as loops:
        for _ in range(rounds):
            for contract, kind in ((False, "bytes"), (True, "records")):
                took[f"plain {kind}"].append(await plain(loops, contract=contract))
                took[f"leased {kind}"].append(await leased(loops, contract=contract))
        landings = await quiet(loops)
    lines: list[tuple[str, float, float | None, bool | None]] = [
        (f"{name}, records/s", records / statistics.median(seconds), None, None) for name, seconds in took.items()
    ]
    for kind, goal in (("bytes", 1.8), ("records", 1.2)):
        ratio = statistics.median(p / q for p, q in zip(took[f"plain {kind}"], took[f"leased {kind}"], strict=True))
        lines.append((f"leased / plain, {kind}", ratio, goal, ratio >= goal))
    for share, goal in ((0.5, 15.0), (0.99, 50.0)):
        value = landings[int(share * len(landings))]
        lines.append((f"landing p{round(100 * share)}, ms", value, goal, value <= goal))
    return lines
