"""`score thresholds`: from which confidence on to believe, chosen per label on some games, reported on others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli import frame
from streamproc.cli.frame import JsonOption
from streamproc.cli.scoring import report
from streamproc.cli.scoring.report import DrawsOption, PlotOption, SeedOption, WithinOption

if TYPE_CHECKING:
    from streamproc.cli.scoring.games import Games
    from streamproc.score.spots import Bools, Floats


def register(app: typer.Typer) -> None:
    app.command(
        "thresholds",
        epilog="Example: streamproc score thresholds --labels labels --predictions results --fit fit.txt --test test.txt "
        "--out thresholds.json; then run --set ensemble.thresholds=@thresholds.json",
    )(thresholds)


def thresholds(
    labels: Annotated[Path, typer.Option("--labels", metavar="DIR", help="GAME/Labels-v2.json below it.")],
    predictions: Annotated[
        Path, typer.Option("--predictions", metavar="DIR", help="GAME/results_spotting.json below it.")
    ],
    fit: Annotated[
        str,
        typer.Option(
            "--fit", metavar="GAMES", help="Games to choose on: a file of names, or patterns with commas between."
        ),
    ],
    test: Annotated[
        str, typer.Option("--test", metavar="GAMES", help="Games to report on; none of those to choose on.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="F", help="Write label → threshold there, for --set ensemble.thresholds=@F."),
    ] = None,
    coverage: Annotated[
        Path | None,
        typer.Option(
            "--coverage",
            metavar="DIR",
            help="Where coverage.json files say how long games are; the predictions' folder by default.",
        ),
    ] = None,
    within: WithinOption = 5.0,
    draws: DrawsOption = 200,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the threshold of each label where its F1 is best, and say what that does to games it was not chosen on."""
    report.drawable(plot)
    report.writable(out)
    from streamproc.cli.scoring import games as folders
    from streamproc.formats.soccernet import LABELS
    from streamproc.score import thresholds as believing

    read = folders.read(labels, predictions)
    on, held_out = folders.apart(read, fit, test)
    within_ms = round(1000 * within)
    curves = believing.curves(on.truth, on.predictions, within_ms=within_ms, classes=len(LABELS))
    best = [curve.best() for curve in curves]
    for label, at in zip(LABELS, best, strict=True):
        if at is None:
            read.problems.add("label never found in the games to choose on, so it gets no threshold", label)
    chosen = {label: at for label, at in zip(LABELS, best, strict=True) if at is not None}
    result: dict[str, Any] = {
        "thresholds": chosen,
        "within_s": within,
        "draws": draws,
        "seed": seed,
        "fit": report_on(on, best, within_ms=within_ms, folder=coverage or predictions),
        "test": report_on(held_out, best, within_ms=within_ms, folder=coverage or predictions, draws=draws, seed=seed),
        "curves": {
            label: {"threshold": c.threshold, "precision": c.precision, "recall": c.recall, "f1": c.f1}
            for label, c in zip(LABELS, curves, strict=True)
            if len(c.threshold)
        },
        "problems": read.problems.plain(),
    }
    report.warn(read.problems)
    if out:
        out.write_text(json.dumps(chosen, indent=2, ensure_ascii=False) + "\n")
    report.draw(plot, "thresholds", curves, best, names=LABELS)
    frame.emit(report.plain(result)) if as_json else _show(result)


def report_on(
    games: Games, best: list[float | None], *, within_ms: int, folder: Path, draws: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Before and after: precision, recall, F1 with its interval, the official loose score, and events a minute."""
    import numpy as np

    from streamproc.cli.scoring import games as folders
    from streamproc.score import thresholds as believing

    minutes = folders.length_ms(games, folders.looked_at(folder, games.names)) / 60_000
    least = np.array([np.nan if at is None else at for at in best])
    kept = believing.keep(games.predictions, least)
    weights = report.drawn(len(games.names), draws=draws, seed=seed)
    return {
        "games": len(games.names),
        "minutes": minutes,
        "before": _measured(games, np.ones_like(kept), minutes, within_ms, weights),
        "after": _measured(games, kept, minutes, within_ms, weights),
    }


def _measured(games: Games, kept: Bools, minutes: float, within_ms: int, weights: Floats | None) -> dict[str, Any]:
    from streamproc.formats.soccernet import LABELS
    from streamproc.score import detection, spotting

    said = games.predictions.where(kept)
    matches = detection.match(games.truth, said, within_ms=within_ms, classes=len(LABELS))
    each = detection.found(games.truth, said, matches, classes=len(LABELS))
    total = each.total()
    counted = spotting.tally(games.truth, said, games=len(games.names), classes=len(LABELS))
    loose = spotting.score(counted)["loose"].average["all"]
    ends: dict[str, Any] = {}
    if weights is not None:
        drawn = detection.by_game(games.truth, said, matches, games=len(games.names)).drawn(weights)
        for name in ("precision", "recall", "f1"):
            ends[name] = report.ends(getattr(drawn, name), float(getattr(total, name)))
        ends["loose_mAP"] = report.ends(spotting.averages(counted, weights, views=("all",))["loose"]["all"], loose)
    return {
        "precision": total.precision,
        "recall": total.recall,
        "f1": total.f1,
        "intervals": ends or None,
        "per_class_f1": dict(zip(LABELS, each.f1.tolist(), strict=True)),
        "loose_mAP": loose,
        "predictions": len(said),
        "per_minute": float(detection.share(len(said), minutes)),
        "labels_per_minute": float(detection.share(len(games.truth), minutes)),
    }


def _show(result: dict[str, Any]) -> None:
    before, after = (result["test"][when]["per_class_f1"] for when in ("before", "after"))
    rows = [
        [
            label,
            report.number(result["thresholds"].get(label)),
            report.number(before[label]),
            report.number(after[label]),
        ]
        for label in before
    ]
    frame.table(["label", "threshold", "F1 before", "F1 after"], rows)
    frame.line("")
    rows = [
        [
            f"{name} ({result[name]['games']} games)",
            when,
            *(report.number(float(result[name][when][k])) for k in ("precision", "recall", "f1")),
            report.between((result[name][when]["intervals"] or {}).get("f1")),
            report.number(result[name][when]["loose_mAP"]),
            report.between((result[name][when]["intervals"] or {}).get("loose_mAP")),
            report.number(result[name][when]["per_minute"], 2),
            report.number(result[name][when]["labels_per_minute"], 2),
        ]
        for name in ("fit", "test")
        for when in ("before", "after")
    ]
    frame.table(
        ["games", "", "precision", "recall", "F1", "95 %", "loose mAP", "95 %", "events/min", "labels/min"], rows
    )
    frame.line("")
    frame.line(report.told_of_intervals(result["test"]["games"], "games to report on", draws=result["draws"]))
