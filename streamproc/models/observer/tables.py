"""Tables in a prompt's text: JSON a line, a JSON list, or columns with a header line between `|`, `,`, `;` or tabs."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import orjson

Row = dict[str, Any]


def rows_in(text: str) -> list[Row]:
    lines = [line.strip() for line in text.splitlines()]
    if rows := [row for line in lines if (row := _json(line)) is not None]:
        return rows
    for found in re.finditer(r"\[\s*\{.*?\}\s*\]", text, re.DOTALL):
        try:
            whole = orjson.loads(found[0])
        except orjson.JSONDecodeError:
            continue
        if isinstance(whole, list) and all(isinstance(r, dict) for r in whole):
            return whole
    for mark in ("|", "\t", ";", ","):
        if rows := _columns([line.strip("| ") if mark == "|" else line for line in lines], mark):
            return rows
    return []


def _json(line: str) -> Row | None:
    if not line.startswith("{"):
        return None
    try:
        row = orjson.loads(line.rstrip(","))
    except orjson.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and "properties" not in row and "type" not in row else None


def _columns(lines: list[str], mark: str) -> list[Row]:
    """The first run of three or more lines with as many columns as its header, two at the least."""
    for at, line in enumerate(lines):
        header = [h.strip().strip('"') for h in line.split(mark)]
        if len(header) < 2 or not all(re.fullmatch(r"[A-Za-z_][\w %()-]*", h) for h in header):
            continue
        rows = list[Row]()
        for below in lines[at + 1 :]:
            cells = [c.strip().strip('"') for c in below.split(mark)]
            if len(cells) != len(header):
                break
            if not all(re.fullmatch(r":?-+:?", c) for c in cells):
                rows.append(dict(zip(header, map(_value, cells), strict=True)))
        if len(rows) >= 2:
            return rows
    return []


def _value(cell: str) -> Any:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def telling(rows: Sequence[Row], noise: random.Random | None) -> Row:
    """The first of those where most happens: an incident, then severity, then the motion that a caption speaks of, and what
    it measured otherwise than the caption before."""
    if not rows:
        return {}
    weights = [_weight(row) + _jump(before, row) for before, row in zip([rows[0], *rows], rows, strict=False)]
    noisy = [w * (1 + (noise.uniform(-0.15, 0.15) if noise else 0)) for w in weights]
    return rows[noisy.index(max(noisy))]


def _weight(row: Row) -> float:
    weight = 0.0
    for name, value in row.items():
        if isinstance(value, str) and (said := re.search(r"motion (\d+) ?%", value)):
            weight += float(said[1]) / 100
        elif isinstance(value, int | float) and re.search(r"incident|sever|hazard|risk|motion|score", name, re.I):
            weight += max(0.0, float(value)) * (10 if "incident" in name.lower() else 1)
    return weight


def _jump(before: Row, row: Row) -> float:
    """By how much shares changed from one row to the next: all that captions of single pictures tell of a motion."""
    one, other = _shares(before), _shares(row)
    return sum(abs(one.get(name, 0) - other.get(name, 0)) for name in one.keys() | other.keys()) / 100


def _shares(row: Row) -> dict[str, int]:
    texts = (value for value in row.values() if isinstance(value, str))
    return {name: int(share) for text in texts for name, share in re.findall(r"([a-z]+) (\d{1,3})%", text)}


__all__ = ["Row", "rows_in", "telling"]
