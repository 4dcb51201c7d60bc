"""The 2COOOL submission: a CSV of 12 columns, one row a dash-cam clip. Reads what spreadsheets and pandas make of it.

Written as pandas does with QUOTE_NONNUMERIC and LF: texts in quotes, numbers bare, byte for byte.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable
from dataclasses import astuple, dataclass
from typing import Final, Literal

from streamproc.errors import Rejected, did_you_mean

COLUMNS: Final = (
    "video",
    "Incident window start frame",
    "Incident Detection",
    "Crash Severity",
    "Ego-car involved",
    "Label",
    "Number of Bicyclists/Scooters",
    "Number of animals involved",
    "Number of pedestrians involved",
    "Number of vehicles involved (excluding ego-car)",
    "Caption Before Incident",
    "Reason of Incident",
)
_NUMBERS: Final = (1, 2, 4, 6, 7, 8, 9)
"""Columns that hold whole numbers. `video` is a number or a name."""
_LABEL: Final = 5

KINDS: Final[dict[str, Literal["choice", "number", "text"]]] = {
    "start_frame": "choice",
    "incident": "choice",
    "severity": "choice",
    "ego": "choice",
    "label": "choice",
    "cyclists": "number",
    "animals": "number",
    "pedestrians": "number",
    "vehicles": "number",
    "before": "text",
    "reason": "text",
}
"""How several submissions agree on a cell: by frequency, by the median, or by the sentence that is most like the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One row, in the order of the columns."""

    video: str
    start_frame: int
    incident: int
    """1 an incident, 0 a hazard, -1 neither."""
    severity: str
    ego: int
    label: str
    cyclists: int
    animals: int
    pedestrians: int
    vehicles: int
    before: str
    reason: str


def read(data: bytes, *, file: str, labels: Collection[str] = ()) -> list[Clip]:
    """All rows in their order. LF or CRLF, texts with line breaks, a byte order mark: all fine. `labels`: those that there
    are, where they are known."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise Rejected(f"{file}: not UTF-8 at byte {e.start}") from e
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    clips: list[Clip] = []
    seen: dict[str, int] = {}
    try:
        if (header := next(rows, None)) != list(COLUMNS):
            raise Rejected(f"{file} line 1: not the 12 columns of a 2COOOL submission: {_wrong(header)}")
        for row in rows:
            if not row:
                continue  # an empty line, as editors leave at the end
            clip = _clip(row, f"{file} line {rows.line_num}")
            if labels and clip.label not in labels:
                near = did_you_mean(clip.label, labels)
                raise Rejected(f"{file} line {rows.line_num}: '{COLUMNS[_LABEL]}' is '{clip.label}', no label{near}")
            if clip.video in seen:
                raise Rejected(
                    f"{file} line {rows.line_num}: video {clip.video} stands in line {seen[clip.video]} already"
                )
            seen[clip.video] = rows.line_num
            clips.append(clip)
    except csv.Error as e:
        raise Rejected(f"{file} line {rows.line_num}: {e}") from e
    return clips


def _wrong(header: list[str] | None) -> str:
    """What is wrong with a first line."""
    if header is None:
        return "the file is empty"
    if missing := [column for column in COLUMNS if column not in header]:
        lacks = "', '".join(missing)
        return f"it lacks '{lacks}'; found {header}"
    return f"they stand in another order, or there are others beside them: {header}"


def _clip(row: list[str], place: str) -> Clip:
    if len(row) != len(COLUMNS):
        raise Rejected(f"{place}: {len(row)} columns instead of {len(COLUMNS)}")
    number = {column: _whole(row[column], column, place) for column in _NUMBERS}
    return Clip(
        video=row[0],
        start_frame=number[1],
        incident=number[2],
        severity=row[3],
        ego=number[4],
        label=row[5],
        cyclists=number[6],
        animals=number[7],
        pedestrians=number[8],
        vehicles=number[9],
        before=row[10],
        reason=row[11],
    )


def _whole(cell: str, column: int, place: str) -> int:
    """`3`, or `3.0` as pandas writes a column that once had a hole."""
    try:
        value = float(cell)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass  # told below, like 3.5
    raise Rejected(f"{place}: '{COLUMNS[column]}' is '{cell}', not a whole number")


def write(clips: Iterable[Clip]) -> bytes:
    lines = io.StringIO(newline="")
    out = csv.writer(lines, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    out.writerow(COLUMNS)
    for clip in clips:
        video, *rest = astuple(clip)
        out.writerow([_number_or_name(video), *rest])
    return lines.getvalue().encode()


def _number_or_name(video: str) -> int | str:
    """As pandas sees a column of names: 7 is a number, 007 is too but would not come back, so it stays a name."""
    return int(video) if video.isascii() and video.isdigit() and str(int(video)) == video else video
