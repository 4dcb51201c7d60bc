"""The embedded bus: SQLite in WAL mode and segment files on a local disk, shared by any number of processes of one machine.

This room puts the parts together. Two threads block in its stead, one that writes and one that reads; the loop never does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

from streamproc.bus.contract import HAND_OVER_S, Landing, Membership, Span, Table
from streamproc.bus.embedded import roster
from streamproc.bus.embedded.catalog import Catalog, load
from streamproc.bus.embedded.heads import Heads
from streamproc.bus.embedded.lease import EmbeddedLease, LeaseLanding
from streamproc.bus.embedded.log import Append, Part, Portion, offset_at, read, span
from streamproc.bus.embedded.membership import EmbeddedMembership
from streamproc.bus.embedded.place import Place
from streamproc.bus.embedded.presence import Alive, Presence
from streamproc.bus.embedded.reader import Reader
from streamproc.bus.embedded.segments import Payloads
from streamproc.bus.embedded.table import EmbeddedTable
from streamproc.bus.embedded.trim import Retire, trim
from streamproc.bus.embedded.wake import Wake
from streamproc.bus.embedded.writer import Plain, Tx, Writer
from streamproc.errors import Fatal, Misconfigured, Retryable, StreamprocError, TooLarge
from streamproc.topics import Topic
from streamproc.wire import Entry, Stored

POLL_S = 0.5
"""Wake-ups are hints; this finds what they missed, and who died."""
TRIM_EVERY_S = 60.0
SEGMENT_AGE_S = 3600.0

log = logging.getLogger(__name__)


class Embedded:
    """`streamproc.bus.contract.Bus` on a file. Open it with `await Embedded.open(path)`."""

    partitions: int

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        partitions: int | None = None,
        prefix: str = "",
        session_s: float = 10.0,
        heartbeat_s: float | None = None,
        retention_bytes: int | None = None,
        floor_bytes: int = 64 * 2**20,
        busy_s: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """`partitions` None: as many as it has, 16 if it is new. `busy_s`: how long a lock may keep us waiting."""
        heartbeat_s = session_s / 5 if heartbeat_s is None else heartbeat_s
        if not 0 < heartbeat_s <= session_s / 2:
            raise Misconfigured(
                f"heartbeat {heartbeat_s:g} s: it must be above 0 and at most half the session ({session_s:g} s)"
            )
        if partitions is not None and not 1 <= partitions <= 4096:
            raise Misconfigured(f"{partitions} partitions: there can be 1 to 4096")
        bus = cls()
        bus.clock, bus.retention_bytes, bus._heartbeat_s = clock, retention_bytes, heartbeat_s
        async with AsyncExitStack() as parts:
            bus.place = Place(Path(path), floor_bytes=floor_bytes)
            parts.callback(bus.place.close)
            bus.writer = Writer(bus.place, partitions=partitions, busy_s=busy_s, clock=clock)
            bus.partitions = await bus.writer.opened
            parts.callback(bus.writer.gate.close)
            bus._wake = Wake()
            parts.callback(bus._wake.close)
            bus.presence = Presence(Alive.open(bus.place.alive), session_s=session_s)
            parts.callback(bus.presence.close)  # only after both threads, who write to its file
            bus.reader = Reader(bus.place, bus.writer.gate, busy_s=busy_s)
            bus.payloads = Payloads(bus.place.segments)
            parts.callback(bus.payloads.close)
            parts.push_async_callback(bus.reader.close)
            parts.push_async_callback(bus.writer.close)
            bus._wake.bind(bus.place.wake)
            bus.heads = Heads(bus.reader)
            bus.catalog = Catalog(prefix=prefix, partitions=bus.partitions)
            bus._parts = parts.pop_all()
        asyncio.get_running_loop().add_reader(bus._wake.fileno(), bus._woken)
        bus.writer.wake_others, bus.writer.stir = bus._wake.others, bus.heads.stir
        bus._spawn(bus._pulse())
        return bus

    clock: Callable[[], float]
    retention_bytes: int | None
    place: Place
    writer: Writer
    reader: Reader
    payloads: Payloads
    heads: Heads
    catalog: Catalog
    presence: Presence
    _heartbeat_s: float
    _wake: Wake
    _parts: AsyncExitStack
    """To be closed, in the right order."""

    def __init__(self) -> None:
        self._memberships: set[EmbeddedMembership] = set()
        self._left: set[int] = set()
        """Members that have not said goodbye so far. Their process lives, so they would lead, and be given partitions."""
        self._tables: dict[Part, EmbeddedTable] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        """Started by calls of any task and ended by `close`, which no TaskGroup spans; a failure fails the bus."""
        self._entering = asyncio.Lock()
        self._closed = False

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._fail(Fatal("the bus is closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        asyncio.get_running_loop().remove_reader(self._wake.fileno())
        try:
            if (process := self.presence.process) is not None:
                await self.writer.do(Plain(lambda tx: roster.end(tx.db, process)))
        except StreamprocError as e:  # the others will find us gone by our lock
            log.warning("leaving %s: %s", self.place.database, e)
        await self._parts.aclose()

    # topics ---------------------------------------------------------------------------------------------------------

    async def create(self, topics: Sequence[Topic]) -> None:
        await self.writer.do(self.catalog.creating(topics))
        self.catalog.learn(await self.reader.call(load))

    async def topics(self) -> dict[str, int]:
        self.catalog.learn(await self.reader.call(load))
        return dict.fromkeys(self.catalog.names(), self.partitions)

    async def known(self, names: Iterable[str]) -> None:
        """Those topics are in the catalog; Misconfigured where one does not exist. Dead letters' are made as needed."""
        wanted = {name for name in names if name not in self.catalog}
        if not wanted:
            return
        self.catalog.learn(await self.reader.call(load))
        missing = [name for name in wanted if name not in self.catalog]
        made = [topic for name in missing if (topic := self.catalog.dead_letters(name))]
        if len(made) < len(missing):
            raise Misconfigured(
                f"no topic '{min(set(missing) - {t.name for t in made})}' on this bus. `streamproc topics create` makes what is missing"
            )
        if made:
            await self.create(made)

    async def part(self, topic: str, partition: int) -> Part:
        await self.known([topic])
        return self.catalog.part(topic, partition)

    # the log --------------------------------------------------------------------------------------------------------

    async def publish(self, entries: Sequence[Entry]) -> None:
        if entries:
            await self.writer.do(await self._append(entries))

    async def read(self, topic: str, partition: int, offset: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        part = await self.part(topic, partition)
        portion = Portion(max_records, max_bytes)
        return (await self.reader.call(lambda db: read(db, self.payloads, part, offset, portion))).records

    async def span(self, topic: str, partition: int) -> Span:
        part = await self.part(topic, partition)
        return await self.reader.call(lambda db: span(db, part))

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        part = await self.part(topic, partition)
        return await self.reader.call(lambda db: offset_at(db, part, time_ms))

    async def follow(self, topic: str, partition: int) -> Table:
        part = await self.part(topic, partition)
        if part not in self._tables:
            table = EmbeddedTable(self, part)
            self._tables[part] = table
            self._spawn(table.follow())
        table = self._tables[part]
        await table.caught_up()
        return table

    async def trim(self) -> None:
        await trim(self, everything=True)

    # services -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def join(
        self,
        service: str,
        topics: Sequence[str],
        *,
        weights: Callable[[], Sequence[int]],
        hand_over_s: float = HAND_OVER_S,
    ) -> AsyncIterator[Membership]:
        await self.known(topics)
        process = await self._enter()
        name, ids = self.catalog.prefix + service, [self.catalog[topic].id for topic in topics]
        member = await self.writer.do(
            Plain(lambda tx: roster.join(tx.db, process=process, service=name, topics=ids, partitions=self.partitions))
        )
        membership = EmbeddedMembership(self, name, topics, member, weights=weights, hand_over_s=hand_over_s)
        self._memberships.add(membership)
        stop = self.heads.on_roster(membership.stir)
        tending = self._spawn(membership.tend(every_s=min(POLL_S, self._heartbeat_s)))
        try:
            yield membership
        finally:
            stop()
            self._memberships.discard(membership)
            tending.cancel()
            await asyncio.wait([tending])
            membership.end()
            if not self._closed:  # else all that was ours went with it
                self._left.add(member)
                try:
                    await self._say_goodbye()
                except Retryable as e:
                    log.warning("%s: %s; leaving a moment later", service, e)

    async def members(self, service: str) -> dict[str, list[int]]:
        name = self.catalog.prefix + service
        found = await self.reader.call(lambda db: roster.load(db, name))
        return {
            member.name: [lease.partition for lease in found.leases if lease.owner == member.id]
            for member in found.members
            if self.presence.standing(member.process) == "alive"
        }

    async def progress(self, service: str) -> dict[tuple[str, int], int]:
        prefix = self.catalog.prefix
        rows = await self.reader.call(
            lambda db: db.execute(
                "SELECT name, p, base FROM lease JOIN progress ON lease = lease.id JOIN topic ON topic.id = topic"
                " WHERE service = ?",
                (prefix + service,),
            ).fetchall()
        )
        return {(topic.removeprefix(prefix), p): base for topic, p, base in rows}

    async def services(self) -> list[str]:
        prefix = self.catalog.prefix
        names = await self.reader.call(roster.services)
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    async def forget(self, service: str) -> None:
        name = self.catalog.prefix + service

        def forget(tx: Tx) -> list[str]:  # looked at under the gate: who joins does so before or after
            seen = roster.load(tx.db, name)
            working = [m.name for m in seen.members if self.presence.standing(m.process) == "alive"]
            if not working:
                roster.forget(tx.db, name)
            return working

        if working := await self.writer.do(Plain(forget)):
            raise Misconfigured(f"{service} is at work ({', '.join(working)}): end it first")

    # for the other rooms --------------------------------------------------------------------------------------------

    async def landing(self, lease: EmbeddedLease, landing: Landing) -> LeaseLanding:
        """Checked, and ready for the writer."""
        await self.known(landing.progress)
        topics = {topic: self.catalog[topic].id for topic in landing.progress}
        return LeaseLanding(lease, landing, await self._append(landing.outputs), topics)

    async def _append(self, entries: Sequence[Entry]) -> Append:
        await self.known({entry.topic for entry in entries})
        for entry in entries:
            if entry.size > (most := self.catalog[entry.topic].max_bytes):
                raise TooLarge(
                    f"a record of {entry.size} bytes for {entry.topic}, which takes {most}. Raise `max_bytes` of the topic,"
                    " or name a store for claim checks"
                )
        return Append([(self.catalog.part(entry.topic, entry.partition), entry) for entry in entries])

    async def _enter(self) -> int:
        """This process's id, the same for all its services."""

        def enter(tx: Tx) -> None:
            [[process]] = tx.db.execute("INSERT INTO process(pid) VALUES (?) RETURNING id", (os.getpid(),)).fetchall()
            self.presence.enter(process)  # locked before the row is seen: one without a lock would be taken for dead

        async with self._entering:
            if self.presence.process is None:
                try:
                    await self.writer.do(Plain(enter))
                except BaseException:
                    self.presence.leave()
                    raise
            assert self.presence.process is not None
            return self.presence.process

    # in the background ----------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        """Nothing comes any more: whoever waits hears why."""
        self.heads.fail(failure)
        for membership in self._memberships:
            membership.end()

    def _woken(self) -> None:
        self._wake.drain()
        self.heads.stir()

    async def _pulse(self) -> None:
        trimmed_s = opened_s = time.monotonic()
        while True:
            await asyncio.sleep(min(POLL_S, self._heartbeat_s))
            try:
                if not await self.reader.call(self._beat):
                    await self._revive()
                await self._say_goodbye()
                self.heads.stir()
                now_s = time.monotonic()
                if now_s - trimmed_s > TRIM_EVERY_S:
                    trimmed_s = now_s
                    if now_s - opened_s > SEGMENT_AGE_S:
                        opened_s = now_s
                        await self.writer.do(Retire())
                    if await self.writer.do(Plain(self._claim_trim)):
                        await trim(self, everything=False)
            except Retryable as e:  # the next turn tries again
                log.warning("%s: %s", self.place.database, e)

    def _beat(self, _: sqlite3.Connection) -> bool:
        self.place.check()
        return self.presence.beat()

    async def _revive(self) -> None:
        """We were stopped for longer than the session. Which leases are still ours, only the rows can tell, under the gate."""

        def look(tx: Tx) -> tuple[set[tuple[int, int]], float]:
            found = tx.db.execute(
                "SELECT lease.id, epoch FROM lease JOIN member ON member.id = owner WHERE process = ?",
                (self.presence.process,),
            ).fetchall()
            return set(found), self.presence.beat_again()

        owned, beat_s = await self.writer.do(Plain(look))
        for membership in self._memberships:
            membership.revived(owned)
        self.presence.revived(beat_s)

    async def _say_goodbye(self) -> None:
        """Give back what members that left still held."""
        for member in list(self._left):
            await self.writer.do(Plain(partial(_part, member=member)))
            self._left.discard(member)

    def _claim_trim(self, tx: Tx) -> bool:
        """One process trims for all."""
        rows = tx.db.execute(
            "UPDATE bus SET trimmed_ms = ?1 WHERE trimmed_ms NOT BETWEEN ?1 - ?2 AND ?1 RETURNING 1",  # clocks jump back
            (tx.now_ms, int(TRIM_EVERY_S * 900)),
        )
        return bool(rows.fetchall())


def _part(tx: Tx, member: int) -> None:
    roster.part(tx.db, member)
