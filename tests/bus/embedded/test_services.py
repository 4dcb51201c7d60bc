"""Members, leases and tables where two things happen at once; what every bus promises of them is in the conformance suite."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from sqlite3 import Connection
from typing import TypeVar

import pytest

from streamproc.bus.contract import Landing, Lease, Membership
from streamproc.bus.embedded import Embedded, roster
from streamproc.bus.embedded.writer import Plain
from streamproc.errors import Fatal, Fenced, Misconfigured, Unreachable, UnseenEnd
from streamproc.wire import Entry
from tests.bus.embedded.conftest import entry, first, leased, topic, until

Open = Callable[..., Awaitable[Embedded]]
T = TypeVar("T")


async def test_many_services_that_join_at_once_are_one_process_and_all_stay_alive(opened: Open) -> None:
    bus = await opened(session_s=0.5)
    await bus.create([topic("in")])
    async with AsyncExitStack() as stack:
        joins = [stack.enter_async_context(bus.join(f"service{n}", ["in"], weights=lambda: [1, 1])) for n in range(8)]
        memberships = await asyncio.gather(*joins)
        leases = await asyncio.gather(*map(first, memberships))
        other = await opened(session_s=0.5)
        for n in range(8):
            members = await other.members(f"service{n}")
            assert len(members) == 1
        processes = await bus.reader.call(lambda db: db.execute("SELECT count(*) FROM process").fetchall())
        assert processes == [(1,)]
        await asyncio.sleep(0.8)  # longer than the session: only heartbeats keep them
        assert all(lease.fresh() for lease in leases)


async def test_partitions_first_watched_while_another_look_is_on_its_way_are_looked_at_too(bus: Embedded) -> None:
    await bus.publish([entry("in", b"x", partition=p) for p in (0, 1)])
    parts = [await bus.part("in", p) for p in (0, 1)]
    bus.heads.watch([parts[0].tp])
    bus.heads.watch([parts[1].tp])
    async with asyncio.timeout(10):
        await bus.heads.beyond({parts[1].tp: 0}, wait_s=60)


async def test_a_zombie_of_a_service_that_was_forgotten_is_not_its_successor(opened: Open, bus: Embedded) -> None:
    async with bus.join("count", ["in"], weights=lambda: [1, 1]) as membership:
        old = await first(membership)
        other = await opened()
        await other.writer.do(_forget("count"))  # as if we had been stopped
        async with leased(other) as new:
            assert new.serial == 0
            with pytest.raises(Fenced):
                await old.land(Landing(1, [entry("out", b"doubled")]))
    assert await bus.span("out", 0) == (0, 0)


async def test_a_member_that_could_not_say_goodbye_stands_in_nobodys_way(opened: Open) -> None:
    bus = await opened(busy_s=0.1, session_s=1.0)
    await bus.create([topic("in")])
    async with AsyncExitStack() as stack:
        await first(await stack.enter_async_context(bus.join("count", ["in"], weights=lambda: [1, 1])))
        with _blocked(bus):
            await stack.aclose()
    async with asyncio.timeout(10), leased(bus) as lease:
        assert lease.fresh()
    assert await bus.members("count") == {}


async def test_a_lease_that_could_not_be_given_back_goes_to_who_should_have_it(opened: Open) -> None:
    one, two = await opened(busy_s=0.1, session_s=1.0), await opened(session_s=1.0)
    await one.create([topic("in")])
    async with asyncio.timeout(20), one.join("count", ["in"], weights=lambda: [1, 1]) as ours:
        held = [lease async for lease in _some(ours, 2)]
        async with two.join("count", ["in"], weights=lambda: [1, 1]) as theirs:
            wanted = await _wanted(held)
            with _blocked(one), pytest.raises(Unreachable):
                await wanted.release()
            assert (await first(theirs)).partition == wanted.partition


async def test_a_table_that_could_not_be_read_once_is_read_again(
    bus: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = await bus.follow("table", 0)
    read, failed = bus.reader.call, asyncio.Event()

    def fails_once(work: Callable[[Connection], T]) -> asyncio.Future[T]:
        if "EmbeddedTable" not in work.__qualname__ or failed.is_set():
            return read(work)
        failed.set()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        future.set_exception(Unreachable("the disk", "it failed to read", remedy="Read again."))
        return future

    monkeypatch.setattr(bus.reader, "call", fails_once)
    heard = asyncio.Event()
    table.on_change(lambda _: heard.set())
    await bus.publish([entry("table", b"x")])
    async with asyncio.timeout(10):
        await failed.wait()
        await heard.wait()
    assert [stored.value for stored in table.under(b"")] == [b"x"]


async def _some(membership: Membership, count: int) -> AsyncIterator[Lease]:
    async for lease in membership.leases():
        yield lease
        count -= 1
        if not count:
            return


async def _wanted(held: list[Lease]) -> Lease:
    waits = {asyncio.create_task(lease.wanted.wait()): lease for lease in held}
    done, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in others:
        wait.cancel()
    return waits[done.pop()]


@contextmanager
def _blocked(bus: Embedded) -> Iterator[None]:
    """The gate, as if a process were stopped in it."""
    fd = os.open(bus.place.gate, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _forget(service: str) -> Plain:
    return Plain(lambda tx: roster.forget(tx.db, service))


async def test_a_landing_whose_caller_was_cancelled_cannot_land_twice(bus: Embedded) -> None:
    async with leased(bus) as lease:
        landing = asyncio.create_task(lease.land(Landing(1, [entry("out", b"once")])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        landing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await landing
        await until(lambda: _landed(bus))
        with pytest.raises(UnseenEnd, match="landing 1 after 1"):
            await lease.land(Landing(1, [entry("out", b"once")]))
        await lease.renew()
        assert lease.serial == 1
        await lease.land(Landing(2, [entry("out", b"twice")]))
    assert await bus.span("out", 0) == (0, 2)


async def _landed(bus: Embedded) -> bool:
    return (await bus.span("out", 0)).end == 1


async def test_landings_that_wait_together_share_a_transaction_and_a_fenced_one_undoes_only_itself(
    opened: Open, bus: Embedded
) -> None:
    async with bus.join("count", ["in"], weights=lambda: [1, 1]) as membership:
        leases: list[Lease] = []
        async for lease in membership.leases():
            leases.append(lease)
            if len(leases) == 2:
                break
        fenced, good = leases
        await bus.writer.do(_bump(fenced.partition))
        before = await _commits(bus)
        results = await asyncio.gather(
            *(lease.land(Landing(1, [entry("out", b"x")], {"k": b"v"})) for lease in (fenced, good)),
            *(bus.publish([entry("in", b"x")]) for _ in range(20)),
            return_exceptions=True,
        )
        assert [type(r) for r in results] == [Fenced] + [type(None)] * 21
        assert await _commits(bus) - before <= 3
        assert await bus.span("out", 0) == (0, 1)
        assert fenced.lost.is_set()


def _bump(partition: int) -> Plain:
    return Plain(lambda tx: tx.db.execute("UPDATE lease SET epoch = epoch + 1 WHERE p = ?", (partition,)) and None)


async def _commits(bus: Embedded) -> int:
    [[commits]] = await bus.reader.call(lambda db: db.execute("SELECT commits FROM bus").fetchall())
    return int(commits)


async def test_whoever_waits_when_the_bus_closes_hears_of_it(opened: Open, bus: Embedded) -> None:
    other = await opened()
    async with other.join("count", ["in"], weights=lambda: [1, 1]) as membership:
        lease = await first(membership)
        waiting = asyncio.create_task(lease.fetch(max_records=1, max_bytes=1, wait_s=60))
        nothing_more = asyncio.create_task(_drain(membership.leases()))
        await asyncio.sleep(0)
        await other.close()
        for task in (waiting, nothing_more):
            with pytest.raises(Fatal, match="closed"):
                await task
        with pytest.raises(Fatal, match="closed"):
            await other.publish([entry("in", b"late")])
        assert lease.lost.is_set()
        assert not lease.fresh()


async def _drain(leases: AsyncIterator[Lease]) -> None:
    async for _ in leases:
        pass


async def test_weights_that_do_not_fit_the_partitions_fail_the_service_loudly(opened: Open, bus: Embedded) -> None:
    other = await opened()
    async with other.join("count", ["in"], weights=lambda: [1]) as membership:
        with pytest.raises(Misconfigured, match="1 weights for 2 partitions"):
            await first(membership)
        await other.close()


async def test_one_topic_with_much_to_read_does_not_keep_another_waiting(bus: Embedded) -> None:
    await bus.publish([entry("in", b"x" * 1000) for _ in range(500)])
    await bus.publish([entry("out", b"y") for _ in range(500)])
    async with leased(bus, topics=["in", "out"]) as lease:
        for bounds in ({"max_records": 10, "max_bytes": 2**20}, {"max_records": 1000, "max_bytes": 4000}):
            seen: Counter[str] = Counter()
            for _ in range(4):
                seen.update(r.topic for r in await lease.fetch(**bounds, wait_s=10))
            assert min(seen["in"], seen["out"]) > 0


async def test_headers_of_a_thousand_records_of_one_landing_come_back_in_order(bus: Embedded) -> None:
    entries = [Entry("in", 0, b"%d" % n, b"", (("n", b"%d" % n),)) for n in range(1000)]
    await bus.publish(entries)
    found = await bus.read("in", 0, 0, max_records=2000, max_bytes=2**20)
    assert [(r.key, r.headers) for r in found] == [(e.key, e.headers) for e in entries]
