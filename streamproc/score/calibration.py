"""What a confidence is worth: reliability, how far off it is, and a fit that mends it, judged on games it has not seen.

A fit, isotonic or Platt, is kept as knots of one rising line from confidence to probability: whoever uses it needs
nothing but interpolation, and a file of it can be read by eye.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from streamproc.errors import Rejected
from streamproc.score.detection import share
from streamproc.score.spots import Bools, Floats, Ints

Method = Literal["isotonic", "platt"]
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """By bin of confidence: how many, what they said, what came true."""

    edges: Floats
    count: Ints
    confidence: Floats
    accuracy: Floats
    ece: float
    """Expected calibration error: mean gap, weighted by count."""
    brier: float
    """Mean squared error of the confidences."""


def reliability(confidence: Floats, hit: Bools, *, bins: int = 10) -> Reliability:
    """Bins of equal width, closed on the right; 0 belongs to the first."""
    edges, at = _binned(confidence, bins)
    count = np.bincount(at, minlength=bins)
    said = share(np.bincount(at, weights=confidence, minlength=bins), count)
    came = share(np.bincount(at, weights=hit, minlength=bins), count)
    some = len(confidence) > 0  # of none nobody can say how far off they are; 0 would be praise
    gap = float((np.abs(said - came) * count).sum() / len(confidence)) if some else float("nan")
    brier = float(np.mean((confidence - hit) ** 2)) if some else float("nan")
    return Reliability(edges=edges, count=count, confidence=said, accuracy=came, ece=gap, brier=brier)


def _binned(confidence: Floats, bins: int) -> tuple[Floats, Ints]:
    edges = np.linspace(0, 1, bins + 1)
    return edges, np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)


def errors(confidence: Floats, hit: Bools, game: Ints, weights: Floats, *, bins: int = 10) -> Floats:
    """The calibration error of each draw; weights[d, g] says how often draw d has game g. NaN where it has no prediction."""
    _, at = _binned(confidence, bins)
    games = weights.shape[1]

    def total(of: Floats | None = None) -> Floats:
        flat = np.bincount(game * bins + at, weights=of, minlength=games * bins)
        return np.asarray(weights @ flat.reshape(games, bins))

    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(total(confidence) - total(hit.astype(np.float64))).sum(axis=1) / total().sum(axis=1))


# fits ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Probability as a line through knots, flat beyond the first and the last."""

    method: Method
    confidence: Floats
    probability: Floats

    def __call__(self, confidence: Floats) -> Floats:
        return np.interp(confidence, self.confidence, self.probability)

    def plain(self) -> dict[str, Any]:
        return {"method": self.method, "confidence": self.confidence.tolist(), "probability": self.probability.tolist()}

    @classmethod
    def parse(cls, plain: Mapping[str, Any], *, file: str) -> Fit:
        try:
            x, y = np.asarray(plain["confidence"], np.float64), np.asarray(plain["probability"], np.float64)
            method = plain["method"]
        except (KeyError, TypeError, ValueError) as e:
            raise Rejected(f"{file}: not a calibration: needs method, confidence and probability") from e
        if x.ndim != 1 or x.shape != y.shape or not len(x) or (np.diff(x) < 0).any() or (np.diff(y) < 0).any():
            raise Rejected(f"{file}: not a calibration: confidence and probability must rise together")
        if not ((x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)).all():
            raise Rejected(f"{file}: not a calibration: confidence and probability lie between 0 and 1")
        return cls(method=method, confidence=x, probability=y)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A fit for everything, and one for each class that has enough to be fitted by itself."""

    everything: Fit
    per_class: Mapping[int, Fit]

    def __call__(self, confidence: Floats, label: Ints) -> Floats:
        found = self.everything(confidence)
        for number, own in self.per_class.items():
            found = np.where(label == number, own(confidence), found)
        return found


def by_class(confidence: Floats, hit: Bools, label: Ints, *, method: Method, least: int) -> Lines:
    """`least`: so many predictions of a class, right ones and wrong ones among them; fewer say more together with the rest."""
    own = {}
    for number in np.unique(label).tolist():
        of = label == number
        if np.count_nonzero(of) >= least and 0 < np.count_nonzero(hit[of]) < np.count_nonzero(of):
            own[number] = fit(confidence[of], hit[of], method=method)
    return Lines(everything=fit(confidence, hit, method=method), per_class=own)


def fit(confidence: Floats, hit: Bools, *, method: Method) -> Fit:
    if not len(confidence):
        raise Rejected("nothing to calibrate: no prediction among the games to fit on")
    return _isotonic(confidence, hit) if method == "isotonic" else _platt(confidence, hit)


def _isotonic(confidence: Floats, hit: Bools) -> Fit:
    """The rising steps with the least squared error: neighbours that fall are pooled."""
    x, inverse, count = np.unique(confidence, return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, weights=hit) / count
    pools: list[tuple[float, float, int, int]] = []  # mean, weight, first, last
    for i, (value, weight) in enumerate(zip(mean.tolist(), count.tolist(), strict=True)):
        pool = (value, float(weight), i, i)
        while pools and pools[-1][0] >= pool[0]:
            m, w, first, _ = pools.pop()
            both = w + pool[1]
            pool = ((m * w + pool[0] * pool[1]) / both, both, first, pool[3])
        pools.append(pool)
    ends = [(x[first], x[last], m) for m, _, first, last in pools]
    knots = [(float(at), m) for first, last, m in ends for at in ((first, last) if last > first else (first,))]
    return Fit(
        method="isotonic", confidence=np.array([k for k, _ in knots]), probability=np.array([p for _, p in knots])
    )


def _platt(confidence: Floats, hit: Bools) -> Fit:
    """A logistic curve over the log odds, towards Platt's softened targets; Newton's method, never falling."""
    odds = _log_odds(confidence)
    right, wrong = float(np.count_nonzero(hit)), float(np.count_nonzero(~hit))
    target = np.where(hit, (right + 1) / (right + 2), 1 / (wrong + 2))
    slope, offset = 1.0, 0.0
    for _ in range(100):
        p = _logistic(slope * odds + offset)
        error, weight = p - target, np.maximum(p * (1 - p), 1e-12)
        gradient = np.array([(error * odds).sum(), error.sum()])
        curvature = np.array(
            [[(weight * odds * odds).sum(), (weight * odds).sum()], [(weight * odds).sum(), weight.sum()]]
        ) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        scale = min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))  # far from the end a full step can overshoot
        slope, offset = slope - scale * float(step[0]), offset - scale * float(step[1])
        if float(np.abs(step).max()) < 1e-10:
            break
    knots = np.linspace(0, 1, 201)
    # a falling curve would mean that surer is worse; the rising line nearest to it is flat
    values = _logistic(slope * _log_odds(knots) + offset) if slope > 0 else np.full(len(knots), float(target.mean()))
    return Fit(method="platt", confidence=knots, probability=values)


def _log_odds(p: Floats) -> Floats:
    inside = np.clip(p, _EPSILON, 1 - _EPSILON)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _logistic(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))  # no overflow on either side


# confidence from agreement ------------------------------------------------------------------------------------------


def from_agreement(found: Ints, asked: Ints) -> Floats:
    """How sure to be of what `found` of `asked` voters (samples, models, overlapping windows) saw, before any fit.

    Laplace's rule: one of one is not certain, nine of nine are surer than three of three.
    """
    return np.asarray((found + 1) / (asked + 2))
