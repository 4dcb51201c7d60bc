"""Found, missed, made up: precision, recall and F1 within a tolerance, what was taken for what, and spans against spans.

Beside the official number, in whole seconds to either side and at one threshold: what people ask first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from streamproc.score.matching import NONE, axis, greedy
from streamproc.score.spots import Bools, Floats, Ints, Predictions, Stretches, Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """One-to-one, in time and label; rows of the truth and of the predictions as they were given."""

    taken: Ints
    """For each truth the prediction that found it, or NONE."""
    hit: Bools
    """For each prediction: it found something."""


def match(truth: Truth, predictions: Predictions, *, within_ms: int, classes: int) -> Matches:
    """Each truth takes the surest prediction of its label no further than `within_ms` (see `matching`)."""
    return _match(
        truth.part * classes + truth.label,
        predictions.part * classes + predictions.label,
        truth,
        predictions,
        within_ms,
    )


def _match(t_group: Ints, p_group: Ints, truth: Truth, predictions: Predictions, within_ms: int) -> Matches:
    span = 2 + 2 * within_ms + int(max(truth.time_ms.max(initial=0), predictions.time_ms.max(initial=0)))
    t_line, p_line = axis(t_group, truth.time_ms, span=span), axis(p_group, predictions.time_ms, span=span)
    t_order, p_order = np.argsort(t_line, kind="stable"), np.argsort(p_line, kind="stable")
    found = greedy(t_line[t_order], p_line[p_order], predictions.confidence[p_order], reach=within_ms)
    taken = np.full(len(truth), NONE, np.int64)
    taken[t_order] = np.where(found == NONE, NONE, p_order[found] if len(p_order) else NONE)
    hit = np.zeros(len(predictions), np.bool_)
    hit[taken[taken != NONE]] = True
    return Matches(taken=taken, hit=hit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Counts by class, or by anything: how many labels, predictions, and predictions that found a label."""

    labels: Floats
    predicted: Floats
    hits: Floats

    @property
    def precision(self) -> Floats:
        return share(self.hits, self.predicted)

    @property
    def recall(self) -> Floats:
        return share(self.hits, self.labels)

    @property
    def f1(self) -> Floats:
        return share(2 * self.hits, self.labels + self.predicted)

    def drawn(self, weights: Floats) -> Found:
        """Counts by game as each draw has them; weights[d, g] says how often draw d has game g."""
        return Found(labels=weights @ self.labels, predicted=weights @ self.predicted, hits=weights @ self.hits)

    def total(self) -> Found:
        """All classes together (micro)."""
        return Found(labels=self.labels.sum(-1), predicted=self.predicted.sum(-1), hits=self.hits.sum(-1))


def share(part: ArrayLike, whole: ArrayLike) -> Floats:
    """part / whole, and 0 where there is nothing: finding nothing of nothing earns nothing."""
    over = np.asarray(whole, np.float64)
    return np.divide(part, over, out=np.zeros(over.shape), where=over > 0)


def found(truth: Truth, predictions: Predictions, matches: Matches, *, classes: int) -> Found:
    def count(labels: Ints) -> Floats:
        return np.bincount(labels, minlength=classes).astype(np.float64)

    return Found(
        labels=count(truth.label), predicted=count(predictions.label), hits=count(predictions.label[matches.hit])
    )


def by_game(truth: Truth, predictions: Predictions, matches: Matches, *, games: int) -> Found:
    """The same by game, all classes together: what intervals are drawn from."""

    def count(parts: Ints) -> Floats:
        return np.bincount(parts // 2, minlength=games).astype(np.float64)

    return Found(labels=count(truth.part), predicted=count(predictions.part), hits=count(predictions.part[matches.hit]))


# what was taken for what --------------------------------------------------------------------------------------------


def confusion(truth: Truth, predictions: Predictions, *, within_ms: int, classes: int) -> Ints:
    """(classes + 1, classes + 1): rows are true labels, columns predicted ones, the last of each is 'nothing'.

    What agrees in label is paired first; what is left over is paired by time alone.
    """
    right = match(truth, predictions, within_ms=within_ms, classes=classes)
    table = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(table, (predictions.label[right.hit], predictions.label[right.hit]), 1)
    t_left, p_left = truth.where(right.taken == NONE), predictions.where(~right.hit)
    wrong = _match(t_left.part, p_left.part, t_left, p_left, within_ms)
    paired = wrong.taken != NONE
    np.add.at(table, (t_left.label[paired], p_left.label[wrong.taken[paired]]), 1)
    table[:classes, classes] = np.bincount(t_left.label[~paired], minlength=classes)
    table[classes, :classes] = np.bincount(p_left.label[~wrong.hit], minlength=classes)
    return table


# spans --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """Spans paired one to one, largest overlap first: their temporal IoU, and how many were left alone."""

    iou: Floats
    row: Ints
    """The true span of each."""
    truth: int
    predicted: int

    @property
    def mean(self) -> float:
        """Over all true spans; one that nothing overlaps counts 0."""
        return float(self.iou.sum() / self.truth) if self.truth else 0.0

    def at(self, threshold: float) -> Found:
        """Found and missed, where a pair counts from this IoU on."""
        hits = np.count_nonzero(self.iou >= threshold)
        return Found(
            labels=np.array(float(self.truth)), predicted=np.array(float(self.predicted)), hits=np.array(float(hits))
        )


def overlaps(truth: Stretches, predicted: Stretches) -> Overlaps:
    """`part` is whatever must agree: stream and label as one number."""
    pairs = []
    order = np.lexsort((predicted.start_ms, predicted.part))
    parts, starts, ends = predicted.part[order], predicted.start_ms[order], predicted.end_ms[order]
    bounds = {part: (lo, hi) for part, lo, hi in _runs(parts)}
    latest = ends.copy()  # of all spans so far in the part: it only rises, so the first that can reach is found at once
    for lo, hi in bounds.values():
        latest[lo:hi] = np.maximum.accumulate(ends[lo:hi])
    for row, (part, a, b) in enumerate(
        zip(truth.part.tolist(), truth.start_ms.tolist(), truth.end_ms.tolist(), strict=True)
    ):
        lo, hi = bounds.get(part, (0, 0))
        first = lo + int(np.searchsorted(latest[lo:hi], a, side="right"))
        last = lo + int(np.searchsorted(starts[lo:hi], b, side="left"))
        for at in range(first, last):
            c, d = int(starts[at]), int(ends[at])
            if d > a:
                shared = min(b, d) - max(a, c)
                pairs.append((-shared / (max(b, d) - min(a, c)), row, int(order[at])))
    iou, rows, seen_t, seen_p = [], [], set(), set()
    for negative, t, p in sorted(pairs):
        if t not in seen_t and p not in seen_p:
            seen_t.add(t)
            seen_p.add(p)
            iou.append(-negative)
            rows.append(t)
    return Overlaps(
        iou=np.asarray(iou, np.float64),
        row=np.asarray(rows, np.int64),
        truth=len(truth.part),
        predicted=len(predicted.part),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitOverlaps:
    """The same by game: what intervals are drawn from."""

    iou: Floats
    unit: Ints
    """The game of each pair."""
    truth: Floats
    """(units,)."""
    predicted: Floats

    def _by_unit(self, values: Floats) -> Floats:
        return np.bincount(self.unit, weights=values, minlength=len(self.truth)).astype(np.float64)

    def mean(self, weights: Floats) -> Floats:
        """(draws,); NaN for a draw of games without a true span."""
        with np.errstate(invalid="ignore"):
            return np.asarray((weights @ self._by_unit(self.iou)) / (weights @ self.truth), np.float64)

    def at(self, threshold: float) -> Found:
        hits = self._by_unit((self.iou >= threshold).astype(np.float64))
        return Found(labels=self.truth, predicted=self.predicted, hits=hits)


def by_unit(found: Overlaps, truth: Stretches, predicted: Stretches, *, parts: int, units: int) -> UnitOverlaps:
    """A unit has so many parts, one after the other."""

    def count(part: Ints) -> Floats:
        return np.bincount(part // parts, minlength=units).astype(np.float64)

    return UnitOverlaps(
        iou=found.iou, unit=truth.part[found.row] // parts, truth=count(truth.part), predicted=count(predicted.part)
    )


def _runs(parts: Ints) -> Iterator[tuple[int, int, int]]:
    """(part, first, end) of each stretch of equals in what is sorted."""
    begins = np.flatnonzero(np.diff(parts, prepend=-1))
    ends = np.append(begins, len(parts))[1:]
    return zip(parts[begins].tolist(), begins.tolist(), ends.tolist(), strict=True)
