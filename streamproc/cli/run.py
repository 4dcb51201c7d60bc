"""`streamproc run`: from videos to results in one command. What it does stands in `pipeline`; here is what it is told, what
it shows, and how it ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli.frame import (
    BusOption,
    Code,
    JsonOption,
    ModelOption,
    Patience,
    SetOption,
    WorkersOption,
    deployed,
    emit,
    let_sigterm_drain,
    run,
    say,
    settings,
)
from streamproc.cli.looking import Streams, looked_at
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.bus.claims import Claims
    from streamproc.bus.contract import Bus
    from streamproc.cli.running import Spending
    from streamproc.messages import Source
    from streamproc.models.card import Served
    from streamproc.pipeline.job import Entered
    from streamproc.pipeline.means import Means
    from streamproc.pipeline.parts import Plan
    from streamproc.pipeline.process import Process
    from streamproc.pipeline.progress import Progress
    from streamproc.settings import Settings
    from streamproc.task import Task
    from streamproc.video.workers import Workers

EPILOG = "Example: streamproc run match.mkv --task soccer --model detect=qwen2.5-vl-7b --out results"
LOOK_EVERY_S = 0.5
SHOWN_EVERY_S = 0.1
"""Looking at every step of every service would cost more than the steps."""


def register(root: typer.Typer) -> None:
    root.command("run", epilog=EPILOG)(command)


def command(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE…", help="Files, folders, URLs, webcam:0, stack:TOP+BOTTOM.")
    ],
    task: Annotated[str, typer.Option("--task", metavar="T", help="A task by name, or a TOML file of yours.")] = "any",
    model: ModelOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write results as files, a folder a stream.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="STREAM", help="What the stream is called, of a single source.")
    ] = None,
    fps: Annotated[
        str | None, typer.Option("--fps", metavar="F", help="Look at F frames a second: 1, 0.5, 30000/1001.")
    ] = None,
    every: Annotated[int | None, typer.Option("--every", metavar="N", help="Look at every Nth frame.")] = None,
    window: Annotated[str | None, typer.Option("--window", metavar="S", help="Seconds in a window.")] = None,
    step: Annotated[str | None, typer.Option("--step", metavar="S", help="Seconds from window to window.")] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="STAGE,…", help="Run just these stages; a later run goes on.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Once more from the beginning, beside what there is.")] = False,
    set_: SetOption = None,
    workers: WorkersOption = None,
    bus: BusOption = None,
    json: JsonOption = False,
) -> None:
    """Look at videos: decode them, ask models, and say what happened when. Started again, it goes on where it was."""
    if fps is not None and every is not None:
        raise Misconfigured("either --fps or --every says which frames are looked at")
    over = {"sampling.fps": fps, "sampling.every": every, "sampling.window_s": window, "sampling.step_s": step}
    options = [*(set_ or ()), *(f"{key}={value}" for key, value in over.items() if value is not None)]

    def asked() -> tuple[Settings, Asked]:
        from streamproc.cli.endpoints import named, no_secret_for_others

        told = settings(bus=bus)
        for source in sources:
            no_secret_for_others(told, source)
        from streamproc.task import load

        served, models = named(told, model or ())
        return told, Asked(
            task=load(task, options=options, models=models),
            served=served,
            only=tuple(part.strip() for part in only.split(",") if part.strip()) if only else (),
            again=again,
            out=out,
            json=json,
        )

    raise typer.Exit(run(process(asked, sources, name=name, workers=workers or os.cpu_count() or 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line of a run, read."""

    task: Task
    served: tuple[Served, ...] = ()
    only: tuple[str, ...] = ()
    again: bool = False
    out: Path | None = None
    json: bool = False
    quiet: bool = False
    """Results are not shown as they come."""


async def process(
    ask: Callable[[], tuple[Settings, Asked]], arguments: Sequence[str], *, name: str | None, workers: int
) -> Code:
    from streamproc.video.workers import Workers

    let_sigterm_drain()
    async with Workers(workers) as hands:
        await hands.wake()  # what they load and what we load takes the same second
        told, asked = ask()
        return await _process(told, asked, arguments, hands, name=name)


async def _process(
    told: Settings, asked: Asked, arguments: Sequence[str], workers: Workers, *, name: str | None
) -> Code:
    from streamproc.cli.endpoints import budgets, environ
    from streamproc.cli.running import Spending
    from streamproc.pipeline import job
    from streamproc.pipeline.means import means, reach
    from streamproc.pipeline.process import working
    from streamproc.pipeline.progress import followed
    from streamproc.settings import open_claims

    plans = job.chosen(asked.task, asked.only)
    served, keys = those_asked(told, asked, plans), environ(told)
    purse = budgets(told)
    spending = Spending({s.name: s.card.price for s in served if s.card.price}, purse.spent)

    async def with_models(has: Means) -> None:
        for warning in await reach([s for s in served if s.urls], environ=keys):
            say(warning)
        await has.add(served)

    async with means(workers=workers, environ=keys, record=spending.hear, budgets=purse) as has:
        async with asyncio.TaskGroup() as tasks:  # workers look at the files while the client of the models is loaded
            tasks.create_task(with_models(has))
            looking = tasks.create_task(looked_at(arguments, asked, has, name=name))
        say_who_answers(asked, plans)
        async with deployed(told) as bus, followed(bus) as progress:
            entered = await job.enter(bus, looking.result().wanted, again=asked.again)
            claims = open_claims(told)
            this = Run(asked, plans, served, bus, progress, spending, looking.result(), entered, claims)
            return await this.to_its_end(
                lambda: working(
                    bus,
                    has,
                    plans,
                    bounds=told.bounds,
                    backoff=told.backoff,
                    claims=claims,
                    collector=told.otel.endpoint,
                )
            )


def those_asked(told: Settings, asked: Asked, plans: Sequence[Plan]) -> list[Served]:
    """Endpoints of the services to run."""
    from streamproc.cli.endpoints import served_as, with_stand_ins

    named = {s.name: s for s in asked.served}
    models = dict.fromkeys(p.model for p in plans if p.model)
    return with_stand_ins(told, [named.get(model) or served_as(told, model) for model in models])


def say_who_answers(asked: Asked, plans: Sequence[Plan]) -> None:
    """What nobody named is said loudly, once it is known that there is something to look at: it would bury the one line
    that says what is wrong with the command."""
    from streamproc.task import OBSERVER

    blind = [p.service for p in plans if p.model == OBSERVER]
    if blind and OBSERVER not in (s.name for s in asked.served):
        say(
            f"No model is named for {', '.join(blind)}: the built-in observer answers, which is no AI. It measures "
            "motion, colour and cuts. Name a model with --model STAGE=ENDPOINT"
        )
    stages = {p.stage for p in plans}
    if asked.only and asked.task.context is not None and "context" not in stages:
        waits = [s for s in stages if hasattr(getattr(asked.task, s, None), "context_wait_s")]
        if waits:
            say(f"context is not among --only: {', '.join(sorted(waits))} waits for it a while, then goes without")


# running ------------------------------------------------------------------------------------------------------------


class Run:
    """Services at work until every stream is complete; results are shown and written as they come."""

    def __init__(
        self,
        asked: Asked,
        plans: Sequence[Plan],
        served: Sequence[Served],
        bus: Bus,
        progress: Progress,
        spending: Spending,
        streams: Streams,
        entered: Entered,
        claims: Claims,
    ) -> None:
        from streamproc.cli.running import Board
        from streamproc.pipeline.job import Watch
        from streamproc.pipeline.newcomers import Newcomers
        from streamproc.pipeline.outputs import Files

        self.asked, self.plans, self.served = asked, plans, served
        self.streams, self.entered, self.spending = streams, entered, spending
        self.began = time.monotonic()
        services = [p.service for p in plans]
        self.watch = Watch(progress, entered.sources, services)
        self.newcomers = Newcomers(bus, _shown(plans), entered.sources, claims=claims)
        self.files = Files(asked.out, bus, progress, claims=claims) if asked.out else None
        self.board = Board(progress, entered.sources, services, self._totals(), spending)
        self.patience = Patience()
        self.others = 0
        """Processes that work in the same services."""

    async def to_its_end(self, working: Callable[[], Any]) -> Code:
        from streamproc.cli.running import Screen

        self._forecast()
        with Screen(self.board) as self.screen:
            try:
                async with working() as process:
                    self.board.process = process
                    try:
                        await self._work(process)
                        self.others = await self.patience.until(process.others)
                    except asyncio.CancelledError:
                        say(
                            "Stopping: what is under way is finished first; once more leaves at once, and loses nothing"
                        )
                        raise
            except asyncio.CancelledError:
                await self._look()
                await self._finish(self.entered.sources)
                say("Stopped; what was under way has landed. The same command goes on from here")
                raise
            await self.patience.until(self._look)
            await self.patience.until(lambda: self._finish(self.entered.sources))
        return self._receipt()

    async def _work(self, process: Process) -> None:
        while True:
            with self.patience():
                if await self._over(process):
                    return
                await self._look()
            await self.watch.progress.moved(within_s=LOOK_EVERY_S)
            await asyncio.sleep(SHOWN_EVERY_S)

    async def _over(self, process: Process) -> bool:
        """Every stream is complete; or only some stages run, and there is nothing left that they could do."""
        if self.watch.over:
            return True
        return bool(self.asked.only) and await process.idle()

    async def _look(self) -> None:
        """What has come: results to show, streams to write."""
        from streamproc.cli.running import shown
        from streamproc.messages import plain

        live = {s.stream for s in self.entered.sources if s.live}
        for topic, record in await self.newcomers.come():
            if self.asked.quiet:
                continue
            if self.asked.json:
                emit({"topic": topic, "record": plain(record)})
            elif text := shown(topic, record, live=record.stream in live):
                self.screen.result(text)
        fresh = self.watch.look()
        if self.files:
            await self.files.due(fresh)
        self.screen.draw()

    async def _finish(self, sources: Sequence[Source]) -> None:
        """Write what has not been written, complete or not."""
        if self.files:
            await self.files.write([s for s in sources if s.stream not in self.files.written])
            for name, why in self.streams.unreadable.items():
                self.files.unreadable(name, why, self.asked.task)

    def _totals(self) -> dict[str, int]:
        """Stream → windows, as far as its file tells; a repeat has those of its file."""
        looks = self.streams.looks
        names = {s.stream: s.stream.partition("@")[0] for s in self.entered.sources}
        return {stream: looks[name].windows for stream, name in names.items() if name in looks}

    def _forecast(self) -> None:
        """What a long run will ask for, before it begins."""
        from streamproc.pipeline.forecast import forecast

        parts = [f"{len(self.entered.sources)} stream{'s' if len(self.entered.sources) != 1 else ''}"]
        if self.streams.finished:
            parts.append(f"{len(self.streams.finished)} more complete in {self.asked.out}")
        if known := len(self.entered.known):
            parts.append("1 of them goes on where it was" if known == 1 else f"{known} of them go on where they were")
        left = {
            service: [
                replace(look, windows=self.board.left(source, service))
                for source in self.entered.sources
                if service in source.services
                and (look := self.streams.looks.get(source.stream.partition("@")[0])) is not None
            ]
            for service in self.watch.services
        }
        found = forecast(self.asked.task, self.plans, self.served, left)
        if found.windows or found.calls:
            parts.append(found.told())
        say("; ".join(parts))

    def _share(self, found: dict[str, Any]) -> str:
        """How much is covered, and what that leaves out: nobody knows how long those are that could not be read."""
        if not self.entered.sources:
            return "none of them could be read"
        covered = f"{found['covered']:.1%} covered"
        there = found["unreadable"]
        return f"{covered} of what could be read; {there:,} could not be" if there else covered

    def _receipt(self) -> Code:
        found = self.board.receipt(complete=len(self.watch.complete), unreadable=len(self.streams.unreadable))
        found |= {"seconds": round(time.monotonic() - self.began, 1), "others": self.others}
        if self.asked.json:
            emit({"receipt": found})
        elif found["streams"]:  # else they are all complete in --out, which has been said
            say(
                f"{found['complete']} of {found['streams']} streams done in {found['seconds']:.1f} s: "
                f"{found['windows']:,} windows, {self.spending.told()}; {self._share(found)}{self.spending.short()}"
            )
            if self.others:
                say(
                    f"{self.others:,} more at work in the same services: each counts the calls that it made itself, for "
                    "whatever stream"
                )
            if found["failed_s"]:
                parts = (f"{seconds:,.1f} s of {service}" for service, seconds in found["failed_s"].items())
                say(
                    f"failed: {', '.join(parts)}. `streamproc coverage STREAM` says when, `streamproc trace STREAM TIME` why"
                )
        whole = found["covered"] == 1.0 and found["complete"] == found["streams"] and not self.spending.left_out
        return Code.DONE if whole else Code.INCOMPLETE


def _shown(plans: Sequence[Plan]) -> tuple[str, ...]:
    """Topics whose results people see: events and verdicts; captions or detections where nothing stands behind them."""
    stages = {p.stage for p in plans}
    last = {"dedup": "events", "ensemble": "verdicts"}
    found = tuple(topic for stage, topic in last.items() if stage in stages)
    return found or tuple(t for stage, t in (("detect", "detections"), ("caption", "captions")) if stage in stages)
