"""The contract of a bus in memory, for a simulation in virtual time, and the measure for the real ones.

No threads and no clock but the loop's; all chance is drawn from the log's `random.Random`, so one seed goes one way.
Several "processes" are several `MemoryBus`es on one `MemoryLog`; its knobs and methods are the ways to break them.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from streamproc.bus.contract import HAND_OVER_S, Landing, Span
from streamproc.bus.table import Newest
from streamproc.errors import DiskFull, Expired, Fenced, Misconfigured, TooLarge, Unreachable, UnseenEnd
from streamproc.topics import Topic
from streamproc.wire import Entry, Stored
from tests.bus.memory_group import Group, MemoryMembership
from tests.bus.memory_log import MemoryLog, Spread

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MemoryBus", "MemoryLease", "MemoryLog", "MemoryMembership", "MemoryTable"]


class MemoryLease:
    """See the contract. What a planted mistake would change is a method of its own."""

    def __init__(self, member: MemoryMembership, partition: int) -> None:
        self.member, self.bus, self.log = member, member.bus, member.bus.log
        self.service, self.partition = member.group.service, partition
        self.ledger = self.log.ledgers[self.service, partition]
        self.wanted, self.lost = asyncio.Event(), asyncio.Event()
        self.asked = self.revoked = self.released = False
        self._keep_until_s = 0.0
        self._unsure = False
        """The last landing's end was not seen: nothing lands until `renew` has looked."""
        self.fence()
        self.load()
        self._positions = {t: self.progress.get(t, self.log.span(t, partition).begin) for t in member.topics}
        self._turn = 0

    # the three steps of taking a lease, in the order that matters

    def fence(self) -> None:
        self.ledger.epoch += 1
        self.epoch = self.ledger.epoch

    def load(self) -> None:
        self.state: Mapping[str, bytes] = dict(self.ledger.state)
        self.progress: Mapping[str, int] = dict(self.ledger.progress)
        self.serial = self.ledger.serial

    def forget_state(self) -> None:
        self.state = {}

    # whose it is

    @property
    def over(self) -> bool:
        """Released, or taken by somebody else. Its owner may not know so far."""
        return self.released or self.ledger.epoch != self.epoch

    def fresh(self) -> bool:
        return self.bus.running.is_set() and not (
            self.bus.expired or self.revoked or self.released or self.lost.is_set()
        )

    def want(self) -> bool:
        """Another member should have it; news of that takes a while. False once it was kept for too long all the same."""
        loop, member = asyncio.get_running_loop(), self.member
        if not self.asked:
            self.asked = True
            self._keep_until_s = loop.time() + member.hand_over_s
            loop.call_at(self._keep_until_s + 0.001, member.group.settle_soon)
            self._tell_soon()
        return loop.time() < self._keep_until_s

    def unwant(self) -> None:
        """None should, as it has turned out."""
        if self.asked:
            self.asked = False
            self._tell_soon()

    def _tell_soon(self) -> None:
        def tell() -> None:
            (self.wanted.set if self.asked else self.wanted.clear)()

        self.bus.later(self.log.rng.uniform(*self.log.notice_s), tell)

    def revoke(self) -> None:
        """Another member takes it; news of it takes a while."""
        self.revoked = True
        self.bus.later(self.log.rng.uniform(*self.log.notice_s), self.lost.set)

    def check(self) -> None:
        if self.over:
            self.lost.set()
            raise Fenced(f"{self.service}[{self.partition}]: epoch {self.epoch} is over, {self.ledger.epoch} is now")

    def give_back(self) -> None:
        if not self.over:
            self.ledger.epoch += 1
        self.released = True
        self.member.group.settle_soon()

    async def release(self) -> None:
        await self.bus.breath(self.log.landing_s)
        self.give_back()

    # reading

    async def fetch(self, *, max_records: int, max_bytes: int, wait_s: float) -> list[Stored]:
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        deadline = loop.time() + wait_s
        with self.bus.hearing(self._positions, self.partition, woken.set):
            while True:
                woken.clear()
                await self.bus.reach(self.log.read_s)
                found = self._take(max_records, max_bytes)
                if found or loop.time() >= deadline:
                    return found
                try:
                    async with asyncio.timeout_at(deadline):
                        await woken.wait()
                except TimeoutError:
                    return []

    def _take(self, max_records: int, max_bytes: int) -> list[Stored]:
        """One record of each topic in turn, until a bound is met. Nothing is awaited: what is taken is returned."""
        ready = []
        topics = list(self._positions)
        self._turn = (self._turn + 1) % len(topics)
        for topic in topics[self._turn :] + topics[: self._turn]:
            log, position = self.log.log(topic, self.partition), self._positions[topic]
            if position < log.begin:
                self._positions[topic] = log.begin
                raise Expired(topic, self.partition, position, log.begin)
            if (i := log.at(position)) < len(log.records):
                ready.append((topic, log.records, i))
        taken: list[Stored] = []
        size = 0
        while ready and len(taken) < max_records:
            topic, records, i = ready.pop(0)
            size += records[i].size
            if taken and size > max_bytes:
                break
            taken.append(records[i])
            self._positions[topic] = records[i].offset + 1
            if i + 1 < len(records):
                ready.append((topic, records, i + 1))
        return taken

    # landing

    async def land(self, landing: Landing) -> None:
        log, rng = self.log, self.log.rng
        assert not self._unsure, "renew comes before the next landing"
        await self.bus.reach(log.landing_s)
        self.check()
        assert landing.serial == self.serial + 1, f"serial {landing.serial} after {self.serial}"
        self.bus.accept(landing.outputs)
        if rng.random() < log.unseen:
            self._go_unseen(landing)
        if landing.outputs and rng.random() < log.torn:
            log.audit(self.service, self.partition, landing)
            log.append(landing.outputs)
            self.ledger.epoch += 1
            self.member.group.settle_soon()
            self.check()
        self.apply(landing)
        self.serial = landing.serial
        await self.bus.breath(log.read_s)

    def apply(self, landing: Landing) -> None:
        self.log.audit(self.service, self.partition, landing)
        self.ledger.apply(landing)
        self.log.append(landing.outputs)

    def _go_unseen(self, landing: Landing) -> None:
        """It has happened; or it has not; or it will, unless somebody fences it before."""
        self._unsure = True
        match self.log.rng.randrange(4):
            case 0:
                delay_s, epoch = self.log.rng.uniform(*self.log.notice_s), self.epoch
                asyncio.get_running_loop().call_later(delay_s, lambda: self._arrive(landing, epoch))
            case 1:
                pass
            case _:
                self.apply(landing)
        raise UnseenEnd(f"{self.service}[{self.partition}]: no answer to landing {landing.serial}")

    def _arrive(self, landing: Landing, epoch: int) -> None:
        if self.ledger.epoch == epoch:
            self.apply(landing)

    async def renew(self) -> None:
        await self.bus.reach(self.log.landing_s)
        if self.revoked or self.bus.expired:
            self.lost.set()
        if self.lost.is_set():
            raise Fenced(f"{self.service}[{self.partition}]: another has it by now")
        self.check()
        self.fence()
        self.load()
        self._unsure = False


class MemoryTable(Newest):
    """See the contract. Hears of records late, by the log's `table_lag_s`."""

    def __init__(self, bus: MemoryBus, topic: str, partition: int) -> None:
        super().__init__()
        self._bus = bus
        self._log = bus.log.log(topic, partition)
        self._position = 0
        self._timer = False
        self._moved = asyncio.Event()
        self._log.heard[self] = self._wake
        self.hear()

    async def caught_up(self) -> None:
        end = self._log.end
        while self._position < end:
            await self._moved.wait()
        await self._bus.breath((0.0, 0.0))

    def close(self) -> None:
        self._log.heard.pop(self, None)

    def _wake(self) -> None:
        if not self._timer:
            self._timer = True
            self._bus.later(self._bus.log.rng.uniform(0, self._bus.log.table_lag_s), self.hear)

    def hear(self) -> None:
        self._timer = False
        position, self._position = self._position, self._log.end
        for stored in self._log.records[self._log.at(position) :]:
            self.take(stored)
        self._moved.set()
        self._moved.clear()


class MemoryBus:
    """One process's view of a `MemoryLog`."""

    lease_type = MemoryLease
    table_type = MemoryTable

    def __init__(self, log: MemoryLog, *, partitions: int | None = None) -> None:
        self.log = log
        self.partitions = log.partitions if partitions is None else partitions
        self.killed = self.expired = False
        self.naps = 0
        self.running = asyncio.Event()
        self.running.set()
        self.memberships: list[MemoryMembership] = []
        self._tables: dict[tuple[str, int], MemoryTable] = {}
        self._asleep: list[Callable[[], None]] = []

    # time and sleep of this process

    async def breath(self, spread: Spread) -> None:
        """The way to the log and back. Nobody comes back to a process that is dead or asleep."""
        await asyncio.sleep(self.log.rng.uniform(*spread) if spread[1] else 0)
        while not self.running.is_set():
            await self.running.wait()

    async def reach(self, spread: Spread) -> None:
        """The same, of what may be asked for again: perhaps nobody answers."""
        await self.breath(spread)
        if self.log.away and self.log.rng.random() < self.log.away:
            raise Unreachable("the log", "it does not answer", remedy="Ask again.")

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Call after a while; when it wakes, should it be asleep then; never, should it be dead."""

        asyncio.get_running_loop().call_later(delay_s, self.once_awake, what)

    def once_awake(self, what: Callable[[], None]) -> None:
        if self.running.is_set():
            what()
        elif not self.killed:
            self._asleep.append(what)

    def die(self) -> None:
        self.killed = True
        self.running.clear()
        for table in self._tables.values():
            table.close()

    def go_on(self) -> None:
        """What came up in its sleep happens now."""
        asleep, self._asleep = self._asleep, []
        for what in asleep:
            asyncio.get_running_loop().call_soon(what)

    @contextmanager
    def hearing(self, topics: Collection[str], partition: int, heard: Callable[[], None]) -> Iterator[None]:
        logs, ticket = [self.log.log(t, partition) for t in topics], object()
        for log in logs:
            log.heard[ticket] = heard
        try:
            yield
        finally:
            for log in logs:
                del log.heard[ticket]

    # the log

    async def create(self, topics: Sequence[Topic]) -> None:
        await self.breath(self.log.read_s)
        if self.partitions != self.log.partitions:
            raise Misconfigured(f"topics here have {self.log.partitions} partitions; asked for were {self.partitions}")
        self.log.known.update((t.name, t) for t in topics)

    async def topics(self) -> dict[str, int]:
        await self.reach(self.log.read_s)
        return dict.fromkeys(self.log.known, self.log.partitions)

    def accept(self, entries: Sequence[Entry]) -> None:
        """Refuse what cannot be written, before any of it is."""
        if self.log.disk_full:
            raise DiskFull("the disk below the log is full; nothing was written")
        for e in entries:
            limit = self.log.topic(e.topic).max_bytes
            if e.size > limit:
                raise TooLarge(f"{e.topic}: {e.size} bytes; the topic allows {limit}")
            if not 0 <= e.partition < self.partitions:
                raise Misconfigured(f"{e.topic}[{e.partition}]: partitions are 0 … {self.partitions - 1}")

    async def publish(self, entries: Sequence[Entry]) -> None:
        await self.breath(self.log.landing_s)
        self.accept(entries)
        self.log.append(entries)

    async def read(self, topic: str, partition: int, offset: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        await self.reach(self.log.read_s)
        log = self.log.log(topic, partition)
        if offset < log.begin:
            raise Expired(topic, partition, offset, log.begin)
        start, size = log.at(offset), 0
        found: list[Stored] = []
        for stored in log.records[start : start + max_records]:
            size += stored.size
            if found and size > max_bytes:
                break
            found.append(stored)
        return found

    async def span(self, topic: str, partition: int) -> Span:
        await self.reach(self.log.read_s)
        return self.log.span(topic, partition)

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        await self.reach(self.log.read_s)
        log = self.log.log(topic, partition)
        i = bisect_left(log.records, time_ms, key=lambda s: s.time_ms)
        return log.records[i].offset if i < len(log.records) else log.end

    async def follow(self, topic: str, partition: int) -> MemoryTable:
        await self.reach(self.log.read_s)
        table = self._tables.get((topic, partition))
        if table is None:
            table = self._tables[topic, partition] = self.table_type(self, topic, partition)
        return table

    # services

    @asynccontextmanager
    async def join(
        self,
        service: str,
        topics: Sequence[str],
        *,
        weights: Callable[[], Sequence[int]],
        hand_over_s: float = HAND_OVER_S,
    ) -> AsyncIterator[MemoryMembership]:
        await self.breath(self.log.read_s)
        group = self.log.groups.get(service) or Group(self.log, service)
        self.log.groups[service] = group
        member = MemoryMembership(self, group, topics, weights, hand_over_s)
        try:
            yield member
        finally:
            self.once_awake(member.quit)

    async def members(self, service: str) -> dict[str, list[int]]:
        await self.reach(self.log.read_s)
        group = self.log.groups.get(service)
        members = group.members if group else []
        return {m.name: sorted(x.partition for x in m.held() if not x.over) for m in members if not m.bus.expired}

    async def progress(self, service: str) -> dict[tuple[str, int], int]:
        await self.breath(self.log.read_s)
        return {
            (topic, partition): offset
            for (of, partition), ledger in self.log.ledgers.items()
            if of == service
            for topic, offset in ledger.progress.items()
        }

    async def services(self) -> list[str]:
        await self.breath(self.log.read_s)
        return sorted(self.log.groups)

    async def forget(self, service: str) -> None:
        if working := await self.members(service):
            raise Misconfigured(f"{service} is at work ({', '.join(working)}): end it first")
        self.log.groups.pop(service, None)
        for (of, _), ledger in self.log.ledgers.items():
            if of == service:  # its epoch stays and grows: a zombie must not pass for its successor
                ledger.epoch += 1
                ledger.serial, ledger.state, ledger.progress = 0, {}, {}

    async def trim(self) -> None:
        await self.breath(self.log.read_s)
        self.log.trim()

    async def close(self) -> None:
        await self.breath(self.log.read_s)
        for member in list(self.memberships):
            member.quit()
        for table in self._tables.values():
            table.close()
