"""`[{"time": seconds, "raw": text}]`: a row an event or a window, with the model's own text. What the text says is for
recovery to read, not for this room."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from streamproc.errors import Rejected


class Said(Struct, frozen=True):
    """One row."""

    time: float
    """Seconds from the beginning of the stream."""
    raw: str


def read(data: bytes, *, file: str) -> list[Said]:
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        rows = msgspec.json.decode(data, type=list[Said])
    except msgspec.DecodeError as e:
        raise Rejected(_where(data, file) or f"{file}: {e}") from e
    for number, row in enumerate(rows, start=1):
        if row.time < 0:
            raise Rejected(f"{file} row {number}: time {row.time} is before the beginning")
    return rows


def _where(data: bytes, file: str) -> str | None:
    """The first row that is wrong, and its column; None where it is the whole file."""
    try:
        rows = msgspec.json.decode(data, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return None
    for number, row in enumerate(rows, start=1):
        try:
            msgspec.json.decode(row, type=Said)
        except msgspec.DecodeError as e:
            return f"{file} row {number}: {e}"
    return None


def write(rows: Iterable[Said]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(list(rows)), indent=2) + b"\n"
