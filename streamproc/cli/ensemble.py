"""`streamproc ensemble`: several submissions into one, by the rules of the stage of that name. No bus; a model for one rule.

What a model answered is kept beside the output, a line a clip, as soon as it is there; so a second call asks only for what
is missing. What failed or could not be read is not kept: it is no answer, and the second call asks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli.frame import Code, JsonOption, emit, run, say, settings, table
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.formats.submission import Clip
    from streamproc.stages.ensemble.rows import Row

Clips = dict[str, "Clip"]
"""Of one file, by video, in its order."""


class Rule(StrEnum):
    vote = "vote"
    fill = "fill"
    cluster = "cluster"


def register(app: typer.Typer) -> None:
    app.command(
        "ensemble",
        epilog="Example: streamproc ensemble --rule cluster sub1.csv sub2.csv sub3.csv --base sub1.csv"
        " --model qwen3-next-80b-a3b-instruct --out submission.csv",
        short_help="Make one submission of several.",
    )(ensemble)


def ensemble(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Submissions: CSV files of 12 columns.")],
    rule: Annotated[
        Rule,
        typer.Option(
            "--rule",
            help="vote: field by field; fill: the rows of the first FILE, their holes (start 1, incident -1) filled from"
            " the next; cluster: a text model joins what most of them say.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="F", help="The submission to write.")],
    base: Annotated[
        Path | None,
        typer.Option(
            "--base", metavar="FILE", help="Has the cells that the rule does not decide; else the most frequent value."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="ENDPOINT", help="Who joins, by the rule 'cluster'.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make one submission of several. A second call goes on where the first was; clips come in the order of the first FILE."""
    told = settings()
    _sensible(files, rule, out, model)
    inputs = [_read(file) for file in files]
    cells = _read(base) if base else {}
    by_clip = _by_clip(inputs, only_first=rule is Rule.fill)
    summary: dict[str, Any] = {"rule": rule.value, "files": len(files), "clips": len(by_clip), "out": str(out)}
    _tell_missing(files, inputs, by_clip)
    if rule is Rule.cluster:
        from streamproc.cli.merging.clustering import Clustering

        work = Clustering.of(told, model, out)
        run(work.all(by_clip))
        decided = {video: work.row(video, rows, base=_row(cells.get(video))) for video, rows in by_clip.items()}
        summary |= work.summary
    else:
        decided = {video: _decided(rule, rows) for video, rows in by_clip.items()}
    if base and rule is not Rule.cluster:
        say(f"--base {base} is of no use here: the rule '{rule}' decides every cell")
    _write(out, decided)
    emit(summary) if json else table(list(summary), [list(summary.values())])
    if summary.get("undecided"):
        say(f"{summary['undecided']} clips have no answer that could be read; call it again to ask for them again")
        raise typer.Exit(Code.INCOMPLETE)


def _sensible(files: Sequence[Path], rule: Rule, out: Path, model: str | None) -> None:
    """What is wrong with the call itself, before anything is read."""
    if len(files) < 2:
        raise Misconfigured("one submission is made of two or more; name them one after the other")
    for n, file in enumerate(files):
        if file.resolve() in [f.resolve() for f in files[:n]]:
            raise Misconfigured(f"'{file}' is named twice, and would count twice")
    if out.resolve() in [f.resolve() for f in files]:
        raise Misconfigured(f"--out {out} is one of the files that it is made of; name another")
    if not out.resolve().parent.is_dir():
        raise Misconfigured(f"--out {out}: there is no folder '{out.parent}'")
    if model is not None and rule is not Rule.cluster:
        raise Misconfigured(f"--model {model}: the rule '{rule}' asks no model; 'cluster' does")


def _read(file: Path) -> Clips:
    from streamproc.formats import submission
    from streamproc.task import load

    labels = load("dashcam").caption
    known = tuple(labels.fields["label"]["enum"]) if labels else ()
    return {clip.video: clip for clip in submission.read(file.read_bytes(), file=str(file), labels=known)}


def _row(clip: Clip | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: value for name, value in asdict(clip).items() if name != "video"} if clip else {}


def _by_clip(inputs: Sequence[Clips], *, only_first: bool) -> dict[str, list[Row]]:
    """What each file that has a clip says of it, in the order of the files."""
    videos = inputs[0] if only_first else dict.fromkeys(video for clips in inputs for video in clips)
    return {video: [_row(clips[video]) for clips in inputs if video in clips] for video in videos}


def _tell_missing(files: Sequence[Path], inputs: Sequence[Clips], by_clip: dict[str, list[Row]]) -> None:
    for file, clips in zip(files, inputs, strict=True):
        if missing := [video for video in by_clip if video not in clips]:
            say(f"{file} lacks {len(missing)} of {len(by_clip)} clips, the first of them {missing[0]}")
        if others := [video for video in clips if video not in by_clip]:
            say(f"{file} has {len(others)} clips that {files[0]} does not have; they are left out")


def _decided(rule: Rule, rows: Sequence[Row]) -> Row:
    from streamproc.formats.submission import KINDS
    from streamproc.stages.ensemble.rows import filled, voted

    said = filled(rows) if rule is Rule.fill else voted(rows, KINDS).values
    return {name: said.get(name, "") for name in KINDS}  # a sentence that is empty everywhere is no vote


def _write(out: Path, decided: dict[str, Row]) -> None:
    from streamproc.formats.submission import Clip, write
    from streamproc.pipeline.outputs import replace

    replace(out, write([Clip(video=video, **row) for video, row in decided.items()]))
