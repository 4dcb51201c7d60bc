"""Dash-cam clips against the truth: when it begins, what it is, how many are in it, and how alike the descriptions are.

Clips scored are those of the truth. One that was not answered is wrong in everything, and its texts are empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streamproc.score.captions import bleu_counts, bleu_of, cider, meteor, rouge_l, words
from streamproc.score.detection import share
from streamproc.score.spots import Floats

FRAMES: Final = (0, 1, 5, 10, 30)
CATEGORIES: Final = ("incident", "severity", "ego", "label")
COUNTS: Final = ("cyclists", "animals", "pedestrians", "vehicles")
TEXTS: Final = ("before", "reason")


class Answer(Protocol):
    """A clip as the submission has it."""

    @property
    def start_frame(self) -> int: ...
    @property
    def incident(self) -> int: ...
    @property
    def severity(self) -> str: ...
    @property
    def ego(self) -> int: ...
    @property
    def label(self) -> str: ...
    @property
    def cyclists(self) -> int: ...
    @property
    def animals(self) -> int: ...
    @property
    def pedestrians(self) -> int: ...
    @property
    def vehicles(self) -> int: ...
    @property
    def before(self) -> str: ...
    @property
    def reason(self) -> str: ...


Texts: TypeAlias = NDArray[np.str_]
Pair: TypeAlias = tuple[Answer, Answer | None]
"""The truth, and what was answered."""


Statistic = Callable[[Floats], Floats]
"""(draws, clips) weights → (draws,) values."""


def headline(pairs: Sequence[Pair]) -> dict[str, Statistic]:
    """Every headline number as a function of how often each clip counts; with ones it is the number itself."""
    columns = {f"start_within_{k}": _column(pairs, _within(k)) for k in FRAMES}
    columns |= {f"{name}_accuracy": _column(pairs, _same(name)) for name in CATEGORIES}
    columns |= {f"{name}_exact": _column(pairs, _same(name)) for name in COUNTS}
    found = {name: _mean(values) for name, values in columns.items()}
    found |= {f"{name}_macro_f1": _macro_f1(pairs, name) for name in CATEGORIES}
    for name in TEXTS:
        said = [words(getattr(answer, name)) if answer else [] for _, answer in pairs]
        true = [[words(getattr(truth, name))] for truth, _ in pairs]
        both = list(zip(said, true, strict=True))
        found[f"{name}_bleu4"] = _bleu(np.array([bleu_counts(a, b) for a, b in both], np.float64))
        found[f"{name}_rouge_l"] = _mean(np.array([rouge_l(a, b) for a, b in both]))
        found[f"{name}_meteor"] = _mean(np.array([meteor(a, b) for a, b in both]))
        found[f"{name}_cider"] = _mean(np.array(cider(said, true)))
    return found


def _mean(values: Floats) -> Statistic:
    return lambda weights: weights @ values / weights.sum(axis=1)


def _bleu(counts: Floats) -> Statistic:
    return lambda weights: bleu_of(weights @ counts)


def _macro_f1(pairs: Sequence[Pair], name: str) -> Statistic:
    true, said, values = _sides(pairs, name)
    is_true, is_said = true[:, None] == values, said[:, None] == values

    def mean_f1(weights: Floats) -> Floats:
        each = share(2 * (weights @ (is_true & is_said)), weights @ is_true + weights @ is_said)
        return np.asarray(share(each.sum(axis=1), (weights @ is_true > 0).sum(axis=1)))

    return mean_f1


def errors(pairs: Sequence[Pair]) -> dict[str, float]:
    """How far off the start and the counts are on average, where there is an answer."""
    answered = [(truth, answer) for truth, answer in pairs if answer]
    found = {}
    for name in ("start_frame", *COUNTS):
        apart = [abs(getattr(truth, name) - getattr(answer, name)) for truth, answer in answered]
        found[name] = float(np.mean(apart)) if apart else float("nan")
    return found


def f1(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """Category → value of the truth → F1. A value that is never true has none, but each of it costs another's recall."""
    found = {}
    for name in CATEGORIES:
        true, said, values = _sides(pairs, name)
        hits = ((true == said)[:, None] & (true[:, None] == values)).sum(axis=0)
        each = share(2 * hits, (true[:, None] == values).sum(axis=0) + (said[:, None] == values).sum(axis=0))
        found[name] = {value[1:]: score for value, score in zip(values.tolist(), each.tolist(), strict=True)}
    return found


def _sides(pairs: Sequence[Pair], name: str) -> tuple[Texts, Texts, Texts]:
    """What is true and what was said of each clip, and the values that are ever true. No answer equals none of them."""
    true = np.array([f"={getattr(truth, name)}" for truth, _ in pairs])
    said = np.array([f"={getattr(answer, name)}" if answer else "" for _, answer in pairs])
    return true, said, np.unique(true)


def _column(pairs: Sequence[Pair], holds: Callable[[Answer, Answer], bool]) -> Floats:
    return np.array([float(answer is not None and holds(truth, answer)) for truth, answer in pairs])


def _within(frames: int) -> Callable[[Answer, Answer], bool]:
    return lambda truth, answer: abs(truth.start_frame - answer.start_frame) <= frames


def _same(name: str) -> Callable[[Answer, Answer], bool]:
    return lambda truth, answer: bool(getattr(truth, name) == getattr(answer, name))
