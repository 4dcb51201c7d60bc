"""Dash-cam clips against the truth: when it begins, what it is, how many are in it, and how alike the descriptions are.

Clips scored are those of the truth. One that was not answered is wrong in everything, and its texts are empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from streamproc.score.captions import bleu, cider, meteor, rouge_l, words
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


Pair = tuple[Answer, Answer | None]
"""The truth, and what was answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    accuracy: float
    macro_f1: float
    """Over the values of the truth: one that is never true adds nothing, but each of it costs precision elsewhere."""
    f1: Mapping[str, float]


def headline(pairs: Sequence[Pair]) -> dict[str, Floats]:
    """Name → one number a clip. Their means are the headline numbers, and intervals draw from them."""
    columns = {f"start_within_{k}": _column(pairs, _within(k)) for k in FRAMES}
    columns |= {f"{name}_accuracy": _column(pairs, _same(name)) for name in CATEGORIES}
    columns |= {f"{name}_exact": _column(pairs, _same(name)) for name in COUNTS}
    for name in TEXTS:
        said = [words(getattr(answer, name)) if answer else [] for _, answer in pairs]
        true = [[words(getattr(truth, name))] for truth, _ in pairs]
        columns[f"{name}_rouge_l"] = np.array([rouge_l(a, b) for a, b in zip(said, true, strict=True)])
        columns[f"{name}_meteor"] = np.array([meteor(a, b) for a, b in zip(said, true, strict=True)])
        columns[f"{name}_cider"] = np.array(cider(said, true))
    return columns


def collection(pairs: Sequence[Pair]) -> dict[str, float]:
    """What is no mean over clips: BLEU-4 of all texts, and the mean error of counts and of the start, where answered."""
    answered = [(truth, answer) for truth, answer in pairs if answer]
    found = {
        f"{name}_bleu4": bleu(
            [words(getattr(a, name)) if a else [] for _, a in pairs], [[words(getattr(t, name))] for t, _ in pairs]
        )
        for name in TEXTS
    }
    for name in ("start_frame", *COUNTS):
        apart = [abs(getattr(truth, name) - getattr(answer, name)) for truth, answer in answered]
        found[f"{name}_mean_error"] = float(np.mean(apart)) if apart else float("nan")
    return found


def categories(pairs: Sequence[Pair]) -> dict[str, Category]:
    return {name: _category(pairs, name) for name in CATEGORIES}


def _category(pairs: Sequence[Pair], name: str) -> Category:
    true = [str(getattr(truth, name)) for truth, _ in pairs]
    said = [str(getattr(answer, name)) if answer else None for _, answer in pairs]
    f1 = {}
    for value in sorted(set(true)):
        right = sum(t == s == value for t, s in zip(true, said, strict=True))
        f1[value] = float(share(2 * right, true.count(value) + said.count(value)))
    accuracy = float(np.mean([t == s for t, s in zip(true, said, strict=True)]))
    return Category(accuracy=accuracy, macro_f1=float(np.mean(list(f1.values()))), f1=f1)


def _column(pairs: Sequence[Pair], holds: Callable[[Answer, Answer], bool]) -> Floats:
    return np.array([float(answer is not None and holds(truth, answer)) for truth, answer in pairs])


def _within(frames: int) -> Callable[[Answer, Answer], bool]:
    return lambda truth, answer: abs(truth.start_frame - answer.start_frame) <= frames


def _same(name: str) -> Callable[[Answer, Answer], bool]:
    return lambda truth, answer: bool(getattr(truth, name) == getattr(answer, name))
