"""Windows out of pictures: each number once, whatever came, and a feed's outage costs nothing by its length."""

from __future__ import annotations

from collections.abc import Set
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streamproc.video.choice import Chosen, Every, Rate, Rule
from streamproc.video.look import Jpeg
from streamproc.video.windows import MISSING, Cut, Picture, Sampling, windows
from tests.video.test_decode import source


def pictures(cut: Cut, numbers: Set[int]) -> dict[int, Picture]:
    times = {k: k * cut.sampling.sample_s for k in numbers}
    return {k: Picture(Chosen(k, t, k + 1, k, t), Jpeg(b"%d" % k, 96, 64)) for k, t in times.items()}


rules: st.SearchStrategy[Rule] = st.builds(Rate, st.fractions(Fraction(1, 9), Fraction(30), max_denominator=9)) | (
    st.builds(Every, st.integers(1, 9))
)


@given(
    rule=rules,
    step_s=st.fractions(Fraction(1, 9), Fraction(9), max_denominator=9),
    length_s=st.fractions(Fraction(1, 9), Fraction(20), max_denominator=9),
    origin_s=st.fractions(Fraction(0), Fraction(20), max_denominator=9),
    first=st.integers(0, 5),
    numbers=st.sets(st.integers(0, 120), max_size=12),
    begin=st.integers(0, 30),
    length=st.integers(1, 40),
    end_s=st.none() | st.fractions(Fraction(0), Fraction(60), max_denominator=9),
)
def test_windows_are_where_pictures_are_and_all_else_is_gaps(
    rule: Rule,
    step_s: Fraction,
    length_s: Fraction,
    origin_s: Fraction,
    first: int,
    numbers: set[int],
    begin: int,
    length: int,
    end_s: Fraction | None,
) -> None:
    cut = Cut(Sampling(rule, step_s, length_s, frames=4), origin_s, first)
    there, begin, until = pictures(cut, numbers), first + begin, first + begin + length
    found = list(windows(cut, source(), there, begin, until, end_s))
    samples = {i: [k for k in range(*cut.samples(i, i + 1)) if k in there] for i in range(begin, until)}
    assert [w.index for w in found if w.frames] == [i for i in samples if samples[i]]
    assert all({int(f.jpeg) for f in w.frames} <= {*samples[w.index]} for w in found if w.frames)
    assert [w.index for w in found] == [begin, *(w.until for w in found[:-1])]
    assert found[-1].until == until
    assert all(one.frames or two.frames for one, two in pairwise(found)), "what is missing is one gap"


class Counted(Cut):
    """Says how often it was asked."""

    asked = 0

    def samples(self, begin: int, until: int) -> tuple[int, int]:
        type(self).asked += 1
        return super().samples(begin, until)


def test_a_week_without_a_picture_is_a_gap_at_once() -> None:
    cut, until = Counted(Sampling(Rate(Fraction(1)), Fraction(2), Fraction(4))), 7 * 24 * 1800
    there = pictures(cut, {0, 2 * until - 1})
    found = list(windows(cut, source(), there, 0, until, None))
    assert [(w.index, w.until, w.reason) for w in found] == [
        (0, 1, None),
        (1, until - 2, MISSING),
        (until - 2, until - 1, None),
        (until - 1, until, None),
    ]
    assert Counted.asked == 3, "of the windows that have pictures, and of no other"
