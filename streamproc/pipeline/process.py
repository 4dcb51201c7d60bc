"""Services at work in one process: started together, drained together; services may be added while others work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.pipeline.loads import Loads, loads
from streamproc.pipeline.parts import PARTS, Plan
from streamproc.pipeline.replay_archive import Archive
from streamproc.pipeline.sweeping import sweeping
from streamproc.runner import Backoff, Bounds, Service
from streamproc.runner.tracing import Tracing, traced

if TYPE_CHECKING:
    from streamproc.pipeline.means import Means


class Process:
    """Made by `working`. What a service raises that is Fatal ends all of them."""

    def __init__(
        self,
        bus: Bus,
        has: Means,
        tasks: asyncio.TaskGroup,
        *,
        bounds: Bounds,
        backoff: Backoff,
        claims: Claims | None,
        tracing: Tracing | None,
        loads: Loads,
    ) -> None:
        self._bus, self._has, self._tasks = bus, has, tasks
        self._bounds, self._backoff, self._claims, self._tracing, self._loads = bounds, backoff, claims, tracing, loads
        has.archive = Archive(bus, claims=claims)
        self.services: dict[str, Service] = {}
        self.at_work: list[Service] = []
        """The same, for whoever watches them."""
        self._running: list[asyncio.Task[None]] = []

    def start(self, plans: Iterable[Plan]) -> None:
        """Those that are not at work yet."""
        for plan in plans:
            if plan.service in self.services:
                continue
            stage = PARTS[plan.stage].build(plan, self._has)
            service = Service(
                plan.service,
                stage,
                self._bus,
                bounds=self._bounds,
                backoff=self._backoff,
                claims=self._claims,
                weights=partial(self._loads.of, plan.service),
                tracing=self._tracing,
                patient=any(other.has_joined for other in self.at_work),
            )
            self.services[plan.service] = service
            self.at_work.append(service)
            self._running.append(self._tasks.create_task(service.run(), name=plan.service))

    def in_flight(self) -> dict[str, int]:
        """Service → calls under way."""
        return {name: service.shared.slots.used for name, service in self.services.items()}

    async def idle(self) -> bool:
        """Everything there is has been read and worked off, by these services and whoever else works in them."""
        for name, service in self.services.items():
            held = sum(map(len, (await self._bus.members(name)).values()))
            if (
                held < self._bus.partitions
                or not all(r.quiet for r in service.runners.values())
                or not await service.caught_up()
            ):
                return False
        return True

    async def others(self) -> int:
        """How many processes beside this one work in its services."""
        found = await asyncio.gather(*map(self._bus.members, self.services))
        return max((len(members) - 1 for members in found if members), default=0)

    async def drain(self) -> None:
        """Finish what is under way, land it, give everything back. Whoever is cancelled meanwhile leaves at once."""
        self._has.models.drain()
        await asyncio.gather(*(service.drain() for service in self.services.values()))
        await asyncio.wait(self._running)


@asynccontextmanager
async def working(
    bus: Bus,
    has: Means,
    plans: Iterable[Plan],
    *,
    bounds: Bounds | None = None,
    backoff: Backoff | None = None,
    claims: Claims | None = None,
    collector: str | None = None,
) -> AsyncIterator[Process]:
    """Services at work for as long as the context lasts; at its end, also by an error or Ctrl-C, they are drained.

    `collector`: where traces go, if anywhere.
    """
    async with traced(collector, now=time.time) as tracing, loads(bus) as known, asyncio.TaskGroup() as tasks:
        process = Process(
            bus,
            has,
            tasks,
            bounds=bounds or Bounds(),
            backoff=backoff or Backoff(),
            claims=claims,
            tracing=tracing,
            loads=known,
        )
        process.start(plans)
        sweeper = tasks.create_task(sweeping(bus, claims)) if claims and claims.grows else None
        try:
            yield process
        finally:
            if sweeper:
                sweeper.cancel()
            if process.services:
                await process.drain()
