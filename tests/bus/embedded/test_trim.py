"""Retention and compaction: what goes, what stays for whom, and that its bytes really go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from streamproc.bus.contract import Landing
from streamproc.bus.embedded import Embedded
from streamproc.bus.embedded.trim import cut
from streamproc.bus.embedded.writer import Plain
from streamproc.errors import Expired, Misconfigured
from tests.bus.embedded.conftest import LARGE, entry, leased, topic

Open = Callable[..., Awaitable[Embedded]]

HOUR_S = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bus(opened: Open, clock: Clock) -> Embedded:
    made = await opened(clock=clock)
    await made.create([topic("in", hours=2), topic("kept", hours=0), topic("table", compacted=True, hours=0)])
    return made


def segments(path: Path) -> int:
    return len(list((path.with_name("bus.db.d") / "segments").iterdir()))


async def test_what_is_older_than_its_topics_hours_goes_and_no_more(bus: Embedded, clock: Clock) -> None:
    for _ in range(5):
        await bus.publish([entry(name, b"x") for name in ("in", "in", "kept")])
        clock.now_s += HOUR_S
    await bus.trim()
    assert await bus.span("in", 0) == (6, 10)
    assert await bus.span("kept", 0) == (0, 5)
    with pytest.raises(Expired) as caught:
        await bus.read("in", 0, 3, max_records=1, max_bytes=1)
    assert (caught.value.wanted, caught.value.begin) == (3, 6)


async def test_nothing_goes_that_a_registered_service_has_not_read_until_it_is_forgotten(
    bus: Embedded, clock: Clock
) -> None:
    for _ in range(10):
        await bus.publish([entry("in", b"x")])
    async with leased(bus) as lease:
        await lease.land(Landing(1, progress={"in": 4}))
        with pytest.raises(Misconfigured, match="is at work"):
            await bus.forget("count")
    clock.now_s += 100 * HOUR_S
    await bus.trim()
    assert await bus.span("in", 0) == (4, 10)
    async with leased(bus) as lease:
        found = await lease.fetch(max_records=100, max_bytes=2**20, wait_s=0)
        assert [r.offset for r in found] == list(range(4, 10))
    await bus.forget("count")
    await bus.trim()
    assert await bus.span("in", 0) == (10, 10)


async def test_a_service_that_never_landed_holds_everything(bus: Embedded, clock: Clock) -> None:
    await bus.publish([entry("in", b"x")])
    async with leased(bus):
        pass
    clock.now_s += 100 * HOUR_S
    await bus.trim()
    assert await bus.span("in", 0) == (0, 1)


async def test_a_lease_whose_progress_has_expired_hears_of_the_hole_once_and_reads_on(
    opened: Open, bus: Embedded, clock: Clock
) -> None:
    await bus.publish([entry("in", b"old")])
    async with leased(bus) as lease:
        await lease.land(Landing(1, progress={"in": 0}))
    # only somebody from outside can make such a hole
    await bus.forget("count")
    async with leased(bus) as lease:
        await lease.land(Landing(1, progress={"in": 0}))
        await bus.publish([entry("in", b"older")])
        await _lose(bus, 2)
        await bus.publish([entry("in", b"new")])
        with pytest.raises(Expired) as caught:
            await lease.fetch(max_records=10, max_bytes=2**20, wait_s=60)
        assert (caught.value.wanted, caught.value.begin) == (0, 2)
        assert [r.value for r in await lease.fetch(max_records=10, max_bytes=2**20, wait_s=60)] == [b"new"]


async def _lose(bus: Embedded, upto: int) -> None:
    part = await bus.part("in", 0)
    await bus.writer.do(Plain(lambda tx: cut(tx, part.tp, upto)))


async def test_beyond_its_bytes_a_bus_lets_the_oldest_go_wherever_they_are(opened: Open, clock: Clock) -> None:
    bus = await opened(clock=clock, retention_bytes=6 * 1001)
    await bus.create([topic("a"), topic("b")])
    for n in range(10):
        await bus.publish([entry("ab"[n % 2], b"x" * 1000)])
        clock.now_s += 1
    await bus.trim()
    assert await bus.span("a", 0) == (2, 5)
    assert await bus.span("b", 0) == (2, 5)


async def test_segments_go_with_the_last_record_that_needs_them(bus: Embedded, clock: Clock, path: Path) -> None:
    await bus.publish([entry("in", b"x" * LARGE, partition=p) for p in (0, 1)])
    await bus.publish([entry("kept", b"x" * LARGE)])
    await bus.trim()  # closes the segment
    await bus.publish([entry("in", b"y" * LARGE)])
    await bus.trim()
    assert segments(path) == 2
    clock.now_s += 3 * HOUR_S
    await bus.trim()
    assert segments(path) == 1
    [record] = await bus.read("kept", 0, 0, max_records=1, max_bytes=1)
    assert record.value == b"x" * LARGE


async def test_nobody_removes_the_segment_that_another_process_writes_to(
    opened: Open, bus: Embedded, path: Path
) -> None:
    await bus.publish([entry("in", b"x" * LARGE)])
    other = await opened()
    part = await bus.part("in", 0)
    await other.writer.do(Plain(lambda tx: tx.db.execute("DELETE FROM segment WHERE tp = ?", (part.tp,))))
    await other.trim()
    assert segments(path) == 1


async def test_compaction_keeps_the_newest_of_every_key_and_offsets_stay(bus: Embedded) -> None:
    for n in range(30):
        await bus.publish([entry("table", b"%d" % n, key=b"k%d" % (n % 3))])
    await bus.trim()
    found = await bus.read("table", 0, 0, max_records=100, max_bytes=2**20)
    assert [(r.offset, r.key, r.value) for r in found] == [
        (27, b"k0", b"27"),
        (28, b"k1", b"28"),
        (29, b"k2", b"29"),
    ]
    assert await bus.span("table", 0) == (0, 30)
    assert [r.offset for r in await bus.read("table", 0, 28, max_records=1, max_bytes=1)] == [28]


async def test_deletions_stay_a_day_and_then_go_with_what_they_deleted(bus: Embedded, clock: Clock) -> None:
    await bus.publish([entry("table", b"1", key=b"a"), entry("table", b"2", key=b"b")])
    await bus.publish([entry("table", None, key=b"a")])
    await bus.trim()
    assert [r.value for r in await bus.read("table", 0, 0, max_records=9, max_bytes=99)] == [b"2", None]
    clock.now_s += 25 * HOUR_S
    await bus.trim()
    assert [r.value for r in await bus.read("table", 0, 0, max_records=9, max_bytes=99)] == [b"2"]
    async with leased(bus, topics=["table"]) as lease:  # what is left empty at the end keeps nobody busy
        assert len(await lease.fetch(max_records=9, max_bytes=99, wait_s=0)) == 1
        assert await lease.fetch(max_records=9, max_bytes=99, wait_s=0) == []


async def test_compaction_leaves_what_a_registered_service_has_not_read(bus: Embedded) -> None:
    async with leased(bus, topics=["table"]) as lease:
        await bus.publish([entry("table", b"%d" % n) for n in range(6)])
        await lease.land(Landing(1, progress={"table": 3}))
    await bus.trim()
    assert [r.offset for r in await bus.read("table", 0, 0, max_records=9, max_bytes=99)] == [3, 4, 5]


async def test_a_table_followed_through_compaction_stays_right(opened: Open, bus: Embedded) -> None:
    early, late = await opened(), await opened()
    before = await early.follow("table", 0)
    for n in range(20):
        await bus.publish([entry("table", b"%d" % n if n != 17 else None, key=b"k%d" % (n % 4))])
        if n % 7 == 0:
            await bus.trim()
    after = await late.follow("table", 0)
    await before.caught_up()
    assert [r.value for r in before.under(b"")] == [r.value for r in after.under(b"")] == [b"16", b"18", b"19"]
