"""A bus against a plain model of one: hypothesis decides what two processes do to it, and shrinks what breaks it.

The memory and the embedded bus run in every test run, Kafka with few examples; `HYPOTHESIS_PROFILE=long` looks further.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from streamproc.bus.contract import Bus, Landing, Lease
from streamproc.errors import Expired, Fenced, TooLarge, UnseenEnd
from streamproc.wire import Entry, Stored
from tests.bus.at_work import (
    LIMIT,
    MANY,
    PARTITIONS,
    PATIENCE_S,
    TOPICS,
    Member,
    entry,
    eventually,
    everything,
    has_done,
    joined,
    values,
)
from tests.bus.conftest import a_broker
from tests.bus.memory import MemoryBus
from tests.bus.worlds import EmbeddedWorld, KafkaWorld, MemoryWorld, World
from tests.sim.clock import VirtualLoop

T = TypeVar("T")

READ = ("in", "in2")
PLAIN = (*READ, "out")
STEPS = 30

keys = st.sampled_from([b"", b"a", b"a\0b", b"a\0c", b"\xff", "ключ\0".encode()])
small = st.binary(max_size=20)
segment = st.integers(0, 255).map(lambda i: bytes([i]) * 20_000)
bodies = st.one_of(small, small, segment)
heads = st.lists(st.tuples(st.sampled_from(["h", "é", "h2"]), st.binary(max_size=5)), max_size=3).map(tuple)
partitions = st.sampled_from([0, 0, 0, *range(PARTITIONS)])
"""Mostly the same one: what breaks, breaks by what came before."""
plain_entries = st.builds(Entry, st.sampled_from(PLAIN), partitions, keys, bodies, heads)
table_entries = st.builds(Entry, st.just("table"), partitions, keys, st.none() | bodies, heads)
entries = st.lists(plain_entries | table_entries, max_size=5)
changes = st.dictionaries(st.sampled_from(["m\0guard", "m\0park\0é", "n"]), st.none() | small, max_size=3)
which = st.integers(0, 1)


@dataclass
class Log:
    """A partition as it should be."""

    records: list[Entry] = field(default_factory=list)
    gone: int = 0
    """How many of them have expired."""

    @property
    def table(self) -> dict[bytes, bytes]:
        newest = {e.key: e.value for e in self.records}
        return {key: value for key, value in sorted(newest.items()) if value is not None}


@dataclass
class Ledger:
    """What landings have left of one partition of the service."""

    serial: int = 0
    state: dict[str, bytes] = field(default_factory=dict)
    progress: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    """The same by how many records of the model."""

    def land(self, landing: Landing, done: dict[str, int]) -> None:
        self.serial = landing.serial
        self.progress |= landing.progress
        self.done |= done
        for key, value in landing.state.items():
            self.state.pop(key, None)
            if value is not None:
                self.state[key] = value


@dataclass
class Reading:
    """Where the fetches of one lease stand, by the model's count, and the offset behind the last record of each topic."""

    at: dict[str, int]
    behind: dict[str, int] = field(default_factory=dict)


class Process:
    """A process, open for as long as the machine wants it so."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.member: Member | None = None
        self.service = AsyncExitStack()

    async def join(self, *, keeps: bool) -> None:
        """Hands over what is wanted at once; or keeps it, and then it is taken at once."""
        options: dict[str, Any] = {"keeps": True, "hand_over_s": 0} if keeps else {}
        self.member = await self.service.enter_async_context(joined(self.bus, "svc", *READ, **options))

    async def part(self) -> None:
        self.member = None
        await self.service.aclose()


def same(found: list[Stored], wanted: list[Entry]) -> bool:
    return [Entry(s.topic, s.partition, s.key, s.value, s.headers) for s in found] == wanted


class Machine(RuleBasedStateMachine):
    """Two processes on one bus, and what should come of what they do."""

    def __init__(self, world: World, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.world, self.loop = world, loop
        self.logs: defaultdict[tuple[str, int], Log] = defaultdict(Log)
        self.ledgers: defaultdict[int, Ledger] = defaultdict(Ledger)
        self.owners: dict[int, Lease] = {}
        self.reading: dict[int, Reading] = {}
        self.zombies: list[Lease] = []
        self.processes: list[Process] = []

    def run_(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        self.run_(self._begin())

    async def _begin(self) -> None:
        self.processes = [Process(await self.world.open()) for _ in range(2)]
        await self.processes[0].bus.create(TOPICS)
        await self._publish(0, [entry("in", b"%d" % i, partition=p) for p in range(PARTITIONS) for i in range(3)])
        await self.processes[0].join(keeps=False)
        await self._settle()

    # publishing and reading

    @rule(by=which, said=entries)
    def publish(self, by: int, said: list[Entry]) -> None:
        self.run_(self._publish(by, said))

    async def _publish(self, by: int, said: list[Entry]) -> None:
        await self.processes[by].bus.publish(said)
        self._append(said)

    def _append(self, said: list[Entry]) -> None:
        for e in said:
            self.logs[e.topic, e.partition].records.append(e)

    @rule(by=which, said=entries)
    def publish_one_too_large(self, by: int, said: list[Entry]) -> None:
        with pytest.raises(TooLarge):
            self.run_(self.processes[by].bus.publish([*said, entry("out", b"x" * (2 * LIMIT))]))

    @rule(by=which, topic=st.sampled_from(PLAIN), partition=partitions, skip=st.integers(0, 30), most=st.integers(1, 9))
    def read(self, by: int, topic: str, partition: int, skip: int, most: int) -> None:
        self.run_(self._read(self.processes[by].bus, topic, partition, skip, most))

    async def _read(self, bus: Bus, topic: str, partition: int, skip: int, most: int) -> None:
        log = self.logs[topic, partition]
        whole = await self._settled_log(bus, topic, partition)
        assert same(whole, log.records[log.gone :])
        offsets = [s.offset for s in whole]
        span = await bus.span(topic, partition)
        assert offsets == sorted(set(offsets))
        assert all(span.begin <= offset < span.end for offset in offsets)
        if whole:
            at = whole[skip % len(whole)]
            some = await bus.read(topic, partition, at.offset, max_records=most, max_bytes=MANY)
            assert 1 <= len(some) <= most
            assert some == [s for s in whole if s.offset >= at.offset][: len(some)]
            since = await bus.offset_at(topic, partition, at.time_ms)
            later = await bus.read(topic, partition, since, max_records=1, max_bytes=1)
            assert later[0].time_ms >= at.time_ms
        if log.gone:
            with pytest.raises(Expired):
                await bus.read(topic, partition, 0, max_records=1, max_bytes=1)

    async def _settled_log(self, bus: Bus, topic: str, partition: int) -> list[Stored]:
        """What has landed is readable a moment later."""
        log = self.logs[topic, partition]

        async def enough() -> bool:
            return len(await values(bus, topic, partition)) >= len(log.records) - log.gone

        await eventually(enough)
        return await everything(bus, topic, partition)

    @rule(by=which, partition=partitions, prefix=st.sampled_from([b"", b"a", b"a\0", b"\xff", b"z"]))
    def look_into_table(self, by: int, partition: int, prefix: bytes) -> None:
        self.run_(self._look(self.processes[by].bus, partition, prefix))

    async def _look(self, bus: Bus, partition: int, prefix: bytes) -> None:
        wanted = self.logs["table", partition].table
        table = await bus.follow("table", partition)

        async def same_as_wanted() -> bool:
            await table.caught_up()
            return {s.key: s.value for s in table.under(b"")} == wanted

        await eventually(same_as_wanted)
        assert [s.key for s in table.under(prefix)] == [key for key in wanted if key.startswith(prefix)]
        for key in (b"a", b"never there"):
            found = table.get(key)
            assert (found.value if found else None) == wanted.get(key)

    # coming and going

    @rule(who=which, keeps=st.booleans())
    def join_or_part(self, who: int, keeps: bool) -> None:
        process = self.processes[who]
        self.run_(process.join(keeps=keeps) if process.member is None else process.part())
        self.run_(self._settle())

    @rule(who=which, keeps=st.booleans())
    def reopen(self, who: int, keeps: bool) -> None:
        self.run_(self._reopen(who, keeps))

    async def _reopen(self, who: int, keeps: bool) -> None:
        old, worked = self.processes[who], self.processes[who].member is not None
        await old.part()
        await old.bus.close()
        self.processes[who] = Process(await self.world.open())
        if worked:
            await self.processes[who].join(keeps=keeps)
        await self._settle()
        self.zombies.clear()  # those of a closed bus have nobody to ask

    async def _settle(self) -> None:
        """Back when the partitions are spread evenly over those who work; then leases are as the model has them."""
        working = [p.member for p in self.processes if p.member]
        share = PARTITIONS // len(working) if working else 0

        async def spread() -> bool:
            return all(len(member.leases) == share for member in working)

        await eventually(spread)
        now = {p: lease for member in working for p, lease in member.leases.items()}
        for partition in range(PARTITIONS):
            lease, before = now.get(partition), self.owners.get(partition)
            if lease is not before:
                if before is not None:
                    self.zombies = [*self.zombies, before][-6:]
                    del self.owners[partition]
                if lease is not None:
                    self._taken(lease)

    def _taken(self, lease: Lease) -> None:
        ledger = self.ledgers[lease.partition]
        self._agrees(lease, ledger)
        self.owners[lease.partition] = lease
        gone = {topic: self.logs[topic, lease.partition].gone for topic in READ}
        self.reading[lease.partition] = Reading({t: ledger.done.get(t, gone[t]) for t in READ})

    def _agrees(self, lease: Lease, ledger: Ledger) -> None:
        assert (lease.serial, dict(lease.state), dict(lease.progress)) == (
            ledger.serial,
            ledger.state,
            ledger.progress,
        )

    # working

    @precondition(lambda self: self.owners)
    @rule(
        partition=partitions,
        max_records=st.integers(1, 8),
        max_bytes=st.sampled_from([1, 100, 50_000, MANY]),
    )
    def fetch(self, partition: int, max_records: int, max_bytes: int) -> None:
        self.run_(self._fetch(partition, max_records, max_bytes))

    async def _fetch(self, partition: int, max_records: int, max_bytes: int) -> None:
        reading = self.reading[partition]
        logs = {topic: self.logs[topic, partition] for topic in READ}
        left = sum(len(log.records) - max(reading.at[topic], log.gone) for topic, log in logs.items())
        try:
            found = await self.owners[partition].fetch(
                max_records=max_records, max_bytes=max_bytes, wait_s=PATIENCE_S if left else 0
            )
        except Expired as hole:
            self._skip(partition, hole)
            return
        assert bool(found) == bool(left)
        assert len(found) <= max_records
        assert len(found) <= 1 or sum(s.size for s in found) <= max_bytes
        for stored in found:
            at = reading.at[stored.topic]
            assert same([stored], [logs[stored.topic].records[at]])
            reading.at[stored.topic] = at + 1
            assert stored.offset >= reading.behind.get(stored.topic, 0)
            reading.behind[stored.topic] = stored.offset + 1

    def _skip(self, partition: int, hole: Expired) -> None:
        reading, log = self.reading[partition], self.logs[hole.topic, partition]
        assert reading.at[hole.topic] <= log.gone  # equal: nobody can tell an offset without a record from a lost one
        reading.at[hole.topic] = log.gone

    def _landing(
        self, partition: int, said: list[Entry], state: dict[str, bytes | None]
    ) -> tuple[Landing, dict[str, int]]:
        reading = self.reading[partition]
        done = {topic: reading.at[topic] for topic in reading.behind}
        return Landing(self.ledgers[partition].serial + 1, list(said), dict(state), dict(reading.behind)), done

    @precondition(lambda self: self.owners)
    @rule(partition=partitions, said=entries, state=changes)
    def land(self, partition: int, said: list[Entry], state: dict[str, bytes | None]) -> None:
        landing, done = self._landing(partition, said, state)
        self.run_(self.owners[partition].land(landing))
        self.ledgers[partition].land(landing, done)
        self._append(said)
        assert self.owners[partition].serial == landing.serial

    @precondition(lambda self: self.owners)
    @rule(partition=partitions, said=entries, state=changes)
    def land_one_too_large(self, partition: int, said: list[Entry], state: dict[str, bytes | None]) -> None:
        landing, _ = self._landing(partition, [*said, entry("out", b"x" * (2 * LIMIT))], state)
        with pytest.raises(TooLarge):
            self.run_(self.owners[partition].land(landing))
        assert self.owners[partition].serial == landing.serial - 1

    @precondition(lambda self: self.zombies)
    @rule(which_one=st.integers(0, 5), said=entries, state=changes)
    def land_of_an_owner_that_was(self, which_one: int, said: list[Entry], state: dict[str, bytes | None]) -> None:
        lease = self.zombies[which_one % len(self.zombies)]
        with pytest.raises(Fenced):
            self.run_(lease.land(Landing(lease.serial + 1, said, state, {"in": 10**6})))
        assert not lease.fresh()

    @precondition(lambda self: self.owners)
    @rule(partition=partitions, forgotten=st.booleans())
    def renew(self, partition: int, forgotten: bool) -> None:
        lease = self.owners[partition]
        if forgotten:
            lease.forget_state()
        self.run_(lease.renew())
        self._agrees(lease, self.ledgers[partition])

    @precondition(lambda self: self.owners)
    @rule(partition=partitions)
    def release(self, partition: int) -> None:
        lease = self.owners[partition]
        for process in self.processes:
            if process.member:
                process.member.taken = [one for one in process.member.taken if one is not lease]
        self.run_(lease.release())
        self.run_(self._settle())

    @precondition(lambda self: self.owners)
    @rule(partition=partitions, after_s=st.sampled_from([0.0, 0.0005, 0.001, 0.002]))
    def cancel_a_fetch(self, partition: int, after_s: float) -> None:
        self.run_(self._cancel_a_fetch(self.owners[partition], after_s))

    async def _cancel_a_fetch(self, lease: Lease, after_s: float) -> None:
        fetching = asyncio.create_task(lease.fetch(max_records=3, max_bytes=MANY, wait_s=PATIENCE_S))
        await asyncio.sleep(0)
        await asyncio.sleep(after_s)
        fetching.cancel()
        await asyncio.wait([fetching])
        if not fetching.cancelled() and fetching.exception() is None:
            found = fetching.result()
            for stored in found:
                self.reading[lease.partition].at[stored.topic] += 1
                self.reading[lease.partition].behind[stored.topic] = stored.offset + 1

    # what time and others do

    @rule(by=which)
    def trim(self, by: int) -> None:
        self.run_(self.processes[by].bus.trim())

    @precondition(lambda self: not self.world.holds_for_readers)
    @rule(by=which, topic=st.sampled_from(PLAIN), partition=partitions)
    def expire(self, by: int, topic: str, partition: int) -> None:
        self.run_(self._expire(self.processes[by].bus, topic, partition))

    async def _expire(self, bus: Bus, topic: str, partition: int) -> None:
        log = self.logs[topic, partition]
        await self._settled_log(bus, topic, partition)
        if len(log.records) > log.gone:
            await self.world.expire(bus, topic, partition)
            log.gone = len(log.records)

    @precondition(lambda self: isinstance(self.world, MemoryWorld) and self.owners)
    @rule(partition=partitions, said=entries, state=changes, wait_s=st.sampled_from([0.0, 0.01, 1.0]))
    def land_with_an_end_nobody_sees(
        self, partition: int, said: list[Entry], state: dict[str, bytes | None], wait_s: float
    ) -> None:
        assert isinstance(self.world, MemoryWorld)
        log, lease = self.world.log(), self.owners[partition]
        landing, done = self._landing(partition, said, state)
        log.unseen = 1.0
        try:
            with pytest.raises(UnseenEnd):
                self.run_(lease.land(landing))
        finally:
            log.unseen = 0.0
        self.run_(asyncio.sleep(wait_s))
        self.run_(lease.renew())
        if lease.serial == landing.serial:
            self.ledgers[partition].land(landing, done)
            self._append(said)
        self._agrees(lease, self.ledgers[partition])

    @precondition(lambda self: isinstance(self.world, MemoryWorld))
    @rule(who=which, sessions=st.sampled_from([0.5, 3.0]))
    def stop_and_go_on(self, who: int, sessions: float) -> None:
        self.run_(self._stop_and_go_on(who, sessions))

    async def _stop_and_go_on(self, who: int, sessions: float) -> None:
        bus = self.processes[who].bus
        assert isinstance(bus, MemoryBus)
        bus.log.stop(bus)
        await asyncio.sleep(sessions * bus.log.session_s)
        bus.log.resume(bus)
        await asyncio.sleep(bus.log.heartbeat_s + bus.log.settle_s[1] + bus.log.notice_s[1])
        await self._settle()

    # the end

    def teardown(self) -> None:
        try:
            self.run_(self._compare())
        finally:
            self.run_(self._end())
            self.loop.close()

    async def _end(self) -> None:
        for process in self.processes:
            await process.part()
        await self.world.close()

    async def _compare(self) -> None:
        if not self.processes:
            return
        bus = self.processes[0].bus
        for partition in range(PARTITIONS):
            for topic in PLAIN:
                await self._read(bus, topic, partition, 0, 1)
            await self._look(bus, partition, b"")
        wanted = {(t, p): offset for p, ledger in self.ledgers.items() for t, offset in ledger.progress.items()}
        await has_done(bus, wanted)


def search(kind: str, world: Any, *, share: int) -> None:
    """`share`: one example of so many that the profile allows."""

    class Here(Machine):
        def __init__(self) -> None:
            super().__init__(world(), VirtualLoop() if kind == "memory" else asyncio.new_event_loop())

    examples = max(2, settings().max_examples // share)
    run_state_machine_as_test(Here, settings=settings(max_examples=examples, stateful_step_count=STEPS))


def test_the_memory_bus_does_what_the_model_says() -> None:
    search("memory", MemoryWorld, share=1)


def test_the_embedded_bus_does_what_the_model_says(tmp_path: Path) -> None:
    runs = iter(range(10**6))

    def world() -> EmbeddedWorld:
        folder = tmp_path / str(next(runs))
        folder.mkdir()
        return EmbeddedWorld(folder)

    search("embedded", world, share=5)


@pytest.mark.kafka
def test_the_kafka_bus_does_what_the_model_says() -> None:
    bootstrap = a_broker()
    search("kafka", lambda: KafkaWorld(bootstrap), share=33)
