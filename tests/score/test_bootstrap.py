"""Intervals and p values: repeatable, and right where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from streamproc.score import bootstrap
from streamproc.score.spots import Floats


def test_a_seed_makes_it_repeatable_and_another_one_differs() -> None:
    first, again, other = (bootstrap.draws(20, count=5, seed=s) for s in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_a_draw_has_as_many_units_as_there_are() -> None:
    assert (bootstrap.draws(7, count=100, seed=0).sum(axis=1) == 7).all()


def test_nineteen_of_twenty_intervals_hold_the_mean_that_made_the_numbers() -> None:
    random = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        values = random.normal(3, 1, 60)
        drawn = bootstrap.draws(60, count=300, seed=int(random.integers(1 << 30))) @ values / 60
        interval = bootstrap.interval(drawn, at=float(values.mean()))
        held += interval.low <= 3 <= interval.high
    assert 180 <= held <= 199


def test_an_interval_follows_the_number_where_all_draws_lie_to_one_side_of_it() -> None:
    interval = bootstrap.interval(np.linspace(0.5, 0.6, 100), at=0.4)
    assert (interval.low, interval.high) == pytest.approx((0.5, 0.5), abs=1e-3)


def _means(first: Floats, second: Floats) -> bootstrap.Comparison:
    both = np.concatenate((first, second))
    return bootstrap.compare(
        lambda weights: {"mean": weights @ both / len(first)}, units=len(first), count=2000, seed=3
    )["mean"]


def test_runs_that_are_the_same_do_not_differ() -> None:
    values = np.random.default_rng(0).normal(size=30)
    found = _means(values, values.copy())
    assert found.p == 1.0
    assert found.interval
    assert (found.difference, found.interval.low, found.interval.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


def test_a_run_that_is_better_in_every_game_is_better_beyond_chance() -> None:
    values = np.random.default_rng(0).normal(size=30)
    found = _means(values + 0.1, values)
    assert found.difference == pytest.approx(0.1)
    assert found.p == pytest.approx(1 / 2001)
    assert found.interval
    assert found.interval.low > 0


def test_p_values_of_runs_that_differ_by_chance_are_spread_evenly() -> None:
    random = np.random.default_rng(9)
    small = sum(_means(random.normal(size=12), random.normal(size=12)).p <= 0.2 for _ in range(200))
    assert 22 <= small <= 60  # 40 are expected


def test_one_unit_has_no_interval_as_every_draw_of_it_is_the_same() -> None:
    found = _means(np.array([0.9]), np.array([0.1]))
    assert found.interval is None
    assert found.difference == pytest.approx(0.8)
    assert found.p == 1.0
