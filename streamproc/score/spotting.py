"""SoccerNet's action-spotting score, equal to the official evaluation to the last digit, and how it came about.

What is easily done otherwise, and is done here as there:
- times are cells of half a second; of two rows of one label in one cell the later one stands, whatever its confidence
- a tolerance of δ seconds reaches δ/2 to either side
- 200 thresholds between 0 and 1, then 11 levels of recall
- the mean goes over all classes, those without any label among them (they count 0)
- over several tolerances the mean is the trapezoid's, so the first and the last count half; unshown is then times 17/13
- a prediction is visible or unshown as the label nearest in its class and half is; where there is none it is unshown

A Tally keeps counts by game, so that intervals and comparisons draw games without matching anything again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamproc.score.matching import NONE, axis, greedy
from streamproc.score.spots import Floats, Ints, Predictions, Truth

METRICS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "loose": tuple(range(5, 65, 5)),
        "tight": (1, 2, 3, 4, 5),
        "at1": (1,),
        "at2": (2,),
        "at3": (3,),
        "at4": (4,),
        "at5": (5,),
    }
)
"""Name → tolerances in seconds."""

CELL_MS: Final = 500
CELLS: Final = 120 * 60 * 1000 // CELL_MS
THRESHOLDS: Final[Floats] = np.linspace(0, 1, 200)
UNSHOWN, VISIBLE = 0, 1
VIEWS: Final = ("all", "visible", "unshown")
_SPAN = CELLS + 100
_BLOCK = 256
"""So many games at once are counted dense: 256 × 17 × 400 numbers."""
_DRAWS, _FEW_DRAWS = 200, 10
"""So many draws are counted at once, and so many scored at once: what a step needs then fits a cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One metric. `average` and `per_class` are by view: all, visible, unshown."""

    average: Mapping[str, float]
    per_class: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class _Counts:
    """How often a game has a cell (class, step of threshold, visible or not), as parallel columns."""

    game: Ints
    cell: Ints

    def weighted(self, weights: Floats, cells: int) -> Floats:
        """(draws, cells): the counts of all games, each as often as it was drawn."""
        if (weights == 1).all() and len(weights) == 1:
            return np.bincount(self.cell, minlength=cells).astype(np.float64)[None]
        games = weights.shape[1]
        total = np.zeros((len(weights), cells), np.float32)  # whole numbers far below 2**24: exact, and half the work
        edges = np.searchsorted(self.game, np.arange(0, games + _BLOCK, _BLOCK))
        for block, (a, b) in enumerate(pairwise(edges)):
            first = block * _BLOCK
            size = min(_BLOCK, games - first)
            flat = np.bincount((self.game[a:b] - first) * cells + self.cell[a:b], minlength=size * cells)
            dense = flat.reshape(size, cells).astype(np.float32)
            total += weights[:, first : first + size].astype(np.float32) @ dense
        return total.astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Everything the score depends on, by game."""

    games: int
    classes: int
    predicted: _Counts
    hits: Mapping[int, _Counts]
    """By tolerance."""
    labels: NDArray[np.float64]
    """(games, classes, unshown or visible)."""
    overwritten: int
    """Predictions that a later one of the same label in the same half second replaced."""


def tally(truth: Truth, predictions: Predictions, *, games: int, classes: int) -> Tally:
    """Match at every tolerance. Part 2 g + h - 1 is half h of game g."""
    shown = np.where(truth.shown, VISIBLE, UNSHOWN)
    t_line, t_rows = _cells(truth.part, truth.label, truth.time_ms, classes=classes)
    p_line, p_rows = _cells(predictions.part, predictions.label, predictions.time_ms, classes=classes)
    confidence = predictions.confidence[p_rows]
    view = _nearest(t_line, shown[t_rows], p_line)
    step = np.searchsorted(THRESHOLDS, confidence, side="right") - 1
    game, cell = predictions.part[p_rows] // 2, (predictions.label[p_rows] * 2 + view) * len(THRESHOLDS) + step
    hits = {}
    for tolerance_s in sorted({t for tolerances in METRICS.values() for t in tolerances}):
        taken = greedy(t_line, p_line, confidence, reach=tolerance_s * 1000 // CELL_MS // 2)
        rows = np.sort(taken[taken != NONE])
        hits[tolerance_s] = _Counts(game[rows], cell[rows])
    index = (truth.part[t_rows] // 2 * classes + truth.label[t_rows]) * 2 + shown[t_rows]
    labels = np.bincount(index, minlength=games * classes * 2).reshape(games, classes, 2)
    return Tally(
        games=games,
        classes=classes,
        predicted=_Counts(game, cell),
        hits=hits,
        labels=labels.astype(np.float64),
        overwritten=len(predictions) - len(p_rows),
    )


def _cells(part: Ints, label: Ints, time_ms: Ints, *, classes: int) -> tuple[Ints, Ints]:
    """Sorted places on one line for all parts and classes, and the rows they come from; a cell's last row stands."""
    line = axis(part * classes + label, np.minimum(time_ms // CELL_MS, CELLS - 1), span=_SPAN)
    order = np.argsort(line, kind="stable")
    line = line[order]
    last = np.ones(len(line), np.bool_)
    last[:-1] = line[1:] != line[:-1]
    return line[last], order[last]


def _nearest(truth: Ints, shown: Ints, predicted: Ints) -> Ints:
    """UNSHOWN or VISIBLE, as the nearest label in the same group is; halfway belongs to the later one."""
    if not len(truth):
        return np.full(len(predicted), UNSHOWN, np.int64)
    middles = (truth[1:] + truth[:-1]) // 2
    group, at = truth // _SPAN, truth % _SPAN
    same = group[1:] == group[:-1]
    # halves are rounded within the group, and groups end where the next one begins
    middles = np.where(same, group[1:] * _SPAN + (at[1:] + at[:-1]) // 2, group[1:] * _SPAN)
    near = np.searchsorted(middles, predicted, side="right")
    return np.where(group[near] == predicted // _SPAN, shown[near], UNSHOWN)


# from counts to scores ----------------------------------------------------------------------------------------------


def score(counted: Tally) -> dict[str, Score]:
    """All metrics, officially."""
    curves = _per_tolerance(counted, np.ones((1, counted.games)))
    result = {}
    for name, tolerances in METRICS.items():
        per_class = {view: _over(tolerances, curves, view=view)[0] for view in VIEWS}
        average = {view: float(means[0]) for view, means in _averages(tolerances, curves).items()}
        result[name] = Score(average=average, per_class=per_class)
    return result


def averages(counted: Tally, weights: Floats, *, views: Sequence[str] = VIEWS) -> dict[str, dict[str, Floats]]:
    """Metric → view → mean average precision for each draw; weights[d, g] says how often draw d has game g."""
    parts = [_per_tolerance(counted, weights[at : at + _DRAWS], views=views) for at in range(0, len(weights), _DRAWS)]
    curves = {t: {view: np.concatenate([part[t][view] for part in parts]) for view in views} for t in counted.hits}
    return {name: _averages(tolerances, curves) for name, tolerances in METRICS.items()}


def beside(first: Tally, second: Tally) -> Tally:
    """Two runs over the same games as one tally: games of the first, then those of the second."""

    def joined(a: _Counts, b: _Counts) -> _Counts:
        return _Counts(np.concatenate((a.game, b.game + first.games)), np.concatenate((a.cell, b.cell)))

    return Tally(
        games=first.games + second.games,
        classes=first.classes,
        predicted=joined(first.predicted, second.predicted),
        hits={t: joined(hits, second.hits[t]) for t, hits in first.hits.items()},
        labels=np.concatenate((first.labels, second.labels)),
        overwritten=first.overwritten + second.overwritten,
    )


def _averages(tolerances: tuple[int, ...], curves: Mapping[int, Mapping[str, Floats]]) -> dict[str, Floats]:
    views = next(iter(curves.values()))
    found = {view: _over(tolerances, curves, view=view).mean(axis=-1) for view in views}
    if len(tolerances) > 1 and "unshown" in found:
        found["unshown"] = found["unshown"] * 17 / 13  # 4 of the 17 classes never happen unseen, says the official code
    return found


def _over(tolerances: tuple[int, ...], curves: Mapping[int, Mapping[str, Floats]], *, view: str) -> Floats:
    """(draws, classes): the trapezoid's mean over the tolerances."""
    values: Floats = np.stack([curves[t][view] for t in tolerances])
    if len(tolerances) == 1:
        return np.asarray(values[0])
    return np.asarray(((values[1:] + values[:-1]) / 2).sum(axis=0) / (len(tolerances) - 1))


def _per_tolerance(counted: Tally, weights: Floats, *, views: Sequence[str] = VIEWS) -> dict[int, dict[str, Floats]]:
    """Tolerance → view → average precision as (draws, classes)."""
    predicted = _above(counted, counted.predicted, weights, views=views)
    labels = _views(np.einsum("dg,gcv->vdc", weights, counted.labels), views)
    found = {}
    for tolerance_s, hits in counted.hits.items():
        right = _above(counted, hits, weights, views=views)
        some = (slice(at, at + _FEW_DRAWS) for at in range(0, len(weights), _FEW_DRAWS))
        each = np.concatenate([average_precision(right[:, d], predicted[:, d], labels[:, d]) for d in some], axis=1)
        found[tolerance_s] = dict(zip(views, each, strict=True))
    return found


def _above(counted: Tally, counts: _Counts, weights: Floats, *, views: Sequence[str]) -> Floats:
    """(views, draws, classes, thresholds): how many are at or above each threshold."""
    shape = (len(weights), counted.classes, 2, len(THRESHOLDS))
    each = counts.weighted(weights, shape[1] * shape[2] * shape[3]).reshape(shape)
    return _views(np.moveaxis(each[..., ::-1].cumsum(axis=-1)[..., ::-1], 2, 0), views)


def _views(counts: Floats, views: Sequence[str]) -> Floats:
    """The views wanted, from unshown and visible along the first axis."""
    of = {"all": lambda: counts.sum(axis=0), "visible": lambda: counts[VISIBLE], "unshown": lambda: counts[UNSHOWN]}
    return np.stack([of[view]() for view in views])


def average_precision(right: Floats, predicted: Floats, labels: Floats) -> Floats:
    """Mean over 11 levels of recall of the best precision there or beyond; thresholds lie along the last axis of the first two."""
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(labels, 1)[..., None]
    best = np.maximum.accumulate(precision, axis=-1)  # recall only falls: 'there or beyond' is a beginning of the axis
    # how many of the levels 0, 0.1 … 1 are reached; where recall is a level exactly, the product may lie a hair below it
    levels = np.minimum(np.floor(recall * 10 + 1e-9), 10) + 1
    here_last = levels - np.concatenate((levels[..., 1:], np.zeros((*levels.shape[:-1], 1))), axis=-1)
    return np.asarray((best * here_last).sum(axis=-1) / 11)
