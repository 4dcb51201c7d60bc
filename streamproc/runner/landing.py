"""Landing: as soon as there is something to land and the last one has ended. Batches form by themselves.

An end that nobody saw is found out, never guessed: the lease is renewed (which fences whatever is still under way) and
the serial that lands with every landing says whether this one has. Calls are not made again for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from streamproc.bus.contract import Landing
from streamproc.errors import DiskFull, Fenced, Retryable, Unreachable, UnseenEnd
from streamproc.topics import topic

if TYPE_CHECKING:
    from streamproc.runner.runner import Runner

log = logging.getLogger(__name__)

LATE_S = 0.25
"""A landing that takes longer, many times the usual, is taken for one that may not come."""


class Landings:
    """Of one lease."""

    def __init__(self, runner: Runner) -> None:
        self.r = runner
        self.under_way: Landing | None = None
        self._last = runner.lease.serial
        """Of those that have landed."""
        self._began_s, self._failed = 0.0, False
        self._landed = asyncio.Event()

    @property
    def stuck(self) -> bool:
        """The landing under way has failed so far, or takes long. What is answered now has nowhere to go, and is paid for
        twice should we end before it lands: so no call is begun."""
        return self.under_way is not None and (self._failed or self.under_way_s > LATE_S)

    @property
    def under_way_s(self) -> float:
        """For how long the landing under way has been tried; 0 where none is."""
        return 0.0 if self.under_way is None else asyncio.get_running_loop().time() - self._began_s

    async def run(self) -> None:
        dirty = self.r.book.dirty
        while True:
            await dirty.wait()
            for _ in range(3):
                await asyncio.sleep(0)  # what is in order leaves before it would be written as parked
            size_bytes = self.r.book.output_bytes
            await self._land(self.r.book.cut(), size_bytes)

    async def flush(self) -> None:
        """Back when everything that is in the book now has landed, whatever comes in meanwhile."""
        book = self.r.book
        last = book.serial + book.dirty.is_set()
        while self._last < last:
            await self.next_end()

    async def next_end(self) -> None:
        """Back when a landing has ended."""
        self._landed.clear()
        await self._landed.wait()

    async def _land(self, landing: Landing, size_bytes: int) -> None:
        r, loop = self.r, asyncio.get_running_loop()
        self.under_way = landing
        self._began_s, self._failed = loop.time(), False
        await self._check_in(landing)
        while True:
            try:
                await r.lease.land(landing)
            except UnseenEnd as e:
                self._failed = True
                r.counts.unseen_ends += 1
                log.warning("%s[%d]: %s; looking whether it landed", r.service, r.lease.partition, e)
                await self._renewed()
                if r.lease.serial == landing.serial:
                    break
                if r.lease.serial != landing.serial - 1:
                    raise Fenced(
                        f"{r.service}[{r.lease.partition}]: serial {r.lease.serial} has landed where "
                        f"{landing.serial - 1} or {landing.serial} was expected: somebody else owns the lease"
                    ) from e
            except (DiskFull, Unreachable) as e:
                self._failed = True
                log.error("%s[%d]: %s. Nothing landed; trying again", r.service, r.lease.partition, e)  # noqa: TRY400  # the cause says it all
                await r.pause()
            else:
                break
        self._account(landing, size_bytes, loop.time() - self._began_s)

    async def _check_in(self, landing: Landing) -> None:
        """Payloads that are too large go to the store first: a claim never lands before what it stands for."""
        claims = self.r.claims
        for i, entry in enumerate(landing.outputs) if claims else ():
            most = topic(entry.topic).max_bytes
            while claims and entry.size > claims.limit(most):
                try:
                    landing.outputs[i] = await claims.check_in(entry, most)
                except Retryable as e:
                    log.warning("%s[%d]: %s", self.r.service, self.r.lease.partition, e)
                    await self.r.pause()
                else:
                    break

    async def _renewed(self) -> None:
        """Fenced if the lease is no longer ours; an unreachable bus is waited for."""
        while True:
            try:
                await self.r.lease.renew()
                self.r.lease.forget_state()  # the book has it, and is ahead of it
            except Retryable as e:
                log.warning("%s[%d]: %s", self.r.service, self.r.lease.partition, e)
                await self.r.pause()
            else:
                return

    def _account(self, landing: Landing, size_bytes: int, seconds: float) -> None:
        counts = self.r.counts
        counts.landings += 1
        counts.landed += sum(e.topic != "coverage" for e in landing.outputs)
        counts.landed_bytes += size_bytes
        if tracing := self.r.shared.tracing:
            tracing.landing(
                self.r.service,
                self.r.lease.partition,
                landing.serial,
                records=len(landing.outputs),
                size_bytes=size_bytes,
                took_s=seconds,
            )
        if len(counts.landing_s) < 10_000:  # nobody looks: keep what is there
            counts.landing_s.append(seconds)
        self.under_way, self._last = None, landing.serial
        self._landed.set()
        self.r.eased.set()
