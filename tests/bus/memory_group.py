"""Who works on which partition of one service, in memory: members come, go, fall silent; partitions change hands.

Order of events in a hand-over, as on the real buses: the owner is told that another should have its lease, and releases
it; then the other takes it. Of an owner that is dead, asleep or deaf: it stops being fresh, the epoch is raised (which fences
it), progress and state are read, the new owner gets its lease; the old one hears of it some time later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from streamproc.bus.contract import Lease
from streamproc.bus.spread import spread

if TYPE_CHECKING:
    from tests.bus.memory import MemoryBus, MemoryLease
    from tests.bus.memory_log import MemoryLog


class Group:
    """The members of one service, and the last lease given of every partition."""

    def __init__(self, log: MemoryLog, service: str) -> None:
        self.log, self.service = log, service
        self.members: list[MemoryMembership] = []
        self.owners: dict[int, MemoryLease] = {}
        self.joined = 0
        self._timer: asyncio.TimerHandle | None = None

    def settle_soon(self) -> None:
        """Something has changed; changes close together are settled together."""
        if self._timer is None:
            delay_s = self.log.rng.uniform(*self.log.settle_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._settle)

    def _settle(self) -> None:
        self._timer = None
        self.members = [m for m in self.members if not (m.bus.killed and m.bus.expired)]
        working = [m for m in self.members if not m.leaving and not m.bus.expired]
        if not working:
            return
        weights = [max(shares) for shares in zip(*(m.weights() for m in working), strict=True)]
        # What is asked for goes, so it weighs on nobody: where the one who was to have it is gone, it may come back.
        staying = {m.name: [lease.partition for lease in m.held() if not lease.asked] for m in working}
        shares = spread(staying, weights)
        for member in working:
            for partition in shares[member.name]:
                self._give(partition, member)

    def _give(self, partition: int, member: MemoryMembership) -> None:
        before = self.owners.get(partition)
        if before is not None and not before.over:
            if before.member is member:
                before.unwant()
                return
            if not before.bus.expired and (before.member.leaving or before.want()):
                return  # it finishes what it has; its release settles this
            before.revoke()
            if before.bus.running.is_set() and not before.bus.expired:
                self.log.moved(self.service, partition, before.bus)
        self.owners[partition] = lease = member.bus.lease_type(member, partition)
        member.grant(lease)


class MemoryMembership:
    """See the contract."""

    def __init__(
        self,
        bus: MemoryBus,
        group: Group,
        topics: Sequence[str],
        weights: Callable[[], Sequence[int]],
        hand_over_s: float,
    ) -> None:
        self.bus, self.group, self.topics, self.weights = bus, group, tuple(topics), weights
        self.hand_over_s = hand_over_s
        group.joined += 1
        self.name = f"{group.service}#{group.joined:04}"
        self.leaving = False
        self._given: deque[MemoryLease] = deque()
        self._news = asyncio.Event()
        group.members.append(self)
        bus.memberships.append(self)
        group.settle_soon()

    def held(self) -> list[MemoryLease]:
        """Leases given to this member that are not known to be over."""
        return [lease for lease in self.group.owners.values() if lease.member is self and not lease.released]

    def grant(self, lease: MemoryLease) -> None:
        self._given.append(lease)
        self._news.set()

    async def leases(self) -> AsyncIterator[Lease]:
        while True:
            self._news.clear()
            while self._given:
                await self.bus.breath(self.group.log.read_s)
                if self._given and not (lease := self._given.popleft()).over:
                    yield lease
            if self.leaving:
                return
            await self._news.wait()

    async def leave(self) -> None:
        await self.bus.breath(self.group.log.read_s)
        self.stop()

    def stop(self) -> None:
        """No new leases; those given that nobody has seen are given back."""
        self.leaving = True
        while self._given:
            self._given.popleft().give_back()
        self._news.set()
        self.group.settle_soon()

    def quit(self) -> None:
        """The end of it: everything held is given back."""
        self.stop()
        for lease in self.held():
            lease.give_back()
        if self in self.group.members:
            self.group.members.remove(self)
            self.bus.memberships.remove(self)
