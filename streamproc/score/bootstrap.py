"""How far a number can be trusted: drawn again with other games, and two runs compared game by game. Repeatable by seed.

A draw is a vector that says how often each game counts. Whoever knows a number as a function of such vectors gets an
interval for it; the games (or clips) are the unit, since what happens within one game hangs together. Drawn from one
unit every draw is that unit again: an interval of it would have no width and be taken for certainty, so there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from streamproc.score.spots import Floats

ENOUGH: Final = 2
"""Fewer units have no interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    low: float
    high: float


def draws(units: int, *, count: int, seed: int) -> Floats:
    """(count, units): each row draws as many units as there are, with replacement."""
    random = np.random.default_rng(seed)
    return random.multinomial(units, np.full(units, 1 / units), size=count).astype(np.float64)


def interval(values: Floats, *, at: float, level: float = 0.95) -> Interval:
    """Bias-corrected percentiles (Efron): average precision grows when games repeat, so plain percentiles may lie beside
    the number itself. `at` is that number; the draws below it say how far off the middle they are."""
    normal = NormalDist()
    below = (np.count_nonzero(values < at) + np.count_nonzero(values <= at)) / 2 / len(values)
    shift = normal.inv_cdf(float(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values))))
    ends = [normal.cdf(2 * shift + normal.inv_cdf(q)) for q in ((1 - level) / 2, (1 + level) / 2)]
    low, high = np.quantile(values, ends)
    return Interval(low=float(low), high=float(high))


# two runs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """First run minus second. The interval draws units anew for both; p swaps whole units between the runs."""

    difference: float
    interval: Interval | None
    """None of a single unit."""
    p: float
    """How often runs that differ by chance only would differ as much, to either side."""


def compare(
    statistic: Callable[[Floats], Mapping[str, Floats]], *, units: int, count: int, seed: int
) -> dict[str, Comparison]:
    """`statistic` takes (draws, 2 units) weights, the first run's units before the second's, and gives names to (draws,)."""
    nothing = np.zeros((1, units))
    drawn = draws(units, count=count, seed=seed)
    moved = np.random.default_rng(seed + 1).integers(0, 2, size=(count, units)).astype(np.float64)
    one, none = np.ones((1, units)), np.zeros_like(drawn)
    whole = _minus(statistic, (one, nothing), (nothing, one))
    again = _minus(statistic, (drawn, none), (none, drawn))
    by_chance = _minus(statistic, (1 - moved, moved), (moved, 1 - moved))
    result = {}
    for name, values in whole.items():
        difference = float(values[0])
        as_large = np.count_nonzero(np.abs(by_chance[name]) >= abs(difference) - 1e-12)
        p = (1 + as_large) / (1 + count)
        ends = interval(again[name], at=difference) if units >= ENOUGH else None
        result[name] = Comparison(difference=difference, interval=ends, p=p)
    return result


def _minus(
    statistic: Callable[[Floats], Mapping[str, Floats]], first: tuple[Floats, Floats], second: tuple[Floats, Floats]
) -> dict[str, Floats]:
    a, b = statistic(np.hstack(first)), statistic(np.hstack(second))
    return {name: a[name] - b[name] for name in a}
