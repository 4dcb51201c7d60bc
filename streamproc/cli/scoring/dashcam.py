"""`score dashcam`: answers about clips against the truth, both as 2COOOL submissions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli import frame
from streamproc.cli.frame import JsonOption
from streamproc.cli.scoring import report
from streamproc.cli.scoring.report import DrawsOption, PlotOption, SeedOption
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.formats.problems import Problems
    from streamproc.formats.submission import Clip


def register(app: typer.Typer) -> None:
    app.command("dashcam", epilog="Example: streamproc score dashcam --labels truth.csv --predictions submission.csv")(
        dashcam
    )


def dashcam(
    labels: Annotated[
        Path, typer.Option("--labels", metavar="F", help="The truth, 12 columns as a 2COOOL submission.")
    ],
    predictions: Annotated[Path, typer.Option("--predictions", metavar="F", help="The answers, of the same shape.")],
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="F", help="Other answers: the difference, its interval and p value."),
    ] = None,
    draws: DrawsOption = 1000,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start frame, categories, counts and likeness of texts, over the clips of the truth, with intervals over clips."""
    report.drawable(plot)
    report.comparable(against, draws)
    from streamproc.formats.problems import Problems

    problems = Problems()
    truth = _read(labels)
    if not truth:
        raise Misconfigured(f"{labels}: no clip in it; there is nothing to score against")
    pairs = _pairs(truth, predictions, problems)
    result = score(pairs, draws=draws, seed=seed)
    if against:
        result["comparison"] = _compare(pairs, _pairs(truth, against, problems), draws=draws, seed=seed)
    result["problems"] = problems.plain()
    report.warn(problems)
    values = {name: of["value"] for name, of in result["headline"].items()}
    report.draw(
        plot, "bars", values, {name: of["interval"] for name, of in result["headline"].items() if of["interval"]}
    )
    frame.emit(report.plain(result)) if as_json else _show(result)


def score(pairs: list[tuple[Clip, Clip | None]], *, draws: int, seed: int) -> dict[str, Any]:
    import numpy as np

    from streamproc.score import dashcam as clips

    weights = report.drawn(len(pairs), draws=draws, seed=seed)
    headline = {}
    for name, statistic in clips.headline(pairs).items():
        value = float(statistic(np.ones((1, len(pairs))))[0])
        ends = None if weights is None else report.ends(statistic(weights), value)
        headline[name] = {"value": value, "interval": ends}
    return {
        "clips": len(pairs),
        "draws": draws,
        "seed": seed,
        "answered": sum(answer is not None for _, answer in pairs),
        "headline": headline,
        "mean_errors": clips.errors(pairs),
        "f1": clips.f1(pairs),
    }


def _compare(first: Any, second: Any, *, draws: int, seed: int) -> dict[str, Any]:
    from streamproc.score import bootstrap
    from streamproc.score import dashcam as clips

    both = clips.headline(first + second)
    found = bootstrap.compare(
        lambda weights: {name: statistic(weights) for name, statistic in both.items()},
        units=len(first),
        count=draws,
        seed=seed,
    )
    return {name: report.compared(difference) for name, difference in found.items()}


def _read(file: Path) -> list[Clip]:
    from streamproc.formats import submission

    return submission.read(file.read_bytes(), file=str(file))


def _pairs(truth: list[Clip], file: Path, problems: Problems) -> list[tuple[Clip, Clip | None]]:
    answers = {clip.video: clip for clip in _read(file)}
    for video in sorted(answers.keys() - {clip.video for clip in truth}):
        problems.add("answer for a clip without truth, left out", f"{file}: video {video}")
    for clip in truth:
        if clip.video not in answers:
            problems.add("clip without an answer, scored as wrong", f"{file}: video {clip.video}")
    return [(clip, answers.get(clip.video)) for clip in truth]


def _show(result: dict[str, Any]) -> None:
    frame.line(f"{result['clips']} clips, {result['answered']} answered")
    compared = result.get("comparison", {})
    rows = [
        [name, report.number(of["value"]), report.between(of["interval"])]
        + ([f"{compared[name]['difference']:+.4f}", f"{compared[name]['p']:.4f}"] if compared else [])
        for name, of in result["headline"].items()
    ]
    frame.table(["", "value", "95 %", *(["minus the other", "p"] if compared else [])], rows)
    frame.line("")
    frame.table(["mean error", ""], [[name, report.number(value, 2)] for name, value in result["mean_errors"].items()])
    frame.line("")
    frame.line(report.told_of_intervals(result["clips"], "clips", draws=result["draws"]))
