"""Labelled moments as columns: what is true, and what was predicted. A row's *part* is a half of a game, or a stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What happened, in the order in which it was written: of two labels in one cell the later one stands."""

    part: Ints
    label: Ints
    time_ms: Ints
    shown: Bools

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int, bool]]) -> Truth:
        """From rows of (part, label, time_ms, shown)."""
        part, label, time_ms, shown = _columns(rows, 4)
        return cls(part=_ints(part), label=_ints(label), time_ms=_ints(time_ms), shown=np.asarray(shown, np.bool_))

    def where(self, rows: Bools | Ints) -> Truth:
        return Truth(part=self.part[rows], label=self.label[rows], time_ms=self.time_ms[rows], shown=self.shown[rows])

    def __len__(self) -> int:
        return len(self.part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What was said to have happened, in the order in which it was written."""

    part: Ints
    label: Ints
    time_ms: Ints
    confidence: Floats

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int, float]]) -> Predictions:
        """From rows of (part, label, time_ms, confidence)."""
        part, label, time_ms, confidence = _columns(rows, 4)
        return cls(
            part=_ints(part), label=_ints(label), time_ms=_ints(time_ms), confidence=np.asarray(confidence, np.float64)
        )

    def where(self, rows: Bools | Ints) -> Predictions:
        return Predictions(
            part=self.part[rows], label=self.label[rows], time_ms=self.time_ms[rows], confidence=self.confidence[rows]
        )

    def __len__(self) -> int:
        return len(self.part)


def _columns(rows: Iterable[Sequence[object]], width: int) -> Sequence[Sequence[object]]:
    return list(zip(*rows, strict=True)) or [()] * width


def _ints(values: Sequence[object]) -> Ints:
    return np.asarray(values, np.int64)


# covered time -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretches:
    """Disjoint [start_ms, end_ms) of parts, sorted by part and start."""

    part: Ints
    start_ms: Ints
    end_ms: Ints

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int]]) -> Stretches:
        part, start_ms, end_ms = _columns(sorted(rows), 3)
        return cls(part=_ints(part), start_ms=_ints(start_ms), end_ms=_ints(end_ms))

    def have(self, part: Ints, time_ms: Ints) -> Bools:
        """Which of these moments lie inside."""
        if not len(self.part):
            return np.zeros(len(part), np.bool_)
        span = 1 + max(int(self.end_ms.max()), int(time_ms.max(initial=0)))
        before = np.searchsorted(self.part * span + self.start_ms, part * span + time_ms, side="right") - 1
        at = np.maximum(before, 0)
        return (before >= 0) & (self.part[at] == part) & (time_ms < self.end_ms[at])  # type: ignore[no-any-return]

    def total_ms(self) -> int:
        return int((self.end_ms - self.start_ms).sum())
