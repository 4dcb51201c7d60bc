"""What a bus promises. Held by one conformance suite (`tests/bus/`) on every bus; the runner knows nothing else of it.

The heart is `Lease.land`: outputs, state and progress together or not at all, and only for the owner of the lease.
Names of topics are without the deployment's prefix here; a bus adds it. Partitions are numbered 0 … partitions-1 and the
same for all topics. State keys and values are the caller's business.

Order of events that every bus keeps:
1. taking a lease fences the owner before; only then progress and state are read,
2. a landing of a fenced owner changes nothing and raises Fenced,
3. readers see a landing whole, after it has ended, or not at all (a reader may see one partition of it before another),
4. offsets of a partition only grow, and a reader that was at offset n sees every later record once, in order;
   numbers may be left out (Kafka's transaction markers take one),
5. a lease is taken from nobody who is alive: one that another should have becomes `wanted`, its owner finishes and
   releases it, and only then the other takes it. Only an owner that has died, has stopped for longer than the session, or
   keeps a wanted lease for too long (see `Bus.join`) loses it by fencing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from streamproc.topics import Topic
from streamproc.wire import Entry, Stored

PARTITIONS = 16
"""Of a new deployment, where nobody says."""

HAND_OVER_S = 60.0
"""How long an owner may keep a lease that another should have, where `join` says nothing else."""


class Span(NamedTuple):
    """Readable offsets of a partition: [begin, end)."""

    begin: int
    end: int


@dataclass(slots=True)
class Landing:
    """What lands together. `serial` is the lease's last one plus one: how a landing is known again whose end nobody saw."""

    serial: int
    outputs: list[Entry] = field(default_factory=list)
    state: dict[str, bytes | None] = field(default_factory=dict)
    """None deletes the key."""
    progress: dict[str, int] = field(default_factory=dict)
    """Topic → first offset not done, in the lease's partition."""


class Lease(Protocol):
    """Exclusive ownership of one partition of all topics that a service reads."""

    service: str
    partition: int
    state: Mapping[str, bytes]
    """As of the last landing before this lease was taken (or renewed). The bus lets go of it once `forget_state` is called."""
    lost: asyncio.Event
    """Set when the lease is known to be lost. Not knowing is no proof of owning: landing is."""

    @property
    def wanted(self) -> asyncio.Event:
        """Set while another member should have the lease: finish, land, release. Cleared where it turns out that none
        should (the one who joined has died): who has not begun to finish goes on, who has gets it back once it is released.
        """

    @property
    def progress(self) -> Mapping[str, int]:
        """Topic → first offset not done, as of the same landing; a topic nobody ever landed for is absent."""

    @property
    def serial(self) -> int:
        """Of the last landing; 0 before the first."""

    def forget_state(self) -> None:
        """The owner has taken the state over; free the memory."""

    def fresh(self) -> bool:
        """The heartbeat is younger than the session: nobody can have taken the lease yet. No call starts without this."""

    async def fetch(self, *, max_records: int, max_bytes: int, wait_s: float) -> list[Stored]:
        """The next records of this lease's partition, of all topics in turn, from `progress` on; [] after `wait_s`.

        At least one record comes if there is one, however large. Each call goes on behind the one before. Raises Expired
        once for a hole that retention made, and stands behind it then. Only one call at a time; cancelling it loses nothing.
        """

    async def land(self, landing: Landing) -> None:
        """All of it, or Fenced, UnseenEnd, or DiskFull or Unreachable with nothing landed.

        One landing at a time; nothing raises once it is known to have landed.
        """

    async def renew(self) -> None:
        """After UnseenEnd: fence, then read state, progress and serial again. Fenced if the partition is no longer ours.

        Where fetch stands does not change.
        """

    async def release(self) -> None:
        """Give it back, so that another can take it at once. Nothing more lands."""


class Membership(Protocol):
    """One process's part in a service."""

    def leases(self) -> AsyncIterator[Lease]:
        """Leases as they are taken, ready to work; ends after `leave`. A lease comes as soon as there may be something to do."""

    async def leave(self) -> None:
        """Take no more leases. Leases held stay until they are released."""


class Table(Protocol):
    """One partition of a compacted topic, followed: the newest value of every key."""

    def get(self, key: bytes) -> Stored | None: ...

    def under(self, prefix: bytes) -> list[Stored]:
        """Newest values of all keys that start with prefix, in the order of their keys."""

    async def caught_up(self) -> None:
        """Back once everything that had landed when this was called can be got."""

    def on_change(self, heard: Callable[[Stored], None]) -> Callable[[], None]:
        """Call `heard` for every record as it comes (a deletion has the value None). Returns what stops it."""


class Bus(Protocol):
    """A log of topics, shared by everybody who opens it."""

    partitions: int

    async def close(self) -> None: ...

    async def create(self, topics: Sequence[Topic]) -> None:
        """Make what is missing; Misconfigured where one is there with another number of partitions."""

    async def topics(self) -> dict[str, int]:
        """Topics that are there → their number of partitions."""

    async def publish(self, entries: Sequence[Entry]) -> None:
        """Durable when this returns, all or none; for writers that are no stage (command line, imports)."""

    async def read(self, topic: str, partition: int, offset: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        """Committed records from offset on, at least one if there is one; [] at the end. Expired where offset < begin."""

    async def span(self, topic: str, partition: int) -> Span: ...

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset landed at or after time_ms; the end if there is none."""

    async def follow(self, topic: str, partition: int) -> Table:
        """The table, caught up. Followed once per process however often it is asked for, until the bus closes."""

    def join(
        self,
        service: str,
        topics: Sequence[str],
        *,
        weights: Callable[[], Sequence[int]],
        hand_over_s: float = HAND_OVER_S,
    ) -> AbstractAsyncContextManager[Membership]:
        """Work in a service: partitions are spread over its members by `weights` (streams per partition), moving few.

        A lease of ours that is wanted and not released after `hand_over_s` is lost. Leaving the context leaves the
        service and gives back what is still held.
        """

    async def members(self, service: str) -> dict[str, list[int]]:
        """Who works in a service now → the partitions each holds."""

    async def progress(self, service: str) -> dict[tuple[str, int], int]:
        """(topic, partition) → first offset not done; for lag and status: it may tell of a landing a moment late."""

    async def services(self) -> list[str]:
        """Those whose progress and state is kept, whether anybody works in them or not; by name."""

    async def forget(self, service: str) -> None:
        """A service that will not come back: its progress and state go, and retention holds nothing for it any more. One
        of this name that joins later begins from the beginning. Misconfigured while somebody works in it."""

    async def trim(self) -> None:
        """Apply retention and compaction now, where the bus does that itself (a broker does it on its own)."""
