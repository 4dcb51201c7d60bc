"""Reading ahead: whole, in order, bounded, and never at a standstill."""

from __future__ import annotations

import asyncio

import pytest

from streamproc.bus.kafka import Kafka
from streamproc.bus.kafka.insides import TopicPartition
from streamproc.bus.kafka.intake import Feed, Intake
from streamproc.wire import Entry
from tests.bus.kafka.conftest import Open
from tests.bus.kafka.world import PATIENCE_S, bare, entries, eventually, fetched, landing, leases, working

pytestmark = pytest.mark.kafka


async def test_a_backlog_larger_than_the_buffers_comes_whole_however_it_is_cut(bus: Kafka) -> None:
    """A take that ends exactly where an answer ends once left the buffer full and the reader asleep."""
    for first in range(0, 6000, 500):
        await bus.publish([Entry("in", 0, b"k", b"%01000d" % i) for i in range(first, first + 500)])
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        for size in (500, 499, 1):
            found = await fetched(lease, 2000) if size == 1 else []
            while size > 1 and len(found) < 2000:
                found += await lease.fetch(max_records=min(size, 2000 - len(found)), max_bytes=2**24, wait_s=5)
            await lease.land(landing(lease, done=found[-1].offset + 1))
        assert found[-1].value == b"%01000d" % 5999


async def test_a_full_buffer_of_one_partition_holds_up_no_other(bus: Kafka) -> None:
    for first in range(0, 6000, 1000):
        await bus.publish([Entry("in", 0, b"k", b"x" * 1000) for _ in range(first, first + 1000)])
    async with working(bus) as member:
        (full,) = await leases(member, 1)
        await bus.publish(entries(1, partition=1))
        (other,) = await leases(member, 1)
        assert (full.partition, other.partition) == (0, 1)
        for i in range(20):
            assert [s.value for s in await fetched(other, 1)] == [b"%d" % i]
            await bus.publish(entries(1, partition=1, start=i + 1))


async def test_what_is_read_ahead_is_bounded(bus: Kafka) -> None:
    for _ in range(6):
        await bus.publish([Entry("in", 0, b"k", b"x" * 1000) for _ in range(1000)])
    intake = Intake(bus.client, lane="test")
    came = asyncio.Event()
    feed = intake.open(TopicPartition(bus.names.topic("in"), 0), "in", 0, came.set)
    try:
        await asyncio.wait_for(came.wait(), PATIENCE_S)
        held = 0
        for _ in range(20):  # as long as it still grows
            if feed.size == held:
                break
            held = feed.size
            await asyncio.sleep(0.05)
        assert 0 < feed.size < 3 * 2**20
    finally:
        await intake.stop()


async def test_what_does_not_fit_into_one_answer_comes_in_turn(open_bus: Open) -> None:
    """A broker fills its answer in the order of the request: asked in one order for ever, the last would get nothing."""
    bus = await open_bus(partitions=4)
    await bus.create([bare("in")])
    for p in range(4):
        for _ in range(10):
            await bus.publish([Entry("in", p, b"k", b"x" * 10_000) for _ in range(40)])
    intake = Intake(bus.client, lane="test", ahead_bytes=2**20)  # one batch of 400 kB an answer, or little more
    came = asyncio.Event()
    feeds = [intake.open(bus.names.at("in", p), "in", 0, came.set) for p in range(4)]
    got = dict.fromkeys(range(4), 0)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while max(got.values()) < 400:  # so long all of them have records waiting
                came.clear()
                for p, feed in enumerate(feeds):
                    got[p] += len(feed.take(max_records=100, max_bytes=2**24))
                if not any(feed.ready for feed in feeds):
                    await came.wait()
    finally:
        await intake.stop()
    assert min(got.values()) > 400 / 2, got


async def test_what_a_dead_writer_left_behind_is_not_read(bus: Kafka) -> None:
    """Its transaction is open until somebody fences it; then it never was."""
    dead = bus.transactions("dead")
    await dead.open()
    await dead._producer.begin_transaction()
    await dead._producer.send_and_wait(bus.names.topic("in"), b"never", b"k", 0)
    async with working(bus) as member:
        coming = asyncio.ensure_future(leases(member, 1))
        await bus.publish(entries(1, partition=1))
        (lease,) = await coming
        assert lease.partition == 1, "of partition 0 nothing is readable yet"
        heir = bus.transactions("dead")
        await heir.open()
        await heir.write(entries(1))
        await heir.close()
        (lease,) = await leases(member, 1)
        assert [s.value for s in await fetched(lease, 1)] == [b"0"]
    await dead.close()


async def test_a_table_follows_changes_and_deletions_and_knows_when_it_has_caught_up(bus: Kafka) -> None:
    table = await bus.follow("table", 0)
    assert await bus.follow("table", 0) is table
    heard: list[tuple[bytes, bytes | None]] = []
    stop = table.on_change(lambda stored: heard.append((stored.key, stored.value)))
    await bus.publish([Entry("table", 0, key, key.upper()) for key in (b"b", b"a\0x", b"a", b"ab")])
    await table.caught_up()
    assert [s.key for s in table.under(b"a")] == [b"a", b"a\0x", b"ab"]
    await bus.publish([Entry("table", 0, b"a", None)])
    await table.caught_up()
    assert table.get(b"a") is None
    assert heard[-1] == (b"a", None)
    stop()
    await bus.publish([Entry("table", 0, b"c", b"C")])
    await table.caught_up()
    assert len(heard) == 5
    assert (found := table.get(b"c")) is not None
    assert found.value == b"C"


async def test_a_table_has_caught_up_only_with_what_a_commit_made_readable(bus: Kafka) -> None:
    table = await bus.follow("table", 1)
    await bus.publish(entries(1))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        for i in range(20):
            await lease.land(landing(lease, [Entry("table", 1, b"k", b"%d" % i)]))
            await table.caught_up()
            assert (found := table.get(b"k")) is not None
            assert found.value == b"%d" % i


async def test_offsets_by_time_and_the_span_of_what_can_be_read(bus: Kafka) -> None:
    await bus.publish(entries(3))
    stored = await bus.read("in", 0, 0, max_records=9, max_bytes=2**20)
    await asyncio.sleep(0.01)  # the broker's clock counts milliseconds
    await bus.publish(entries(3, start=3))
    later = await bus.read("in", 0, stored[-1].offset + 1, max_records=9, max_bytes=2**20)
    assert await bus.offset_at("in", 0, stored[0].time_ms) == 0
    assert await bus.offset_at("in", 0, later[0].time_ms) == later[0].offset
    span = await bus.span("in", 0)
    assert span.begin == 0
    assert await bus.offset_at("in", 0, later[-1].time_ms + 60_000) == span.end
    assert await bus.read("in", 0, span.end, max_records=9, max_bytes=2**20) == []
    assert await bus.read("in", 0, span.end + 100, max_records=9, max_bytes=2**20) == []
    await eventually(lambda: _spans(bus, span))


async def _spans(bus: Kafka, wanted: object) -> bool:
    return await bus.span("in", 0) == wanted


def test_a_feed_with_nothing_in_it_gives_nothing() -> None:
    feed = Feed(TopicPartition("t", 0), "t", 5, wake=lambda: None, room=lambda: None)
    assert feed.take(max_records=1, max_bytes=1) == []
    assert (feed.position, feed.ready) == (5, False)
    feed.check()
