"""Signs of making things up."""

from __future__ import annotations

import numpy as np
import pytest

from streamproc.score import overdetection, windows
from streamproc.score.spots import Truth
from streamproc.score.windows import Windows


def test_the_rate_is_told_beside_what_is_usual_with_the_fullest_minutes() -> None:
    found = overdetection.rate([(0, t) for t in range(0, 120_000, 3000)], minutes=2, prior=2.0)
    assert (found.per_minute, found.times) == (20.0, 10.0)
    assert found.busiest == ((0, 0, 20), (0, 1, 20))


def test_of_no_time_there_is_no_rate_and_not_one_of_nought() -> None:
    found = overdetection.rate([(0, 0)] * 9, minutes=0, prior=2.0)
    assert np.isnan([found.per_minute, found.times]).all()


def test_leanings_are_shares_so_that_a_larger_number_alone_is_none() -> None:
    rows = overdetection.leanings(["Foul"] * 30 + ["Goal"] * 10, ["Foul"] * 3 + ["Goal"])
    assert overdetection.distance(rows) == 0.0
    rows = overdetection.leanings(["Foul"] * 4, ["Foul"] * 2 + ["Goal"] * 2)
    assert [(row.value, row.over) for row in rows] == [("Foul", 0.5), ("Goal", -0.5)]
    assert overdetection.distance(rows) == 0.5


def test_confidences_that_say_nothing_are_seen() -> None:
    told = overdetection.confidences(np.array([0.9] * 8 + [0.85, 0.3]))
    assert (told.distinct, told.commonest[0]) == (3, (0.9, 8))
    assert told.high == pytest.approx(0.9)


def test_the_same_sentence_again_and_again_is_named_with_its_rows() -> None:
    texts = ["A player falls.", "a player falls", None, "", "Corner taken", "A PLAYER FALLS!"]
    assert dict(overdetection.repeated(texts)) == {"A player falls.": [0, 1, 5]}


# windows ------------------------------------------------------------------------------------------------------------


def test_nothing_here_is_precise_where_it_is_right_and_unread_windows_were_not_said_to_be_empty() -> None:
    truth = Truth.of([(0, 0, 1000, True), (0, 0, 4000, True)])
    said = Windows(
        part=np.array([0, 0, 0, 0, 1]),
        start_ms=np.array([0, 2000, 4000, 6000, 0]),
        end_ms=np.array([2000, 4000, 6000, 8000, 2000]),
        null=np.array([True, True, False, True, True]),
        read=np.array([True, True, True, False, True]),
    )
    assert windows.empty(said, truth).tolist() == [False, True, False, True, True]
    found = windows.null_class(said, truth).total()
    assert float(found.precision) == pytest.approx(2 / 3)
    assert float(found.recall) == pytest.approx(2 / 3)


def test_how_answers_were_read_is_counted_by_model() -> None:
    table = windows.readings([("a", "whole"), ("a", "whole"), ("a", "list"), ("b", "unreadable")])
    assert table == {"a": {"whole": 2, "list": 1}, "b": {"unreadable": 1}}
