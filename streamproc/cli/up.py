"""`streamproc up`: services at work, for as long as nobody stops them."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from streamproc.cli.frame import BusOption, Patience, WorkersOption, deployed, let_sigterm_drain, run, say, settings
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    import socket

    from streamproc.bus.contract import Bus
    from streamproc.pipeline.means import Means
    from streamproc.pipeline.parts import Plan
    from streamproc.pipeline.process import Process
    from streamproc.settings import Settings

LOOK_EVERY_S = 1.0
STILL = 2
"""So often idle in turn is idle."""


def register(root: typer.Typer) -> None:
    root.command(epilog="Example: streamproc up detect.qwen2.5-vl-7b dedup --bus kafka://kafka:9092")(up)


def up(
    services: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERVICE…]", help="`dedup`, `detect.MODEL`; without any, all that the sources name."),
    ] = None,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when there is nothing left to do.")] = False,
    workers: WorkersOption = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Of /health, /health/live and /metrics; 0: any that is free."),
    ] = None,
    bus: BusOption = None,
) -> None:
    """Work in services until stopped. Start as many of these as there is work for; they share it.

    The first Ctrl-C or SIGTERM lets what is under way finish and land; a second one leaves at once, and loses nothing.
    """
    told = settings(bus=bus, http__port=port)
    with served_at(told) as at:
        run(_up(told, services or (), at, until_idle=until_idle, workers=workers or os.cpu_count() or 1))


def served_at(told: Settings) -> socket.socket:
    """The port that was asked for, or nothing starts. Nobody has asked for the default: where another process of this
    machine has it, any that is free will do."""
    from streamproc.runner.observe import listening

    host, port = told.http.host, told.http.port
    try:
        return listening(host, port)
    except OSError as e:
        taken = e.errno == errno.EADDRINUSE
        if taken and "port" not in told.http.model_fields_set:
            return listening(host, 0)
        why = "is taken" if taken else f"cannot be served at: {e.strerror}"
        raise Misconfigured(f"http: port {port} of {host} {why}; `--port 0` takes any that is free") from e


async def _up(told: Settings, names: Sequence[str], at: socket.socket, *, until_idle: bool, workers: int) -> None:
    from prometheus_client import CollectorRegistry

    from streamproc.cli.endpoints import budgets, environ
    from streamproc.models.metrics import Meter
    from streamproc.pipeline.means import means
    from streamproc.pipeline.parts import plan_of
    from streamproc.pipeline.process import working
    from streamproc.runner.observe import observed
    from streamproc.settings import open_claims
    from streamproc.video.workers import Workers

    let_sigterm_drain()
    plans = [plan_of(name) for name in names]
    registry = CollectorRegistry()
    meter = Meter(registry)
    async with (
        Workers(workers) as hands,
        means(workers=hands, environ=environ(told), record=meter.record, budgets=budgets(told)) as has,
        deployed(told) as bus,
    ):
        meter.watch(has.models)
        claims, collector = open_claims(told), told.otel.endpoint
        work = working(bus, has, [], bounds=told.bounds, backoff=told.backoff, claims=claims, collector=collector)
        async with (
            work as process,
            observed(process.at_work, at=at, registry=registry, session_s=told.session_s),
        ):
            port, wished = at.getsockname()[1], told.http.port
            instead = f"port {wished} is taken: " if wished not in (0, port) else ""
            say(f"{instead}health and metrics at http://{told.http.host}:{port}")
            here = Here(told, bus, has, process)
            await here.start(plans)
            still, patience = 0, Patience()
            while True:
                idle = False
                with patience():
                    if not names:
                        await here.start_what_is_named()
                    idle = until_idle and await process.idle()
                # Twice in turn: between two runs of a stream, as when its task has just changed, everybody is idle too.
                still = still + 1 if idle else 0
                if still == STILL:
                    return
                await asyncio.sleep(LOOK_EVERY_S)


class Here:
    """What this process works in."""

    def __init__(self, told: Settings, bus: Bus, has: Means, process: Process) -> None:
        self._told, self._bus, self._has, self._process = told, bus, has, process
        self._left_out: set[str] = set()

    async def start(self, plans: Sequence[Plan]) -> None:
        for plan in plans:
            await self._equip(plan)
        self._begin(plans)

    async def start_what_is_named(self) -> None:
        """Services of the sources that there are by now. One whose model is not known here is left to others."""
        from streamproc.pipeline import streams
        from streamproc.pipeline.importing import owed
        from streamproc.pipeline.parts import plan_of

        sources = (await streams.newest(self._bus)).values()
        fresh: list[Plan] = []
        for service in dict.fromkeys(name for source in sources for name in owed(source)):
            if service in self._left_out or service in self._process.services:
                continue
            try:
                plan = plan_of(service)
                await self._equip(plan)
            except Misconfigured as e:
                self._left_out.add(service)
                say(f"{service} is left to other processes: {e}")
            else:
                fresh.append(plan)
        self._begin(fresh)

    async def _equip(self, plan: Plan) -> None:
        from streamproc.cli.endpoints import served_as, with_stand_ins

        if plan.model:
            await self._has.add(with_stand_ins(self._told, [served_as(self._told, plan.model)]))

    def _begin(self, plans: Sequence[Plan]) -> None:
        """All at once: decoding waits only for readers who are there."""
        self._process.start(plans)
        for plan in plans:
            say(f"{plan.service} is up")
