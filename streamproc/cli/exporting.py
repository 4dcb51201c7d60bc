"""`streamproc export`: what has landed, as files that others read."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamproc.cli.frame import BusOption, Code, opened, run, say, settings
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.pipeline.exporting import Landed
    from streamproc.settings import Settings

SHOWN = 5
"""Names that are told; the others are counted."""


class Format(StrEnum):
    json = "json"
    csv = "csv"
    predictions = "predictions"
    spotting = "spotting"
    submission = "2coool"


APART = {Format.predictions, Format.spotting}
"""Each stream, or game, is a file of its own."""


def register(app: typer.Typer) -> None:
    app.command(
        epilog="Example: streamproc export --all --format 2coool --out submission.csv",
        short_help="Write what was found as others read it.",
    )(export)


def export(
    streams: Annotated[
        list[str] | None, typer.Argument(metavar="[STREAM…]", help="By name, in this order.", show_default=False)
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every stream of the bus, in the order in which they were added.")
    ] = False,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="json: a document a stream, each in a line; csv: a row an event or verdict; predictions: [{time, raw}], a row an event; "
            "spotting: results_spotting.json of a game, from its halves GAME/1_… and GAME/2_…; 2coool: a submission, a row "
            "a stream.",
        ),
    ] = Format.json,
    model: Annotated[
        str | None, typer.Option("--model", metavar="M", help="Only what this model saw, or described; not for json.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="F",
            help="Instead of stdout. A folder, where it does not end in .json, for predictions (STREAM.json) and spotting "
            "(GAME/results_spotting.json, with the coverage of both halves).",
        ),
    ] = None,
    bus: BusOption = None,
) -> None:
    """Write what has landed, for whoever goes on with it elsewhere. Exit code 3 where coverage is incomplete.

    Columns of csv: stream; id; label; team; start_s, end_s, time_s in seconds of stream time; frame; confidence; found_by, the
    models with blanks between; outcome, 'done' where it is believed, and reason where not; details; fields, all else as JSON.
    """
    if bool(streams) == all_:
        raise Misconfigured("name the streams to export, or say --all")
    if model is not None and format_ is Format.json:
        raise Misconfigured(
            f"--model {model}: a json document has all models in it; csv, predictions and others choose one"
        )
    told = settings(bus=bus)
    found = run(_landed(told, None if all_ else streams, format_))
    _known(model, found)
    files = dict(_files(found, format_, model))
    _write(files, format_, out)
    raise typer.Exit(_covered(found))


async def _landed(told: Settings, names: Sequence[str] | None, format_: Format) -> list[Landed]:
    from streamproc.pipeline import exporting
    from streamproc.pipeline.exporting_formats import TOPICS, has_events, is_described
    from streamproc.pipeline.progress import followed
    from streamproc.settings import open_claims

    async with opened(told) as bus, followed(bus) as progress:
        sources = await exporting.chosen(bus, names)
        if not sources:
            raise Misconfigured(f"there is no stream on {told.bus}; `streamproc run` makes some")
        found = await exporting.landed(bus, progress, sources, TOPICS[format_], claims=open_claims(told))
    if format_ is Format.submission:
        return _only(found, [one for one in found if is_described(one)], named=names is not None, what="described clip")
    if format_ is Format.predictions:
        return _only(found, [one for one in found if has_events(one)], named=names is not None, what="stream of events")
    if format_ is Format.spotting:
        from streamproc.formats.soccernet import half_of

        halves = [one for one in found if half_of(one.source.stream)]
        return _only(found, halves, named=names is not None, what="half of a game, as GAME/1_…")
    return found


def _only(found: Sequence[Landed], fit: list[Landed], *, named: bool, what: str) -> list[Landed]:
    """Streams that a format can tell. Others that were named are a mistake; of all, they are left out and told."""
    others = [one.source.stream for one in found if one not in fit]
    if others and (named or not fit):
        raise Misconfigured(f"stream '{others[0]}' is no {what}")
    if others:
        say(f"left out, as no {what}: {_few(others)}")
    return fit


def _known(model: str | None, found: Sequence[Landed]) -> None:
    from streamproc.errors import did_you_mean

    parts = [service.split(".", 1) for one in found for service in one.source.services if "." in service]
    known = {rest for stage, rest in parts if stage == "detect"}
    known |= {rest.rpartition(".")[0] for stage, rest in parts if stage == "describe"}
    if model is not None and model not in known:
        raise Misconfigured(f"--model {model}: none of these streams has it{did_you_mean(model, known)}")


# files --------------------------------------------------------------------------------------------------------------


def _files(found: Sequence[Landed], format_: Format, model: str | None) -> Iterator[tuple[str, bytes]]:
    """(path below a folder, contents), a file a stream, a game, or one for all."""
    import msgspec

    from streamproc.formats import predictions, submission
    from streamproc.pipeline import exporting_formats as formats

    if format_ is Format.json:
        for one in found:
            yield f"{one.source.stream}.json", msgspec.json.encode(one.document()) + b"\n"
    elif format_ is Format.csv:
        yield "", formats.table(found, model)
    elif format_ is Format.predictions:
        for one in found:
            yield f"{one.source.stream}.json", predictions.write(formats.predictions(one, model))
    elif format_ is Format.spotting:
        yield from _games(found, model)
    else:
        rows = list(formats.clips(found, model))
        for row in rows:
            if row.lacks:
                say(f"clip {row.clip.video}: {row.lacks}; its row says of that what it says where nothing happens")
        yield "", submission.write(row.clip for row in rows)


def _games(found: Sequence[Landed], model: str | None) -> Iterator[tuple[str, bytes]]:
    import msgspec

    from streamproc.formats import coverage, soccernet
    from streamproc.formats.problems import Problems
    from streamproc.pipeline import exporting_formats as formats

    problems = Problems()
    for game, halves in formats.games(found).items():
        if len(halves) < 2:
            say(f"game {game}: only half {next(iter(halves))} is there")
        spots = formats.spots(halves, model, problems)
        yield f"{game}/{soccernet.PREDICTIONS_FILE}", soccernet.write_predictions(game, spots)
        for one in halves.values():
            looked = [row for row in one.coverage if row["service"].startswith("detect.")]
            yield f"{one.source.stream}/{coverage.FILE}", msgspec.json.encode(looked) + b"\n"
    for text in problems.lines():
        say(text)


def _write(files: dict[str, bytes], format_: Format, out: Path | None) -> None:
    from streamproc.formats import coverage

    apart = format_ in APART
    if apart and (out is None or (out.suffix == ".json" and not out.is_dir())):
        files = {name: data for name, data in files.items() if not name.endswith(coverage.FILE)}
        apart = False
        if len(files) > 1:
            raise Misconfigured(f"{len(files)} files, {_few(list(files))}: name a folder for them with --out")
    if out is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(b"".join(files.values()))
        sys.stdout.buffer.flush()
    elif apart:
        for name, data in files.items():
            _replace(out / name, data)
    else:
        _replace(out, b"".join(files.values()))


def _replace(path: Path, data: bytes) -> None:
    from streamproc.pipeline.outputs import replace

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, data)
    except OSError as e:
        raise Misconfigured(f"--out {path} cannot be written: {e.strerror or e}") from e


def _covered(found: Sequence[Landed]) -> Code:
    if not (short := [one.source.stream for one in found if not one.complete]):
        return Code.DONE
    say(
        f"coverage is incomplete in {len(short)} of {len(found)} streams: {_few(short)}. `streamproc coverage STREAM` says "
        "what is missing; the same `streamproc run` without --only, or `streamproc up`, goes on with it"
    )
    return Code.INCOMPLETE


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
