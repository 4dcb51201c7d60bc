"""`score windows`: was 'nothing here' right, window by window, and how were the answers read; for each model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streamproc.cli import frame
from streamproc.cli.frame import JsonOption
from streamproc.cli.scoring import report


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
    as_json: JsonOption = False,
) -> None:
    """Precision and recall of the null class: windows said to be empty, windows that are. And how answers were read."""
    from streamproc.cli.scoring import games as folders
    from streamproc.cli.scoring import runs
    from streamproc.errors import Misconfigured, Rejected
    from streamproc.formats import soccernet
    from streamproc.formats.problems import Problems
    from streamproc.score import windows as empty

    problems = Problems()
    names, true = folders.labelled(labels, problems=problems)
    parts: dict[str, list[tuple[int, runs.Window]]] = {}
    for place, window in runs.windows(detections):
        if not 0 <= window.start_ms <= window.end_ms <= soccernet.LATEST_MS:
            raise Rejected(f"{place}: a window from {window.start_ms} to {window.end_ms} ms")
        at = soccernet.half_of(window.stream)
        if at is None or at[0] not in names:
            problems.add("window of a stream that has no labels, left out", f"{place} ({window.stream})")
            continue
        parts.setdefault(window.model or "unnamed", []).append((2 * names.index(at[0]) + at[1] - 1, window))
    if not parts:
        raise Misconfigured(f"{detections}: no window of a stream GAME/1_… or GAME/2_… with labels in {labels}")
    truth = folders.truth(true)
    result: dict[str, Any] = {"models": {}}
    for model, said in sorted(parts.items()):
        found = empty.null_class(_columns(said), truth)
        result["models"][model] = {
            "windows": len(said),
            "empty": int(found.labels),
            "said_empty": int(found.predicted),
            "precision": found.precision,
            "recall": found.recall,
            "f1": found.f1,
            "read": dict(empty.readings([(model, _how(w)) for _, w in said])[model].most_common()),
        }
    result["problems"] = problems.plain()
    report.warn(problems)
    frame.emit(report.plain(result)) if as_json else _show(result)


def _columns(said: list[tuple[int, Any]]) -> Any:
    import numpy as np

    from streamproc.score.windows import Windows

    return Windows(
        part=np.array([part for part, _ in said], np.int64),
        start_ms=np.array([w.start_ms for _, w in said], np.int64),
        end_ms=np.array([w.end_ms for _, w in said], np.int64),
        null=np.array([not w.events for _, w in said], np.bool_),
        read=np.array([w.outcome == "done" for _, w in said], np.bool_),
    )


def _how(window: Any) -> str:
    """How the answer was read; where there is none, why."""
    return (
        (window.how or "unstated") if window.outcome == "done" else f"{window.outcome}: {window.reason or 'unstated'}"
    )


def _show(result: dict[str, Any]) -> None:
    rows = [
        [
            model,
            of["windows"],
            of["empty"],
            of["said_empty"],
            *(report.number(float(of[k])) for k in ("precision", "recall", "f1")),
        ]
        for model, of in result["models"].items()
    ]
    frame.table(["model", "windows", "empty", "said empty", "precision", "recall", "F1"], rows)
    frame.line("")
    read = [
        [model, how, n, f"{100 * n / of['windows']:.1f} %"]
        for model, of in result["models"].items()
        for how, n in of["read"].items()
    ]
    frame.table(["model", "read as", "windows", ""], read)
