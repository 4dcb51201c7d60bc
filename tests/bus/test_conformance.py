"""What `bus/contract.py` says of topics, records and tables, on every bus. Leases: `test_conformance_leases.py`."""

from __future__ import annotations

import asyncio

import pytest

from streamproc.bus.contract import Bus, Table
from streamproc.errors import Expired, Misconfigured, StreamprocError, TooLarge
from streamproc.topics import key_of
from streamproc.wire import Entry, Stored
from tests.bus.at_work import (
    LIMIT,
    MANY,
    PARTITIONS,
    PATIENCE_S,
    TOPICS,
    bare,
    entry,
    eventually,
    everything,
    numbered,
    values,
)
from tests.bus.worlds import World


async def opened(world: World) -> Bus:
    bus = await world.open()
    await bus.create(TOPICS)
    return bus


# topics -------------------------------------------------------------------------------------------------------------


async def test_topics_that_were_created_are_there_with_the_number_of_partitions_of_all(bus_world: World) -> None:
    bus = await opened(bus_world)
    assert bus.partitions == PARTITIONS
    there = await bus.topics()
    assert {t.name: PARTITIONS for t in TOPICS}.items() <= there.items()
    assert await (await bus_world.open()).topics() == there


async def test_creating_topics_again_changes_nothing_in_them(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.publish(numbered("in", 3))
    await bus.create(TOPICS)
    await bus.create([*TOPICS, bare("one-more")])
    assert await values(bus, "in") == [b"0", b"1", b"2"]
    assert "one-more" in await bus.topics()


async def test_two_processes_may_create_the_same_topics_at_once(bus_world: World) -> None:
    one, other = await bus_world.open(), await bus_world.open()
    await asyncio.gather(one.create(TOPICS), other.create(TOPICS))
    await one.publish(numbered("in", 1))
    assert await values(other, "in") == [b"0"]


async def test_a_topic_that_is_there_with_another_number_of_partitions_is_refused(bus_world: World) -> None:
    await opened(bus_world)
    with pytest.raises(Misconfigured):
        await (await bus_world.open(partitions=PARTITIONS * 2)).create(TOPICS)


async def test_a_topic_that_is_not_there_is_an_error_that_names_it(bus_world: World) -> None:
    bus = await opened(bus_world)
    with pytest.raises(StreamprocError, match="no-such-topic"):
        await bus.publish(numbered("no-such-topic", 1))
    with pytest.raises(StreamprocError, match="no-such-topic"):
        await bus.read("no-such-topic", 0, 0, max_records=1, max_bytes=1)


async def test_deployments_on_one_bus_see_nothing_of_each_other(bus_world: World) -> None:
    bus, other = await opened(bus_world), await bus_world.open(deployment="other.")
    await other.create([bare("in"), bare("theirs")])
    await bus.publish(numbered("in", 2))
    assert await values(other, "in") == []
    assert set(await other.topics()) == {"in", "theirs"}


# records ------------------------------------------------------------------------------------------------------------

BYTES = bytes(range(256))
ODD = [
    Entry("in", 0, b"k", b"v"),
    Entry("in", 0, b"", b""),
    Entry("in", 0, b"no headers", b"", ()),
    Entry("in", 0, BYTES, BYTES, (("every-byte", BYTES), ("empty", b""))),
    Entry("in", 0, b"twice", b"v", (("same", b"1"), ("same", b"2"), ("other", b"3"), ("same", b"1"))),
    Entry("in", 0, key_of("матч/1 \U0001f3c6", "0", "é", ""), "déjà vu \U0001f3a5".encode(), (("naïve", b"x"),)),
    Entry("in", 0, b"\0", b"\0"),
    Entry("in", 0, b"\0\0a\0", b"\0\0"),
]


def as_published(found: list[Stored]) -> list[Entry]:
    return [Entry(s.topic, s.partition, s.key, s.value, s.headers) for s in found]


async def test_records_are_read_as_they_were_published_byte_for_byte_in_order(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.publish(ODD)
    for entry_ in ODD:
        await bus.publish([entry_])
    reader = await bus_world.open()
    assert as_published(await everything(reader, "in")) == ODD * 2


async def test_large_values_and_many_small_ones_come_whole(bus_world: World) -> None:
    bus = await opened(bus_world)
    large = [entry("in", bytes([i]) * (LIMIT - 200)) for i in range(6)]
    small = numbered("in", 3000)
    await bus.publish(large[:3])
    await bus.publish(small)
    await bus.publish(large[3:])
    assert as_published(await everything(bus, "in")) == [*large[:3], *small, *large[3:]]


async def test_partitions_and_topics_are_apart(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.publish(
        [entry(topic, f"{topic}{p}".encode(), partition=p) for topic in ("in", "out") for p in range(PARTITIONS)]
    )
    for topic in ("in", "out"):
        for p in range(PARTITIONS):
            assert await values(bus, topic, p) == [f"{topic}{p}".encode()]


async def test_offsets_only_grow_and_lie_within_the_span(bus_world: World) -> None:
    bus = await opened(bus_world)
    empty = await bus.span("in", 0)
    assert empty.begin == empty.end
    offsets: list[int] = []
    for _ in range(3):
        before = await bus.span("in", 0)
        await bus.publish(numbered("in", 3))
        span = await bus.span("in", 0)
        found = [s.offset for s in await bus.read("in", 0, before.end, max_records=9, max_bytes=MANY)]
        assert len(found) == 3
        assert span.begin == empty.begin
        assert before.end <= found[0] < found[1] < found[2] < span.end
        offsets += found
    assert [s.offset for s in await everything(bus, "in")] == offsets


async def test_all_of_a_publish_is_there_or_none(bus_world: World) -> None:
    bus = await opened(bus_world)
    too_large = entry("in2", b"x" * (2 * LIMIT), partition=1)
    for refused in ([*numbered("in", 3), too_large], [too_large, *numbered("in", 3)]):
        with pytest.raises(TooLarge):
            await bus.publish(refused)
    await bus.publish(numbered("in", 1, start=7))
    assert await values(bus, "in") == [b"7"]
    assert await values(bus, "in2", 1) == []


async def test_publishing_nothing_is_no_mistake(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.publish([])
    span = await bus.span("in", 0)
    assert span.begin == span.end


async def test_what_two_processes_publish_at_once_is_all_there_in_the_order_of_each(bus_world: World) -> None:
    buses = [await opened(bus_world), await bus_world.open()]

    async def publish(bus: Bus, who: int) -> None:
        for i in range(20):
            await bus.publish([entry("in", b"%d" % i, key=b"%d" % who)])

    await asyncio.gather(*(publish(bus, who) for who, bus in enumerate(buses)))
    found = await everything(buses[0], "in")
    for who in range(2):
        assert [s.value for s in found if s.key == b"%d" % who] == [b"%d" % i for i in range(20)]


async def test_a_read_keeps_to_its_bounds_and_gives_one_record_at_least(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.publish([entry("in", b"x" * 1000) for _ in range(10)])
    (first, *_) = await everything(bus, "in")

    async def count(max_records: int, max_bytes: int) -> int:
        return len(await bus.read("in", 0, first.offset, max_records=max_records, max_bytes=max_bytes))

    assert await count(3, MANY) == 3
    assert await count(1, 1) == 1
    assert await count(10, 1) == 1
    assert 1 <= await count(10, 3500) <= 3
    assert await count(10, MANY) == 10
    assert await values(bus, "in") == [b"x" * 1000] * 10


async def test_reading_in_steps_of_any_size_gives_every_record_once(bus_world: World) -> None:
    bus = await opened(bus_world)
    for i in range(0, 40, 8):
        await bus.publish(numbered("in", 8, start=i))
    for step in (1, 3, 7, 100):
        assert [s.value for s in await everything(bus, "in", at_once=step)] == [b"%d" % i for i in range(40)]


async def test_a_read_may_begin_at_an_offset_without_a_record(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.publish(numbered("in", 2))
    await bus.publish(numbered("in", 2, start=2))
    found = await everything(bus, "in")
    for offset in range(found[0].offset, found[-1].offset + 1):
        some = await bus.read("in", 0, offset, max_records=9, max_bytes=MANY)
        assert some == [s for s in found if s.offset >= offset]


async def test_reading_at_the_end_gives_nothing_and_does_not_wait(bus_world: World) -> None:
    bus = await opened(bus_world)
    for _ in range(2):
        end = (await bus.span("in", 0)).end
        async with asyncio.timeout(PATIENCE_S):
            assert await bus.read("in", 0, end, max_records=9, max_bytes=MANY) == []
        await bus.publish(numbered("in", 2))


async def test_offset_at_is_the_first_record_landed_at_or_after_a_time(bus_world: World) -> None:
    bus = await opened(bus_world)
    assert await bus.offset_at("in", 0, 0) == (await bus.span("in", 0)).end
    for i in range(4):
        await bus.publish(numbered("in", 2, start=2 * i))
        await asyncio.sleep(0.005)  # a clock of milliseconds should have moved; the test holds if it has not
    found = await everything(bus, "in")
    assert [s.time_ms for s in found] == sorted(s.time_ms for s in found)
    times = [0, *(s.time_ms for s in found), found[-1].time_ms + 1]
    for time_ms in times:  # what is asked for is where to read on; a number without a record is as good as the next
        offset = await bus.offset_at("in", 0, time_ms)
        assert await bus.read("in", 0, offset, max_records=99, max_bytes=MANY) == [
            s for s in found if s.time_ms >= time_ms
        ]


async def test_reading_what_has_expired_says_from_where_on_there_is_something(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.publish(numbered("in", 5))
    was = await bus.span("in", 0)
    await bus_world.expire(bus, "in", 0)
    await bus.publish(numbered("in", 2, start=5))
    span = await bus.span("in", 0)
    assert was.begin < span.begin < span.end
    with pytest.raises(Expired) as caught:
        await bus.read("in", 0, was.begin, max_records=9, max_bytes=MANY)
    expired = caught.value
    assert (expired.topic, expired.partition, expired.wanted) == ("in", 0, was.begin)
    assert expired.begin == span.begin
    assert await values(bus, "in") == [b"5", b"6"]


async def test_trimming_takes_nothing_that_is_young(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.publish([*numbered("in", 5), entry("table", b"1"), entry("table", b"2"), entry("table", b"3", key=b"l")])
    await bus.trim()
    assert await values(bus, "in") == [b"0", b"1", b"2", b"3", b"4"]
    table = await bus.follow("table", 0)
    assert [s.value for s in table.under(b"")] == [b"2", b"3"]


async def test_what_was_published_is_still_there_when_all_have_closed(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.publish([*numbered("in", 3), entry("table", b"1")])
    await bus.close()
    again = await bus_world.open()
    assert await values(again, "in") == [b"0", b"1", b"2"]
    assert [s.value for s in (await again.follow("table", 0)).under(b"")] == [b"1"]


async def test_closing_twice_is_no_mistake(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.close()
    await bus.close()


# tables -------------------------------------------------------------------------------------------------------------


def held(table: Table, prefix: bytes = b"") -> dict[bytes, bytes | None]:
    return {s.key: s.value for s in table.under(prefix)}


async def test_a_table_is_caught_up_when_it_is_first_followed(bus_world: World) -> None:
    bus = await opened(bus_world)
    await bus.publish([entry("table", b"%d" % i, key=b"%d" % (i % 7)) for i in range(500)])
    table = await (await bus_world.open()).follow("table", 0)
    assert held(table) == {b"%d" % (i % 7): b"%d" % i for i in range(493, 500)}


async def test_a_table_that_is_empty_can_be_followed(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with asyncio.timeout(PATIENCE_S):
        table = await bus.follow("table", 3)
        await table.caught_up()
    assert held(table) == {}
    assert table.get(b"k") is None


async def test_once_caught_up_a_table_has_what_other_processes_had_published(bus_world: World) -> None:
    bus, other = await opened(bus_world), await bus_world.open()
    table = await bus.follow("table", 0)
    for i in range(5):
        await other.publish([entry("table", b"%d" % i)])
        await table.caught_up()
        newest = table.get(b"k")
        assert newest is not None
        assert newest.value == b"%d" % i
        assert newest == (await everything(bus, "table"))[-1]


async def test_under_a_prefix_are_its_keys_in_order(bus_world: World) -> None:
    bus = await opened(bus_world)
    keys = [key_of("m10"), key_of("m1", "b"), key_of("m1", "a"), key_of("m1"), key_of("m1/2", "a"), b"", b"\xff\xff"]
    await bus.publish([entry("table", b"v", key=key) for key in keys])
    table = await bus.follow("table", 0)
    assert list(held(table)) == sorted(keys)
    assert list(held(table, key_of("m1", ""))) == [key_of("m1", "a"), key_of("m1", "b")]
    assert list(held(table, b"\xff")) == [b"\xff\xff"]
    assert list(held(table, b"n")) == []


async def test_a_key_that_is_deleted_is_gone_and_can_come_again(bus_world: World) -> None:
    bus = await opened(bus_world)
    table = await bus.follow("table", 0)
    await bus.publish([entry("table", b"1", key=b"a"), entry("table", b"1", key=b"b"), entry("table", b"", key=b"c")])
    await bus.publish([entry("table", None, key=b"a"), entry("table", None, key=b"never there")])
    await table.caught_up()
    assert held(table) == {b"b": b"1", b"c": b""}
    assert table.get(b"a") is None
    await bus.publish([entry("table", b"2", key=b"a")])
    await table.caught_up()
    assert held(table) == {b"a": b"2", b"b": b"1", b"c": b""}
    assert held(await (await bus_world.open()).follow("table", 0)) == held(table)


async def test_every_change_of_a_table_is_heard_in_order_until_it_is_stopped(bus_world: World) -> None:
    bus, other = await opened(bus_world), await bus_world.open()
    await bus.publish([entry("table", b"before")])
    table = await bus.follow("table", 0)
    heard: list[Stored] = []
    too: list[bytes | None] = []
    stop = table.on_change(heard.append)
    table.on_change(lambda stored: too.append(stored.value))
    said = [b"1", b"2", None, b"", b"4"]
    for value in said:
        await other.publish([entry("table", value)])
    await eventually(lambda: _so_many(heard, 5))
    assert [s.value for s in heard] == said
    assert heard == (await everything(bus, "table"))[-5:]
    stop()
    stop()
    await other.publish([entry("table", b"5")])
    await eventually(lambda: _so_many(too, 6))
    assert too == [*said, b"5"]
    assert len(heard) == 5


async def _so_many(heard: list[Stored] | list[bytes | None], count: int) -> bool:
    return len(heard) >= count


async def test_what_a_listener_hears_of_it_finds_in_the_table(bus_world: World) -> None:
    bus = await opened(bus_world)
    table = await bus.follow("table", 0)
    found: list[bool] = []
    table.on_change(lambda stored: found.append(table.get(stored.key) == (stored if stored.value else None)))
    await bus.publish([entry("table", b"1"), entry("table", b"2"), entry("table", None)])
    await table.caught_up()
    assert found == [True, True, True]


async def test_a_table_is_followed_once_a_process(bus_world: World) -> None:
    bus = await opened(bus_world)
    first, second = await asyncio.gather(bus.follow("table", 0), bus.follow("table", 0))
    assert first is second is await bus.follow("table", 0)
    assert first is not await bus.follow("table", 1)


async def test_tables_of_many_partitions_keep_up_with_each_other(bus_world: World) -> None:
    bus = await opened(bus_world)
    tables = await asyncio.gather(*(bus.follow("table", p) for p in range(PARTITIONS)))
    for i in range(3):
        await bus.publish([entry("table", b"%d" % i, partition=p, key=b"%d" % p) for p in range(PARTITIONS)])
    await asyncio.gather(*(table.caught_up() for table in tables))
    for p, table in enumerate(tables):
        assert held(table) == {b"%d" % p: b"2"}


async def test_compaction_takes_only_what_is_not_the_newest(bus_world: World) -> None:
    bus, other = await opened(bus_world), await bus_world.open()
    await bus.publish([entry("table", b"%d" % i, key=b"%d" % (i % 3)) for i in range(30)])
    await bus.publish([entry("table", None, key=b"0")])
    table = await bus.follow("table", 0)
    await bus.trim()
    await bus.publish([entry("table", b"30", key=b"1")])
    await table.caught_up()
    wanted = {b"1": b"30", b"2": b"29"}
    assert held(table) == wanted
    assert held(await other.follow("table", 0)) == wanted
    found = await everything(other, "table")
    assert [s.offset for s in found] == sorted({s.offset for s in found})
    assert {key: value for key, value in {s.key: s.value for s in found}.items() if value} == wanted
