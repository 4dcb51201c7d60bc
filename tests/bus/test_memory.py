"""The conformance suite catches planted mistakes; and the reference bus breaks in the ways it is told to, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from streamproc.bus.contract import Landing
from streamproc.errors import DiskFull, Expired, Fenced, TooLarge, UnseenEnd
from streamproc.topics import Topic
from streamproc.wire import Entry, Stored
from tests.bus import test_conformance as log_checks
from tests.bus import test_conformance_leases as lease_checks
from tests.bus import test_conformance_work as work_checks
from tests.bus.at_work import MANY, TOPICS, Member, entry, fetched, joined, landing, numbered, values
from tests.bus.memory import MemoryBus, MemoryLease, MemoryLog, MemoryTable
from tests.bus.worlds import MemoryWorld, World
from tests.sim import clock

# planted mistakes ---------------------------------------------------------------------------------------------------


class FenceNotChecked(MemoryLease):
    def check(self) -> None:
        pass


class ProgressReadBeforeFencing(MemoryLease):
    """Fences with its first landing only: until then the owner before goes on, from what this one has read already."""

    _fenced = False

    def fence(self) -> None:
        self.epoch = self.ledger.epoch

    async def land(self, landing: Landing) -> None:
        if not self._fenced:
            self._fenced = True
            super().fence()
        await super().land(landing)


class StateLandedOutside(MemoryLease):
    async def land(self, landing: Landing) -> None:
        self.ledger.apply(Landing(self.ledger.serial, [], landing.state, {}))
        await super().land(landing)


class UnawaitedOutputLost(MemoryLease):
    async def land(self, landing: Landing) -> None:
        kept = [e for e in landing.outputs if e.size <= self.log.topic(e.topic).max_bytes]
        await super().land(Landing(landing.serial, kept, landing.state, landing.progress))


class OutputsOneByOne(MemoryLease):
    async def land(self, landing: Landing) -> None:
        for output in landing.outputs:
            self.log.append([output])
            await asyncio.sleep(0.002)
        await super().land(Landing(landing.serial, [], landing.state, landing.progress))


class CancelledFetchLoses(MemoryLease):
    async def fetch(self, *, max_records: int, max_bytes: int, wait_s: float) -> list[Stored]:
        found = await super().fetch(max_records=max_records, max_bytes=max_bytes, wait_s=wait_s)
        await asyncio.sleep(0.001)
        return found


class ReadsTheFirstTopicFirst(MemoryLease):
    def _take(self, max_records: int, max_bytes: int) -> list[Stored]:
        for topic in self._positions:
            log = self.log.log(topic, self.partition)
            if found := log.records[log.at(self._positions[topic]) :][:max_records]:
                self._positions[topic] = found[-1].offset + 1
                return found
        return []


class RenewReadsFromProgressAgain(MemoryLease):
    async def renew(self) -> None:
        await super().renew()
        for topic in self._positions:
            self._positions[topic] = self.progress.get(topic, 0)


class TakenFromTheLiving(MemoryLease):
    """A wanted lease is not waited for."""

    def want(self) -> bool:
        return False


class WantedForGood(MemoryLease):
    def unwant(self) -> None:
        pass


class DeletesNothing(MemoryLease):
    def apply(self, landing: Landing) -> None:
        kept: dict[str, bytes | None] = {key: value for key, value in landing.state.items() if value is not None}
        super().apply(Landing(landing.serial, landing.outputs, kept, landing.progress))


def leasing(lease: type[MemoryLease]) -> type[MemoryBus]:
    return type(lease.__name__, (MemoryBus,), {"lease_type": lease})


class PublishesWhatItCan(MemoryBus):
    async def publish(self, entries: Sequence[Entry]) -> None:
        for entry_ in entries:
            await super().publish([entry_])


class CreatesAnew(MemoryBus):
    async def create(self, topics: Sequence[Topic]) -> None:
        await super().create(topics)
        for topic in topics:
            self.log.expire(topic.name, 0, before=self.log.span(topic.name, 0).end)


class ReadsTheYoungestWhereTheOldestAreGone(MemoryBus):
    """A silent restart, where Expired is owed."""

    async def read(self, topic: str, partition: int, offset: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        offset = max(offset, self.log.span(topic, partition).begin)
        return await super().read(topic, partition, offset, max_records=max_records, max_bytes=max_bytes)


class TableForgetsDeletions(MemoryTable):
    def hear(self) -> None:
        before = dict(self._newest)
        super().hear()
        for key, stored in before.items():
            self._newest.setdefault(key, stored)
        self._keys = sorted(self._newest)


class TableNeverCatchesUp(MemoryTable):
    async def caught_up(self) -> None:
        await asyncio.sleep(0)


def following(table: type[MemoryTable]) -> type[MemoryBus]:
    return type(table.__name__, (MemoryBus,), {"table_type": table})


Check = Callable[[World], Awaitable[None]]

PLANTED: list[tuple[type[MemoryBus], Check]] = [
    (leasing(FenceNotChecked), lease_checks.test_the_landing_of_an_owner_that_was_is_fenced_and_changes_nothing),
    (leasing(FenceNotChecked), lease_checks.test_nothing_lands_with_a_lease_that_was_given_back),
    (
        leasing(ProgressReadBeforeFencing),
        lease_checks.test_what_was_landed_before_a_takeover_is_what_the_new_owner_begins_with,
    ),
    (leasing(StateLandedOutside), lease_checks.test_the_landing_of_an_owner_that_was_is_fenced_and_changes_nothing),
    (leasing(StateLandedOutside), work_checks.test_a_landing_with_one_record_that_is_refused_lands_not_at_all),
    (leasing(UnawaitedOutputLost), work_checks.test_a_landing_with_one_record_that_is_refused_lands_not_at_all),
    (leasing(OutputsOneByOne), work_checks.test_readers_see_a_landing_whole_or_not_at_all),
    (leasing(CancelledFetchLoses), work_checks.test_a_fetch_that_is_cancelled_loses_nothing),
    (leasing(ReadsTheFirstTopicFirst), work_checks.test_all_topics_have_their_turn_however_much_one_of_them_has),
    (leasing(RenewReadsFromProgressAgain), lease_checks.test_renewing_does_not_move_what_is_fetched_next),
    (
        leasing(TakenFromTheLiving),
        lease_checks.test_what_another_should_have_is_wanted_and_stays_with_its_owner_until_that_one_releases_it,
    ),
    (
        leasing(WantedForGood),
        lease_checks.test_nothing_is_wanted_any_more_when_the_one_who_should_have_it_is_gone,
    ),
    (leasing(DeletesNothing), work_checks.test_state_is_changed_key_by_key_and_a_value_of_none_deletes),
    (PublishesWhatItCan, log_checks.test_all_of_a_publish_is_there_or_none),
    (CreatesAnew, log_checks.test_creating_topics_again_changes_nothing_in_them),
    (
        ReadsTheYoungestWhereTheOldestAreGone,
        log_checks.test_reading_what_has_expired_says_from_where_on_there_is_something,
    ),
    (following(TableForgetsDeletions), log_checks.test_a_key_that_is_deleted_is_gone_and_can_come_again),
    (following(TableNeverCatchesUp), log_checks.test_once_caught_up_a_table_has_what_other_processes_had_published),
]


@pytest.mark.parametrize(("broken", "check"), PLANTED, ids=[f"{b.__name__}-{c.__name__}" for b, c in PLANTED])
async def test_the_suite_catches(broken: type[MemoryBus], check: Check) -> None:
    whole, planted = MemoryWorld(), MemoryWorld(broken)
    await check(whole)
    with pytest.raises((AssertionError, TimeoutError, pytest.fail.Exception)):
        async with asyncio.timeout(2):  # what is lost never comes: not worth a test's whole patience
            await check(planted)
    for world in (whole, planted):
        await world.close()


# ways to break ------------------------------------------------------------------------------------------------------


def virtual(test: Callable[[MemoryLog], Awaitable[None]]) -> Callable[[], None]:
    """A test in virtual time, with a log of its own."""

    def run() -> None:
        async def main() -> None:
            await test(MemoryLog(partitions=4, rng=random.Random(1)))

        clock.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def opened(log: MemoryLog) -> MemoryBus:
    bus = MemoryBus(log)
    await bus.create(TOPICS)
    await bus.publish([e for p in range(4) for e in numbered("in", 3, partition=p)])
    return bus


async def after(seconds: float) -> None:
    """Of virtual time: nothing is waited for here, time is what is tested."""
    await asyncio.sleep(seconds)


@virtual
async def test_a_process_asleep_for_longer_than_the_session_wakes_up_fenced(log: MemoryLog) -> None:
    bus, other_bus = await opened(log), MemoryBus(log)
    async with joined(bus) as one, joined(other_bus) as other:
        await after(1)
        old = next(iter(one.leases.values()))
        log.stop(bus)
        stale = asyncio.create_task(old.land(landing(old, numbered("out", 1))))
        assert not old.fresh()
        await after(log.session_s / 2)
        assert len(other.leases) == 2
        await after(log.session_s)
        assert len(other.leases) == 4
        assert not stale.done()
        log.resume(bus)
        assert not old.fresh()
        with pytest.raises(Fenced):
            await stale
        await after(log.heartbeat_s + log.notice_s[1])
        assert old.lost.is_set()
        assert await values(other_bus, "out") == []


@virtual
async def test_a_short_sleep_costs_no_lease(log: MemoryLog) -> None:
    bus = await opened(log)
    async with joined(bus) as one, joined(MemoryBus(log)):
        await after(1)
        before = one.leases
        log.stop(bus)
        landing_ = asyncio.create_task(before[min(before)].land(Landing(1)))
        await after(log.session_s - 1)
        assert not landing_.done()
        log.resume(bus)
        await landing_
        assert one.leases == before
        assert all(lease.fresh() for lease in before.values())


@virtual
async def test_nothing_comes_back_to_a_process_that_is_dead_and_others_take_what_it_held(log: MemoryLog) -> None:
    bus, other_bus = await opened(log), MemoryBus(log)
    async with joined(bus) as one, joined(other_bus) as other:
        await after(1)
        waiting = asyncio.create_task(one.leases[min(one.leases)].fetch(max_records=1, max_bytes=1, wait_s=1))
        log.kill(bus)
        await after(2 * log.session_s)
        assert not waiting.done()
        assert len(other.leases) == 4
        assert list((await other_bus.members("svc")).values()) == [[0, 1, 2, 3]]
        waiting.cancel()


@virtual
async def test_an_end_that_nobody_saw_is_whole_or_not_there_once_the_lease_is_renewed(log: MemoryLog) -> None:
    bus = await opened(log)
    log.unseen = 1.0
    happened = set()
    async with joined(bus) as member:
        await after(1)
        lease, wanted = member.leases[0], 0
        for i in range(40):
            with pytest.raises(UnseenEnd):
                await lease.land(landing(lease, [entry("out", b"%d" % i)], state={"n": b"%d" % i}))
            await after(log.rng.choice((0.0, 0.2, 1.0)))
            serial = lease.serial
            await lease.renew()
            whole = lease.serial == serial + 1
            happened.add(whole)
            wanted += whole
            found = await values(bus, "out")
            assert len(found) == wanted
            assert (b"%d" % i in found) == (lease.state.get("n") == b"%d" % i) == whole
    await after(5)
    assert len(await values(bus, "out")) == wanted, "what was still under way was fenced by the renewal"
    assert happened == {True, False}


@virtual
async def test_a_torn_landing_leaves_its_outputs_and_takes_the_lease(log: MemoryLog) -> None:
    bus = await opened(log)
    log.torn = 1.0
    async with joined(bus) as member:
        await after(1)
        lease = member.leases[0]
        with pytest.raises(Fenced):
            await lease.land(landing(lease, numbered("out", 2), state={"k": b"v"}, progress={"in": 2}))
        await after(1)
        again = member.leases[0]
        assert again is not lease
        assert (again.serial, dict(again.state), dict(again.progress)) == (0, {}, {})
        assert await values(bus, "out") == [b"0", b"1"]


@virtual
async def test_on_a_full_disk_nothing_lands_until_there_is_room(log: MemoryLog) -> None:
    bus = await opened(log)
    async with joined(bus) as member:
        await after(1)
        lease = member.leases[0]
        log.disk_full = True
        with pytest.raises(DiskFull):
            await lease.land(landing(lease, numbered("out", 1), state={"k": b"v"}))
        with pytest.raises(DiskFull):
            await bus.publish(numbered("in", 1))
        log.disk_full = False
        assert await values(bus, "out") == []
        await lease.land(landing(lease, numbered("out", 1)))
        assert lease.serial == 1


@virtual
async def test_a_late_table_hears_of_everything_in_order_and_catches_up_when_asked(log: MemoryLog) -> None:
    bus = await opened(log)
    log.table_lag_s = 10.0
    table, heard = await bus.follow("table", 0), list[bytes | None]()
    table.on_change(lambda stored: heard.append(stored.value))
    for i in range(20):
        await bus.publish([entry("table", b"%d" % i)])
    assert len(heard) < 20
    await table.caught_up()
    assert heard == [b"%d" % i for i in range(20)]


@virtual
async def test_what_has_expired_unread_is_a_hole_for_whoever_reads_on(log: MemoryLog) -> None:
    bus = await opened(log)
    async with joined(bus) as member:
        await after(1)
        lease = member.leases[0]
        await fetched(lease, 1)
        log.expire("in", 0, before=2)
        with pytest.raises(Expired, match="offsets 1 to 1 have expired"):
            await lease.fetch(max_records=9, max_bytes=MANY, wait_s=0)
        assert [s.value for s in await fetched(lease, 1)] == [b"2"]


@virtual
async def test_every_landing_is_audited_in_the_moment_it_happens(log: MemoryLog) -> None:
    audited: list[tuple[str, int, Landing]] = []
    log.audit = lambda service, partition, landing: audited.append((service, partition, landing))
    async with joined(await opened(log)) as member:
        await after(1)
        one = landing(member.leases[2], numbered("out", 1))
        await member.leases[2].land(one)
        with pytest.raises(TooLarge):
            await member.leases[3].land(landing(member.leases[3], [entry("out", b"x" * 2**22)]))
    assert audited == [("svc", 2, one)]


@virtual
async def test_a_partition_taken_from_somebody_awake_who_kept_it_for_too_long_is_told(log: MemoryLog) -> None:
    moved: list[tuple[str, int, MemoryBus]] = []
    log.moved = lambda service, partition, bus: moved.append((service, partition, bus))
    bus = await opened(log)
    async with joined(bus, keeps=True, hand_over_s=5) as one:
        await after(1)
        async with joined(MemoryBus(log)) as other:
            await after(4)
            assert sum(lease.wanted.is_set() for lease in one.leases.values()) == 2
            assert not other.leases
            assert moved == []
            await after(3)
            assert sorted(moved) == sorted(("svc", p, bus) for p in other.leases)
            assert not any(lease.fresh() for lease in one.taken if lease.partition in other.leases)


def history(seed: int) -> list[Any]:
    """Everything that happens in one seed, under all weathers at once."""
    seen: list[Any] = []

    async def work(member: Member) -> None:
        while True:
            for lease in list(member.leases.values()):
                found = await lease.fetch(max_records=2, max_bytes=MANY, wait_s=0.1)
                if found:
                    outputs = [entry("out", s.value, partition=lease.partition) for s in found]
                    try:
                        await lease.land(landing(lease, outputs, progress={"in": found[-1].offset + 1}))
                    except (Fenced, UnseenEnd) as e:
                        seen.append((asyncio.get_running_loop().time(), type(e)))
                        lease.lost.set()
            await asyncio.sleep(0.1)

    async def main() -> None:
        log = MemoryLog(partitions=4, rng=random.Random(seed), torn=0.1, unseen=0.1, markers=True)
        log.audit = lambda service, partition, landing: seen.append(
            (asyncio.get_running_loop().time(), service, partition, landing.serial, len(landing.outputs))
        )
        buses = [await opened(log), MemoryBus(log), MemoryBus(log)]
        async with joined(buses[0]) as a, joined(buses[1]) as b:
            tasks = [asyncio.create_task(work(member)) for member in (a, b)]
            await after(3)
            log.stop(buses[0])
            await after(20)
            log.resume(buses[0])
            await buses[2].publish([e for p in range(4) for e in numbered("in", 9, partition=p)])
            await after(20)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    clock.run(main())
    return seen


def test_one_seed_goes_one_way_and_another_another() -> None:
    assert history(1) == history(1)
    assert history(1) != history(2)
