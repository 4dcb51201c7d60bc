"""Rows of fields made into one: by vote, by filling holes, by the most frequent value."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.formats import submission
from streamproc.models.vote import Kind
from streamproc.stages.ensemble.rows import filled, is_hole, most_frequent, voted

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures" / "2coool"
HOLE = {"start_frame": 1, "incident": -1, "reason": "nothing"}
SEEN = {"start_frame": 120, "incident": 1, "reason": "crash"}


def test_a_row_of_start_1_and_incident_minus_1_takes_the_others() -> None:
    """Row 1: merge of two submissions."""
    assert filled([HOLE, SEEN]) == SEEN
    assert filled([SEEN | {"reason": "mine"}, SEEN])["reason"] == "mine"
    assert filled([HOLE, HOLE | {"reason": "neither"}]) == HOLE, "all are holes: the first stays"
    assert filled([]) == {}


@pytest.mark.parametrize("half", [{"start_frame": 1, "incident": 0}, {"start_frame": 2, "incident": -1}, {}])
def test_half_a_hole_is_none(half: dict[str, int]) -> None:
    assert not is_hole(half)
    assert filled([half | {"reason": "stays"}, SEEN])["reason"] == "stays"


def test_what_the_chosen_row_lacks_comes_from_those_behind_it_that_are_no_holes() -> None:
    first, third = {"start_frame": 5, "label": None}, {"label": "crash", "vehicles": 2}
    assert filled([first, HOLE | {"vehicles": 9}, third]) == {"start_frame": 5, "label": "crash", "vehicles": 2}


@given(st.lists(st.sampled_from([HOLE, SEEN, {"start_frame": 7}, {"reason": "x", "incident": 0}]), max_size=6))
def test_filling_again_changes_nothing(rows: list[dict[str, object]]) -> None:
    once = filled(rows)
    assert filled([once, *rows]) == once


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="the real submissions are not here")
def test_the_merge_of_two_real_submissions_is_the_one_that_their_makers_made() -> None:
    def read(name: str) -> dict[str, dict[str, object]]:
        file = next(FIXTURES.glob(name))
        return {c.video: asdict(c) for c in submission.read(file.read_bytes(), file=file.name)}

    sample, full, base = read("exp005_*"), read("exp004_and_*"), read("2025*")
    merged = {video: filled([row, full[video]]) for video, row in sample.items()}
    assert sum(is_hole(row) for row in sample.values()) == 198
    assert sum(merged[v] != sample[v] for v in sample) == 82
    differing = [(v, name) for v, row in merged.items() for name, value in row.items() if base[v][name] != value]
    assert differing == [("313", "animals"), ("313", "before"), ("313", "reason")]


def test_a_vote_takes_choices_by_frequency_numbers_by_median_and_the_frame_that_most_name() -> None:
    kinds: dict[str, Kind] = {"incident": "choice", "vehicles": "number", "reason": "text", "start_frame": "number"}
    rows = [
        {"start_frame": 100, "incident": 1, "vehicles": 1, "reason": "a van turns"},
        {"start_frame": 100, "incident": 1, "vehicles": 4, "reason": "a van turns left"},
        {"start_frame": 400, "incident": 0, "vehicles": 3, "reason": "rain"},
    ]
    said = voted(rows, kinds).values
    assert (said["start_frame"], said["incident"], said["vehicles"]) == (100, 1, 3)
    assert said["reason"] != "rain"


def test_the_most_frequent_value_is_the_smallest_of_several() -> None:
    rows: list[dict[str, object]] = [{"vehicles": 3, "ego": 1}, {"vehicles": 1, "ego": None}, {"label": "x"}]
    assert most_frequent(rows, ["vehicles", "ego", "label", "animals"]) == {"vehicles": 1, "ego": 1, "label": "x"}
