"""What tests of any bus do all the time: make topics, take leases, land, read everything, wait for a condition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from streamproc.bus.contract import Bus, Landing, Lease, Membership
from streamproc.errors import StreamprocError
from streamproc.topics import Topic
from streamproc.wire import Entry, Stored

if TYPE_CHECKING:
    from tests.bus.worlds import World

PARTITIONS = 4
ALL = range(PARTITIONS)
PATIENCE_S = 40.0
"""Nothing that works takes so long, on a busy machine with a rebalance in it."""
LIMIT = 2**20
"""Bytes that a record of these topics may have."""
MANY = 2**30


def bare(name: str, *, compacted: bool = False) -> Topic:
    """A topic of bare bytes, kept for an hour; a table for ever."""
    return Topic(name, "for a test", None, "application/octet-stream", compacted, 0 if compacted else 1.0, LIMIT)


TOPICS = (bare("in"), bare("in2"), bare("out"), bare("out2"), bare("table", compacted=True))


def entry(topic: str, value: bytes | None, *, partition: int = 0, key: bytes = b"k") -> Entry:
    return Entry(topic, partition, key, value)


def numbered(topic: str, count: int, *, partition: int = 0, start: int = 0) -> list[Entry]:
    """Records whose values are numbers in order."""
    return [entry(topic, b"%d" % i, partition=partition) for i in range(start, start + count)]


def even() -> Sequence[int]:
    return [1] * PARTITIONS


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Back once it holds. What is waited for happens in other processes, or a moment after a commit."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  # nothing tells us: it is looked for from outside
            await asyncio.sleep(0.01)


# reading ------------------------------------------------------------------------------------------------------------


async def everything(bus: Bus, topic: str, partition: int = 0, *, at_once: int = 1000) -> list[Stored]:
    """All that can be read there now."""
    found: list[Stored] = []
    offset = (await bus.span(topic, partition)).begin
    while some := await bus.read(topic, partition, offset, max_records=at_once, max_bytes=MANY):
        found += some
        offset = some[-1].offset + 1
    return found


async def values(bus: Bus, topic: str, partition: int = 0) -> list[bytes | None]:
    return [stored.value for stored in await everything(bus, topic, partition)]


async def shows(bus: Bus, topic: str, wanted: Sequence[bytes | None], partition: int = 0) -> None:
    """Back once this many can be read, and only if it is these: what has landed is readable a moment later."""

    async def enough() -> bool:
        return len(await values(bus, topic, partition)) >= len(wanted)

    await eventually(enough)
    assert await values(bus, topic, partition) == list(wanted)


async def has_done(bus: Bus, wanted: Mapping[tuple[str, int], int], service: str = "svc") -> None:
    """Back once a service's progress is this: what has landed is told a moment later."""

    async def told() -> bool:
        return await bus.progress(service) == wanted

    await eventually(told)


async def fetched(lease: Lease, count: int, *, at_once: int = 1000) -> list[Stored]:
    """The next so many records of a lease, in as many fetches as it takes."""
    found: list[Stored] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            found += await lease.fetch(max_records=min(at_once, count - len(found)), max_bytes=MANY, wait_s=1)
    return found


async def opened(world: World) -> Bus:
    """A bus with something to do in every partition: a lease need not come before there is."""
    bus = await world.open()
    await bus.create(TOPICS)
    await bus.publish([e for p in ALL for e in numbered("in", 3, partition=p)])
    return bus


# working ------------------------------------------------------------------------------------------------------------


def landing(
    lease: Lease,
    outputs: Iterable[Entry] = (),
    *,
    state: Mapping[str, bytes | None] | None = None,
    progress: Mapping[str, int] | None = None,
) -> Landing:
    """The lease's next."""
    return Landing(lease.serial + 1, list(outputs), dict(state or {}), dict(progress or {}))


class Member:
    """Takes every lease that comes, and releases it as soon as another should have it; unless it `keeps` what it has."""

    def __init__(self, membership: Membership, *, keeps: bool = False) -> None:
        self.membership, self.keeps = membership, keeps
        self.taken: list[Lease] = []
        self._more = asyncio.Event()
        self._over = asyncio.Event()
        self.error: StreamprocError | None = None
        """What ended the taking, where something did: that the bus was closed, for one."""

    @property
    def leases(self) -> dict[int, Lease]:
        """The last one of each partition, unless it is known to be lost."""
        return {lease.partition: lease for lease in self.taken if not lease.lost.is_set()}

    async def take(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            try:
                async for lease in self.membership.leases():
                    self.taken.append(lease)
                    self._more.set()
                    if not self.keeps:
                        tasks.create_task(self._hand_over(lease))
            except StreamprocError as e:
                self.error = e
            self._over.set()
            self._more.set()

    async def _hand_over(self, lease: Lease) -> None:
        await lease.wanted.wait()
        self.taken.remove(lease)
        await lease.release()

    async def over(self) -> None:
        """Back when no more leases will come."""
        async with asyncio.timeout(PATIENCE_S):
            await self._over.wait()

    async def of(self, partition: int = 0) -> Lease:
        """The lease of a partition, once it is ours."""
        async with asyncio.timeout(PATIENCE_S):
            while (lease := self.leases.get(partition)) is None:
                self._more.clear()
                if self.error:
                    raise self.error
                await self._more.wait()
        return lease

    async def count(self, leases: int) -> dict[int, Lease]:
        """Exactly so many leases, as soon as it is so."""

        async def so_many() -> bool:
            if self.error:
                raise self.error
            return len(self.leases) == leases

        await eventually(so_many)
        return self.leases


@asynccontextmanager
async def joined(
    bus: Bus,
    service: str = "svc",
    *topics: str,
    weights: Callable[[], Sequence[int]] = even,
    keeps: bool = False,
    hand_over_s: float = PATIENCE_S,
) -> AsyncIterator[Member]:
    """A member at work; with no topics named it reads "in"."""
    async with bus.join(service, topics or ("in",), weights=weights, hand_over_s=hand_over_s) as membership:
        member = Member(membership, keeps=keeps)
        taking = asyncio.create_task(member.take())
        try:
            yield member
        finally:
            taking.cancel()
            await asyncio.wait([taking])
            if not taking.cancelled() and (error := taking.exception()):
                raise error


async def land_all(lease: Lease, count: int) -> None:
    """Read so many records of "in", and land that they are done."""
    found = await fetched(lease, count)
    await lease.land(landing(lease, progress={"in": found[-1].offset + 1}))


async def live(bus: Bus, service: str) -> None:
    """Until killed: take leases, and land once with each, all that is there to be read."""

    async def land(lease: Lease) -> None:
        found = await lease.fetch(max_records=MANY, max_bytes=MANY, wait_s=PATIENCE_S)
        output = entry("out", b"by the dead", partition=lease.partition)
        await lease.land(landing(lease, [output], state={"who": b"the dead"}, progress={"in": found[-1].offset + 1}))

    async with bus.join(service, ("in",), weights=even) as membership, asyncio.TaskGroup() as tasks:
        async for lease in membership.leases():
            tasks.create_task(land(lease))
