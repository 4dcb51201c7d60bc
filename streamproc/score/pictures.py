"""Where people would rather look: curves, reliability, timelines. Makes figures; whoever asked for one saves it.

matplotlib is imported here and nowhere else, so this module is imported only where a picture is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from streamproc.score.calibration import Reliability
from streamproc.score.spots import Ints
from streamproc.score.thresholds import Curve


def reliability(tables: Mapping[str, Reliability]) -> Figure:
    """What was said against what came true, a line a table; the diagonal is honest."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    for name, table in tables.items():
        there = table.count > 0
        axes.plot(table.confidence[there], table.accuracy[there], marker="o", label=f"{name} (ECE {table.ece:.3f})")
    _honest(axes)
    return figure


def _honest(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="confidence", ylabel="share that was right", xlim=(0, 1), ylim=(0, 1))
    axes.legend()


def thresholds(curves: Sequence[Curve], chosen: Sequence[float | None], *, names: Sequence[str]) -> Figure:
    """F1 over the threshold, a small picture a class that has any curve; what was chosen is marked."""
    shown = [n for n, curve in enumerate(curves) if curve.best() is not None]
    columns = 4
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(3 * columns, 2.4 * rows), layout="constrained")
    for place, n in enumerate(shown):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.step(curves[n].threshold, curves[n].f1, where="pre", label="F1")
        axes.step(curves[n].threshold, curves[n].precision, where="pre", linewidth=0.7, label="precision")
        axes.step(curves[n].threshold, curves[n].recall, where="pre", linewidth=0.7, label="recall")
        if (at := chosen[n]) is not None:
            axes.axvline(at, color="grey", linestyle=":")
        axes.set(title=names[n], xlim=(0, 1), ylim=(0, 1))
        if not place:
            axes.legend(fontsize="x-small")
    return figure


def metrics(document: Mapping[str, Any]) -> Figure:
    """The official numbers with their intervals, and reliability beside them."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = ["loose", "tight", "at1", "at2", "at3", "at4", "at5"]
    for offset, view in enumerate(("mAP", "visible", "unshown")):
        values = np.array([document[name][view] for name in names])
        places = np.arange(len(names)) + (offset - 1) / 4
        left.bar(places, values, width=0.25, label=view)
        if intervals := document["intervals"]:
            ends = np.array([intervals[name][view] for name in names])
            left.errorbar(places, values, yerr=np.abs(ends.T - values), fmt="none", color="black", capsize=2)
    left.set(ylabel="mean average precision", ylim=(0, 1), xticks=np.arange(len(names)), xticklabels=names)
    left.legend()
    found = document["found"]["calibration"]
    there = np.asarray(found["count"]) > 0
    right.plot(
        np.asarray(found["confidence"])[there],
        np.asarray(found["accuracy"])[there],
        marker="o",
        label=f"ECE {found['ece']:.3f}",
    )
    _honest(right)
    return figure


def timeline(rows: Mapping[str, Sequence[tuple[int, int]]], *, names: Sequence[str], title: str) -> Figure:
    """Moments of one stream: a panel a row (truth, a run), a line a label; rows hold (label, time_ms)."""
    labels = sorted({label for moments in rows.values() for label, _ in moments})
    line = {label: n for n, label in enumerate(labels)}
    figure = Figure(figsize=(12, 1.2 + 0.22 * max(len(labels), 1) * max(len(rows), 1)), layout="constrained")
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)
    for (name, moments), axes in zip(rows.items(), panels[:, 0], strict=True):
        axes.scatter([t / 60_000 for _, t in moments], [line[label] for label, _ in moments], marker="|", s=60)
        axes.set(yticks=range(len(labels)), yticklabels=[names[label] for label in labels])
        axes.set_title(name, loc="left", fontsize="small")
        axes.tick_params(axis="y", labelsize="x-small")
        axes.set_ylim(len(labels) - 0.5, -0.5)
    panels[-1, 0].set_xlabel("minute")
    figure.suptitle(title)
    return figure


def crowding(minutes: Mapping[str, Ints], *, prior: float) -> Figure:
    """Events in each minute of each stream, against what is usual."""
    figure = Figure(figsize=(12, 1.5 + 1.2 * max(len(minutes), 1)), layout="constrained")
    panels = figure.subplots(max(len(minutes), 1), 1, squeeze=False)
    for (name, counts), axes in zip(minutes.items(), panels[:, 0], strict=False):
        axes.bar(np.arange(len(counts)) + 0.5, counts, width=1)
        axes.axhline(prior, color="black", linestyle=":")
        axes.set(title=name, ylabel="events")
    panels[-1, 0].set_xlabel("minute")
    return figure


def bars(values: Mapping[str, float], intervals: Mapping[str, Sequence[float]]) -> Figure:
    """Named numbers, with their intervals where there are any."""
    figure = Figure(figsize=(8, 1 + 0.3 * len(values)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(values))
    axes.barh(places, list(values.values()))
    for place, name in enumerate(values):
        if ends := intervals.get(name):
            axes.plot(ends, [place, place], color="black", marker="|")
    axes.set(yticks=places, yticklabels=list(values))
    axes.invert_yaxis()
    return figure
