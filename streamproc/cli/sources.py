"""`streamproc sources`: the table of streams. Whoever adds one here has it looked at by whatever services are up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamproc.cli.frame import BusOption, JsonOption, deployed, emit, opened, run, say, settings, table
from streamproc.errors import Misconfigured, did_you_mean

if TYPE_CHECKING:
    from streamproc.messages import Source
    from streamproc.pipeline.streams import Wanted
    from streamproc.task import Task

app = typer.Typer(name="sources", help="Add, list and remove streams, while everything runs.", no_args_is_help=True)
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
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="STAGE=NAME", help="Who answers for a stage; may be repeated."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any option of the task; @FILE reads the value from a file."),
    ] = None,
    lag: Annotated[
        str, typer.Option("--lag", metavar="POLICY", help="Of a feed: block, skip-older-than=S, sample=N.")
    ] = "block",
    footage: Annotated[
        str | None,
        typer.Option(
            "--footage", metavar="DIR", help="Of a feed: record it there, FOLDER?hours=48&bytes=2e10, to see it again."
        ),
    ] = None,
    bus: BusOption = None,
) -> None:
    """Add a stream. A name that was removed begins another life, with numbers of its own.

    A folder is watched: each video that has stopped growing there becomes a stream, STREAM/NAME, under the same task.
    """
    from streamproc.cli.endpoints import no_secret_for_others
    from streamproc.task import load

    told, wants = settings(bus=bus), load(task, options=set_ or (), models=model or ())
    no_secret_for_others(told, uri)

    async def work() -> None:
        from streamproc.pipeline import job

        wanted = replace(await _wanted(stream, uri, wants, lag), footage=_kept(footage))
        async with deployed(told) as log:
            entered = await job.enter(log, [wanted], again=False)
        say(f"{stream} was there already, under the same task" if entered.known else f"{stream} added")

    run(work())


def _kept(footage: str | None) -> str | None:
    from streamproc.video.footage import Keep

    if footage is not None:
        Keep.parse(footage)
    return footage


def _folder(stream: str, uri: str, task: Task, lag: str) -> Wanted | None:
    """A folder to be watched; None where it is something else."""
    from streamproc.messages import Grid
    from streamproc.pipeline.parts import DECODE
    from streamproc.pipeline.streams import Wanted
    from streamproc.video.recipe import grid_of
    from streamproc.video.sources import check

    folder = Path(uri.removeprefix("file://"))
    if not folder.is_dir():
        return None
    check(stream)
    every = task.sampling.every is not None  # each video has a rate of its own then, and so a grid
    grid = Grid(root=DECODE, origin="0", step="1", first=0) if every else grid_of(task.sampling.model_dump())
    return Wanted(name=stream, uri=str(folder.absolute()), live=False, grid=grid, task=task, lag=lag)


async def _wanted(stream: str, uri: str, task: Task, lag: str) -> Wanted:
    """The stream, its file looked at where it has one."""
    from streamproc.pipeline.streams import Wanted
    from streamproc.video import address
    from streamproc.video.container import Limits
    from streamproc.video.glance import Glance
    from streamproc.video.recipe import grid_of
    from streamproc.video.sources import found
    from streamproc.video.workers import Workers

    if watched := _folder(stream, uri, task, lag):
        return watched
    there = found([uri], name=stream)
    if len(there) != 1:
        raise Misconfigured(f"'{uri}' stands for {len(there)} videos; a stream is one. `streamproc run` takes all")
    one, glanced = there[0], None
    if not one.live:
        async with Workers(1) as workers:
            glanced = await workers.one(Glance(address.parse(one.uri), Limits()))
    grid = grid_of(task.sampling.model_dump(), glanced)
    return Wanted(name=one.name, uri=one.uri, live=one.live, grid=grid, task=task, lag=lag)


@app.command("list", epilog="Example: streamproc sources list --json")
def list_(bus: BusOption = None, json: JsonOption = False) -> None:
    """Every stream, with its state, its task and where it comes from."""
    told = settings(bus=bus)

    async def work() -> list[Source]:
        from streamproc.pipeline import streams

        async with opened(told) as log:
            return [source for _, source in sorted((await streams.newest(log)).items())]

    sources = run(work())
    if json:
        from streamproc.messages import plain

        for source in sources:
            emit(plain(source))
        return
    rows = [
        (s.stream, s.state, "feed" if s.live else "file", s.task.get("name", ""), f"{s.generation}.{s.revision}", s.uri)
        for s in sources
    ]
    table(("stream", "state", "kind", "task", "revision", "from"), rows)


@app.command(epilog="Example: streamproc sources remove door")
def remove(
    streams: Annotated[list[str], typer.Argument(metavar="STREAM…", show_default=False)], bus: BusOption = None
) -> None:
    """End streams: what has been decoded is worked off, and `ended` follows. What was found stays."""
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
    from streamproc.pipeline.parts import DECODE
    from streamproc.pipeline.progress import followed

    told = settings(bus=bus)

    async def work() -> None:
        async with opened(told) as log, followed(log) as progress:
            there = await streams.newest(log)
            for name in names:
                _known(name, there)
            turned = [there[name] for name in dict.fromkeys(names) if there[name].state != state]
            await streams.publish(
                log, [streams.changed(s, state=state, from_index=progress.of(s, DECODE).numbers.end) for s in turned]
            )
        for source in turned:
            say(f"{source.stream}: {source.state} → {state}")

    run(work())


def _known(name: str, there: dict[str, Source]) -> None:
    if name not in there:
        raise Misconfigured(f"no stream '{name}'{did_you_mean(name, there)}")
    if there[name].state == "removed":
        raise Misconfigured(f"stream '{name}' was removed; `streamproc sources add` begins another of this name")
