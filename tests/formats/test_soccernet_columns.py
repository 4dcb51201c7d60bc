"""Columns at once mean what rows one by one mean: the same values, the same problems, the same refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamproc.errors import Rejected
from streamproc.formats import soccernet, soccernet_columns
from streamproc.formats.problems import Problems
from streamproc.formats.soccernet import Spot
from streamproc.formats.soccernet_columns import NONE, Columns

PLAIN = {"gameTime": "1 - 00:10", "label": "Goal", "position": "10000", "half": "1", "confidence": "0.5"}
ODD: dict[str, list[Any]] = {
    "gameTime": ["2 - 00:10", "1 - 00:09", "1 - 00:12", "1 - 00:10 ", "soon", "1 - 00:77", None, 7],
    "label": ["goal", "Corner", "Goal kick", "", None, 3],
    "position": [
        10000,
        9001.0,
        "9000",
        "9000.0",
        10000.5,
        "-1",
        -1,
        "soon",
        None,
        True,
        7_200_000,
        10**20,
        "1e3",
        " 8000",
    ],
    "half": [1, 2, "2", "3", 0, None, 1.0, 1.5, "1.0", "one"],
    "confidence": [0.5, 1, 0, "1", "1.5", "-0", "nan", -0.1, None, "high", True, [0.5]],
    "start_ms": [0, "100", 9000, 20_000, -1, None, NONE, "null"],
    "end_ms": [10_000, 12_000.0, "12000", None, NONE, 10**19],
    "visibility": ["visible", None],
    "team": ["home", None],
}
ROWS = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in ODD.items()})


def outcome(read: Callable[..., Columns], data: bytes) -> tuple[Any, ...]:
    """What comes of it, to compare."""
    problems = Problems()
    try:
        found = read(data, file="f.json", problems=problems)
    except Rejected as e:
        return ("refused", str(e))
    columns = [getattr(found, name).tolist() for name in found.__slots__]
    return (columns, problems.plain())


def row_by_row(data: bytes, *, file: str, problems: Problems) -> Columns:
    return Columns.of(soccernet.read_predictions(data, file=file, problems=problems))


@given(st.lists(ROWS, max_size=3), st.sets(st.sampled_from(sorted(PLAIN)), max_size=1))
@example([{"half": 1.0}], set())
@example([{"half": 1.5}], set())
@example([{"half": "1.0"}], set())
@example([{"start_ms": NONE}], set())
@example([{"start_ms": NONE, "end_ms": NONE}], set())
def test_columns_are_the_rows_however_odd_they_are(rows: list[dict[str, Any]], lacking: set[str]) -> None:
    whole = {name: value for name, value in PLAIN.items() if name not in lacking}
    data = json.dumps({"predictions": [PLAIN, *(whole | row for row in rows)]}).encode()
    assert outcome(soccernet_columns.read_predictions, data) == outcome(row_by_row, data)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"{}", b'{"predictions": 3}', b'{"predictions": [3]}', b"[]", b"\xff", b'{"x": ' + b"[" * 100_000],
)
def test_what_is_no_such_file_is_refused_as_ever(data: bytes) -> None:
    kind, message = outcome(soccernet_columns.read_predictions, data)
    assert (kind, message) == outcome(row_by_row, data)
    assert message.startswith("f.json: ")


def test_stretches_come_along_and_what_has_none_says_so() -> None:
    spots = [
        Spot(half=2, time_ms=5000, label="Foul", confidence=0.25, start_ms=4000, end_ms=6000),
        Spot(half=1, time_ms=0, label="Kick-off", confidence=1.0),
    ]
    found = soccernet_columns.read_predictions(soccernet.write_predictions("g", spots), file="f", problems=Problems())
    assert found.start_ms.tolist() == [4000, NONE]
    assert found.end_ms.tolist() == [6000, NONE]
    assert (found.half.tolist(), found.label.tolist(), found.confidence.tolist()) == ([2, 1], [10, 1], [0.25, 1.0])


def test_a_file_without_rows_is_columns_without_rows() -> None:
    found = soccernet_columns.read_predictions(msgspec.json.encode({"predictions": []}), file="f", problems=Problems())
    assert len(found) == 0
    assert found.time_ms.dtype == np.int64
