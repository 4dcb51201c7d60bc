"""Who saw the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.score import agreement
from streamproc.score.agreement import Groups, Sightings, Votes
from streamproc.score.matching import NONE


def group(rows: list[tuple[int, int, int, int]], *, runs: int, within_ms: int = 3000) -> Groups:
    columns = [np.array(c, np.int64) for c in zip(*rows, strict=True)] or [np.array([], np.int64)] * 4
    seen = Sightings(run=columns[0], part=columns[1], label=columns[2], time_ms=columns[3])
    return agreement.group(seen, runs=runs, within_ms=within_ms)


def test_the_same_label_at_nearly_the_same_time_is_the_same_thing() -> None:
    groups = group([(0, 0, 0, 1000), (1, 0, 0, 4000), (2, 0, 0, 4001), (1, 0, 1, 1000)], runs=3)
    assert groups.rows.tolist() == [[0, 1, NONE], [NONE, NONE, 2], [NONE, 3, NONE]]
    assert groups.count.tolist() == [2, 1, 1]


def test_two_sightings_of_one_run_are_two_things() -> None:
    groups = group([(0, 0, 0, 0), (0, 0, 0, 1000), (1, 0, 0, 1500)], runs=2)
    assert groups.rows.tolist() == [[0, 2], [1, NONE]]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 1), st.integers(0, 20_000)),
        max_size=30,
        unique_by=lambda r: r[3],
    ),
    st.permutations([0, 1, 2]),
)
def test_every_sighting_is_in_one_group_and_the_order_of_the_runs_is_no_matter(
    rows: list[tuple[int, int, int, int]], names: list[int]
) -> None:
    groups = group(rows, runs=3)
    assert sorted(groups.rows[groups.rows != NONE].tolist()) == list(range(len(rows)))
    renamed = group([(names[run], *rest) for run, *rest in rows], runs=3)  # type: ignore[misc]  # a run and three more are a row
    assert {frozenset(g) - {NONE} for g in groups.rows.tolist()} == {
        frozenset(g) - {NONE} for g in renamed.rows.tolist()
    }


def test_the_kappa_of_two_is_cohens_as_the_textbook_has_it() -> None:
    # 20 both, 5 first only, 10 second only, 15 neither: p_o .7, p_e .5, kappa .4
    found = np.array([[1, 1]] * 20 + [[1, 0]] * 5 + [[0, 1]] * 10, np.bool_)
    assert agreement.kappa(found, moments=50) == pytest.approx(0.4)


def test_the_kappa_of_more_is_fleiss_as_the_textbook_has_it() -> None:
    # of 10 moments: 4 by all three, 3 by two, 1 by one, 2 by none. p_o (4·1 + 3·⅓ + 1·⅓ + 2·1)/10, yes 19 of 30
    found = np.array([[1, 1, 1]] * 4 + [[1, 1, 0]] * 3 + [[0, 0, 1]], np.bool_)
    agreed, share = (4 + 1 + 1 / 3 + 2) / 10, 19 / 30
    chance = share**2 + (1 - share) ** 2
    assert agreement.kappa(found, moments=10) == pytest.approx((agreed - chance) / (1 - chance))
    assert agreement.kappa(np.ones((5, 3), np.bool_), moments=50) == pytest.approx(1.0)


def test_where_nobody_says_anything_kappa_is_not_a_number() -> None:
    nothing = np.zeros((0, 2), np.bool_)
    assert math.isnan(agreement.kappa(nothing, moments=10))
    assert math.isnan(agreement.kappa(np.zeros((0, 3), np.bool_), moments=0))
    assert math.isnan(agreement.kappa(np.ones((3, 1), np.bool_), moments=5))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 7)), min_size=1, max_size=20),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
def test_drawing_a_unit_twice_is_having_it_twice(rows: list[tuple[int, int]], times: list[int]) -> None:
    unit = np.array([u for u, _ in rows])
    found = np.array([[bits >> r & 1 for r in range(3)] for _, bits in rows], np.bool_)
    votes = Votes.of(found, unit, moments=np.array([30, 30, 30]))
    drawn = float(votes.kappa(np.array([times], np.float64))[0])
    repeated = found[np.repeat(np.arange(len(rows)), np.array(times)[unit])]
    assert drawn == pytest.approx(agreement.kappa(repeated, moments=30 * sum(times)), nan_ok=True)


def test_pairs_do_not_see_what_only_a_third_saw() -> None:
    found = np.array([[1, 1, 0], [0, 0, 1]], np.bool_)
    table = agreement.pairwise(found, moments=10)
    assert table[0, 1] == table[1, 0] == pytest.approx(1.0)
    assert table[0, 2] < 0
