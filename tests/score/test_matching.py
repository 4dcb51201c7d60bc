"""All truths choosing at once choose as they would one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.score.matching import FEW, NONE, greedy
from streamproc.score.spots import Floats, Ints


def one_after_the_other(truth: Ints, predicted: Ints, confidence: Floats, reach: int) -> list[int]:
    taken: list[int] = []
    for at in truth:
        near = [n for n, p in enumerate(predicted) if abs(p - at) <= reach and n not in taken]
        taken.append(max(near, key=lambda n: (confidence[n], -n)) if near else NONE)
    return taken


@given(
    truth=st.lists(st.integers(0, 80), max_size=40, unique=True),
    predicted=st.lists(st.tuples(st.integers(0, 80), st.sampled_from([0.1, 0.5, 0.9])), max_size=60),
    reach=st.integers(0, 20),
    times=st.sampled_from([1, 7]),
)
def test_chains_choose_as_one_after_the_other(
    truth: list[int], predicted: list[tuple[int, float]], reach: int, times: int
) -> None:
    """`times`: so many copies far apart, so that more choose at once than are done one by one."""
    t = np.sort(np.array([at + 1000 * copy for copy in range(times) for at in truth], np.int64))
    said = sorted((at + 1000 * copy, c) for copy in range(times) for at, c in predicted)
    p, c = np.array([at for at, _ in said], np.int64), np.array([c for _, c in said], np.float64)
    assert greedy(t, p, c, reach=reach).tolist() == one_after_the_other(t, p, c, reach)


def test_copies_are_more_than_are_done_one_by_one() -> None:
    assert FEW < 7 * 2


def test_the_surest_goes_first_to_whoever_comes_first() -> None:
    taken = greedy(np.array([10, 12]), np.array([11]), np.array([0.4]), reach=2)
    assert taken.tolist() == [0, NONE]


@pytest.mark.parametrize("reach", [0, 5])
def test_nothing_is_found_among_nothing(reach: int) -> None:
    empty = np.array([], np.int64)
    assert greedy(empty, empty, np.array([], np.float64), reach=reach).tolist() == []
    assert greedy(np.array([3]), empty, np.array([], np.float64), reach=reach).tolist() == [NONE]
