"""What stands behind all `MemoryBus`es of a simulated deployment: records, ledgers, and the weather.

It survives its processes as a broker or a file would. It knows nothing of leases but the epoch that fences them.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamproc import topics, wire
from streamproc.bus.contract import Landing, Span
from streamproc.errors import Misconfigured
from streamproc.messages import Coverage, Record, parse_id
from streamproc.topics import Topic, partition_of, stream_of
from streamproc.wire import Entry, Stored

if TYPE_CHECKING:
    from tests.bus.memory import MemoryBus
    from tests.bus.memory_group import Group

Spread = tuple[float, float]
"""Seconds, from … to; which of them is the dice's business."""


class Partition:
    """Records in the order of their offsets; not every offset has one."""

    __slots__ = ("begin", "end", "heard", "newest", "records")

    def __init__(self) -> None:
        self.records: list[Stored] = []
        self.begin = self.end = 0
        self.newest: dict[bytes, Stored] = {}
        """Of every key, as a table that is never late would have it."""
        self.heard: dict[object, Callable[[], None]] = {}
        """Who wants to know that there is more; by whatever they are known by."""

    def at(self, offset: int) -> int:
        """Where in `records` the first one at or behind an offset is."""
        records = self.records
        if not records or offset > records[-1].offset:
            return len(records)
        if offset >= self.end - len(records):  # no holes behind it: the usual case, found without a search
            guess = offset - self.end + len(records)
            if records[guess].offset == offset:
                return guess
        return bisect_left(records, offset, key=lambda r: r.offset)

    def add(self, entry: Entry, time_ms: int) -> None:
        stored = Stored(
            entry.topic, entry.partition, entry.key, entry.value, entry.headers, offset=self.end, time_ms=time_ms
        )
        self.records.append(stored)
        self.newest[entry.key] = stored
        self.end += 1

    def cut(self, begin: int) -> None:
        """What stands before `begin` is gone."""
        del self.records[: self.at(begin)]
        self.begin = max(self.begin, begin)


@dataclass(slots=True)
class Ledger:
    """What landings leave behind for the next owner of one (service, partition)."""

    epoch: int = 0
    serial: int = 0
    state: dict[str, bytes] = field(default_factory=dict)
    progress: dict[str, int] = field(default_factory=dict)

    def apply(self, landing: Landing) -> None:
        self.serial = landing.serial
        self.progress.update(landing.progress)
        for key, value in landing.state.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value


@dataclass
class MemoryLog:
    """Shared by the buses of all processes. Every field may be turned while the simulation runs."""

    partitions: int = 16
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    torn: float = 0.0
    """Landings whose outputs stand while state and progress do not; the owner is fenced."""
    unseen: float = 0.0
    """Landings whose end nobody sees: done, not done, or still under way until somebody fences it."""
    away: float = 0.0
    """Requests that are not answered, and have done nothing."""
    disk_full: bool = False
    markers: bool = False
    """Every landing takes one offset more in each partition it wrote to, as Kafka's transactions do."""
    table_lag_s: float = 0.0
    """Tables hear of a record up to so much later."""
    landing_s: Spread = (0.001, 0.03)
    read_s: Spread = (0.0, 0.005)
    notice_s: Spread = (0.0, 0.5)
    """How long an owner does not know that it has lost a partition to another, or that another should have it."""
    settle_s: Spread = (0.005, 0.1)
    """How long it takes a group to agree on who has what."""
    session_s: float = 10.0
    """How long a silent owner is waited for."""
    heartbeat_s: float = 1.0
    audit: Callable[[str, int, Landing], None] = lambda service, partition, landing: None
    """Called with every landing in the moment it happens."""
    moved: Callable[[str, int, MemoryBus], None] = lambda service, partition, bus: None
    """Called when a partition is taken from a bus that is alive and awake, because it kept it for too long: what is in
    flight there will be repeated."""

    def __post_init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.known: dict[str, Topic] = {}
        self._logs: dict[tuple[str, int], Partition] = {}
        self._ids: dict[str, tuple[set[tuple[Any, ...]], list[int]]] = {}
        self.ledgers: defaultdict[tuple[str, int], Ledger] = defaultdict(Ledger)

    # records

    def topic(self, name: str) -> Topic:
        """Dead letters' topics are made as they are needed, and all that ships is there."""
        if name in self.known:
            return self.known[name]
        return self.topic(name.removesuffix(topics.DLQ)).dlq if name.endswith(topics.DLQ) else topics.topic(name)

    def log(self, topic: str, partition: int) -> Partition:
        found = self._logs.get((topic, partition))
        if found is None:
            self.topic(topic)
            if not 0 <= partition < self.partitions:
                raise Misconfigured(f"{topic}[{partition}]: partitions are numbered 0 … {self.partitions - 1}")
            found = self._logs[topic, partition] = Partition()
        return found

    def append(self, entries: Iterable[Entry]) -> None:
        """All of them in this moment, then tell whoever listens."""
        time_ms = int(asyncio.get_running_loop().time() * 1000)
        touched: dict[Partition, None] = {}
        for entry in entries:
            log = self.log(entry.topic, entry.partition)
            log.add(entry, time_ms)
            touched[log] = None
        for log in touched:
            log.end += self.markers
            for hear in list(log.heard.values()):
                hear()

    def put(self, record: Record | Coverage, sub: Iterable[str] = ()) -> None:
        """A record from outside, as a command would publish it."""
        self.append([wire.encode(record, partitions=self.partitions, time="", sub=tuple(sub))])

    def span(self, topic: str, partition: int) -> Span:
        log = self.log(topic, partition)
        return Span(log.begin, log.end)

    def expire(self, topic: str, partition: int, *, before: int) -> None:
        """Retention has eaten what stands before an offset."""
        self.log(topic, partition).cut(before)

    def trim(self) -> None:
        """Retention by time, and compaction: the newest of every key stays."""
        now_ms = asyncio.get_running_loop().time() * 1000
        for (name, _), log in self._logs.items():
            topic = self.topic(name)
            if topic.compacted:
                log.records = [s for s in log.records if log.newest[s.key] is s and s.value is not None]
            if topic.retention_hours:
                oldest_ms = now_ms - topic.retention_hours * 3_600_000
                log.cut(next((s.offset for s in log.records if s.time_ms >= oldest_ms), log.end))

    # what a test wants to know, without reading like a bus

    def all(self, topic: str, partition: int) -> list[Stored]:
        return list(self.log(topic, partition).records)

    def newest(self, topic: str, key: bytes) -> Stored | None:
        """A record's or a deletion's place in the log, whichever came last for the key."""
        return self.log(topic, partition_of(stream_of(key), self.partitions)).newest.get(key)

    def under(self, topic: str, prefix: bytes) -> list[Stored]:
        """Newest values of the keys of one stream that start with a prefix, in the order of their keys."""
        newest = self.log(topic, partition_of(stream_of(prefix), self.partitions)).newest
        return [
            newest[key] for key in sorted(k for k in newest if k.startswith(prefix)) if newest[key].value is not None
        ]

    def ids(self, topic: str) -> set[tuple[Any, ...]]:
        """(service, root, stream, generation, index) of all that ever landed in a topic."""
        ids, seen = self._ids.setdefault(topic, (set(), [0] * self.partitions))
        for partition in range(self.partitions):
            log = self.log(topic, partition)
            if seen[partition] < log.end:
                for stored in log.records[log.at(seen[partition]) :]:
                    ident = stored.header("ce_id")
                    if ident and (parsed := parse_id(ident.decode())):
                        ids.add((*parsed[0], parsed[1]))
                seen[partition] = log.end
        return ids

    def state_keys(self, kind: str) -> list[tuple[str, int, str]]:
        """(service, partition, key) of all landed state of a kind: keys are `STREAM\\0kind\\0…`."""
        mark = f"\0{kind}\0"
        return [(*owner, key) for owner, ledger in self.ledgers.items() for key in ledger.state if mark in key]

    # processes that break

    def kill(self, bus: MemoryBus) -> None:
        """kill -9: nothing comes back to it. Found out at once (a lock that falls) or after the session."""
        bus.die()
        self._expire_in(self.rng.choice((0.0, self.session_s)), bus)

    def stop(self, bus: MemoryBus) -> None:
        """SIGSTOP: whatever it asked for waits until `resume`; after the session others take its leases."""
        bus.naps += 1
        bus.running.clear()
        self._expire_in(self.session_s, bus)

    def resume(self, bus: MemoryBus) -> None:
        """SIGCONT: it goes on where it was, and learns by its next heartbeat what it has lost."""
        if bus.killed or bus.running.is_set():
            return
        bus.naps += 1
        bus.running.set()
        bus.go_on()
        if bus.expired:
            bus.later(self.rng.uniform(0, self.heartbeat_s), lambda: self._beat(bus))

    def _expire_in(self, seconds: float, bus: MemoryBus) -> None:
        nap = bus.naps

        def expire() -> None:
            if bus.killed or bus.naps == nap:
                bus.expired = True
                self._settle(bus)

        asyncio.get_running_loop().call_later(seconds, expire)

    def _beat(self, bus: MemoryBus) -> None:
        bus.expired = False
        for member in bus.memberships:
            for lease in member.held():
                if lease.over:
                    lease.lost.set()
        self._settle(bus)

    def _settle(self, bus: MemoryBus) -> None:
        for member in bus.memberships:
            member.group.settle_soon()
