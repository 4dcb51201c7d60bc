"""Processes that die or stop at any moment, and files that were cut: nothing is lost, nothing doubled, all is whole."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from streamproc.bus.embedded import Embedded
from streamproc.errors import Corrupt
from streamproc.wire import Stored
from tests.bus.embedded.conftest import Worker, entry, first, leased, topic, until

Workers = Callable[..., Awaitable[Worker]]


async def everything(bus: Embedded, name: str, partition: int) -> list[Stored]:
    found: list[Stored] = []
    at, end = await bus.span(name, partition)
    while at < end:
        found += await bus.read(name, partition, at, max_records=10_000, max_bytes=2**24)
        at = found[-1].offset + 1
    return found


async def test_workers_killed_at_random_moments_lose_nothing_and_double_nothing(
    bus: Embedded, path: Path, workers: Workers
) -> None:
    inputs, kills, dice = 4_000, 8, random.Random(7)
    for i in range(0, inputs, 500):
        await bus.publish([entry("in", b"%d" % n, key=b"%d" % n, partition=n % 2) for n in range(i, i + 500)])

    async def done() -> bool:
        return await bus.progress("count") == {("in", p): inputs // 2 for p in (0, 1)}

    at_work = [await workers("count", path, 2), await workers("count", path, 2)]
    for _ in range(kills):
        await asyncio.sleep(dice.uniform(0, 0.3))  # a random moment, not a synchronisation
        victim = at_work.pop(dice.randrange(2))
        await victim.kill()
        at_work.append(await workers("count", path, 2))
    await until(done)

    for p in (0, 1):
        assert [r.key for r in await everything(bus, "out", p)] == [r.key for r in await everything(bus, "in", p)]
    for worker in at_work:
        await worker.kill()
    async with bus.join("count", ["in"], weights=lambda: [1, 1]) as membership:
        counted = 0
        async for lease in membership.leases():
            counted += int(lease.state["seen"])
            if counted == inputs:
                break


async def test_publishers_killed_at_random_moments_leave_whole_publications(
    bus: Embedded, path: Path, workers: Workers
) -> None:
    dice = random.Random(11)
    for _ in range(6):
        worker = await workers("publish", path)
        await asyncio.sleep(dice.uniform(0, 0.2))  # a random moment, not a synchronisation
        await worker.kill()
    zero, one = await everything(bus, "in", 0), await everything(bus, "in", 1)
    assert zero
    assert [r.key for r in zero] == [r.key for r in one]
    assert [r.offset for r in zero] == list(range(len(zero)))


async def test_a_stopped_owner_is_taken_over_and_fenced_when_it_wakes(
    bus: Embedded, path: Path, workers: Workers
) -> None:
    zombie = await workers("count", path, 1)
    await bus.publish([entry("in", b"before", partition=p) for p in (0, 1)])
    await until(lambda: _has(bus, {("in", 0): 1, ("in", 1): 1}))

    zombie.signal(signal.SIGSTOP)
    await bus.publish([entry("in", b"meanwhile", partition=p) for p in (0, 1)])
    heir = await workers("count", path, 1)
    await until(lambda: _has(bus, {("in", 0): 2, ("in", 1): 2}))
    zombie.signal(signal.SIGCONT)
    await zombie.hear("fenced")
    await heir.kill()

    for p in (0, 1):
        assert [r.value for r in await everything(bus, "out", p)] == [b"before", b"meanwhile"]


async def test_a_killed_owner_is_followed_at_once_whatever_the_session(
    bus: Embedded, path: Path, workers: Workers
) -> None:
    owner = await workers("count", path, 3600)
    await bus.publish([entry("in", b"one", partition=p) for p in (0, 1)])
    await until(lambda: _has(bus, {("in", 0): 1, ("in", 1): 1}))
    await owner.kill()
    async with leased(bus) as lease:  # the test's own deadline is far below an hour
        assert lease.state == {"seen": b"1"}


async def test_a_bus_that_was_closed_gives_its_leases_back(
    opened: Callable[..., Awaitable[Embedded]], bus: Embedded
) -> None:
    other = await opened()
    async with other.join("count", ["in"], weights=lambda: [1, 1]) as membership:
        await first(membership)
        await other.close()
    async with leased(bus):
        await until(lambda: _held(bus, [[0, 1]]))


async def _held(bus: Embedded, partitions: list[list[int]]) -> bool:
    return list((await bus.members("count")).values()) == partitions


async def _has(bus: Embedded, progress: dict[tuple[str, int], int]) -> bool:
    return await bus.progress("count") == progress


async def copy(path: Path, there: Path) -> None:
    """The file and its folder, without the WAL. By another process: closing the file in this one would drop its locks."""
    for what, to in ((path, there), (f"{path}.d", f"{there}.d")):
        process = await asyncio.create_subprocess_exec("cp", "-r", what, to)
        assert await process.wait() == 0


# copies ---------------------------------------------------------------------------------------------------------------


async def test_copies_with_a_cut_or_zeroed_wal_are_named_and_whole_up_to_the_cut(
    bus: Embedded, path: Path, tmp_path: Path
) -> None:
    dice = random.Random(3)
    for n in range(60):
        await bus.publish([entry("in", b"%d" % n, partition=p, key=b"x" * dice.randrange(3000)) for p in (0, 1)])
    wal = path.with_name(path.name + "-wal").read_bytes()
    refused = 0
    for n in range(25):
        there = tmp_path / f"copy{n}" / path.name
        there.parent.mkdir()
        await copy(path, there)
        cut = dice.randrange(len(wal))
        rest = b"\0" * (len(wal) - cut) if n % 2 else b""
        there.with_name(path.name + "-wal").write_bytes(wal[:cut] + rest)
        try:
            found = await Embedded.open(there)
        except Corrupt:
            refused += 1
            (there.parent / f"{there.name}.d" / "mark").unlink()  # as the error says
            found = await Embedded.open(there)
        if "in" in await found.topics():
            zero, one = await everything(found, "in", 0), await everything(found, "in", 1)
            assert [r.value for r in zero] == [r.value for r in one] == [b"%d" % n for n in range(len(zero))]
        await found.close()
    assert refused > 20


async def test_a_copy_without_its_wal_says_how_much_it_lacks(bus: Embedded, path: Path, tmp_path: Path) -> None:
    await bus.publish([entry("in", b"one")])
    there = tmp_path / "copy.db"
    await copy(path, there)
    with pytest.raises(Corrupt, match=r"lacks its last \d+ transaction"):
        await Embedded.open(there)


async def test_a_topic_made_twice_stays_as_it_was(bus: Embedded) -> None:
    await bus.publish([entry("in", b"one")])
    await bus.create([topic("in", hours=1)])
    assert await bus.span("in", 0) == (0, 1)
