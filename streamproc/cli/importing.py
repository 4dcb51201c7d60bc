"""`streamproc import`: results made elsewhere, through dedup, ensemble and coverage to the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamproc.cli.frame import BusOption, Code, JsonOption, SetOption, deployed, let_sigterm_drain, run, say, settings
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.cli.run import Asked
    from streamproc.pipeline.importing_files import Brought, Format
    from streamproc.settings import Settings

TASKS = {"predictions": "any", "spotting": "soccer", "2coool": "dashcam"}
"""By which results of a format are read, where nobody says."""


def register(app: typer.Typer) -> None:
    app.command(
        "import",
        epilog="Example: streamproc import final_predictions_llava_video_1.json --as match1 --task soccer --model llava",
        short_help="Take over results made elsewhere.",
    )(command)


def command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Results; several files are parts of one.")],
    as_: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="STREAM",
            help="What they are of. Halves of a game become STREAM/1_half and STREAM/2_half, clips STREAM/VIDEO.",
        ),
    ],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="predictions: [{time, raw}]; spotting: results_spotting.json; 2coool: a submission. Else as the first "
            "file looks.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Who saw it. Results of another model for the same stream are joined with those that are there.",
        ),
    ] = "imported",
    task: Annotated[
        str | None,
        typer.Option(
            "--task", metavar="T", help="By its labels and rules; else any, for spotting soccer, for 2coool dashcam."
        ),
    ] = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write results as files, a folder a stream.")
    ] = None,
    bus: BusOption = None,
    json: JsonOption = False,
) -> None:
    """Take over results made elsewhere as if a model of ours had answered: events, verdicts, coverage and scores follow.

    A file says what was seen. Windows that it does not name count as looked at, with nothing there. Called once more with
    the same files, it goes on where it was and says nothing twice.
    """
    from streamproc.cli.run import Asked
    from streamproc.pipeline import importing_files
    from streamproc.task import load

    told = settings(bus=bus)
    read = [importing_files.File(str(file), file.read_bytes()) for file in files]
    format_of = _format(format_) or importing_files.guessed(read[0])
    options, models = set_ or (), ["describe=" if format_of == "2coool" else "detect="]
    wants = load(task or TASKS[format_of], options=options, models=[f"{models[0]}{_named(model)}"])
    brought = importing_files.brought(read, format_of, stream=as_, model=model, task=wants, say=say)
    asked = Asked(task=brought[0].task, out=out, json=json)
    raise typer.Exit(run(_process(told, asked, brought)))


def _format(said: str | None) -> Format | None:
    from streamproc.errors import did_you_mean
    from streamproc.pipeline.importing_files import Format

    if said is None or said in list(Format):
        return Format(said) if said else None
    raise Misconfigured(f"--format {said}: there are {', '.join(Format)}{did_you_mean(said, list(Format))}")


def _named(model: str) -> str:
    """Services are called after it."""
    from pydantic import TypeAdapter, ValidationError

    from streamproc.stages.options import ModelName

    try:
        return TypeAdapter(ModelName).validate_python(model)
    except ValidationError:
        raise Misconfigured(
            f"--model {model}: a model's name has small letters, digits, dots and hyphens, as qwen2.5-vl-7b"
        ) from None


async def _process(told: Settings, asked: Asked, brought: Sequence[Brought]) -> Code:
    from streamproc.cli.endpoints import budgets, environ
    from streamproc.cli.looking import Streams
    from streamproc.cli.run import Run, say_who_answers, those_asked
    from streamproc.cli.running import Spending
    from streamproc.pipeline import importing, outputs
    from streamproc.pipeline.means import means, reach
    from streamproc.pipeline.parts import plan_of
    from streamproc.pipeline.process import working
    from streamproc.pipeline.progress import followed
    from streamproc.settings import open_claims
    from streamproc.video.workers import Workers

    let_sigterm_drain()
    left = importing.left(brought[0])
    say_who_answers(asked, left)
    served, keys = those_asked(told, asked, left), environ(told)
    for warning in await reach([s for s in served if s.urls], environ=keys):
        say(warning)
    if asked.out:
        outputs.check(asked.out)
        _keeps_to_imports(asked.out, brought)
    purse = budgets(told)
    spending = Spending({s.name: s.card.price for s in served if s.card.price}, purse.spent)
    async with (
        Workers(1) as hands,
        means(served, workers=hands, environ=keys, record=spending.hear, budgets=purse) as has,
        deployed(told) as bus,
        followed(bus) as progress,
    ):
        entered = await importing.bring(bus, progress, brought)
        plans = [plan_of(s) for s in dict.fromkeys(s for source in entered.sources for s in source.services)]
        claims = open_claims(told)
        this = Run(asked, plans, served, bus, progress, spending, Streams(), entered, claims)
        return await this.to_its_end(
            lambda: working(
                bus, has, left, bounds=told.bounds, backoff=told.backoff, claims=claims, collector=told.otel.endpoint
            )
        )


def _keeps_to_imports(folder: Path, brought: Sequence[Brought]) -> None:
    """What a run has written is not written over."""
    from streamproc.pipeline import importing, outputs

    for one in brought:
        there = outputs.summary(folder / one.stream)
        if there and not importing.is_import((there.get("source") or {}).get("uri", "")):
            raise Misconfigured(
                f"{folder / one.stream} holds the results of a run; name another --out, or another --as"
            )
