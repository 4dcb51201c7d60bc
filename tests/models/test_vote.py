"""What several samples say together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.models.vote import Kind, kinds_of, located, mode, rounded_median, vote

KINDS: Mapping[str, Kind] = {"label": "choice", "cars": "number", "text": "text"}


@pytest.mark.parametrize(
    ("values", "most"),
    [
        ([3, 1, 3], 3),
        ([3, 1, 3, 1], 1),
        (["b", "a"], "a"),
        ([None, "a", None], None),
        ([None, "a"], "a"),
        ([True, False], False),
        ([["b"], ["a"], ["b"]], ["b"]),
    ],
)
def test_the_most_frequent_wins_and_of_several_the_smallest(values: list[Any], most: Any) -> None:
    assert mode(values) == most


@pytest.mark.parametrize(
    ("values", "middle"), [([1, 2, 9], 2), ([2, 3], 2), ([3, 4], 3), ([1, 4], 2), ([-3, -2], -3), ([7], 7)]
)
def test_halves_of_a_median_go_down(values: list[float], middle: int) -> None:
    assert rounded_median(values) == middle


@pytest.mark.parametrize(
    ("frames", "value", "votes"),
    [
        ([120, 120, 90, None], 120, 2),
        ([120, 90, 120, 90], 90, 2),
        ([30, 10, 20], 20, 1),
        ([10, 21], 15, 0),
        ([None, None], None, 0),
        ([], None, 0),
        ([None, 7], 7, 1),
    ],
)
def test_a_frame_is_located_by_majority_else_in_the_middle(
    frames: list[int | None], value: int | None, votes: int
) -> None:
    found = located(frames)
    assert (found.value, found.votes) == (value, votes)


def test_a_sample_that_cannot_be_read_has_no_vote() -> None:
    tally = vote([None, {"label": "crash", "cars": 3}, None, None], KINDS)
    assert (tally.values, tally.votes) == ({"label": "crash", "cars": 3}, 1)
    assert vote([None, {}], KINDS).agreement is None
    assert vote([], KINDS).values == {}


def test_a_field_that_a_sample_lacks_is_decided_by_the_others() -> None:
    tally = vote([{"label": "a"}, {"cars": 2}, {"cars": 4}, {"cars": 4}], KINDS)
    assert tally.values == {"label": "a", "cars": 4}
    assert tally.by_field == {"label": 1.0, "cars": pytest.approx(2 / 3)}


def test_the_text_is_that_of_the_sample_that_agrees_most() -> None:
    samples = [
        {"label": "crash", "cars": 2, "text": "two cars collide"},
        {"label": "crash", "cars": 3, "text": "a car hits a van at the lights"},
        {"label": "near miss", "cars": 3, "text": "nearly"},
        {"label": "crash", "cars": 3, "text": "  "},
    ]
    tally = vote(samples, KINDS)
    assert tally.values == {"label": "crash", "cars": 3, "text": "a car hits a van at the lights"}
    assert tally.agreement == pytest.approx((3 / 4 + 3 / 4) / 2)


def test_of_samples_that_agree_equally_the_text_most_like_the_others_wins() -> None:
    samples = [{"text": "a dog barks"}, {"text": "the red car hits the van"}, {"text": "the red car hits a van"}]
    assert vote(samples, {"text": "text"}).values["text"].startswith("the red car")


def test_kinds_follow_from_a_schema() -> None:
    assert kinds_of(
        {
            "properties": {
                "label": {"enum": ["a", "b"]},
                "cars": {"type": "integer"},
                "speed": {"type": ["number", "null"]},
                "ego": {"type": "boolean"},
                "why": {"type": "string"},
            }
        }
    ) == {"label": "choice", "cars": "number", "speed": "number", "ego": "choice", "why": "text"}


@given(
    st.lists(
        st.none()
        | st.fixed_dictionaries(
            {}, optional={"label": st.sampled_from(["a", "b", "c", None]), "cars": st.integers(0, 9) | st.none()}
        ),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_samples_does_not_matter(samples: list[dict[str, Any] | None], rng: Any) -> None:
    shuffled = samples[:]
    rng.shuffle(shuffled)
    one, other = vote(samples, KINDS), vote(shuffled, KINDS)
    assert one == other
    assert one.agreement is None or 0 <= one.agreement <= 1


@given(st.lists(st.integers(0, 500) | st.none(), max_size=12))
def test_a_located_frame_lies_among_those_named(frames: list[int | None]) -> None:
    said = [f for f in frames if f is not None]
    value = located(frames).value
    assert (value is None) == (not said)
    assert value is None or min(said) <= value <= max(said)
