"""results_spotting.json as columns, for scores over millions of rows: the rows of `soccernet`, read at once.

A file in which nothing is odd is taken whole, column by column. In any other `soccernet` reads row by row, as it knows
how to say what is wrong where. Both mean the same; no row outlives its file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from streamproc.formats import soccernet
from streamproc.formats.problems import Problems
from streamproc.formats.soccernet import AS_LONG_AS_A_VECTOR_MS, LABELS, ROUNDED_MS, Spot

NUMBER: Final = {name: number for number, name in enumerate(LABELS)}
NONE: Final = -(1 << 60)
"""Stands where there is nothing; no file can say it, as what it says is 0 or more."""
_HALF: Final = 1 << 40
"""A gameTime as one number: so many for each half, and its milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """In the order of the rows. `label` is its number in LABELS; `start_ms` and `end_ms` are NONE where there is no stretch."""

    half: NDArray[np.int64]
    label: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    confidence: NDArray[np.float64]
    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]

    @classmethod
    def of(cls, spots: Iterable[Spot]) -> Columns:
        rows = list(spots)
        return cls(
            half=np.array([s.half for s in rows], np.int64),
            label=np.array([NUMBER[s.label] for s in rows], np.int64),
            time_ms=np.array([s.time_ms for s in rows], np.int64),
            confidence=np.array([s.confidence for s in rows], np.float64),
            start_ms=np.array([NONE if s.start_ms is None else s.start_ms for s in rows], np.int64),
            end_ms=np.array([NONE if s.end_ms is None else s.end_ms for s in rows], np.int64),
        )

    def __len__(self) -> int:
        return len(self.half)


class _Row(Struct, gc=False):
    """What a plain file has; numbers may be texts. Anything else is for `soccernet`."""

    label: str
    game_time: str = msgspec.field(name="gameTime")
    position: int
    half: int
    confidence: float
    start_ms: Annotated[int, Meta(ge=0)] = NONE
    end_ms: Annotated[int, Meta(ge=0)] = NONE


class _File(Struct):
    predictions: list[_Row]


_DECODER: Final = msgspec.json.Decoder(_File, strict=False)


def read_predictions(data: bytes, *, file: str, problems: Problems) -> Columns:
    """As `soccernet.read_predictions`: the same rows, problems and refusals."""
    if (found := _at_once(data)) is not None:
        return found
    return Columns.of(soccernet.read_predictions(data, file=file, problems=problems))


def _at_once(data: bytes) -> Columns | None:
    """None where any row is odd."""
    try:
        rows = _DECODER.decode(data.removeprefix(b"\xef\xbb\xbf")).predictions
        count = len(rows)
        columns = Columns(
            half=np.fromiter((r.half for r in rows), np.int64, count),
            label=np.fromiter((NUMBER.get(r.label, NONE) for r in rows), np.int64, count),
            time_ms=np.fromiter((r.position for r in rows), np.int64, count),
            confidence=np.fromiter((r.confidence for r in rows), np.float64, count),
            start_ms=np.fromiter((r.start_ms for r in rows), np.int64, count),
            end_ms=np.fromiter((r.end_ms for r in rows), np.int64, count),
        )
    except (msgspec.DecodeError, OverflowError, RecursionError):
        return None
    said = np.fromiter((_moment(r.game_time) for r in rows), np.int64, count)
    return columns if _nothing_odd(columns, said) else None


def _nothing_odd(of: Columns, said: NDArray[np.int64]) -> bool:
    stretched = (of.start_ms >= 0) & (of.start_ms <= of.end_ms)
    fine = (
        (of.label != NONE)
        & ((of.half == 1) | (of.half == 2))
        & (of.time_ms >= 0)
        & (of.time_ms < AS_LONG_AS_A_VECTOR_MS)
        & (np.abs(of.half * _HALF + of.time_ms - said) <= ROUNDED_MS)
        & (of.confidence >= 0)
        & (of.confidence <= 1)
        & (stretched | ((of.start_ms == NONE) & (of.end_ms == NONE)))
    )
    return bool(fine.all())


@lru_cache(maxsize=1 << 14)
def _moment(game_time: str) -> int:
    said = soccernet.parse_game_time(game_time)
    return NONE if said is None else said[0] * _HALF + said[1]
