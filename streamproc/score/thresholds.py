"""From which confidence on to believe: per class, chosen where F1 is best on some games, to be reported on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamproc.score.detection import Found, match
from streamproc.score.spots import Bools, Floats, Predictions, Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One class: what each threshold would give. Thresholds are the confidences themselves, rising."""

    threshold: Floats
    precision: Floats
    recall: Floats
    f1: Floats

    def best(self) -> float | None:
        """Where F1 is highest; of equals the highest, as that keeps the fewest. None where nothing is ever found."""
        if not len(self.f1) or self.f1.max() <= 0:
            return None
        return float(self.threshold[len(self.f1) - 1 - int(self.f1[::-1].argmax())])


def curves(truth: Truth, predictions: Predictions, *, within_ms: int, classes: int) -> list[Curve]:
    """One matching serves all thresholds (see `matching`)."""
    hit = match(truth, predictions, within_ms=within_ms, classes=classes).hit
    labels = np.bincount(truth.label, minlength=classes)
    return [
        _curve(predictions.confidence[of], hit[of], int(labels[c]))
        for c, of in enumerate(_by_class(predictions, classes))
    ]


def _by_class(predictions: Predictions, classes: int) -> list[Bools]:
    return [predictions.label == c for c in range(classes)]


def _curve(confidence: Floats, hit: Bools, labels: int) -> Curve:
    threshold, at = np.unique(confidence, return_inverse=True)
    kept = np.bincount(at, minlength=len(threshold))[::-1].cumsum()[::-1].astype(np.float64)
    right = np.bincount(at, weights=hit, minlength=len(threshold))[::-1].cumsum()[::-1]
    counts = Found(labels=np.full(len(threshold), float(labels)), predicted=kept, hits=right)
    return Curve(threshold=threshold, precision=counts.precision, recall=counts.recall, f1=counts.f1)


def keep(predictions: Predictions, thresholds: Floats) -> Bools:
    """Which predictions reach the threshold of their class; NaN keeps all of a class."""
    least = thresholds[predictions.label]
    return np.asarray(np.isnan(least) | (predictions.confidence >= least))
