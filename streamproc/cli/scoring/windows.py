"""`score windows`: was 'nothing here' right, window by window, and how were the answers read; for each model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli import frame
from streamproc.cli.frame import JsonOption
from streamproc.cli.scoring import report
from streamproc.cli.scoring.report import DrawsOption, SeedOption

if TYPE_CHECKING:
    from streamproc.cli.scoring.runs import Window
    from streamproc.score.spots import Truth


def register(app: typer.Typer) -> None:
    app.command("windows", epilog="Example: streamproc score windows --labels labels --detections out")(windows)


def windows(
    labels: Annotated[Path, typer.Option("--labels", metavar="DIR", help="GAME/Labels-v2.json below it.")],
    detections: Annotated[
        Path,
        typer.Option(
            "--detections",
            metavar="PATH",
            help="A detections.jsonl, or a folder with GAME/1_…/detections.jsonl below it.",
        ),
    ],
    draws: DrawsOption = 200,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Precision and recall of the null class: windows said to be empty, windows that are. And how answers were read."""
    from streamproc.cli.scoring import games as folders
    from streamproc.cli.scoring import runs
    from streamproc.errors import Misconfigured, Rejected
    from streamproc.formats import soccernet
    from streamproc.formats.problems import Problems

    problems = Problems()
    names, true = folders.labelled(labels, problems=problems)
    rows: list[tuple[int, runs.Window]] = []
    for place, window in runs.windows(detections):
        if not 0 <= window.start_ms <= window.end_ms <= soccernet.LATEST_MS:
            raise Rejected(f"{place}: a window from {window.start_ms} to {window.end_ms} ms")
        at = soccernet.half_of(window.stream)
        if at is None or at[0] not in names:
            problems.add("window of a stream that has no labels, left out", f"{place} ({window.stream})")
        elif window.until_index is not None:
            missed = window.until_index - window.index
            problems.add("windows in gaps, not looked at and not scored", f"{place} ({window.reason})", times=missed)
            rows.append((2 * names.index(at[0]) + at[1] - 1, window))
        else:
            rows.append((2 * names.index(at[0]) + at[1] - 1, window))
    if not rows:
        raise Misconfigured(f"{detections}: no window of a stream GAME/1_… or GAME/2_… with labels in {labels}")
    truth = folders.truth(true)
    result: dict[str, Any] = {"draws": draws, "seed": seed, "models": {}}
    for model, said in sorted(by_model(rows).items()):
        result["models"][model] = _scored(model, said, truth, draws=draws, seed=seed)
        for part in sorted(set(range(2 * len(names))) - {part for part, _ in said}):
            problems.add("half without a window, in no number", f"{model}: {names[part // 2]} {part % 2 + 1}")
    result["problems"] = problems.plain()
    report.warn(problems)
    frame.emit(report.plain(result)) if as_json else _show(result)


def by_model(rows: list[tuple[int, Window]]) -> dict[str, list[tuple[int, Window]]]:
    """A window without an answer names no model: it is held against the one that answers most in its service."""
    answered: dict[str | None, Counter[str]] = {}
    for _, window in rows:
        if window.model is not None:
            answered.setdefault(window.service, Counter())[window.model] += 1
    found: dict[str, list[tuple[int, Window]]] = {}
    for part, window in rows:
        model = window.model
        if model is None and (named := answered.get(window.service)):
            model = min(named, key=lambda name: (-named[name], name))
        found.setdefault(model or window.service or "unnamed", []).append((part, window))
    return found


def _scored(model: str, said: list[tuple[int, Window]], truth: Truth, *, draws: int, seed: int) -> dict[str, Any]:
    from streamproc.score import windows as empty

    there = [(part, window) for part, window in said if window.until_index is None]
    by_game = empty.null_class(_columns(there), truth)
    found = by_game.total()
    weights = report.drawn(len(by_game.labels), draws=draws, seed=seed)
    ends: dict[str, list[float] | None] | None = None
    if weights is not None:
        drawn = by_game.drawn(weights)
        ends = {k: report.ends(getattr(drawn, k), float(getattr(found, k))) for k in ("precision", "recall", "f1")}
    return {
        "games": len(by_game.labels),
        "windows": len(there),
        "in_gaps": sum(w.until_index - w.index for _, w in said if w.until_index is not None),
        "empty": int(found.labels),
        "said_empty": int(found.predicted),
        "precision": found.precision,
        "recall": found.recall,
        "f1": found.f1,
        "intervals": ends,
        "read": dict(empty.readings([(model, _how(w)) for _, w in there]).get(model, Counter()).most_common()),
    }


def _columns(said: list[tuple[int, Window]]) -> Any:
    import numpy as np

    from streamproc.score.windows import Windows

    return Windows(
        part=np.array([part for part, _ in said], np.int64),
        start_ms=np.array([w.start_ms for _, w in said], np.int64),
        end_ms=np.array([w.end_ms for _, w in said], np.int64),
        null=np.array([not w.events for _, w in said], np.bool_),
        read=np.array([w.outcome == "done" for _, w in said], np.bool_),
    )


def _how(window: Window) -> str:
    """How the answer was read; where there is none, why."""
    return (
        (window.how or "unstated") if window.outcome == "done" else f"{window.outcome}: {window.reason or 'unstated'}"
    )


def _show(result: dict[str, Any]) -> None:
    rows = [
        [
            model,
            of["windows"],
            of["in_gaps"],
            of["empty"],
            of["said_empty"],
            *(
                cell
                for k in ("precision", "recall", "f1")
                for cell in (report.number(float(of[k])), report.between((of["intervals"] or {}).get(k)))
            ),
        ]
        for model, of in result["models"].items()
    ]
    heads = ["precision", "95 %", "recall", "95 %", "F1", "95 %"]
    frame.table(["model", "windows", "in gaps", "empty", "said empty", *heads], rows)
    frame.line("")
    for model, of in result["models"].items():
        frame.line(f"{model}: {report.told_of_intervals(of['games'], 'games', draws=result['draws'])}")
    frame.line("")
    read = [
        [model, how, n, f"{100 * n / of['windows']:.1f} %"]
        for model, of in result["models"].items()
        for how, n in of["read"].items()
    ]
    frame.table(["model", "read as", "windows", ""], read)
