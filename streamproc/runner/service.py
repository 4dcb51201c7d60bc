"""A stage at work in one process: leases as they come, one runner each, until told to stop."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from streamproc.bus.contract import Bus, Lease, Membership
from streamproc.errors import Fenced, Retryable
from streamproc.runner.attempts import Backoff
from streamproc.runner.runner import Runner
from streamproc.runner.shared import Bounds, Shared
from streamproc.runner.tracing import Tracing
from streamproc.stage import Stage

if TYPE_CHECKING:
    from streamproc.bus.claims import Claims

log = logging.getLogger(__name__)


class Service:
    """One service of this process. `run` ends after `drain`, or raises what is Fatal."""

    def __init__(
        self,
        service: str,
        stage: Stage,
        bus: Bus,
        *,
        bounds: Bounds | None = None,
        backoff: Backoff | None = None,
        claims: Claims | None = None,
        weights: Callable[[], Sequence[int]] | None = None,
        now: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        tracing: Tracing | None = None,
        patient: bool = False,
    ) -> None:
        """`patient`: an unreachable bus is waited for from the first, as the process has been at work on it already."""
        self.name, self.stage, self.bus = service, stage, bus
        self.shared = Shared(
            service,
            stage,
            bus,
            bounds=bounds or Bounds(),
            backoff=backoff or Backoff(),
            now=now,
            rng=rng or random.Random(),
            tracing=tracing,
        )
        self._claims = claims
        self._weights = weights or (lambda: [1] * bus.partitions)
        self.runners: dict[int, Runner] = {}
        self.joined, self.has_joined = False, patient
        """Now; ever."""
        self._membership: Membership | None = None
        self._draining = False

    async def run(self) -> None:
        """Until drained. At the start an unreachable bus is the caller's to know; later it is waited for."""
        while True:
            try:
                await self._member()
            except* Retryable as group:
                if not self.has_joined:
                    raise
                log.warning("%s: %s. Joining again", self.name, group.exceptions[0])
            else:
                return
            await asyncio.sleep(self.shared.circuit.backoff.wait_s(3, self.shared.rng))
            if self._draining:
                return

    async def _member(self) -> None:
        bounds = self.shared.bounds
        async with self.bus.join(
            self.name, self.stage.reads, weights=self._weights, hand_over_s=bounds.hand_over_s + bounds.drain_s
        ) as membership:
            self._membership, self.joined, self.has_joined = membership, True, True
            try:
                if self._draining:
                    await membership.leave()
                async with asyncio.TaskGroup() as tasks:
                    async for lease in membership.leases():
                        tasks.create_task(self._hold(lease))
            finally:
                self.joined = False

    async def caught_up(self) -> bool:
        """Nothing is left to read in the partitions held. Their ends alone do not tell: Kafka's markers stand behind the
        last record, and nobody ever reads them."""
        for partition, runner in list(self.runners.items()):
            for name in self.stage.reads:
                progress, span = runner.book.progress.get(name), await self.bus.span(name, partition)
                base = max(progress.base if progress else 0, span.begin)
                if base < span.end and await self.bus.read(name, partition, base, max_records=1, max_bytes=1):
                    return False
        return True

    async def drain(self) -> None:
        """Take no more leases; finish, land and give back those held. `run` ends then."""
        self._draining = True
        for runner in self.runners.values():
            runner.drain()
        if self._membership:
            await self._membership.leave()

    async def _hold(self, lease: Lease) -> None:
        runner = Runner(self.shared, lease, claims=self._claims)
        before = self.runners.get(lease.partition)
        self.runners[lease.partition] = runner
        if self._draining:
            runner.drain()
        log.debug("%s[%d]: taken at serial %d", self.name, lease.partition, lease.serial)
        try:
            await runner.run()
        except* Fenced as lost:
            self.shared.counts.fenced += 1
            log.warning("%s[%d]: %s", self.name, lease.partition, lost.exceptions[0])
        finally:
            if self.runners.get(lease.partition) is runner:
                del self.runners[lease.partition]
            if before is not None and not before.lease.lost.is_set():
                log.debug("%s[%d]: taken again before the old runner had ended", self.name, lease.partition)
