"""One process's part in a service: take what is assigned to it and free; what is held and assigned to another is wanted.

Nobody takes anything from an owner who is alive: the one it is assigned to waits for the release. So it is the owner who
keeps the time of a hand-over, and gives up a lease whose holder does not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from streamproc.bus.contract import Lease
from streamproc.bus.embedded import roster
from streamproc.bus.embedded.lease import EmbeddedLease, load
from streamproc.bus.embedded.log import Part
from streamproc.bus.embedded.presence import Standing
from streamproc.bus.embedded.writer import Plain, Tx
from streamproc.errors import Fenced, Misconfigured, Retryable

if TYPE_CHECKING:
    from streamproc.bus.embedded.bus import Embedded

log = logging.getLogger(__name__)


class EmbeddedMembership:
    def __init__(
        self,
        bus: Embedded,
        service: str,
        topics: Sequence[str],
        member: int,
        *,
        weights: Callable[[], Sequence[int]],
        hand_over_s: float,
    ) -> None:
        self._bus, self._service, self._topics, self._member, self._weights = bus, service, topics, member, weights
        self._hand_over_s = hand_over_s
        self._held: dict[int, EmbeddedLease] = {}
        self._taken: asyncio.Queue[EmbeddedLease | None] = asyncio.Queue()  # at most one a partition, and the end
        self._leaving = False
        self._stirred = asyncio.Event()
        self._shared: tuple[object, ...] = ()
        """What the last assignment was made for."""

    async def leases(self) -> AsyncIterator[Lease]:
        while lease := await self._taken.get():
            if not lease.lost.is_set():
                yield lease
        self._taken.put_nowait(None)  # for whoever else iterates
        if not self._leaving:
            self._bus.heads.check()

    async def leave(self) -> None:
        if not self._leaving:
            self._leaving = True
            while not self._taken.empty():  # nobody has seen these
                if lease := self._taken.get_nowait():
                    await lease.release()
            self._taken.put_nowait(None)
            await self._bus.writer.do(Plain(lambda tx: roster.leave(tx.db, self._member)))

    def stir(self) -> None:
        """Members or owners may have changed."""
        self._stirred.set()

    def end(self) -> None:
        """Nothing is ours any more: we part, or the bus closes or fails."""
        for lease in self._held.values():
            lease.lose()
        self._held.clear()
        self._taken.put_nowait(None)

    async def tend(self, *, every_s: float) -> None:
        """For as long as the membership lasts. What nobody announces (a death) is seen at the next turn."""
        while True:
            self._bus.heads.check()
            self._stirred.clear()
            try:
                await self._look()
            except Retryable as e:  # the next turn tries again
                log.warning("%s: %s", self._service, e)
            try:
                async with asyncio.timeout(every_s):
                    await self._stirred.wait()
            except TimeoutError:
                continue

    def revived(self, owned: set[tuple[int, int]]) -> None:
        """We were stopped for longer than the session; `owned` are the (lease, epoch) that nobody took meanwhile."""
        for lease in self._held.values():
            if (lease.id, lease.epoch) not in owned:
                lease.lose()
        self.stir()

    async def _look(self) -> None:
        seen = await self._bus.reader.call(lambda db: roster.load(db, self._service))
        self._held = {p: lease for p, lease in self._held.items() if not lease.lost.is_set()}
        if self._leaving or not self._bus.presence.fresh():
            return
        standing = self._bus.presence.standing
        await self._lead(seen, standing)
        for row in seen.leases:
            held = self._held.get(row.partition)
            if held is not None:
                await self._keep_or_hand_over(held, row.assigned)
            elif row.assigned == self._member:
                if seen.takeable(row, self._member, standing):
                    await self._take(row)
            elif row.owner == self._member:  # it could not be given back
                await self._bus.writer.do(Plain(partial(_release, row=row)))

    async def _keep_or_hand_over(self, held: EmbeddedLease, assigned: int | None) -> None:
        if assigned in (self._member, None):
            held.wanted.clear()
        elif held.wanted.longer_than(self._hand_over_s):
            log.warning(
                "%s[%d]: not released %g s after another was to have it",
                self._service,
                held.partition,
                self._hand_over_s,
            )
            await held.release()
        else:
            held.wanted.set()

    async def _lead(self, seen: roster.Roster, standing: Callable[[int], Standing]) -> None:
        """Assign partitions, if that is ours to do and anything it depends on has changed."""
        working = seen.working(standing)
        if not working or working[0].id != self._member:
            self._shared = ()
            return
        weights = list(self._weights())
        if len(weights) != self._bus.partitions:
            raise Misconfigured(f"{self._service}: {len(weights)} weights for {self._bus.partitions} partitions")
        ids = [m.id for m in working]
        shared = (ids, len(seen.members), weights)
        if shared != self._shared or any(row.assigned not in ids for row in seen.leases):
            member = self._member
            await self._bus.writer.do(
                Plain(lambda tx: roster.assign(tx.db, self._service, member=member, weights=weights, standing=standing))
            )
            self._shared = shared
            self.stir()

    async def _take(self, row: roster.Owned) -> None:
        standing = self._bus.presence.standing
        epoch = await self._bus.writer.do(
            Plain(lambda tx: roster.take(tx.db, self._service, lease=row, member=self._member, standing=standing))
        )
        if epoch is None:
            return
        parts: list[Part] = [self._bus.catalog.part(topic, row.partition) for topic in self._topics]
        prefix = self._bus.catalog.prefix
        try:
            loaded = await self._bus.reader.call(lambda db: load(db, row.id, parts, prefix=prefix))
        except Fenced as e:
            log.warning("%s[%d]: %s", self._service, row.partition, e)
            return
        lease = EmbeddedLease(
            self._bus,
            self._service,
            row.partition,
            id_=row.id,
            epoch=epoch,
            member=self._member,
            parts=parts,
            loaded=loaded,
        )
        if self._leaving:
            await lease.release()
            return
        self._held[row.partition] = lease
        self._taken.put_nowait(lease)


def _release(tx: Tx, row: roster.Owned) -> None:
    roster.release(tx.db, row.id, row.epoch)
