"""Ranges against a plain set."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streamproc.ranges import Ranges

SMALL = st.integers(0, 40)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove", "drop"]), SMALL, SMALL), max_size=30)


def built(steps: list[tuple[str, int, int]]) -> tuple[Ranges, set[int]]:
    ranges, model = Ranges(), set[int]()
    for what, lo, hi in steps:
        if what == "add":
            ranges.add(lo, hi)
            model |= set(range(lo, hi))
        elif what == "remove":
            ranges.remove(lo, hi)
            model -= set(range(lo, hi))
        else:
            ranges.drop_below(lo)
            model = {i for i in model if i >= lo}
    return ranges, model


@given(STEPS)
def test_ranges_hold_what_a_set_would(steps: list[tuple[str, int, int]]) -> None:
    ranges, model = built(steps)
    assert {i for lo, hi in ranges for i in range(lo, hi)} == model
    pairs = ranges.pairs()
    assert all(lo < hi for lo, hi in pairs)
    assert all(a[1] < b[0] for a, b in pairwise(pairs)), "neighbours that touch are one range"
    assert ranges.total == len(model)
    assert ranges.end == max(model, default=-1) + 1
    assert Ranges(pairs) == ranges == ranges.copy()


@given(STEPS, SMALL, SMALL)
def test_questions_are_answered_as_by_a_set(steps: list[tuple[str, int, int]], lo: int, hi: int) -> None:
    ranges, model = built(steps)
    if lo < hi:
        assert ranges.has(lo, hi) == all(i in model for i in range(lo, hi))
    assert {i for a, b in ranges.missing(lo, hi) for i in range(a, b)} == set(range(lo, hi)) - model
    base = ranges.base(lo)
    assert base not in model
    assert all(i in model for i in range(lo, base))


@given(STEPS, STEPS)
def test_a_union_holds_both(one: list[tuple[str, int, int]], other: list[tuple[str, int, int]]) -> None:
    (a, in_a), (b, in_b) = built(one), built(other)
    assert {i for lo, hi in a | b for i in range(lo, hi)} == in_a | in_b
