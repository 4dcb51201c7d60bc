"""`streamproc replay`: a stretch of a stream done again from some point on, beside what there is. Nothing is overwritten."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli.frame import (
    BusOption,
    Code,
    JsonOption,
    ModelOption,
    SetOption,
    WorkersOption,
    emit,
    let_sigterm_drain,
    line,
    opened,
    run,
    say,
    settings,
)
from streamproc.errors import Misconfigured, did_you_mean

if TYPE_CHECKING:
    from streamproc.bus.contract import Bus
    from streamproc.cli.times import Time
    from streamproc.messages import Source
    from streamproc.models.card import Served
    from streamproc.pipeline.progress import Progress
    from streamproc.pipeline.replay import Replay
    from streamproc.pipeline.replay_archive import Archive
    from streamproc.pipeline.replay_forecast import Estimate
    from streamproc.settings import Settings
    from streamproc.task import Task

EPILOG = "Example: streamproc replay match1 --as trial --from 12:00 --to 14:30 --set detect.prompt=@new.txt"


def register(root: typer.Typer) -> None:
    root.command("replay", epilog=EPILOG)(command)


def command(
    streams: Annotated[list[str], typer.Argument(metavar="STREAM…", show_default=False)],
    as_: Annotated[str, typer.Option("--as", metavar="NAME", help="The replay of match1 is match1@NAME.")],
    from_: Annotated[str | None, typer.Option("--from", metavar="T", help="Windows that begin then or later.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="T", help="Windows that begin before. What is open there ends there.")
    ] = None,
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="TOPIC",
            help="What is said again as it was: windows, captions, detections, incidents, events, descriptions; or "
            "footage, to decode again what is a file, or was recorded of a feed. What stands behind it is done anew.",
        ),
    ] = "windows",
    task: Annotated[
        str | None, typer.Option("--task", metavar="T", help="Another task; else the original's as it stands.")
    ] = None,
    set_: SetOption = None,
    model: ModelOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how much it would be, and what it would cost; do nothing.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Leave the work to those who are up.")] = False,
    workers: WorkersOption = None,
    bus: BusOption = None,
    json: JsonOption = False,
) -> None:
    """Do a stretch of streams again with another task, model, prompt or setting, beside what there is. Feeds go first."""
    from streamproc.cli.endpoints import named
    from streamproc.pipeline.replay import POINTS

    told = settings(bus=bus)
    if at not in POINTS:
        raise Misconfigured(f"--at {at}: it is one of {', '.join(POINTS)}{did_you_mean(at, POINTS)}")
    served, models = named(told, model or ())
    wishes = Wishes(
        streams=tuple(dict.fromkeys(streams)),
        name=as_,
        at=at,
        begin=_time(from_),
        until=_time(to),
        asked=f"{from_ or ''}..{to or ''}",
        task=task,
        options=tuple(set_ or ()),
        models=tuple(models),
        served=served,
        json=json,
    )
    raise typer.Exit(
        run(_process(told, wishes, dry_run=dry_run, detach=detach, workers=workers or os.cpu_count() or 1))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The command line, read."""

    streams: tuple[str, ...]
    name: str
    at: str
    begin: Time | None
    until: Time | None
    asked: str
    task: str | None
    options: tuple[str, ...]
    models: tuple[str, ...]
    served: tuple[Served, ...]
    json: bool

    def task_of(self, original: Source) -> Task:
        from streamproc.task import load, over

        if self.task is not None:
            return load(self.task, options=self.options, models=self.models)
        return over(original.task, options=self.options, models=self.models)

    @property
    def changed(self) -> tuple[str, ...]:
        """Sections of the task that are spoken of."""
        return tuple(
            dict.fromkeys(o.partition("=")[0].strip().partition(".")[0] for o in (*self.options, *self.models))
        )


def _time(text: str | None) -> Time | None:
    from streamproc.cli.times import parse

    return None if text is None else parse(text, now=datetime.now())


async def _process(told: Settings, wishes: Wishes, *, dry_run: bool, detach: bool, workers: int) -> Code:
    from streamproc.pipeline.progress import followed
    from streamproc.pipeline.replay_archive import Archive
    from streamproc.pipeline.replay_said import enter
    from streamproc.settings import open_claims

    let_sigterm_drain()
    async with opened(told) as bus, followed(bus) as progress:
        archive = Archive(bus, claims=open_claims(told))
        replays = await _made(wishes, bus, progress, archive)
        for warning in (w for r in replays for w in r.warnings):
            say(warning)
        if dry_run:
            return await _forecast(told, wishes, archive, replays)
        if detach:
            await enter(bus, progress, archive, replays)
            for one in replays:
                say(f"{one.source.stream} is left to those who are up: {_told(one)}")
            return Code.DONE
        return await _work(told, wishes, bus, progress, archive, replays, workers=workers)


async def _made(wishes: Wishes, bus: Bus, progress: Progress, archive: Archive) -> list[Replay]:
    """Every one of them, or none."""
    from streamproc.pipeline import replay, streams
    from streamproc.pipeline.replay_range import Lives, Wish

    there, made = await streams.newest(bus), []
    for stream in wishes.streams:
        old = replay.known(stream, there)
        name = replay.check_name(stream, wishes.name)
        wish = Wish(
            stream=stream,
            name=name,
            at=wishes.at,
            begin_ms=await _ms(wishes.begin, old, archive),
            until_ms=await _ms(wishes.until, old, archive),
            asked=wishes.asked,
            task=wishes.task_of,
            changed=wishes.changed,
        )
        lives = Lives(await streams.revisions(bus, stream, old.generation), there.get(name))
        made.append(await replay.made(archive, progress, lives, wish))
    return made


async def _ms(time: Time | None, source: Source, archive: Archive) -> int | None:
    """In stream time; of feeds, and of what was made of them, by the wall clock."""
    from streamproc.pipeline.replay_range import in_stream_ms

    if time is None:
        return None
    if time.half is not None:
        raise Misconfigured(f"'{time.text}' is a time of a game; a stream knows seconds, 12:34 and wall-clock times")
    if source.live or time.stream_ms is None:
        return await in_stream_ms(archive, source, time.by_clock())
    return time.in_stream()


async def _work(
    told: Settings,
    wishes: Wishes,
    bus: Bus,
    progress: Progress,
    archive: Archive,
    replays: Sequence[Replay],
    *,
    workers: int,
) -> Code:
    from streamproc.cli.endpoints import budgets, environ
    from streamproc.cli.looking import Streams
    from streamproc.cli.run import Asked, Run, say_who_answers, those_asked
    from streamproc.cli.running import Spending
    from streamproc.pipeline.importing import owed
    from streamproc.pipeline.means import means, reach
    from streamproc.pipeline.parts import plan_of
    from streamproc.pipeline.process import working
    from streamproc.pipeline.replay_said import enter
    from streamproc.settings import open_claims
    from streamproc.task import Task
    from streamproc.video.workers import Workers

    plans = [plan_of(s) for s in dict.fromkeys(s for r in replays for s in owed(r.source))]
    asked = Asked(task=Task.model_validate(replays[0].source.task), served=wishes.served, json=wishes.json)
    say_who_answers(asked, plans)
    served, keys = those_asked(told, asked, plans), environ(told)
    for warning in await reach([s for s in served if s.urls], environ=keys):
        say(warning)
    purse = budgets(told)
    spending = Spending({s.name: s.card.price for s in served if s.card.price}, purse.spent)
    async with (
        Workers(workers) as hands,
        means(served, workers=hands, environ=keys, record=spending.hear, budgets=purse) as has,
    ):
        entered = await enter(bus, progress, archive, replays)
        for one in replays:
            say(f"{one.source.stream}: {_told(one)}")
        every = [plan_of(s) for s in dict.fromkeys(s for r in replays for s in r.source.services)]
        claims, collector = open_claims(told), told.otel.endpoint
        this = Run(asked, every, served, bus, progress, spending, Streams(), entered, claims)
        return await this.to_its_end(
            lambda: working(
                bus, has, plans, bounds=told.bounds, backoff=told.backoff, claims=claims, collector=collector
            )
        )


def _told(one: Replay) -> str:
    from streamproc.cli.running import clock

    begin_ms, anew = one.revisions[0].grid.starts_ms(0), ", ".join(p.service for p in one.redone)
    return (
        f"{one.windows:,} windows of {one.original.stream}, {clock(begin_ms)} to {clock(one.original.end_ms)}, "
        f"from {one.original.at} on; {anew} anew"
    )


async def _forecast(told: Settings, wishes: Wishes, archive: Archive, replays: Sequence[Replay]) -> Code:
    from streamproc.cli.endpoints import served_as
    from streamproc.pipeline.replay_forecast import estimate

    named = {s.name: s for s in wishes.served}
    models = dict.fromkeys(p.model for r in replays for p in r.redone if p.model)
    served = [named.get(m) or served_as(told, m) for m in models]
    prices = {s.name: s.card.price for s in served if s.card.price}
    for one in replays:
        found = await estimate(archive, one, prices)
        if wishes.json:
            emit(_document(one, found))
            continue
        line(f"{found.stream}: {_told(one)}")
        expired = f", {found.expired:,} have expired" if found.expired else ""
        cost = f", ${found.money:.2f}" if prices else ""
        line(f"windows left: {found.windows:,}{expired}; about {found.calls:,} calls, {found.tokens:,} tokens{cost}")
        if found.unknown:
            line(f"what {', '.join(found.unknown)} will read is not known: nothing like it was asked before")
    return Code.DONE


def _document(one: Replay, found: Estimate) -> dict[str, Any]:
    return {
        "stream": found.stream,
        "original": one.original.stream,
        "at": one.original.at,
        "start_ms": one.revisions[0].grid.starts_ms(0),
        "end_ms": one.original.end_ms,
        "windows": found.windows,
        "expired": found.expired,
        "calls": found.calls,
        "tokens": found.tokens,
        "money": round(found.money, 6),
        "services": [
            {
                "service": s.service,
                "calls": s.calls,
                "tokens_in": s.tokens_in,
                "tokens_out": s.tokens_out,
                "money": s.money,
            }
            for s in found.shares
        ],
    }
