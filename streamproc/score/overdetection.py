"""Signs of making things up: too many events, leanings towards labels, teams or confidences, events where nothing moves,
and the same sentence again and again. Each sign names the rows that show it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from streamproc.score.spots import Floats

_SPACE = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Events per minute, against what is usual; `windows` are the minutes with the most."""

    per_minute: float
    prior: float
    busiest: tuple[tuple[int, int, int], ...]
    """(part, minute, events), the fullest first."""

    @property
    def times(self) -> float:
        """How many times the prior."""
        return self.per_minute / self.prior if self.prior else float("inf")


def rate(moments: Sequence[tuple[int, int]], *, minutes: float, prior: float, shown: int = 10) -> Rate:
    """From (part, time_ms) of all events in `minutes` of looking."""
    by_minute = Counter((part, time_ms // 60_000) for part, time_ms in moments)
    busiest = sorted(((part, minute, n) for (part, minute), n in by_minute.items()), key=lambda row: (-row[2], row[:2]))
    return Rate(
        per_minute=len(moments) / minutes if minutes else float("nan"), prior=prior, busiest=tuple(busiest[:shown])
    )


# leanings -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaning:
    """How a value is used more, or less, than in the reference. Shares of all, so rates do not hide in it."""

    value: str
    count: int
    share: float
    reference: float

    @property
    def over(self) -> float:
        return self.share - self.reference


def leanings(said: Sequence[str], reference: Sequence[str]) -> list[Leaning]:
    """All values of either side, the furthest apart first. Half the sum of |over| is the distance of the two."""
    ours, theirs = Counter(said), Counter(reference)
    rows = [
        Leaning(
            value=value,
            count=ours[value],
            share=ours[value] / len(said) if said else 0.0,
            reference=theirs[value] / len(reference) if reference else 0.0,
        )
        for value in ours | theirs
    ]
    return sorted(rows, key=lambda row: (-abs(row.over), row.value))


def distance(rows: Sequence[Leaning]) -> float:
    """Total variation: 0 is the same mix, 1 has nothing in common."""
    return sum(abs(row.over) for row in rows) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidences:
    """Whether confidences say anything at all."""

    distinct: int
    commonest: tuple[tuple[float, int], ...]
    high: float
    """Share within 0.8 … 0.95, where models put nearly everything."""


def confidences(values: Floats, *, shown: int = 5) -> Confidences:
    counted = Counter(values.tolist())
    commonest = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:shown]
    high = float(((values >= 0.8) & (values <= 0.95)).mean()) if len(values) else 0.0
    return Confidences(distinct=len(counted), commonest=tuple(commonest), high=high)


# texts --------------------------------------------------------------------------------------------------------------


def repeated(texts: Sequence[str | None], *, least: int = 3) -> Mapping[str, list[int]]:
    """Text → its rows, for what is said at least so often; case and punctuation do not matter. The most frequent first."""
    rows: dict[str, list[int]] = defaultdict(list)
    first: dict[str, str] = {}
    for row, text in enumerate(texts):
        if text and (key := _SPACE.sub(" ", text.casefold()).strip()):
            rows[key].append(row)
            first.setdefault(key, text)
    often = sorted((key for key in rows if len(rows[key]) >= least), key=lambda key: (-len(rows[key]), key))
    return {first[key]: rows[key] for key in often}


# where nothing moves ------------------------------------------------------------------------------------------------


def still(time_ms: Sequence[int], motion: Sequence[float], *, at_most: float) -> list[tuple[int, int]]:
    """Stretches from picture to picture, joined. `motion[i]`: the share of picture i that differs from the one before."""
    found: list[tuple[int, int]] = []
    for (lo, hi), share in zip(pairwise(time_ms), motion[1:], strict=True):
        if share > at_most:
            continue
        if found and found[-1][1] == lo:
            found[-1] = (found[-1][0], hi)
        else:
            found.append((lo, hi))
    return found
