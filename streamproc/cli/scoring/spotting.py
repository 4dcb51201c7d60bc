"""`score spotting`: SoccerNet's number as the official evaluation has it, and beside it what that number does not say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli import frame
from streamproc.cli.frame import JsonOption
from streamproc.cli.scoring import report
from streamproc.cli.scoring.report import DrawsOption, PlotOption, SeedOption, WithinOption

if TYPE_CHECKING:
    from streamproc.cli.scoring.games import Games, Looked
    from streamproc.score.spots import Floats
    from streamproc.score.spotting import Score, Tally

NAMES = {"mAP": "all", "visible": "visible", "unshown": "unshown"}
"""What people read → the view."""


def register(app: typer.Typer) -> None:
    app.command("spotting", epilog="Example: streamproc score spotting --labels labels --predictions results --json")(
        spotting
    )


def spotting(
    labels: Annotated[
        Path, typer.Option("--labels", metavar="DIR", help="GAME/Labels-v2.json below it; a folder or a zip file.")
    ],
    predictions: Annotated[
        Path,
        typer.Option(
            "--predictions", metavar="DIR", help="GAME/results_spotting.json below it; a folder or a zip file."
        ),
    ],
    games: Annotated[
        str | None,
        typer.Option("--games", metavar="GAMES", help="Only these: a file of names, or patterns with commas between."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="DIR", help="Another run: the difference, its interval and p value."),
    ] = None,
    coverage: Annotated[
        Path | None,
        typer.Option(
            "--coverage", metavar="DIR", help="GAME/1_…/coverage.json below it; the predictions' folder by default."
        ),
    ] = None,
    within: WithinOption = 5.0,
    draws: DrawsOption = 200,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """SoccerNet action spotting: the official score, precision and recall, confusion, calibration, coverage, intervals."""
    report.drawable(plot)
    report.comparable(against, draws)
    from streamproc.cli.scoring import games as folders

    read = folders.read(labels, predictions, wanted=games)
    looked = folders.looked_at(coverage or predictions, read.names)
    result = score(read, looked, within_ms=round(1000 * within), draws=draws, seed=seed)
    if against:
        other = folders.again(read, against)
        result["comparison"] = _compare(read, other, draws=draws, seed=seed)
        report.warn(other.problems)
    report.warn(read.problems)
    report.draw(plot, "metrics", report.plain(result))
    frame.emit(report.plain(result)) if as_json else _show(result)


def score(games: Games, looked: Looked | None, *, within_ms: int, draws: int, seed: int) -> dict[str, Any]:
    """The whole document."""
    from streamproc.formats.soccernet import LABELS
    from streamproc.score import spotting as official

    counted = official.tally(games.truth, games.predictions, games=len(games.names), classes=len(LABELS))
    metrics = {name: _metric(metric) for name, metric in official.score(counted).items()}
    if counted.overwritten:
        games.problems.add(
            "prediction replaced by a later one of the same label in the same half second, as officially",
            "in all games",
            times=counted.overwritten,
        )
    return {
        **metrics,
        "games": len(games.names),
        "labels": len(games.truth),
        "predictions": len(games.predictions),
        "found": _found(games, within_ms=within_ms, draws=draws, seed=seed),
        "spans": _spans(games, draws=draws, seed=seed),
        "coverage": _covered(games, looked, draws=draws, seed=seed),
        "draws": draws,
        "intervals": _intervals(counted, metrics, draws=draws, seed=seed),
        "problems": games.problems.plain(),
    }


def _metric(metric: Score) -> dict[str, Any]:
    from streamproc.formats.soccernet import LABELS

    document: dict[str, Any] = {name: metric.average[view] for name, view in NAMES.items()}
    for view, values in metric.per_class.items():
        name = "per_class" if view == "all" else f"per_class_{view}"
        document[name] = dict(zip(LABELS, values.tolist(), strict=True))
    return document


def _found(games: Games, *, within_ms: int, draws: int, seed: int) -> dict[str, Any]:
    """Precision, recall, F1 and what hangs on the same matching: confusion and calibration."""
    from streamproc.formats.soccernet import LABELS
    from streamproc.score import calibration, detection

    truth, said = games.truth, games.predictions
    matches = detection.match(truth, said, within_ms=within_ms, classes=len(LABELS))
    each = detection.found(truth, said, matches, classes=len(LABELS))
    total = each.total()
    reliability = calibration.reliability(said.confidence, matches.hit)
    document: dict[str, Any] = {
        "within_s": within_ms / 1000,
        "precision": total.precision,
        "recall": total.recall,
        "f1": total.f1,
        "per_class": {
            label: {"precision": p, "recall": r, "f1": f, "labels": int(t), "predictions": int(n)}
            for label, p, r, f, t, n in zip(
                LABELS,
                each.precision.tolist(),
                each.recall.tolist(),
                each.f1.tolist(),
                each.labels,
                each.predicted,
                strict=True,
            )
        },
        "confusion": {
            "labels": [*LABELS, "nothing"],
            "true_by_predicted": detection.confusion(truth, said, within_ms=within_ms, classes=len(LABELS)),
        },
        "calibration": {
            "ece": reliability.ece,
            "brier": reliability.brier,
            "edges": reliability.edges,
            "count": reliability.count,
            "confidence": reliability.confidence,
            "accuracy": reliability.accuracy,
        },
    }
    if (weights := report.drawn(len(games.names), draws=draws, seed=seed)) is not None:
        drawn = detection.by_game(truth, said, matches, games=len(games.names)).drawn(weights)
        document["intervals"] = {
            name: report.ends(getattr(drawn, name), float(getattr(total, name)))
            for name in ("precision", "recall", "f1")
        }
        document["intervals"]["ece"] = report.ends_of_error(games, matches.hit, draws=draws, seed=seed)
    return document


def _spans(games: Games, *, draws: int, seed: int) -> dict[str, Any] | None:
    """Temporal IoU, where both sides have rows with a stretch."""
    from streamproc.formats.soccernet import LABELS
    from streamproc.score import detection

    true, said = games.true_spans, games.said_spans
    if not len(true.part) or not len(said.part):
        return None
    found = detection.overlaps(true, said)
    document: dict[str, Any] = {"true": found.truth, "predicted": found.predicted, "mean_iou": found.mean}
    document |= {f"f1_at_{at}": float(found.at(at).f1) for at in (0.3, 0.5, 0.7)}
    if (weights := report.drawn(len(games.names), draws=draws, seed=seed)) is not None:
        each = detection.by_unit(found, true, said, parts=2 * len(LABELS), units=len(games.names))
        document["intervals"] = {"mean_iou": report.ends(each.mean(weights), found.mean)} | {
            f"f1_at_{at}": report.ends(each.at(at).drawn(weights).f1, document[f"f1_at_{at}"]) for at in (0.3, 0.5, 0.7)
        }
    return document


def _covered(games: Games, looked: Looked | None, *, draws: int, seed: int) -> dict[str, Any] | None:
    """The score over what was looked at; None where nobody says what that was."""
    if looked is None:
        return None
    from streamproc.formats.soccernet import LABELS
    from streamproc.score import spotting as official

    truth = games.truth.where(looked.covered.have(games.truth.part, games.truth.time_ms))
    said = games.predictions.where(looked.covered.have(games.predictions.part, games.predictions.time_ms))
    counted = official.tally(truth, said, games=len(games.names), classes=len(LABELS))
    covered_ms = looked.covered.total_ms()
    metrics = {name: _metric(metric) for name, metric in official.score(counted).items()}
    return {
        "share": covered_ms / looked.whole_ms if looked.whole_ms else 0.0,
        "covered_s": covered_ms / 1000,
        "whole_s": looked.whole_ms / 1000,
        "halves_unstated": 2 * len(games.names) - looked.halves,
        "labels_outside": len(games.truth) - len(truth),
        "predictions_outside": len(games.predictions) - len(said),
        **metrics,
        "intervals": _intervals(counted, metrics, draws=draws, seed=seed),
    }


def _intervals(counted: Tally, metrics: dict[str, Any], *, draws: int, seed: int) -> dict[str, Any] | None:
    if (weights := report.drawn(counted.games, draws=draws, seed=seed)) is None:
        return None
    from streamproc.score import spotting as official

    return {
        **report.how_drawn(counted.games, "games", draws=draws, seed=seed),
        **{
            m: {name: report.ends(views[view], metrics[m][name]) for name, view in NAMES.items()}
            for m, views in official.averages(counted, weights).items()
        },
    }


def _compare(games: Games, other: Games, *, draws: int, seed: int) -> dict[str, Any]:
    """This run minus the other, by metric."""
    from streamproc.formats.soccernet import LABELS
    from streamproc.score import bootstrap
    from streamproc.score import spotting as official

    first, second = (
        official.tally(run.truth, run.predictions, games=len(run.names), classes=len(LABELS)) for run in (games, other)
    )
    both = official.beside(first, second)

    def means(weights: Floats) -> dict[str, Floats]:
        return {name: views["all"] for name, views in official.averages(both, weights, views=("all",)).items()}

    found = bootstrap.compare(means, units=len(games.names), count=draws, seed=seed)
    return {name: report.compared(difference) for name, difference in found.items()}


def _show(result: dict[str, Any]) -> None:
    intervals = result["intervals"] or {}
    rows = []
    for metric in ("loose", "tight", "at1", "at2", "at3", "at4", "at5"):
        numbers = [report.number(result[metric][name]) for name in NAMES]
        rows.append([metric, numbers[0], report.between(intervals.get(metric, {}).get("mAP")), *numbers[1:]])
    frame.table(["metric", "mAP", "95 %", "visible", "unshown"], rows)
    found = result["found"]
    frame.line("")
    rows = [
        [
            label,
            report.number(result["loose"]["per_class"][label]),
            *(report.number(of[k]) for k in ("precision", "recall", "f1")),
            of["labels"],
            of["predictions"],
        ]
        for label, of in found["per_class"].items()
    ]
    total = [report.number(float(found[k])) for k in ("precision", "recall", "f1")]
    rows.append(["all", report.number(result["loose"]["mAP"]), *total, result["labels"], result["predictions"]])
    frame.table(
        ["label", "loose AP", f"precision ±{found['within_s']:g} s", "recall", "F1", "labels", "predictions"], rows
    )
    frame.line("")
    ends = found.get("intervals", {})
    frame.line(
        f"all, ±{found['within_s']:g} s: "
        + " · ".join(
            f"{name} {report.with_ends(float(found[key]), ends.get(key))}"
            for name, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1"))
        )
    )
    error = report.with_ends(found["calibration"]["ece"], ends.get("ece"))
    frame.line(f"games {result['games']} · calibration error {error}")
    if spans := result["spans"]:
        ends = spans.get("intervals", {})
        told = (report.with_ends(spans[key], ends.get(key)) for key in ("mean_iou", "f1_at_0.5"))
        frame.line("spans: mean IoU {} · F1 at IoU 0.5 {}".format(*told))
    if covered := result["coverage"]:
        ends = covered["intervals"] or {}
        told = (report.with_ends(covered[m]["mAP"], ends.get(m, {}).get("mAP")) for m in ("loose", "tight"))
        frame.line(
            f"looked at {100 * covered['share']:.1f} % of {covered['whole_s'] / 60:.0f} minutes; over that alone: "
            + "loose {}, tight {}".format(*told)
        )
    else:
        frame.line("looked at: nobody says (no coverage.json); the score takes everything as looked at")
    for name, of in result.get("comparison", {}).items():
        frame.line(
            f"{name} minus the other run: {report.with_ends(of['difference'], of['interval'], signed=True)}, "
            f"p = {of['p']:.4f}"
        )
    frame.line(report.told_of_intervals(result["games"], "games", draws=result["draws"]))
