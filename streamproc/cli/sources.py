"""`streamproc sources`: the table of streams. Whoever adds one here has it looked at by whatever services are up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamproc.cli.frame import (
    BusOption,
    JsonOption,
    ModelOption,
    SetOption,
    deployed,
    emit,
    line,
    opened,
    run,
    say,
    settings,
    table,
)
from streamproc.errors import Misconfigured, did_you_mean

if TYPE_CHECKING:
    from streamproc.bus.contract import Bus
    from streamproc.cli.listed import Step
    from streamproc.messages import Source
    from streamproc.pipeline.progress import Progress
    from streamproc.pipeline.standing import Standing

app = typer.Typer(
    name="sources", help="Add, change, list and remove streams, while everything runs.", no_args_is_help=True
)
StreamArgument = Annotated[str, typer.Argument(metavar="STREAM", show_default=False)]


def register(root: typer.Typer) -> None:
    root.add_typer(app)


@app.command(epilog="Example: streamproc sources add door 'rtsp://${CAM_USER}:${CAM_PASSWORD}@10.0.0.7/1' --task any")
def add(
    stream: StreamArgument,
    uri: Annotated[
        str, typer.Argument(metavar="URI", help="A file, a URL, webcam:0, stack:TOP+BOTTOM.", show_default=False)
    ],
    task: Annotated[str, typer.Option("--task", metavar="T", help="A task by name, or a TOML file of yours.")] = "any",
    model: ModelOption = None,
    set_: SetOption = None,
    lag: Annotated[
        str, typer.Option("--lag", metavar="POLICY", help="Of a feed: block, skip-older-than=S, sample=N.")
    ] = "block",
    footage: Annotated[
        str | None,
        typer.Option(
            "--footage",
            metavar="PLACE",
            help="Of a feed: record it there, to see it again: FOLDER?hours=48&bytes=2e10, or s3://bucket/prefix?hours=48.",
        ),
    ] = None,
    bus: BusOption = None,
) -> None:
    """Add a stream. A name that was removed begins another life, with numbers of its own.

    A folder is watched: each video that has stopped growing there becomes a stream, STREAM/NAME, under the same task.
    """
    from streamproc.cli.endpoints import no_secret_for_others
    from streamproc.cli.listed import wanted
    from streamproc.task import load

    told, wants = settings(bus=bus), load(task, options=set_ or (), models=model or ())
    no_secret_for_others(told, uri)

    async def work() -> None:
        from streamproc.pipeline import job

        one = replace(await wanted(stream, uri, wants, lag), footage=_kept(footage))
        async with deployed(told) as log:
            remedy = f"`streamproc sources change {stream}` changes it; another name adds another"
            entered = await job.enter(log, [one], again=False, remedy=remedy)
        say(f"{stream} was there already, under the same task" if entered.known else f"{stream} added")

    run(work())


def _kept(footage: str | None) -> str | None:
    from streamproc.video.keep import Keep

    if footage is not None:
        Keep.parse(footage)
    return footage


@app.command(epilog="Example: streamproc sources change door --set detect.prompt=@new.txt --lag skip-older-than=10")
def change(
    stream: StreamArgument,
    uri: Annotated[
        str | None, typer.Argument(metavar="[URI]", help="Another address for the same.", show_default=False)
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="T", help="Another task; else the one it has, as it stands.")
    ] = None,
    model: ModelOption = None,
    set_: SetOption = None,
    lag: Annotated[
        str | None, typer.Option("--lag", metavar="POLICY", help="Of a feed: block, skip-older-than=S, sample=N.")
    ] = None,
    bus: BusOption = None,
) -> None:
    """Change a stream while it runs. It takes effect at a window that nobody has made so far; what was before stays."""
    from streamproc.cli.endpoints import no_secret_for_others
    from streamproc.cli.listed import Listed

    told = settings(bus=bus)
    if uri is not None:
        no_secret_for_others(told, uri)
    listed = Listed(stream, uri=uri, task=task, options=tuple(set_ or ()), models=tuple(model or ()), lag=lag)

    async def work() -> None:
        from streamproc.pipeline import changes, streams
        from streamproc.pipeline.progress import followed

        async with opened(told) as log, followed(log) as progress:
            there = await streams.newest(log)
            _known(stream, there)
            changes.check(there[stream], progress)
            wanted = await listed.change(there[stream])
            if not (what := changes.differs(there[stream], wanted)):
                say(f"{stream}: nothing of it changes")
                return
            made = await changes.change(log, progress, there[stream], wanted)
            say(_changed(made, what))

    run(work())


def _changed(made: Source, what: list[str]) -> str:
    from streamproc.cli.running import clock

    at = clock(made.grid.starts_ms(made.from_index))
    return f"{made.stream}: {', '.join(what)} changed from window {made.from_index} on, at {at} of its time"


@app.command(epilog="Example: streamproc sources apply cameras.toml --prune --dry-run")
def apply(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="TOML with [[streams]], or a JSON list; `-` is stdin.", allow_dash=True),
    ],
    prune: Annotated[bool, typer.Option("--prune", help="Remove streams that the file does not name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    bus: BusOption = None,
    json: JsonOption = False,
) -> None:
    """Make the table as a file says: add what is not there, change what is otherwise. It says first what it will do.

    A stream has `stream` and `uri`, and may have `task`, `set` (a table, or a list of KEY=VALUE), `model` (a list of
    STAGE=NAME), `lag`, `footage` (where a feed is kept) and `state` (active or paused).
    """
    from streamproc.cli.endpoints import no_secret_for_others
    from streamproc.cli.listed import read, steps

    told, asked = settings(bus=bus), read(file)
    for one in asked:
        no_secret_for_others(told, one.uri or "")

    async def work() -> None:
        from streamproc.pipeline import streams
        from streamproc.pipeline.progress import followed

        where = opened(told) if dry_run else deployed(told)
        async with where as log, followed(log) as progress:
            there = await streams.newest(log)
            todo = await steps(asked, there, progress, prune=prune)
            for step in todo:
                if json:
                    emit({"stream": step.stream, "action": step.action, "what": list(step.what)})
                else:
                    line(f"{step.action}  {step.stream}" + (f"  {', '.join(step.what)}" if step.what else ""))
            if not todo:
                say("nothing to do: the table is as the file says")
            for step in () if dry_run else todo:
                await _do(step, log, progress)

    run(work())


async def _do(step: Step, log: Bus, progress: Progress) -> None:
    from streamproc.pipeline import changes, job, streams

    if step.wanted is not None:
        await job.enter(log, [step.wanted], again=False)
        return
    source = (await streams.newest(log))[step.stream]
    if step.change is not None:
        await changes.change(log, progress, source, step.change)
        return
    await _turned(log, progress, [source], {"pause": "paused", "resume": "active", "remove": "removed"}[step.action])


@app.command("list", epilog="Example: streamproc sources list --json")
def list_(bus: BusOption = None, json: JsonOption = False) -> None:
    """Every stream: its state, how old its last frame is, how far those who look at it are behind, and who decodes it."""
    from datetime import UTC, datetime

    told = settings(bus=bus)

    async def work() -> list[Standing]:
        from streamproc.pipeline import standing, streams
        from streamproc.pipeline.progress import followed

        async with opened(told) as log, followed(log) as progress:
            sources = [source for _, source in sorted((await streams.newest(log)).items())]
            return await standing.of(log, progress, sources, now=datetime.now(UTC))

    found = run(work())
    if json:
        from streamproc.messages import plain

        for one in found:
            standing = {"last_frame_age_s": one.age_s, "lag_s": one.lag_s, "owner": one.owner, "complete": one.complete}
            emit({**plain(one.source), **standing})
        return
    table(
        ("stream", "state", "kind", "task", "revision", "last frame", "lag", "owner", "from"), [_row(s) for s in found]
    )


def _row(one: Standing) -> tuple[object, ...]:
    from streamproc.stages.replay import Original, is_replay
    from streamproc.video.address import redact

    s = one.source
    kind, origin = "feed" if s.live else "file", redact(s.uri)
    if is_replay(s.uri):
        original = Original.parse(s.uri)
        kind, origin = "replay", f"{original.at} of {original.stream}"
    age = "" if one.age_s is None else f"{one.age_s:.1f} s ago"
    state = "complete" if one.complete and s.state == "active" else s.state
    revision, lag = f"{s.generation}.{s.revision}", f"{one.lag_s:.1f} s"
    return s.stream, state, kind, s.task.get("name", ""), revision, age, lag, one.owner or "", origin


@app.command(epilog="Example: streamproc sources remove door")
def remove(
    streams: Annotated[list[str], typer.Argument(metavar="STREAM…", show_default=False)], bus: BusOption = None
) -> None:
    """End streams: what has been decoded is worked off, and `ended` follows. What was found stays for as long as topics keep
    it; once nothing of it is left, tables let go of the stream, too, but for one row that tells of the name."""
    _turn(bus, streams, "removed")


@app.command(epilog="Example: streamproc sources pause door")
def pause(
    streams: Annotated[list[str], typer.Argument(metavar="STREAM…", show_default=False)], bus: BusOption = None
) -> None:
    """Decode no more of these, until resumed. A feed's time goes on, as a gap."""
    _turn(bus, streams, "paused")


@app.command(epilog="Example: streamproc sources resume door")
def resume(
    streams: Annotated[list[str], typer.Argument(metavar="STREAM…", show_default=False)], bus: BusOption = None
) -> None:
    """Go on with streams that were paused."""
    _turn(bus, streams, "active")


def _turn(bus: str | None, names: list[str], state: str) -> None:
    from streamproc.pipeline import streams
    from streamproc.pipeline.progress import followed

    told = settings(bus=bus)

    async def work() -> None:
        async with opened(told) as log, followed(log) as progress:
            there = await streams.newest(log)
            for name in names:
                _known(name, there)
            turned = [there[name] for name in dict.fromkeys(names) if there[name].state != state]
            await _turned(log, progress, turned, state)
        for source in turned:
            say(f"{source.stream}: {source.state} → {state}")

    run(work())


async def _turned(log: Bus, progress: Progress, turned: list[Source], state: str) -> None:
    from streamproc.pipeline import streams
    from streamproc.pipeline.parts import DECODE

    def begins(source: Source) -> int:
        return max(progress.of(source, DECODE).numbers.end, source.from_index)

    await streams.publish(log, [streams.changed(s, state=state, from_index=begins(s)) for s in turned])


def _known(name: str, there: dict[str, Source]) -> None:
    if name not in there:
        raise Misconfigured(f"no stream '{name}'{did_you_mean(name, there)}")
    if there[name].state == "removed":
        raise Misconfigured(f"stream '{name}' was removed; `streamproc sources add` begins another of this name")
