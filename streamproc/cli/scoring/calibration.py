"""`score calibration`: what confidences are worth, and a fit that mends them, judged on games it has not seen."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli import frame
from streamproc.cli.frame import JsonOption
from streamproc.cli.scoring import report
from streamproc.cli.scoring.report import DrawsOption, PlotOption, SeedOption, WithinOption
from streamproc.errors import Misconfigured

if TYPE_CHECKING:
    from streamproc.cli.scoring.games import Games
    from streamproc.score.calibration import Lines, Reliability

LEAST = 30
"""Predictions that a label needs for a fit of its own."""


class Method(StrEnum):
    isotonic = "isotonic"
    platt = "platt"


class Confidence(StrEnum):
    own = "own"
    agreement = "agreement"


def register(app: typer.Typer) -> None:
    app.command(
        "calibration",
        epilog="Example: streamproc score calibration --labels labels --predictions results --fit fit.txt --test test.txt --out calibration.json",
    )(calibration)


def calibration(
    labels: Annotated[Path, typer.Option("--labels", metavar="DIR", help="GAME/Labels-v2.json below it.")],
    predictions: Annotated[
        list[Path],
        typer.Option(
            "--predictions",
            metavar="DIR",
            help="GAME/results_spotting.json below it. For --confidence agreement several, of runs, samples or models; or one "
            "`run --out` folder, whose events say which models and windows saw them.",
        ),
    ],
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit", metavar="GAMES", help="Games to fit on: a file of names, or patterns with commas between."
        ),
    ] = None,
    test: Annotated[
        str | None, typer.Option("--test", metavar="GAMES", help="Games to judge the fit on; none of those to fit on.")
    ] = None,
    method: Annotated[
        Method, typer.Option("--method", help="isotonic: any rising line; platt: a logistic curve, for few data.")
    ] = Method.isotonic,
    confidence: Annotated[
        Confidence,
        typer.Option(
            "--confidence", help="own: what the models say; agreement: how many runs, or models and windows, saw it."
        ),
    ] = Confidence.own,
    per_label: Annotated[
        bool,
        typer.Option("--per-label", help=f"A fit for each label with {LEAST} predictions or more; the rest share one."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="F", help="Write the fit there, for --set ensemble.calibration=@F."),
    ] = None,
    within: WithinOption = 5.0,
    draws: DrawsOption = 200,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reliability and calibration error of confidences; with --fit and --test a fit, before and after on unseen games."""
    report.drawable(plot)
    report.writable(out)
    if (fit is None) != (test is None) or (out and fit is None):
        raise Misconfigured("a fit needs --fit and --test: games to fit on, and other games to judge it on")
    if confidence is Confidence.own and len(predictions) > 1:
        raise Misconfigured("several --predictions make sense with --confidence agreement only")
    from streamproc.cli.scoring import games as folders
    from streamproc.score import calibration as worth

    within_ms = round(1000 * within)
    if confidence is Confidence.own:
        read = folders.read(labels, predictions[0])
    elif len(predictions) == 1:
        from streamproc.cli.scoring import voted

        read = voted.read(labels, predictions[0])
    else:
        read = agreed(folders.read(labels, predictions[0]), predictions, within_ms=within_ms)
    before = measured(read, within_ms)
    ends = {"all games": report.ends_of_error(read, hits(read, within_ms), draws=draws, seed=seed)}
    result: dict[str, Any] = {
        "confidence": confidence.value,
        "within_s": within,
        "draws": draws,
        "seed": seed,
        "games": {"all": len(read.names)},
        "all": _table(before) | {"interval": ends["all games"]},
    }
    tables, judged = {"all games": before}, len(read.names)
    if fit is not None and test is not None:
        on, held_out = folders.apart(read, fit, test)
        judged = len(held_out.names)
        result["games"] |= {"fit": len(on.names), "test": judged}
        least = LEAST if per_label else len(on.predictions) + 1
        lines = worth.by_class(
            on.predictions.confidence,
            hits(on, within_ms),
            on.predictions.label,
            method=method.value,
            least=least,
        )
        right, said = hits(held_out, within_ms), held_out.predictions
        mended = replace(held_out, predictions=replace(said, confidence=lines(said.confidence, said.label)))
        both = {"before": held_out, "after": mended}  # a mended confidence is the same prediction, right or wrong
        tables = {name: worth.reliability(of.predictions.confidence, right) for name, of in both.items()}
        ends = {name: report.ends_of_error(of, right, draws=draws, seed=seed) for name, of in both.items()}
        document = written(lines, confidence)
        result |= {"method": method.value, "fit": document, "test": _tables(tables, ends)}
        if out:
            out.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    result["problems"] = read.problems.plain()
    report.warn(read.problems)
    report.draw(plot, "reliability", tables)
    frame.emit(report.plain(result)) if as_json else _show(tables, ends, games=judged, draws=draws)


def written(lines: Lines, confidence: Confidence) -> dict[str, Any]:
    """As the ensemble takes it."""
    from streamproc.formats.soccernet import LABELS

    document = lines.everything.plain() | {"of": confidence.value}
    if lines.per_class:
        own = {LABELS[number]: line.plain() for number, line in sorted(lines.per_class.items())}
        document["per_label"] = {
            name: {"confidence": line["confidence"], "probability": line["probability"]} for name, line in own.items()
        }
    return document


def hits(games: Games, within_ms: int) -> Any:
    from streamproc.formats.soccernet import LABELS
    from streamproc.score import detection

    return detection.match(games.truth, games.predictions, within_ms=within_ms, classes=len(LABELS)).hit


def measured(games: Games, within_ms: int) -> Reliability:
    from streamproc.score import calibration as worth

    return worth.reliability(games.predictions.confidence, hits(games, within_ms))


def agreed(games: Games, runs: list[Path], *, within_ms: int) -> Games:
    """All runs' predictions brought together; a prediction's confidence is how many of the runs saw it."""
    import numpy as np

    from streamproc.cli.scoring import games as folders
    from streamproc.score import agreement
    from streamproc.score import calibration as worth
    from streamproc.score.spots import Predictions

    said = [games.predictions, *(folders.again(games, folder).predictions for folder in runs[1:])]
    seen = agreement.Sightings(
        run=np.repeat(np.arange(len(said)), [len(of) for of in said]),
        part=np.concatenate([of.part for of in said]),
        label=np.concatenate([of.label for of in said]),
        time_ms=np.concatenate([of.time_ms for of in said]),
    )
    groups = agreement.group(seen, runs=len(said), within_ms=within_ms)
    sure = worth.from_agreement(groups.count, np.full(len(groups.part), len(said)))
    together = Predictions(part=groups.part, label=groups.label, time_ms=groups.time_ms, confidence=sure)
    return replace(games, predictions=together)


def _tables(tables: dict[str, Reliability], ends: dict[str, list[float] | None]) -> dict[str, Any]:
    return {name: _table(of) | {"interval": ends[name]} for name, of in tables.items()}


def _table(of: Reliability) -> dict[str, Any]:
    return {
        "ece": of.ece,
        "brier": of.brier,
        "edges": of.edges,
        "count": of.count,
        "confidence": of.confidence,
        "accuracy": of.accuracy,
    }


def _show(tables: dict[str, Reliability], ends: dict[str, list[float] | None], *, games: int, draws: int) -> None:
    for name, of in tables.items():
        rows = [
            [f"{low:.1f} – {high:.1f}", n, report.number(said), report.number(came)]
            for low, high, n, said, came in zip(
                of.edges[:-1], of.edges[1:], of.count, of.confidence, of.accuracy, strict=True
            )
            if n
        ]
        frame.line(
            f"{name}: calibration error {report.with_ends(of.ece, ends[name])}, Brier score {report.number(of.brier)}"
        )
        frame.table(["confidence", "predictions", "mean said", "share right"], rows)
        frame.line("")
    frame.line(report.told_of_intervals(games, "games", draws=draws))
