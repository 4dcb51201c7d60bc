"""`streamproc dlq`: what could not be done, all of one letter, and doing it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli.frame import BusOption, JsonOption, emit, line, opened, plain, run, say, settings, table
from streamproc.errors import Misconfigured, Rejected, did_you_mean

if TYPE_CHECKING:
    from streamproc.bus.claims import Claims
    from streamproc.bus.contract import Bus
    from streamproc.pipeline.letters import Letter

app = typer.Typer(name="dlq", help="List, read and replay what failed for good.", no_args_is_help=True)
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `dlq list` shows it.", show_default=False)]


def register(root: typer.Typer) -> None:
    root.add_typer(app)


@app.command("list", epilog="Example: streamproc dlq list --stream match1 --json")
def list_(
    stream: Annotated[str | None, typer.Option(help="Only this stream's.")] = None,
    service: Annotated[str | None, typer.Option(help="Only what this service could not do.")] = None,
    bus: BusOption = None,
    json: JsonOption = False,
) -> None:
    """Dead letters of all topics, by stream and number."""
    told = settings(bus=bus)

    async def work() -> list[dict[str, Any]]:
        from streamproc.pipeline.letters import letters
        from streamproc.settings import open_claims

        claims = open_claims(told)
        async with opened(told) as log:
            await _known(log, stream)
            found = [one async for one in letters(log, stream) if service in (None, one.service)]
            return [await _summary(one, claims) for one in sorted(found, key=_in_order)]

    found = run(work())
    if json:
        for one in found:
            emit(one)
        return
    if not found:
        line("no dead letters")
        return
    rows = [
        [
            one["id"],
            one["stream"],
            _when(one),
            one["service"],
            one["error_class"],
            one["attempts"],
            one["died"][:19],
            one["error"][:80],
        ]
        for one in found
    ]
    table(["id", "stream", "time", "service", "error class", "attempts", "died", "error"], rows)


@app.command(epilog="Example: streamproc dlq show detect.qwen2.5-vl-7b/decode/match1/0/17 --jpeg pictures")
def show(
    id_: IdArgument,
    jpeg: Annotated[
        Path | None, typer.Option("--jpeg", metavar="DIR", help="Write its pictures there, as JPEG files.")
    ] = None,
    bus: BusOption = None,
    json: JsonOption = False,
) -> None:
    """Everything about one: its error, its headers, and the input as it came, pictures as their sizes."""
    told = settings(bus=bus)

    async def work() -> list[dict[str, Any]]:
        from streamproc.settings import open_claims

        claims = open_claims(told)
        async with opened(told) as log:
            return [await _whole(one, claims, jpeg) for one in await _chosen(log, [id_])]

    for found in run(work()):
        emit(found) if json else _show(found)


@app.command(epilog="Example: streamproc dlq replay detect.qwen2.5-vl-7b/decode/match1/0/17")
def replay(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="As `dlq list` shows them.", show_default=False)],
    bus: BusOption = None,
    json: JsonOption = False,
) -> None:
    """Do them again: as a stream of their own, STREAM@dlq-1, which services that are up take up like any other.

    The failed outcomes of the first time stand: every window has one outcome of each service in its own stream.
    """
    told = settings(bus=bus)

    async def work() -> list[dict[str, Any]]:
        import msgspec

        from streamproc.pipeline.letters_again import again
        from streamproc.settings import open_claims

        async with opened(told) as log:
            made = await again(log, await _chosen(log, ids), claims=open_claims(told))
            return [msgspec.to_builtins(one) for one in made]

    for one in run(work()):
        if json:
            emit(one)
        else:
            inputs = f"{one['letters']} input{'s' if one['letters'] != 1 else ''} of {one['of']}"
            line(f"{one['stream']}  {inputs}, for {', '.join(one['services'])}")
    if not json:
        say("Services that are up take it from here; `streamproc up --until-idle` works it off")


# which are meant ----------------------------------------------------------------------------------------------------


async def _known(log: Bus, stream: str | None) -> None:
    from streamproc.pipeline import streams
    from streamproc.pipeline.letters import letters

    if stream is None or stream in (there := await streams.newest(log)):
        return
    if not [one async for one in letters(log, stream)]:  # a letter may outlive its stream
        raise Misconfigured(f"no stream '{stream}'{did_you_mean(stream, there)}")


async def _chosen(log: Bus, ids: list[str]) -> list[Letter]:
    """By id or by place; a row that a fold could not do has several letters of one id."""
    from streamproc.pipeline.letters import letters

    there = [one async for one in letters(log)]
    found: list[Letter] = []
    for name in dict.fromkeys(ids):
        some = [one for one in there if name in (one.id, one.place)]
        if not some:
            raise Misconfigured(f"no dead letter '{name}'{did_you_mean(name, [one.id for one in there])}")
        found += [one for one in some if one not in found]
    return found


def _in_order(one: Letter) -> tuple[str, int, int, str, str]:
    return one.stream, one.generation or 0, one.index or 0, one.service, one.place


# one of them --------------------------------------------------------------------------------------------------------


async def _record(one: Letter, claims: Claims) -> Any:
    from streamproc import wire
    from streamproc.topics import topic

    return wire.decode(topic(one.topic), await claims.check_out(one.stored))


async def _summary(one: Letter, claims: Claims) -> dict[str, Any]:
    try:
        record = await _record(one, claims)
    except Rejected:
        place: dict[str, Any] = {}
    else:
        place = {"start_ms": record.start_ms, "end_ms": record.end_ms}
        place |= {"utc": record.utc} if record.utc else {}
    return {
        "id": one.id,
        "stream": one.stream,
        "service": one.service,
        "topic": one.topic,
        "index": one.index,
        **place,
        "error_class": one.error_class,
        "error": one.error,
        "attempts": one.attempts,
        "died": one.died.isoformat(timespec="milliseconds"),
        "place": one.place,
    }


def _when(one: dict[str, Any]) -> str:
    from streamproc.cli.running import clock

    if "utc" in one:
        return str(one["utc"])
    return f"{clock(one['start_ms'])}–{clock(one['end_ms'])}" if "start_ms" in one else ""


async def _whole(one: Letter, claims: Claims, folder: Path | None) -> dict[str, Any]:
    """With the payload, or why it cannot be read."""
    from streamproc.cli.records import without_pictures
    from streamproc.messages import plain

    shown = await _summary(one, claims)
    shown["headers"] = {name: value.decode(errors="replace") for name, value in one.stored.headers}
    try:
        record = await _record(one, claims)
    except Rejected as e:
        payload = one.stored.value
        return shown | {"unreadable": str(e), "bytes": None if payload is None else len(payload)}
    if folder is not None:
        shown["pictures"] = [str(path) for path in _pictures(record, folder)]
    return shown | {"record": without_pictures(plain(record))}


def _pictures(record: Any, folder: Path) -> list[Path]:
    """Each frame as a file, named by its time."""
    frames = getattr(record, "frames", ())
    if not frames:
        say(f"{record.id} has no pictures")
        return []
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for frame in frames:
        path = folder / f"{record.stream.replace('/', '_')}-{record.index}-{frame.t_ms:09}.jpg"
        path.write_bytes(frame.jpeg)
        paths.append(path)
    return paths


def _show(found: dict[str, Any]) -> None:
    import msgspec

    for key, value in found.items():
        if key not in ("record", "headers", "pictures"):
            line(f"{key:12} {plain(str(value), most=None)}")
    line("")
    for name, value in found["headers"].items():
        line(f"{name}: {plain(value, most=None)}")
    if "record" in found:
        line("")
        for row in msgspec.json.format(msgspec.json.encode(found["record"]), indent=2).decode().split("\n"):
            line(plain(row, most=None))
    for path in found.get("pictures", ()):
        line(f"wrote {path}")
