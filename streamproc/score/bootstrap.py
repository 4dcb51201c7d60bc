"""How far a number can be trusted: drawn again with other games, and two runs compared game by game. Repeatable by seed.

A draw is a vector that says how often each game counts. Whoever knows a number as a function of such vectors gets an
interval for it; the games (or clips) are the unit, since what happens within one game hangs together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streamproc.score.spots import Floats

Statistic = Callable[[Floats], Floats]
"""(draws, units) weights → (draws,) values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    low: float
    high: float


def draws(units: int, *, count: int, seed: int) -> Floats:
    """(count, units): each row draws as many units as there are, with replacement."""
    random = np.random.default_rng(seed)
    return random.multinomial(units, np.full(units, 1 / units), size=count).astype(np.float64)


def interval(values: Floats, *, level: float = 0.95) -> Interval:
    """The middle `level` of what the draws gave."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high))


# two runs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """First run minus second."""

    difference: float
    interval: Interval
    p: float
    """How often runs that differ by chance only would differ so much: two-sided, by swapping games between them."""


def swaps(units: int, *, count: int, seed: int) -> Floats:
    """(count, units) of 0 and 1: which units change sides."""
    random = np.random.default_rng(seed + 1)
    return random.integers(0, 2, size=(count, units)).astype(np.float64)


def compare(
    first: Statistic, second: Statistic, swapped: Callable[[Floats], Floats], *, units: int, count: int, seed: int
) -> Comparison:
    """`swapped(moves)` is first minus second after the marked units have changed sides."""
    whole = np.ones((1, units))
    difference = float((first(whole) - second(whole))[0])
    drawn = draws(units, count=count, seed=seed)
    by_chance = np.abs(swapped(swaps(units, count=count, seed=seed)))
    as_large = np.count_nonzero(by_chance >= abs(difference) - 1e-12)
    return Comparison(
        difference=difference, interval=interval(first(drawn) - second(drawn)), p=(1 + as_large) / (1 + count)
    )
