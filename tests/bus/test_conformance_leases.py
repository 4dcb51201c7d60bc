"""What `bus/contract.py` says of leases, on every bus: who has them, how they go from one to another, who is fenced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from streamproc.bus.contract import Landing, Lease
from streamproc.errors import Fenced, Misconfigured, StreamprocError
from tests.bus.at_work import (
    ALL,
    MANY,
    PARTITIONS,
    PATIENCE_S,
    TOPICS,
    Member,
    entry,
    eventually,
    fetched,
    has_done,
    joined,
    land_all,
    landing,
    numbered,
    opened,
    shows,
)
from tests.bus.worlds import World


@asynccontextmanager
async def taken_over(world: World) -> AsyncIterator[tuple[Lease, Lease]]:
    """A lease whose owner does not have it any more, and the one that another process has of the same partition.

    It was wanted, and its owner did not let go of it.
    """
    async with joined(await opened(world), keeps=True, hand_over_s=0) as before:
        await before.count(PARTITIONS)
        async with joined(await world.open()) as after:
            await eventually(lambda: _any(after))
            partition = next(iter(after.leases))
            yield next(lease for lease in before.taken if lease.partition == partition), after.leases[partition]


async def _any(member: Member) -> bool:
    return bool(member.leases)


# whose partition it is ----------------------------------------------------------------------------------------------


async def test_a_member_alone_gets_a_lease_of_every_partition(bus_world: World) -> None:
    async with joined(await opened(bus_world)) as member:
        leases = await member.count(PARTITIONS)
        assert sorted(leases) == list(ALL)
        for lease in leases.values():
            assert (lease.service, lease.serial, dict(lease.state), dict(lease.progress)) == ("svc", 0, {}, {})
            assert lease.fresh()
            assert not lease.lost.is_set()


async def test_a_lease_comes_when_there_may_be_something_to_do(bus_world: World) -> None:
    bus = await bus_world.open()
    await bus.create(TOPICS)
    async with joined(bus) as member:
        await (await bus_world.open()).publish(numbered("in", 2, partition=2))
        lease = await member.of(2)
        assert [s.value for s in await fetched(lease, 2)] == [b"0", b"1"]


async def test_two_members_share_the_partitions_and_no_more_move_than_must(bus_world: World) -> None:
    async with joined(await opened(bus_world)) as one:
        before = await one.count(PARTITIONS)
        async with joined(await bus_world.open()) as other:
            await other.count(PARTITIONS // 2)
            kept = await one.count(PARTITIONS // 2)
            assert sorted([*kept, *other.leases]) == list(ALL)
            for partition, lease in kept.items():
                assert lease is before[partition]
                assert lease.fresh()
                await land_all(lease, 3)
            for lease in other.leases.values():
                await land_all(lease, 3)


async def test_partitions_are_spread_by_what_they_weigh(bus_world: World) -> None:
    def weights() -> list[int]:
        return [30, 10, 10, 10]

    async with joined(await opened(bus_world), weights=weights) as one:
        await one.count(PARTITIONS)
        async with joined(await bus_world.open(), weights=weights) as other:

            async def spread() -> bool:
                return sorted([sorted(one.leases), sorted(other.leases)]) == [[0], [1, 2, 3]]

            await eventually(spread)


async def test_who_owned_a_partition_before_learns_that_it_is_lost(bus_world: World) -> None:
    async with taken_over(bus_world) as (old, _):
        async with asyncio.timeout(PATIENCE_S):
            await old.lost.wait()
        assert not old.fresh()


async def test_a_lease_that_another_has_is_fresh_no_more(bus_world: World) -> None:
    async with taken_over(bus_world) as (old, new):
        assert not old.fresh()
        assert new.fresh()


async def test_who_leaves_takes_no_more_and_keeps_what_it_has_until_it_gives_it_back(bus_world: World) -> None:
    async with joined(await opened(bus_world)) as one:
        leases = await one.count(PARTITIONS)
        await one.membership.leave()
        await one.over()
        async with joined(await bus_world.open()) as other:
            for lease in leases.values():
                await land_all(lease, 3)
            assert other.leases == {}
            await leases[1].release()
            assert (await other.of(1)).serial == 1
            await leases[0].land(landing(leases[0]))
            for p in (0, 2, 3):
                await leases[p].release()
            assert sorted(await other.count(PARTITIONS)) == list(ALL)


async def test_leaving_the_service_gives_everything_back(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(await bus_world.open()) as one:
        for lease in (await one.count(PARTITIONS)).values():
            await land_all(lease, 3)
    async with joined(bus) as other:
        for lease in (await other.count(PARTITIONS)).values():
            assert lease.serial == 1


async def test_closing_the_bus_gives_everything_back(bus_world: World) -> None:
    bus = await opened(bus_world)
    closing = await bus_world.open()
    async with joined(closing) as one:
        old = (await one.count(PARTITIONS))[0]
        await closing.close()
        async with joined(bus) as other:
            assert sorted(await other.count(PARTITIONS)) == list(ALL)
            with pytest.raises(StreamprocError):
                await old.land(landing(old))


async def test_what_a_process_held_that_died_without_a_word_is_taken_over(bus_world: World) -> None:
    bus = await opened(bus_world)
    dying = await bus_world.dying("svc", leases=PARTITIONS)
    async with joined(bus) as other:
        await dying.die()
        for lease in (await other.count(PARTITIONS)).values():
            assert lease.serial == 1
            assert dict(lease.state) == {"who": b"the dead"}
            assert lease.progress.keys() == {"in"}
            assert await lease.fetch(max_records=9, max_bytes=MANY, wait_s=0) == []
            await lease.land(landing(lease, [entry("out", b"by the living", partition=lease.partition)]))
    for p in ALL:
        await shows(bus, "out", [b"by the dead", b"by the living"], p)


async def test_services_do_not_know_of_each_other(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus, "a") as a, joined(bus, "b") as b:
        one, other = await a.of(0), await b.of(0)
        await one.land(landing(one, state={"k": b"a"}, progress={"in": 1}))
        await fetched(other, 3)
        await other.land(landing(other, state={"k": b"b"}, progress={"in": 2}))
        await has_done(bus, {("in", 0): 1}, "a")
        await has_done(bus, {("in", 0): 2}, "b")
    async with joined(bus, "a") as a:
        assert dict((await a.of(0)).state) == {"k": b"a"}


async def test_members_are_who_works_now_and_what_they_hold(bus_world: World) -> None:
    bus = await opened(bus_world)
    assert await bus.members("svc") == {}
    async with joined(bus) as one, joined(await bus_world.open()) as other:
        await one.count(2)
        await other.count(2)
        wanted = sorted([sorted(one.leases), sorted(other.leases)])

        async def settled() -> bool:
            return sorted((await bus.members("svc")).values()) == wanted

        await eventually(settled)

    async def gone() -> bool:
        return await bus.members("svc") == {}

    await eventually(gone)


# hand-over ----------------------------------------------------------------------------------------------------------


async def wanted(member: Member, count: int) -> dict[int, Lease]:
    """Exactly so many of its leases are wanted, as soon as it is so."""

    def now() -> dict[int, Lease]:
        return {p: lease for p, lease in member.leases.items() if lease.wanted.is_set()}

    async def so_many() -> bool:
        return len(now()) == count

    await eventually(so_many)
    return now()


async def test_what_another_should_have_is_wanted_and_stays_with_its_owner_until_that_one_releases_it(
    bus_world: World,
) -> None:
    async with joined(await opened(bus_world), keeps=True) as one:
        leases = await one.count(PARTITIONS)
        async with joined(await bus_world.open()) as other:
            parting = await wanted(one, PARTITIONS // 2)
            for lease in parting.values():
                await land_all(lease, 3)
                await lease.land(landing(lease, state={"k": b"under way when it was wanted"}))
                assert lease.fresh()
            assert other.leases == {}
            for lease in parting.values():
                await lease.release()
                one.taken.remove(lease)
            taken = await other.count(PARTITIONS // 2)
            assert taken.keys() == parting.keys()
            for lease in taken.values():
                assert (lease.serial, dict(lease.state)) == (2, {"k": b"under way when it was wanted"})
            for partition, lease in one.leases.items():
                assert lease is leases[partition]
                assert not lease.wanted.is_set()
                await land_all(lease, 3)


async def test_one_at_a_time_what_is_released_is_taken_while_the_rest_is_finished(bus_world: World) -> None:
    async with joined(await opened(bus_world), keeps=True) as one:
        await one.count(PARTITIONS)
        async with joined(await bus_world.open()) as other:
            first, second = (await wanted(one, PARTITIONS // 2)).values()
            one.taken.remove(first)
            await first.release()
            await land_all(await other.of(first.partition), 3)
            assert other.leases.keys() == {first.partition}
            await land_all(second, 3)
            assert second.wanted.is_set()
            one.taken.remove(second)
            await second.release()
            assert (await other.of(second.partition)).serial == 1


async def test_nothing_is_wanted_any_more_when_the_one_who_should_have_it_is_gone(bus_world: World) -> None:
    async with joined(await opened(bus_world), keeps=True) as one:
        leases = await one.count(PARTITIONS)
        async with joined(await bus_world.open()):
            await wanted(one, PARTITIONS // 2)
        await wanted(one, 0)
        assert one.leases == leases
        for lease in leases.values():
            assert lease.fresh()
            await land_all(lease, 3)


async def test_what_is_released_with_nobody_left_to_have_it_comes_back(bus_world: World) -> None:
    async with joined(await opened(bus_world), keeps=True) as one:
        await one.count(PARTITIONS)
        async with joined(await bus_world.open()):
            parting = await wanted(one, PARTITIONS // 2)
        for lease in parting.values():
            await land_all(lease, 3)
            one.taken.remove(lease)
            await lease.release()
        again = await one.count(PARTITIONS)
        assert all(again[p].serial == 1 for p in parting)


async def test_a_member_that_leaves_while_others_join_hands_over_what_it_finishes_and_no_more(bus_world: World) -> None:
    async with joined(await opened(bus_world), keeps=True) as one:
        leases = await one.count(PARTITIONS)
        async with joined(await bus_world.open()) as other:
            await wanted(one, PARTITIONS // 2)
            await one.membership.leave()
            for lease in leases.values():
                assert not lease.lost.is_set()
                await land_all(lease, 3)
                await lease.release()
            assert all(lease.serial == 1 for lease in (await other.count(PARTITIONS)).values())


# fences -------------------------------------------------------------------------------------------------------------


async def test_the_landing_of_an_owner_that_was_is_fenced_and_changes_nothing(bus_world: World) -> None:
    async with taken_over(bus_world) as (old, new):
        p, bus = old.partition, await bus_world.open()
        stale = Landing(1, [entry("out", b"stale", partition=p)], {"k": b"stale"}, {"in": 1})
        for _ in range(2):
            with pytest.raises(Fenced):
                await old.land(stale)
        assert new.serial == 0
        await new.land(landing(new, [entry("out", b"fresh", partition=p)], state={"l": b"fresh"}))
        with pytest.raises(Fenced):
            await old.land(stale)
        await shows(bus, "out", [b"fresh"], p)
        assert ("in", p) not in await bus.progress("svc")
        await new.renew()
        assert (new.serial, dict(new.state), dict(new.progress)) == (1, {"l": b"fresh"}, {})


async def test_what_was_landed_before_a_takeover_is_what_the_new_owner_begins_with(bus_world: World) -> None:
    """The owner before lands as fast as it can until it is fenced: the new one must have the very last of it."""
    async with joined(await opened(bus_world), keeps=True, hand_over_s=0) as before:
        leases = await before.count(PARTITIONS)
        landed = dict.fromkeys(leases, 0)

        async def land(lease: Lease) -> None:
            try:
                while True:
                    n = lease.serial + 1
                    output = entry("out", b"%d" % n, partition=lease.partition)
                    await lease.land(landing(lease, [output], state={"n": b"%d" % n}, progress={"in": n}))
                    landed[lease.partition] = n
            except Fenced:
                pass

        working = {p: asyncio.create_task(land(lease)) for p, lease in leases.items()}
        bus = await bus_world.open()
        async with joined(bus) as after:
            for p, lease in (await after.count(PARTITIONS // 2)).items():
                n = landed[p]
                # one more may have landed whose end the old owner had not heard of when it lost the lease
                assert lease.serial in (n, n + 1)
                assert dict(lease.state) == ({"n": b"%d" % lease.serial} if lease.serial else {})
                assert dict(lease.progress) == ({"in": lease.serial} if lease.serial else {})
                await lease.land(landing(lease, [entry("out", b"new", partition=p)]))
                await shows(bus, "out", [*(b"%d" % i for i in range(1, lease.serial)), b"new"], p)
                await working.pop(p)  # fenced, and nothing else
            for task in working.values():
                task.cancel()
            await asyncio.wait(working.values())


async def test_an_owner_that_was_cannot_renew(bus_world: World) -> None:
    async with taken_over(bus_world) as (old, new):
        with pytest.raises(Fenced):
            await old.renew()
        assert old.lost.is_set()
        await new.land(landing(new, state={"k": b"v"}))


async def test_renewing_keeps_the_lease_and_reads_again_what_has_landed(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        lease = await member.of(0)
        (first,) = await fetched(lease, 1)
        await lease.land(landing(lease, numbered("out", 1), state={"k": b"v"}, progress={"in": first.offset + 1}))
        lease.forget_state()
        await lease.renew()
        assert (lease.serial, dict(lease.state), dict(lease.progress)) == (1, {"k": b"v"}, {"in": first.offset + 1})
        assert lease.fresh()
        assert [s.value for s in await fetched(lease, 2)] == [b"1", b"2"]
        await lease.land(landing(lease, numbered("out", 1, start=1)))
        assert lease.serial == 2
        await shows(bus, "out", [b"0", b"1"])
        assert member.leases[0] is lease


async def test_renewing_does_not_move_what_is_fetched_next(bus_world: World) -> None:
    async with joined(await opened(bus_world)) as member:
        lease = await member.of(0)
        assert [s.value for s in await fetched(lease, 2)] == [b"0", b"1"]
        await lease.renew()
        assert [s.value for s in await fetched(lease, 1)] == [b"2"]


async def test_nothing_lands_with_a_lease_that_was_given_back(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        lease = await member.of(0)
        await lease.land(landing(lease, numbered("out", 1)))
        await lease.release()
        assert not lease.fresh()
        with pytest.raises(Fenced):
            await lease.land(landing(lease, numbered("out", 1, start=1)))
        await lease.release()
    async with joined(bus) as member:
        lease = await member.of(0)
        assert lease.serial == 1
        await lease.land(landing(lease, numbered("out", 1, start=2)))
    await shows(bus, "out", [b"0", b"2"])


async def test_a_landing_that_is_cancelled_has_happened_whole_or_not_at_all(bus_world: World) -> None:
    bus = await opened(bus_world)
    async with joined(bus) as member:
        for p in ALL:
            lease = await member.of(p)
            outputs = [entry("out", b"cut", partition=p), entry("out2", b"cut", partition=p)]
            landing_ = asyncio.create_task(lease.land(landing(lease, outputs, state={"k": b"cut"}, progress={"in": 1})))
            for _ in range(3 * p):
                await asyncio.sleep(0)
            landing_.cancel()
            await asyncio.wait([landing_])
            await lease.renew()
            happened = lease.serial == 1
            assert dict(lease.state) == ({"k": b"cut"} if happened else {})
            assert dict(lease.progress) == ({"in": 1} if happened else {})
            last = [entry(topic, b"last", partition=p) for topic in ("out", "out2")]
            await lease.land(landing(lease, last))
            for topic in ("out", "out2"):
                await shows(bus, topic, [b"cut", b"last"] if happened else [b"last"], p)


# forgetting ---------------------------------------------------------------------------------------------------------


async def test_a_service_that_is_forgotten_begins_from_the_beginning_and_another_is_left_alone(
    bus_world: World,
) -> None:
    bus = await opened(bus_world)
    for service in ("svc", "svc.other"):
        async with joined(bus, service) as member:
            lease = await member.of(0)
            await lease.land(landing(lease, state={"k": b"v"}, progress={"in": 2}))
            assert service in await bus.services()
            with pytest.raises(Misconfigured, match=f"{service} is at work"):
                await bus.forget(service)
    await bus.forget("svc")
    assert await bus.services() == ["svc.other"]
    await has_done(bus, {}, "svc")
    await has_done(bus, {("in", 0): 2}, "svc.other")
    await bus.forget("svc")  # a second time it is as good
    async with joined(bus, "svc") as member:
        lease = await member.of(0)
        assert (lease.serial, dict(lease.state), dict(lease.progress)) == (0, {}, {})
        assert [s.value for s in await fetched(lease, 1)] == [b"0"]
        await lease.land(landing(lease, numbered("out", 1), progress={"in": 1}))
    assert await bus.services() == ["svc", "svc.other"]
