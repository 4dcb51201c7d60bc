"""Window by window: was 'nothing here' right, and how were the model's answers read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from streamproc.score.detection import Found
from streamproc.score.spots import Bools, Floats, Ints, Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """What was said of [start_ms, end_ms) of a part. Windows may overlap."""

    part: Ints
    start_ms: Ints
    end_ms: Ints
    null: Bools
    """Said to hold nothing."""
    read: Bools
    """An answer was read. Where none was, the window says neither something nor nothing."""


def empty(windows: Windows, truth: Truth) -> Bools:
    """Which windows hold no label."""
    span = 1 + int(max(windows.end_ms.max(initial=0), truth.time_ms.max(initial=0)))
    line = np.sort(truth.part * span + truth.time_ms)
    first = np.searchsorted(line, windows.part * span + windows.start_ms, side="left")
    last = np.searchsorted(line, windows.part * span + windows.end_ms, side="left")
    return np.asarray(first == last)


def null_class(windows: Windows, truth: Truth) -> Found:
    """'Nothing here' as a class: precision over the windows said to be so, recall over *all* that are so, read or not.

    By game, of those that have a window; `total` is the whole.
    """
    is_empty = empty(windows, truth)
    said = windows.null & windows.read
    games, game = np.unique(windows.part // 2, return_inverse=True)

    def count(which: Bools) -> Floats:
        return np.bincount(game[which], minlength=len(games)).astype(np.float64)

    return Found(labels=count(is_empty), predicted=count(said), hits=count(is_empty & said))


def readings(answers: Iterable[tuple[str, str]]) -> Mapping[str, Counter[str]]:
    """Model → how its answers were read → how many; from pairs of (model, how)."""
    table: dict[str, Counter[str]] = {}
    for model, how in answers:
        table.setdefault(model, Counter())[how] += 1
    return table
