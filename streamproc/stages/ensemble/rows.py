"""Fields that several describe, made into one row: by vote, by filling holes, by the most frequent value.

A row is what one describer says, by name. A *hole* is a row that says nothing happened where something was asked for; of
the dash-cam submissions these are start frame 1 with incident -1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from streamproc.models.vote import Kind, Tally, mode, vote

Row = Mapping[str, Any]

FRAME: Final = "start_frame"
HOLE: Final[Row] = {FRAME: 1, "incident": -1}


def is_hole(row: Row, hole: Row = HOLE) -> bool:
    return bool(hole) and all(row.get(name) == value for name, value in hole.items())


def filled(rows: Sequence[Row], hole: Row = HOLE) -> dict[str, Any]:
    """The first row that is no hole, whole; the first of all where all are. What it lacks comes from those behind it."""
    telling = [row for row in rows if not is_hole(row, hole)] or list(rows)
    result: dict[str, Any] = {}
    for row in telling:
        result |= {name: value for name, value in row.items() if value is not None and name not in result}
    return result


def voted(rows: Sequence[Row], kinds: Mapping[str, Kind]) -> Tally:
    """Field by field; one whose kind nobody told is a choice. A frame is one that somebody named, never one between."""
    known: dict[str, Kind] = {name: kinds.get(name, "choice") for name in names(rows)}
    return vote(rows, known | ({FRAME: "choice"} if FRAME in known else {}))


def most_frequent(rows: Sequence[Row], wanted: Iterable[str]) -> dict[str, Any]:
    """Of several as frequent the smallest."""
    said = {name: [row[name] for row in rows if row.get(name) is not None] for name in wanted}
    return {name: mode(values) for name, values in said.items() if values}


def names(rows: Sequence[Row]) -> tuple[str, ...]:
    """Every field that any row has, in the order of their first mention."""
    return tuple(dict.fromkeys(name for row in rows for name in row))
