"""`[{"time", "raw"}]`, and coverage.json."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.errors import Rejected
from streamproc.formats import coverage, predictions
from streamproc.formats.predictions import Said


@given(st.lists(st.builds(Said, st.floats(0, 1e6), st.text(st.characters(exclude_categories=["Cs"])))))
def test_rows_come_back_as_they_were_written(rows: list[Said]) -> None:
    assert predictions.read(predictions.write(rows), file="f") == rows


@pytest.mark.parametrize(
    "data", [b"{}", b"[3]", b'[{"time": "x", "raw": ""}]', b'[{"time": -1, "raw": ""}]', b'[{"raw": ""}]']
)
def test_what_is_no_such_list_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(Rejected, match=r"^f"):
        predictions.read(data, file="f")


def test_covered_is_what_every_service_has_done() -> None:
    one = {
        "stream": "s",
        "service": "detect",
        "done": [[0, 60], [80, 100]],
        "failed": [[60, 80]],
        "skipped": [],
        "missing": [],
    }
    two = {"stream": "s", "service": "dedup", "done": [[0, 90]], "failed": [], "skipped": [], "missing": [[90, 100]]}
    covered, whole = coverage.looked_at(coverage.read(json.dumps([one, two]).encode(), file="f"))
    assert (covered.pairs(), whole.pairs()) == ([(0, 60), (80, 90)], [(0, 100)])


def test_hours_of_one_service_are_taken_together() -> None:
    hours = [
        {"stream": "s", "service": "detect", "done": [[at, at + 10]], "failed": [], "skipped": [], "missing": []}
        for at in (0, 10)
    ]
    covered, _ = coverage.looked_at(coverage.read(json.dumps(hours).encode(), file="f"))
    assert covered.pairs() == [(0, 20)]


def test_of_a_service_that_goes_by_numbers_of_events_nobody_can_say_what_it_looked_at() -> None:
    whole = {"stream": "m", "failed": [], "skipped": [], "missing": []}
    rows = [
        {**whole, "service": "detect.a", "root": "decode", "done": [[0, 9000]]},
        {**whole, "service": "ensemble", "root": "dedup", "done": [[2000, 3000]]},
    ]
    covered, _ = coverage.looked_at(coverage.read(json.dumps(rows).encode(), file="f"))
    assert list(covered) == [(0, 9000)]
