"""Slices: all of a file, none too long, workers ending together, and GOPs decoded once where that can be."""

from __future__ import annotations

import sys
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.video.choice import Every, Rate, Rule, choose
from streamproc.video.slices import Cuts, Slice
from streamproc.video.table import Table
from streamproc.video.windows import Cut, Sampling


def table(seconds: int, gop: int) -> Table:
    """25 frames a second, an entry every so many."""
    count = seconds * 25
    numbers = list(range(count))
    return Table(
        time_base=Fraction(1, 25),
        regular=True,
        why=None,
        pts=numbers,
        size=[1000] * count,
        pos=[1000 * i for i in numbers],
        seek=numbers,
        entries=list(range(0, count, gop)),
        frame_s=Fraction(1, 25),
    )


def sliced(
    seconds: int,
    gop: int,
    sampling: Sampling,
    *,
    workers: int,
    slice_s: float = 60,
    first: int = 0,
    most: int = sys.maxsize,
) -> tuple[tuple[Slice, ...], bool]:
    whole, cut = table(seconds, gop), Cut(sampling)
    found = [(c.number - 1, c) for c in choose(whole.pts, whole.time_base, sampling.rule)]
    return Cuts(cut, whole, found, most).slices(first, cut.count(Fraction(seconds)), slice_s=slice_s, workers=workers)


def packets(slices: tuple[Slice, ...]) -> int:
    return sum(stretch.last - stretch.first + 1 for each in slices for stretch in each.stretches)


SOCCER = Sampling(Rate(Fraction(1)), Fraction(2), Fraction(4))
APART = Sampling(Rate(Fraction(1)), Fraction(2), Fraction(2))
"""Windows that do not overlap."""


def test_a_minute_is_shared_by_all_workers() -> None:
    slices, at_once = sliced(60, 50, APART, workers=2)
    assert [each.until - each.begin for each in slices] == [5] * 6
    assert not at_once


@pytest.mark.parametrize("gop", [50, 150, 250, 375])
def test_workers_end_together_wherever_gops_end(gop: int) -> None:
    """Slices of a quarter each would end in mid-GOP, and one worker would work twice as long as the other."""
    slices, _ = sliced(60, gop, APART, workers=2)
    whole, first = packets(slices), [packets((each,)) for each in slices]
    assert whole <= 60 * 25, "and nothing is decoded twice"
    assert max(sum(first[::2]), sum(first[1::2])) <= 1.05 * whole / 2


def test_a_file_of_seconds_is_not_cut_to_pieces_for_many_workers() -> None:
    slices, _ = sliced(9, 50, APART, workers=8)
    assert [(each.begin, each.until) for each in slices] == [(0, 2), (2, 5)]
    slices, _ = sliced(3, 50, APART, workers=8)
    assert [(each.begin, each.until) for each in slices] == [(0, 2)]


def test_a_long_file_is_cut_where_gops_end_and_nothing_is_decoded_twice() -> None:
    slices, _ = sliced(3000, 300, APART, workers=2)
    assert {stretch.first % 300 for each in slices for stretch in each.stretches} == {0}
    assert packets(slices) == 3000 * 25 - 24 * 250, "of each GOP all up to the last frame wanted"


def test_a_long_file_begins_with_a_short_slice() -> None:
    slices, _ = sliced(3000, 50, APART, workers=2)
    lengths_s = [int((each.until - each.begin) * APART.step_s) for each in slices]
    assert lengths_s[0] == 20, "whoever looks at the opening waits for no more"
    assert lengths_s[0] + lengths_s[1] == max(lengths_s) == 60


def test_a_slice_for_each_worker_ends_at_the_same_time() -> None:
    slices, _ = sliced(300, 25, APART, workers=4)
    lengths = [each.until - each.begin for each in slices]
    assert len(lengths) % 4 == 0
    assert max(lengths) - min(lengths) <= 1


def test_a_file_with_one_key_frame_is_not_cut() -> None:
    slices, at_once = sliced(300, 300 * 25, SOCCER, workers=2)
    assert at_once
    assert [(each.begin, each.until) for each in slices] == [(0, 150)]


def test_no_slice_has_more_pictures_than_an_answer_may_hold() -> None:
    dense = Sampling(Rate(Fraction(25)), Fraction(2), Fraction(2))
    slices, at_once = sliced(300, 25, dense, workers=2, most=256)
    assert not at_once
    assert {len(each.chosen) for each in slices} <= {200, 250}
    assert packets(slices) == 300 * 25


def test_what_would_be_decoded_again_and_again_for_small_answers_is_one_that_comes_in_parts() -> None:
    dense = Sampling(Rate(Fraction(25)), Fraction(2), Fraction(2))
    _, at_once = sliced(300, 300, dense, workers=2, most=60)
    assert at_once


rules: st.SearchStrategy[Rule] = st.builds(
    Rate, st.sampled_from([Fraction(1), Fraction(5), Fraction(1, 7)])
) | st.builds(Every, st.integers(1, 40))


@given(
    rule=rules,
    seconds=st.integers(1, 400),
    gop=st.integers(1, 600),
    step_s=st.fractions(Fraction(1, 4), Fraction(9), max_denominator=8),
    overlap=st.integers(1, 4),
    workers=st.integers(1, 9),
    slice_s=st.floats(0.5, 90),
    first=st.integers(0, 500),
    most=st.integers(1, 2000),
)
def test_slices_are_all_windows_in_order_with_all_their_samples(
    rule: Rule,
    seconds: int,
    gop: int,
    step_s: Fraction,
    overlap: int,
    workers: int,
    slice_s: float,
    first: int,
    most: int,
) -> None:
    sampling = Sampling(rule, step_s, step_s * overlap)
    slices, at_once = sliced(seconds, gop, sampling, workers=workers, slice_s=slice_s, first=first, most=most)
    cut = Cut(sampling)
    count = cut.count(Fraction(seconds))
    assert (
        [each.begin for each in slices] == [first, *(each.until for each in slices[:-1])]
        if first < count
        else not slices
    )
    assert not slices or slices[-1].until == count
    for each in slices:
        assert each.begin < each.until
        assert at_once or each.until - each.begin <= max(Fraction(1), Fraction(slice_s) / step_s)
        assert at_once or each.until - each.begin == 1 or len(each.chosen) <= most
        a, b = cut.samples(each.begin, each.until)
        shown = choose(range(seconds * 25), Fraction(1, 25), rule)
        assert each.chosen == tuple(chosen for chosen in shown if a <= chosen.k < b)
        assert {pts for stretch in each.stretches for pts in stretch.wanted} == {chosen.pts for chosen in each.chosen}
        assert all(one.last < two.first for one, two in pairwise(each.stretches))
