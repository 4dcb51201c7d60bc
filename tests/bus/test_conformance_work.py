"""What `bus/contract.py` says of work under a lease, on every bus: what it reads, what lands and what does not."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from streamproc.bus.contract import Landing, Lease
from streamproc.errors import Expired, StreamprocError, TooLarge
from streamproc.topics import key_of
from streamproc.wire import Stored
from tests.bus.at_work import (
    ALL,
    LIMIT,
    MANY,
    PARTITIONS,
    PATIENCE_S,
    TOPICS,
    entry,
    fetched,
    has_done,
    joined,
    land_all,
    landing,
    numbered,
    opened,
    shows,
    values,
)
from tests.bus.worlds import World

# fetching -----------------------------------------------------------------------------------------------------------


async def test_fetching_begins_at_the_beginning_and_goes_on_behind_the_fetch_before(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        lease = await member.of(0)
        assert [s.value for s in await fetched(lease, 2)] == [b"0", b"1"]
        assert [s.value for s in await fetched(lease, 1)] == [b"2"]
        assert await lease.fetch(max_records=9, max_bytes=MANY, wait_s=0.01) == []
        await bus.publish([*numbered("in", 2, start=3), *numbered("in", 2, partition=1, start=3)])
        found = await fetched(lease, 2)
        assert [(s.topic, s.partition, s.value) for s in found] == [("in", 0, b"3"), ("in", 0, b"4")]


async def test_who_takes_over_fetches_from_the_progress_that_has_landed(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as one:
        lease = await one.of(0)
        found = await fetched(lease, 3)
        await lease.land(landing(lease, progress={"in": found[1].offset}))
    async with joined(await bus_world.open()) as other:
        lease = await other.of(0)
        assert dict(lease.progress) == {"in": found[1].offset}
        assert await fetched(lease, 2) == found[1:]


async def test_a_topic_that_nobody_landed_for_is_fetched_from_its_beginning(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.publish(numbered("in2", 2))
    async with joined(bus) as one:
        await land_all(await one.of(0), 3)
    async with joined(bus, "svc", "in", "in2") as other:
        lease = await other.of(0)
        assert lease.progress.keys() == {"in"}
        assert [(s.topic, s.value) for s in await fetched(lease, 2)] == [("in2", b"0"), ("in2", b"1")]
        assert await lease.fetch(max_records=9, max_bytes=MANY, wait_s=0.01) == []


async def test_a_fetch_keeps_to_its_bounds_and_gives_one_record_at_least(bus_world: World) -> None:
    bus = await bus_world.open()
    await bus.create(TOPICS)
    await bus.publish([entry("in", b"%04d" % i * 250) for i in range(20)])
    async with joined(bus) as member:
        lease = await member.of(0)
        found: list[Stored] = []
        while len(found) < 20:
            max_records, max_bytes = random.choice([(1, 1), (9, 1), (3, MANY), (9, 3500)])
            some = await lease.fetch(max_records=max_records, max_bytes=max_bytes, wait_s=PATIENCE_S)
            assert 1 <= len(some) <= max_records
            assert len(some) == 1 or sum(s.size for s in some) <= max_bytes
            found += some
        assert [s.value for s in found] == [b"%04d" % i * 250 for i in range(20)]


async def test_a_record_as_large_as_its_topic_allows_is_fetched(bus_world: World) -> None:
    bus = await bus_world.open()
    await bus.create(TOPICS)
    large = [bytes([i]) * (LIMIT - 200) for i in range(3)]
    await bus.publish([entry("in", value) for value in large])
    async with joined(bus) as member:
        assert [s.value for s in await fetched(await member.of(0), 3, at_once=1)] == large


async def test_a_fetch_that_waits_gets_what_another_process_publishes(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        lease = await member.of(0)
        await fetched(lease, 3)
        waiting = asyncio.create_task(lease.fetch(max_records=9, max_bytes=MANY, wait_s=PATIENCE_S))
        await asyncio.sleep(0)
        await (await bus_world.open()).publish(numbered("in", 1, start=3))
        assert [s.value for s in await waiting] == [b"3"]


async def test_all_topics_have_their_turn_however_much_one_of_them_has(bus_world: World) -> None:
    bus = await bus_world.open()
    await bus.create(TOPICS)
    await bus.publish([*numbered("in", 2000), *numbered("in2", 30), *numbered("out", 30)])
    async with joined(bus, "svc", "in", "in2", "out") as member:
        lease, seen = await member.of(0), Counter[str]()
        for _ in range(20):
            seen.update(s.topic for s in await fetched(lease, 12, at_once=12))
        assert seen["in2"] == seen["out"] == 30
        assert seen["in"] == 20 * 12 - 60


async def test_no_lease_waits_for_another_that_has_more(bus_world: World) -> None:
    bus = await bus_world.open()
    await bus.create(TOPICS)
    for p, count in enumerate((3000, 1000, 1000, 300)):
        await bus.publish(numbered("in", count, partition=p))
    async with joined(bus) as member:
        leases = await member.count(PARTITIONS)
        seen = Counter[int]()
        first_to_end = asyncio.Event()

        async def work(lease: Lease) -> None:
            while not first_to_end.is_set():
                found = await lease.fetch(max_records=20, max_bytes=MANY, wait_s=0.1)
                seen[lease.partition] += len(found)
                if seen[3] >= 300:
                    first_to_end.set()

        await asyncio.gather(*(work(lease) for lease in leases.values()))
        assert all(seen[p] >= 100 for p in ALL), seen


async def test_a_fetch_that_is_cancelled_loses_nothing(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus, "svc", "in", "in2") as member:
        lease = await member.of(0)

        async def publish() -> None:
            for i in range(3, 60):
                await bus.publish([*numbered("in", 1, start=i), *numbered("in2", 1, start=i)])

        publishing = asyncio.create_task(publish())
        found: list[Stored] = []
        patience = 1
        async with asyncio.timeout(PATIENCE_S):
            while len(found) < 60 + 57:
                fetching = asyncio.create_task(lease.fetch(max_records=3, max_bytes=MANY, wait_s=1))
                for _ in range(patience % 40):
                    await asyncio.sleep(0)
                if patience % 3:
                    fetching.cancel()
                patience += 1
                await asyncio.wait([fetching])
                found += [] if fetching.cancelled() else await fetching
        await publishing
        for topic, start in (("in", 0), ("in2", 3)):
            assert [s.value for s in found if s.topic == topic] == [b"%d" % i for i in range(start, 60)]


async def test_what_expired_unread_is_told_once_and_reading_goes_on_behind_it(bus_world: World) -> None:
    bus = await opened(bus_world)
    if bus_world.holds_for_readers:
        pytest.skip("retention waits for those who have not read, so nobody finds a hole")
    async with joined(bus) as one:
        lease = await one.of(0)
        (first,) = await fetched(lease, 1)
        await lease.land(landing(lease, progress={"in": first.offset + 1}))
    await bus_world.expire(bus, "in", 0)
    await bus.publish(numbered("in", 2, start=3))
    async with joined(bus) as other:
        lease = await other.of(0)
        with pytest.raises(Expired) as caught:
            await fetched(lease, 1)
        assert (caught.value.topic, caught.value.partition, caught.value.wanted) == ("in", 0, first.offset + 1)
        assert caught.value.begin == (await bus.span("in", 0)).begin
        assert [s.value for s in await fetched(lease, 2)] == [b"3", b"4"]


async def test_retention_takes_nothing_from_those_who_have_not_read(bus_world: World) -> None:
    if not bus_world.holds_for_readers:
        pytest.skip("a broker's retention knows of no readers")
    bus = await opened(bus_world)
    async with joined(bus) as one:
        lease = await one.of(0)
        (first,) = await fetched(lease, 1)
        await lease.land(landing(lease, progress={"in": first.offset + 1}))
    await bus_world.expire(bus, "in", 0)
    async with joined(bus) as other:
        assert [s.value for s in await fetched(await other.of(0), 2)] == [b"1", b"2"]


async def test_closing_the_bus_ends_a_fetch_that_waits(bus_world: World) -> None:
    await opened(bus_world)
    bus = await bus_world.open()
    async with joined(bus) as member:
        lease = await member.of(0)
        await fetched(lease, 3)
        waiting = asyncio.create_task(lease.fetch(max_records=9, max_bytes=MANY, wait_s=1.0))
        await asyncio.sleep(0)
        await bus.close()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([waiting])
        assert isinstance(waiting.exception(), StreamprocError | None)


# landing ------------------------------------------------------------------------------------------------------------


async def test_outputs_state_and_progress_land_together_whatever_topic_and_partition_they_are_for(
    bus_world: World,
) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        lease = await member.of(1)
        found = await fetched(lease, 3)
        outputs = [entry(topic, b"%d" % p, partition=p) for topic in ("out", "out2") for p in ALL]
        await lease.land(
            landing(lease, outputs, state={"a": b"1", "b": b"2"}, progress={"in": found[-1].offset + 1, "in2": 0})
        )
        assert lease.serial == 1
    for topic in ("out", "out2"):
        for p in ALL:
            await shows(bus, topic, [b"%d" % p], p)
    await has_done(bus, {("in", 1): found[-1].offset + 1, ("in2", 1): 0})
    async with joined(await bus_world.open()) as other:
        lease = await other.of(1)
        assert (lease.serial, dict(lease.state)) == (1, {"a": b"1", "b": b"2"})
        assert lease.progress["in"] == found[-1].offset + 1


async def test_any_part_of_a_landing_can_land_alone(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        lease = await member.of(0)
        for alone in (
            landing(lease, numbered("out", 1)),
            Landing(2, [], {"k": b"v"}, {}),
            Landing(3, [], {}, {"in": 1}),
            Landing(4),
        ):
            await lease.land(alone)
            assert lease.serial == alone.serial
    await shows(bus, "out", [b"0"])
    async with joined(bus) as member:
        lease = await member.of(0)
        assert (lease.serial, dict(lease.state), dict(lease.progress)) == (4, {"k": b"v"}, {"in": 1})


async def test_outputs_keep_their_order_over_many_landings(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        leases = await member.count(PARTITIONS)

        async def land(lease: Lease) -> None:
            for i in range(12):
                await lease.land(landing(lease, numbered("out", 5, partition=lease.partition, start=5 * i)))

        await asyncio.gather(*(land(lease) for lease in leases.values()))
    for p in ALL:
        await shows(bus, "out", [b"%d" % i for i in range(60)], p)


async def test_a_large_landing_lands_whole(bus_world: World) -> None:
    bus = await opened(bus_world)
    outputs = [entry("out", bytes([i]) * (LIMIT - 200)) for i in range(5)] + numbered("out", 2000)
    state = {key_of(f"m{i}", "guard"): b"%d" % i * 100 for i in range(500)}
    async with joined(bus) as member:
        lease = await member.of(0)
        await lease.land(landing(lease, outputs, state={key.decode(): value for key, value in state.items()}))
    await shows(bus, "out", [e.value for e in outputs])
    async with joined(bus) as member:
        assert {k.encode(): v for k, v in (await member.of(0)).state.items()} == state


async def test_readers_see_a_landing_whole_or_not_at_all(bus_world: World) -> None:
    bus, reader = await opened(bus_world), await bus_world.open()
    async with joined(bus) as member:
        lease, over = await member.of(0), asyncio.Event()

        async def land() -> None:
            for i in range(25):
                await lease.land(landing(lease, numbered("out", 4, start=4 * i)))
            over.set()

        landing_ = asyncio.create_task(land())
        seen = 0
        while not over.is_set():
            found = await values(reader, "out")
            assert len(found) % 4 == 0
            assert len(found) >= seen
            seen = len(found)
            await asyncio.sleep(0)
        await landing_
    await shows(reader, "out", [b"%d" % i for i in range(100)])


async def test_a_landing_with_one_record_that_is_refused_lands_not_at_all(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        lease = await member.of(0)
        (first,) = await fetched(lease, 1)
        outputs = [*numbered("out", 2), entry("out2", b"x" * (2 * LIMIT)), *numbered("out", 2)]
        with pytest.raises(TooLarge):
            await lease.land(landing(lease, outputs, state={"k": b"v"}, progress={"in": first.offset + 1}))
        assert lease.serial == 0
        await lease.land(landing(lease, [entry("out", b"small enough")], state={"l": b"v"}))
        await shows(bus, "out", [b"small enough"])
        assert await values(bus, "out2") == []
        assert ("in", 0) not in await bus.progress("svc")
    async with joined(bus) as member:
        lease = await member.of(0)
        assert (lease.serial, dict(lease.state), dict(lease.progress)) == (1, {"l": b"v"}, {})


async def test_dead_letters_land_without_their_topic_having_been_created(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        lease = await member.of(0)
        await lease.land(landing(lease, [entry("in.dlq", b"bad")]))
    await shows(bus, "in.dlq", [b"bad"])


async def test_state_is_changed_key_by_key_and_a_value_of_none_deletes(bus_world: World) -> None:
    bus = await opened(bus_world)
    key = "матч/1 \U0001f3c6\0guard\0"
    async with joined(bus) as member:
        lease = await member.of(0)
        await lease.land(landing(lease, state={key: b"1", "b": bytes(range(256)), "empty": b"", "d": b"1"}))
        await lease.land(landing(lease, state={key: b"2", "d": None, "never there": None}))
    async with joined(bus) as member:
        lease = await member.of(0)
        assert dict(lease.state) == {key: b"2", "b": bytes(range(256)), "empty": b""}
        await lease.land(landing(lease, state={key: None, "d": b"again"}))
    async with joined(bus) as member:
        lease = await member.of(0)
        assert dict(lease.state) == {"b": bytes(range(256)), "empty": b"", "d": b"again"}


async def test_letting_go_of_the_state_frees_it_and_changes_nothing_that_has_landed(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        lease = await member.of(0)
        await lease.land(landing(lease, state={"a": b"1"}))
    async with joined(bus) as member:
        lease = await member.of(0)
        lease.forget_state()
        assert not lease.state
        await lease.land(landing(lease, state={"b": b"2"}))
    async with joined(bus) as member:
        assert dict((await member.of(0)).state) == {"a": b"1", "b": b"2"}


async def test_everything_that_landed_is_there_when_all_have_closed_and_one_opens_again(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        lease = await member.of(0)
        found = await fetched(lease, 3)
        for i, stored in enumerate(found):
            await lease.land(
                landing(lease, numbered("out", 1, start=i), state={"n": b"%d" % i}, progress={"in": stored.offset + 1})
            )
    await bus.close()
    bus = await bus_world.open()
    await shows(bus, "out", [b"0", b"1", b"2"])
    await has_done(bus, {("in", 0): found[-1].offset + 1})
    async with joined(bus) as member:
        lease = await member.of(0)
        assert (lease.serial, dict(lease.state)) == (3, {"n": b"2"})


async def test_progress_tells_only_of_what_somebody_landed_for(bus_world: World) -> None:
    bus = await opened(bus_world)
    assert await bus.progress("svc") == {}
    async with joined(bus) as member:
        for p in (0, 2):
            await land_all(await member.of(p), 3)
        done = dict.fromkeys([("in", 0), ("in", 2)], 3)
        await has_done(bus, done)
    await has_done(await bus_world.open(), done)
    assert await bus.progress("another") == {}
