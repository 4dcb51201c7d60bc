"""Streams as people write them down, and what is to be done so that the table says the same."""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamproc.errors import Misconfigured, did_you_mean

if TYPE_CHECKING:
    from streamproc.messages import Grid, Source
    from streamproc.pipeline.changes import Change
    from streamproc.pipeline.progress import Progress
    from streamproc.pipeline.streams import Wanted
    from streamproc.task import Task
    from streamproc.video.recipe import Rated
    from streamproc.video.sources import Found


async def wanted(stream: str, uri: str, task: Task, lag: str) -> Wanted:
    """The stream, its file looked at where it has one."""
    from streamproc.pipeline.streams import Wanted
    from streamproc.video.lag import BLOCK, Lag
    from streamproc.video.sources import check

    Lag.parse(lag)
    check(stream, remedy="call it otherwise")
    if watched := _folder(stream, uri, task, lag):
        return watched
    one, glanced = await _looked_at(stream, uri)
    if not one.live and lag != BLOCK:
        raise Misconfigured(f"lag '{lag}' is of feeds; a file waits for whoever looks at it")
    return Wanted(name=one.name, uri=one.uri, live=one.live, grid=_grid(task, glanced), task=task, lag=lag)


def _grid(task: Task, glanced: Rated | None) -> Grid:
    from streamproc.video.recipe import grid_of

    return grid_of(task.sampling.model_dump(), glanced)


async def _looked_at(stream: str, uri: str) -> tuple[Found, Rated | None]:
    """What an address names, and a glance at its file where it is one."""
    from streamproc.video import address
    from streamproc.video.jobs import Glance
    from streamproc.video.limits import Limits
    from streamproc.video.sources import found
    from streamproc.video.workers import Workers

    there = found([uri], name=stream)
    if len(there) != 1:
        raise Misconfigured(f"'{uri}' stands for {len(there)} videos; a stream is one. `streamproc run` takes all")
    one = there[0]
    if one.live:
        return one, None
    async with Workers(1) as workers:
        return one, await workers.one(Glance(address.parse(one.uri), Limits()))


def _folder(stream: str, uri: str, task: Task, lag: str) -> Wanted | None:
    """A folder to be watched; None where it is something else."""
    from streamproc.messages import Grid
    from streamproc.pipeline.parts import DECODE
    from streamproc.pipeline.streams import Wanted
    from streamproc.video.recipe import grid_of

    folder = Path(uri.removeprefix("file://"))
    if not folder.is_dir():
        return None
    every = task.sampling.every is not None  # each video has a rate of its own then, and so a grid
    grid = Grid(root=DECODE, origin="0", step="1", first=0) if every else grid_of(task.sampling.model_dump())
    return Wanted(name=stream, uri=str(folder.absolute()), live=False, grid=grid, task=task, lag=lag)


@dataclass(frozen=True, slots=True)
class Listed:
    """A stream as somebody writes it down."""

    stream: str
    uri: str | None = None
    task: str | None = None
    options: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    lag: str | None = None
    footage: str | None = None
    state: str | None = None

    async def wanted(self) -> Wanted:
        """As a new one."""
        from streamproc.task import load
        from streamproc.video.keep import Keep

        if self.uri is None:
            raise Misconfigured(f"stream '{self.stream}' is not there so far: it needs a uri")
        wants = load(self.task or "any", options=self.options, models=self.models)
        if self.footage is not None:
            Keep.parse(self.footage)
        return replace(await wanted(self.stream, self.uri, wants, self.lag or "block"), footage=self.footage)

    async def change(self, source: Source, *, whole: bool = False) -> Change:
        """What it makes of one that is there. `whole`: what it does not say is as in a new one, not as it was."""
        from streamproc.pipeline.changes import Change
        from streamproc.task import load, over
        from streamproc.video.keep import Keep
        from streamproc.video.lag import BLOCK, Lag

        if self.task is not None or whole:
            task = load(self.task or "any", options=self.options, models=self.models)
        else:
            task = over(source.task, options=self.options, models=self.models)
        lag = self.lag or (BLOCK if whole else source.lag)
        Lag.parse(lag)
        footage = self.footage if whole or self.footage is not None else source.footage
        if footage is not None:
            Keep.parse(footage)
        if not source.live and lag != BLOCK:
            raise Misconfigured(
                f"lag '{lag}' is of feeds; '{source.stream}' is a file, and waits for whoever looks at it"
            )
        same = task.resolved()["sampling"] == source.task.get("sampling")
        if same and self.uri in (None, source.uri):
            return Change(uri=source.uri, live=source.live, task=task, lag=lag, footage=footage, step=source.grid.step)
        one, glanced = await _looked_at(self.stream, self.uri or source.uri)
        step = _grid(task, glanced).step
        return Change(uri=one.uri, live=one.live, task=task, lag=lag, footage=footage, step=step)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do to one stream."""

    action: str
    stream: str
    what: tuple[str, ...] = ()
    wanted: Wanted | None = None
    """To add."""
    change: Change | None = None


async def steps(asked: list[Listed], there: dict[str, Source], progress: Progress, *, prune: bool) -> list[Step]:
    """All of it is looked at before any of it is done."""
    from streamproc.pipeline import changes
    from streamproc.pipeline.importing import is_import
    from streamproc.stages.replay import is_replay

    found = list[Step]()
    for listed in asked:
        known = there.get(listed.stream)
        if known is None or known.state == "removed":
            found.append(Step("add", listed.stream, wanted=await listed.wanted()))
        else:
            change = await listed.change(known, whole=True)
            if what := changes.differs(known, change):
                changes.check(known, progress)
                found.append(Step("change", listed.stream, tuple(what), change=change))
        now = "active" if known is None or known.state == "removed" else known.state
        if listed.state is not None and listed.state != now:
            found.append(Step({"paused": "pause", "active": "resume"}[listed.state], listed.stream))
    names = {listed.stream for listed in asked}
    for name, source in sorted(there.items()) if prune else ():
        made = source.service == "decode" or is_replay(source.uri) or is_import(source.uri)
        if name not in names and source.state != "removed" and not made:
            found.append(Step("remove", name))
    return found


# the file -----------------------------------------------------------------------------------------------------------


STREAM_KEYS = ("stream", "uri", "task", "set", "model", "lag", "footage", "state")


def read(file: Path) -> list[Listed]:
    """Misconfigured names the place in the file."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise Misconfigured(f"'{file}' cannot be read: {e}") from e
    try:
        said = json.loads(text) if text.lstrip().startswith(("[{", "[ {", "{", "[]")) else tomllib.loads(text)
    except (ValueError, RecursionError) as e:
        raise Misconfigured(f"'{file}' is neither TOML nor JSON: {e}") from e
    rows = said.get("streams") if isinstance(said, dict) else said
    extra = [name for name in said if name != "streams"] if isinstance(said, dict) else []
    if not isinstance(rows, list) or extra:
        raise Misconfigured(f"'{file}': it holds a list of streams, [[streams]] in TOML, and nothing else")
    listed = [_listed(f"'{file}', stream {n}", row) for n, row in enumerate(rows, 1)]
    seen = set[str]()
    for one in listed:
        if one.stream in seen:
            raise Misconfigured(f"'{file}' names stream '{one.stream}' twice")
        seen.add(one.stream)
    return listed


def _listed(where: str, row: Any) -> Listed:
    if not isinstance(row, dict) or not isinstance(row.get("stream"), str):
        raise Misconfigured(f"{where}: a stream is a table, and `stream` is its name")
    for name in row:
        if name not in STREAM_KEYS:
            raise Misconfigured(f"{where}: no option '{name}'{did_you_mean(name, STREAM_KEYS)}")
    for name in ("uri", "task", "lag", "footage", "state"):
        if not isinstance(row.get(name, ""), str):
            raise Misconfigured(f"{where}: {name} is text")
    if row.get("state", "active") not in ("active", "paused"):
        raise Misconfigured(f"{where}: state '{row['state']}': it is active or paused; leave a stream out to remove it")
    options = row.get("set", [])
    if isinstance(options, dict):
        options = [f"{name}={_plain(value)}" for name, value in options.items()]
    models = row.get("model", [])
    for name, said in (("set", options), ("model", models)):
        if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
            raise Misconfigured(f"{where}: {name} is a list of KEY=VALUE" + (", or a table" if name == "set" else ""))
    return Listed(
        row["stream"],
        uri=row.get("uri"),
        task=row.get("task"),
        options=tuple(options),
        models=tuple(models),
        lag=row.get("lag"),
        footage=row.get("footage"),
        state=row.get("state"),
    )


def _plain(value: Any) -> str:
    """As `--set` is told it."""
    return value if isinstance(value, str) else json.dumps(value)
