"""Leases on a real broker: what lands, when, for whom; and what each trap of the recipe would break."""

from __future__ import annotations

import asyncio
import gc

import pytest
from aiokafka import AIOKafkaProducer

from streamproc.bus.contract import Landing
from streamproc.bus.kafka import Kafka
from streamproc.bus.kafka.state import Last, compare
from streamproc.errors import Corrupt, Expired, Fenced, TooLarge, Unreachable, UnseenEnd
from streamproc.topics import state_topic
from streamproc.wire import Entry
from tests.bus.at_work import has_done
from tests.bus.kafka.broken import delete_group, delete_records, delete_topic
from tests.bus.kafka.conftest import Open
from tests.bus.kafka.world import bare, entries, eventually, fetched, landing, leases, values, working

pytestmark = pytest.mark.kafka


async def test_outputs_state_and_progress_land_together(bus: Kafka, open_bus: Open) -> None:
    await bus.publish(entries(3))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        assert [s.value for s in await fetched(lease, 3)] == [b"0", b"1", b"2"]
        await lease.land(landing(lease, entries(2, topic="out"), done=2, a=b"1", b=b"2"))
        await lease.land(landing(lease, entries(1, topic="out", start=2), done=3, a=None))
        assert (lease.serial, lease.progress) == (2, {"in": 3})
    await has_done(bus, {("in", 0): 3})
    await eventually(lambda: _holds(bus, "out", [b"0", b"1", b"2"]))

    other = await open_bus()
    async with working(other) as member:
        (again,) = await leases(member, 1)
        assert (again.state, again.progress, again.serial) == ({"b": b"2"}, {"in": 3}, 2)
        assert await again.fetch(max_records=9, max_bytes=2**20, wait_s=0) == []


async def _holds(bus: Kafka, topic: str, wanted: list[bytes]) -> bool:
    return await values(bus, topic) == wanted


async def test_a_partition_that_never_had_anything_costs_no_producer_and_is_leased_with_its_first_record(
    bus: Kafka,
) -> None:
    async with working(bus) as member:
        coming = asyncio.ensure_future(anext(member.leases()))
        await eventually(lambda: _members(bus, [[0, 1]]))
        assert not coming.done()
        assert not member._leases
        await bus.publish(entries(1, partition=1))
        lease = await asyncio.wait_for(coming, 10)
        assert lease.partition == 1
        assert [s.value for s in await fetched(lease, 1)] == [b"0"]


async def _members(bus: Kafka, wanted: list[list[int]]) -> bool:
    return sorted((await bus.members("svc")).values()) == wanted


async def test_an_owner_that_was_fenced_lands_nothing_and_hears_it(bus: Kafka, open_bus: Open) -> None:
    await bus.publish(entries(2))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        await fetched(lease, 2)
        await lease.land(landing(lease, done=1))
        # Somebody opens a producer of the same id: as the next owner would, before it reads progress.
        thief = bus.transactions(bus.names.transactional_id("svc", 0))
        await thief.open()
        await thief.close()
        # The group says the partition is still ours, so this was no takeover: look, do not give up.
        with pytest.raises(UnseenEnd):
            await lease.land(landing(lease, entries(1, topic="out"), done=2))
        await lease.renew()
        assert (lease.serial, lease.progress) == (1, {"in": 1})
        await lease.land(landing(lease, entries(1, topic="out"), done=2))
        await eventually(lambda: _holds(bus, "out", [b"0"]))


async def test_a_lease_that_moved_is_lost_and_its_landing_is_fenced(bus: Kafka, open_bus: Open) -> None:
    await bus.publish(entries(4) + entries(4, partition=1))
    other = await open_bus()
    async with working(bus) as first:
        mine = await leases(first, 2)
        for lease in mine:
            await fetched(lease, 4)
            await lease.land(landing(lease, entries(1, topic="out", partition=lease.partition), done=1))
        async with working(other) as second:
            (moved,) = await leases(second, 1)
            old, kept = sorted(mine, key=lambda lease: lease.partition != moved.partition)
            assert (moved.progress, moved.serial) == ({"in": 1}, 1)
            await asyncio.wait_for(old.lost.wait(), 10)
            with pytest.raises(Fenced):
                await old.land(landing(old, entries(9, topic="out", partition=old.partition), done=4))
            assert not old.fresh()
            assert await old.fetch(max_records=9, max_bytes=2**20, wait_s=0.01) == []
            assert not kept.lost.is_set()
            await kept.land(landing(kept, done=4))
            assert [s.value for s in await fetched(moved, 3)] == [b"1", b"2", b"3"]
            await moved.land(landing(moved, done=4))
        assert await values(bus, "out", old.partition) == [b"0"]


async def test_what_was_read_ahead_outlives_a_rebalance(bus: Kafka, open_bus: Open) -> None:
    await bus.publish(entries(50) + entries(50, partition=1))
    other = await open_bus()
    async with working(bus) as first:
        mine = await leases(first, 2)
        got = {lease.partition: await fetched(lease, 10) for lease in mine}
        async with working(other) as second:
            (moved,) = await leases(second, 1)
            kept = next(lease for lease in mine if lease.partition != moved.partition)
            got[kept.partition] += await fetched(kept, 40)
            assert [s.offset for s in got[kept.partition]] == list(range(50)), "none twice, none left out"


async def test_leaving_hands_over_what_is_not_held_and_then_the_rest_as_it_is_released(
    bus: Kafka, open_bus: Open
) -> None:
    await bus.publish(entries(1) + entries(1, partition=1))
    other = await open_bus()
    async with working(bus) as first:
        held = await leases(first, 2)
        await first.leave()
        assert [lease async for lease in first.leases()] == []
        async with working(other) as second:
            coming = asyncio.ensure_future(leases(second, 1))
            await held[0].land(landing(held[0], done=1))
            assert not coming.done(), "what is held stays where it is"
            await held[0].release()
            (taken,) = await coming
            assert taken.partition == held[0].partition
            assert taken.progress == {"in": 1}
            await held[1].land(landing(held[1], done=1))


async def test_a_cancelled_fetch_loses_nothing(bus: Kafka) -> None:
    async with working(bus) as member:
        await bus.publish(entries(1))
        (lease,) = await leases(member, 1)
        await fetched(lease, 1)
        for i in range(1, 20):
            fetch = asyncio.ensure_future(lease.fetch(max_records=9, max_bytes=2**20, wait_s=5))
            await asyncio.sleep(0)
            publishing = asyncio.ensure_future(bus.publish(entries(1, start=i)))
            await asyncio.sleep(i / 1000)
            if not fetch.done():
                fetch.cancel()
            await asyncio.gather(fetch, return_exceptions=True)
            await publishing
            if fetch.cancelled():
                assert [s.value for s in await fetched(lease, 1)] == [b"%d" % i]


async def test_four_uneven_partitions_get_equal_shares(open_bus: Open) -> None:
    bus = await open_bus(partitions=4)
    await bus.create([bare("in")])
    backlog = {0: 20_000, 1: 4_000, 2: 4_000, 3: 4_000}
    for p, count in backlog.items():
        await bus.publish(entries(count, partition=p))
    async with working(bus) as member:
        mine = await leases(member, 4)
        for lease in mine:  # one batch each: whose first record is here, all of it is, and waits from now on
            await fetched(lease, 1)
        got = dict.fromkeys(backlog, 0)
        waited = dict.fromkeys(backlog, 0)
        """What the others got since it had its turn."""

        async def take(partition: int) -> None:
            while sum(got.values()) < 8_000:
                count = len(await mine[partition].fetch(max_records=50, max_bytes=2**20, wait_s=0))
                got[partition] += count
                waited[partition] = 0
                for other in backlog.keys() - {partition}:
                    waited[other] += count
                    assert waited[other] <= 2 * 3 * 50, f"{other} waits for {partition}: {got}"

        await asyncio.gather(*map(take, backlog))
        assert max(got.values()) - min(got.values()) <= 2 * 50, got


async def test_two_topics_of_a_lease_take_turns(bus: Kafka) -> None:
    await bus.create([bare("also")])
    await bus.publish(entries(300))
    await bus.publish(entries(30, topic="also"))
    async with working(bus, topics=("in", "also")) as member:
        (lease,) = await leases(member, 1)
        found: list[str] = []
        while len(found) < 100:
            found += [s.topic for s in await lease.fetch(max_records=20, max_bytes=2**20, wait_s=1)]
        assert found[:100].count("also") == 30


async def test_bounds_of_a_fetch_hold_but_one_record_always_comes(bus: Kafka) -> None:
    await bus.publish([Entry("in", 0, b"k", b"x" * 1000) for _ in range(10)])
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        assert len(await lease.fetch(max_records=3, max_bytes=2**20, wait_s=5)) == 3
        assert len(await lease.fetch(max_records=9, max_bytes=2500, wait_s=5)) == 2
        assert len(await lease.fetch(max_records=9, max_bytes=10, wait_s=5)) == 1
        assert [s.offset for s in await lease.fetch(max_records=9, max_bytes=2**20, wait_s=5)] == [6, 7, 8, 9]


async def test_a_record_that_the_broker_refuses_lands_nothing_with_it(bus: Kafka) -> None:
    """An un-awaited send that is refused would let the offsets commit: a silent loss."""
    await bus.publish(entries(2))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        await fetched(lease, 2)
        huge = Entry("out", 0, b"k", b"x" * (2**20 + 2**17))
        with pytest.raises(TooLarge):
            await lease.land(landing(lease, [*entries(1, topic="out"), huge], done=2, a=b"1"))
        assert (lease.serial, lease.progress) == (0, {})
        assert await bus.progress("svc") == {}
        await lease.land(landing(lease, entries(1, topic="out", start=7), done=2))
        await eventually(lambda: _holds(bus, "out", [b"7"]))


async def test_publishing_something_too_large_publishes_nothing(bus: Kafka) -> None:
    with pytest.raises(TooLarge):
        await bus.publish([*entries(1, partition=1), Entry("in", 0, b"k", b"x" * (2**20 + 2**17))])
    await bus.publish(entries(1, partition=1, start=5))
    assert await values(bus, "in", 1) == [b"5"]


async def test_sixteen_megabytes_go_through_where_the_topic_allows_them(bus: Kafka) -> None:
    await bus.create([bare("windows", max_bytes=16 * 2**20)])
    large = b"x" * (16 * 2**20)
    await bus.publish([Entry("windows", 0, b"k", large)])
    (read,) = await bus.read("windows", 0, 0, max_records=1, max_bytes=1)
    assert read.value == large
    async with working(bus, topics=["windows"]) as member:
        (lease,) = await leases(member, 1)
        assert (await fetched(lease, 1))[0].value == large
        await lease.land(Landing(1, [], {"key": large[:-1000]}, {"windows": 1}))
    async with working(bus, topics=["windows"]) as member:
        (lease,) = await leases(member, 1)
        assert lease.state == {"key": large[:-1000]}


async def test_records_expired_unread_are_reported_and_reading_goes_on_behind_them(bus: Kafka) -> None:
    await bus.publish(entries(10))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        await fetched(lease, 2)
        await lease.land(landing(lease, done=2))
    await delete_records(bus, "in", 0, before=6)
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        with pytest.raises(Expired) as hole:
            await lease.fetch(max_records=9, max_bytes=2**20, wait_s=10)
        assert (hole.value.topic, hole.value.wanted, hole.value.begin) == ("in", 2, 6)
        assert [s.value for s in await fetched(lease, 4)] == [b"6", b"7", b"8", b"9"]


async def test_progress_beyond_the_end_is_a_log_made_anew_and_never_read_from_0(bus: Kafka) -> None:
    await bus.publish(entries(10))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        await lease.land(landing(lease, done=10))
    await delete_topic(bus, "in")
    await bus.create([bare("in")])
    await bus.publish(entries(1))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        with pytest.raises(Corrupt, match="made anew"):
            await lease.fetch(max_records=9, max_bytes=2**20, wait_s=10)


async def test_a_table_made_anew_ends_the_work_that_is_done_by_what_it_said(bus: Kafka) -> None:
    await bus.publish(entries(5, topic="table"))
    await bus.publish(entries(1))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        table = await bus.follow("table", 0)
        assert len(await fetched(lease, 1)) == 1
        await delete_topic(bus, "table")
        await bus.create([bare("table", compacted=True)])

        async def told() -> bool:
            try:
                await lease.fetch(max_records=9, max_bytes=2**20, wait_s=0.1)
            except Corrupt as e:
                return "made anew" in str(e)
            return False

        await eventually(told)
        with pytest.raises(Corrupt, match="made anew"):
            await table.caught_up()


async def test_committed_offsets_that_expired_change_nothing_because_progress_lies_with_the_state(
    bus: Kafka, caplog: pytest.LogCaptureFixture
) -> None:
    await bus.publish(entries(3))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        await lease.land(landing(lease, done=2))
    await delete_group(bus, "svc")
    assert await bus.progress("svc") == {}
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        assert lease.progress == {"in": 2}
        assert [s.value for s in await fetched(lease, 1)] == [b"2"]
    assert "offsets.retention.minutes" in caplog.text


async def test_a_state_topic_that_is_gone_is_corrupt_and_never_an_empty_state(bus: Kafka) -> None:
    await bus.publish(entries(3))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        await lease.land(landing(lease, done=2, a=b"1"))
    await delete_topic(bus, state_topic("svc").name)
    async with working(bus) as member:
        with pytest.raises(Corrupt, match="state topic holds nothing"):
            await leases(member, 1)


async def test_an_output_topic_that_is_missing_is_named_and_nothing_lands(bus: Kafka) -> None:
    await bus.publish(entries(1))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        with pytest.raises(Unreachable, match="topics create"):
            await lease.land(landing(lease, entries(1, topic="nowhere"), done=1))
        await lease.land(landing(lease, done=1))
        assert lease.serial == 1


async def test_a_cancelled_landing_is_looked_for_before_another(bus: Kafka) -> None:
    await bus.publish(entries(4))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        for i in range(4):
            wanted = landing(lease, entries(1, topic="out", start=i), done=i + 1)
            under_way = asyncio.ensure_future(lease.land(wanted))
            await asyncio.sleep(0.004 * i)
            under_way.cancel()
            if (await asyncio.gather(under_way, return_exceptions=True))[0] is not None:
                with pytest.raises(UnseenEnd):
                    await lease.land(wanted)
                await lease.renew()
                if lease.serial < wanted.serial:
                    await lease.land(wanted)
            assert (lease.serial, lease.progress) == (i + 1, {"in": i + 1})
        await eventually(lambda: _holds(bus, "out", [b"0", b"1", b"2", b"3"]))


async def test_a_landing_out_of_order_is_a_mistake_and_is_said_to_be_one(bus: Kafka) -> None:
    await bus.publish(entries(1))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        with pytest.raises(ValueError, match="serial 2"):
            await lease.land(Landing(2))


def test_the_two_accounts_of_progress_are_compared_only_for_what_is_read(caplog: pytest.LogCaptureFixture) -> None:
    last = Last(3, {"in": 5, "no longer read": 7})
    compare("svc[0]", last, {"in": 5}, ["in", "never landed"])
    assert caplog.text == ""
    compare("svc[0]", last, {"in": 4}, ["in"])
    assert "landed up to 5, but the group's committed offset is 4" in caplog.text
    with pytest.raises(Corrupt):
        compare("svc[0]", Last(), {"in": 1}, ["in"])


async def test_who_leaves_while_a_lease_is_taken_leaves_no_connection_open(bus: Kafka) -> None:
    await bus.publish(entries(1))
    for taken_s in (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08):
        async with bus.join("svc", ["in"], weights=lambda: [1] * bus.partitions) as member:
            await asyncio.sleep(taken_s)
            await member.leave()
    await bus.close()
    producers = [found for found in gc.get_objects() if isinstance(found, AIOKafkaProducer)]
    assert not [conn for producer in producers for conn in producer.client._conns.values() if conn.connected()]
