"""The change of each score from one stream to another, where somebody knows what is true, and how far it can be trusted.

There is one pair of streams and not many games, so what is drawn anew for the intervals are stretches of their common time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from streamproc.errors import Misconfigured
from streamproc.formats import soccernet
from streamproc.formats.problems import Problems
from streamproc.pipeline.diff import Item
from streamproc.ranges import Ranges
from streamproc.score.bootstrap import Interval, compare
from streamproc.score.detection import match, share
from streamproc.score.spots import Floats, Predictions, Truth

BLOCKS: Final = 20
LONGEST_MS, SHORTEST_MS = 60_000, 1_000
"""Of a stretch; there are about so many of them, or more."""
FEWEST: Final = 2
"""Of one stretch alone nothing can be drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Of one score."""

    name: str
    first: float
    second: float
    interval: Interval | None
    """Of second minus first; None where there is too little to draw from."""
    p: float | None

    @property
    def difference(self) -> float:
        return self.second - self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    label: str
    time_ms: int


def scored(
    truth: Sequence[Label],
    first: Sequence[Item],
    second: Sequence[Item],
    common: Ranges,
    *,
    within_ms: int,
    draws: int,
    seed: int,
) -> list[Change]:
    """Precision, recall and F1 of both, over their common time."""
    known = [t for t in truth if common.has(t.time_ms, t.time_ms + 1)]
    block_ms = max(SHORTEST_MS, min(LONGEST_MS, common.total // BLOCKS))
    blocks = sorted({b for lo, hi in common for b in range(lo // block_ms, (hi - 1) // block_ms + 1)})
    if not blocks:
        return []
    counted = [_counted(known, items, blocks, block_ms=block_ms, within_ms=within_ms) for items in (second, first)]
    both, units = np.vstack(counted), len(blocks)

    def statistic(weights: Floats) -> dict[str, Floats]:
        labels, predicted, found, right = (weights @ both).T
        # A label and what found it may lie in two stretches, so F1 is made of the other two.
        precision, recall = share(right, predicted), share(found, labels)
        return {"precision": precision, "recall": recall, "F1": share(2 * precision * recall, precision + recall)}

    one = statistic(np.hstack([np.zeros((1, units)), np.ones((1, units))]))
    other = statistic(np.hstack([np.ones((1, units)), np.zeros((1, units))]))
    moved = compare(statistic, units=units, count=draws, seed=seed) if units >= FEWEST and draws else {}
    return [
        Change(
            name=name,
            first=float(one[name][0]),
            second=float(other[name][0]),
            interval=moved[name].interval if moved else None,
            p=float(moved[name].p) if moved else None,
        )
        for name in one
    ]


def _counted(
    known: Sequence[Label], items: Sequence[Item], blocks: Sequence[int], *, block_ms: int, within_ms: int
) -> Floats:
    """(blocks, 4): labels, predictions, labels that were found, predictions that were right."""
    names = {
        name: i
        for i, name in enumerate(
            dict.fromkeys([t.label.casefold() for t in known] + [i.label.casefold() for i in items])
        )
    }
    truth = Truth.of((0, names[t.label.casefold()], t.time_ms, True) for t in known)
    said = Predictions.of(
        (0, names[i.label.casefold()], i.time_ms, 1.0 if i.confidence is None else i.confidence) for i in items
    )
    matched = match(truth, said, within_ms=within_ms, classes=max(1, len(names)))
    place = {block: row for row, block in enumerate(blocks)}
    table = np.zeros((len(blocks), 4))
    for row, label in enumerate(known):
        table[place[label.time_ms // block_ms], [0, 2]] += (1, matched.taken[row] >= 0)
    for row, item in enumerate(items):
        table[place[item.time_ms // block_ms], [1, 3]] += (1, matched.hit[row])
    return table


# labels -------------------------------------------------------------------------------------------------------------


def labels(path: Path, stream: str, problems: Problems) -> list[Label]:
    """What is true of a stream: a Labels-v2.json, of the half that the stream is named for; or a list of rows with `label`
    and `time_ms`, `time` in seconds, or `start_ms` and `end_ms`. Of a folder the file of the game, or of the stream."""
    base = stream.partition("@")[0]
    file = _file(path, base) if path.is_dir() else path
    try:
        said = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise Misconfigured(f"labels '{file}' cannot be read: {e}") from e
    if isinstance(said, dict) and "annotations" in said:
        spots = soccernet.read_labels(file.read_bytes(), file=str(file), problems=problems)
        whose = soccernet.half_of(base)
        halves = {s.half for s in spots}
        if whose is None and len(halves) > 1:
            raise Misconfigured(f"labels '{file}' are of two halves, and '{base}' names neither: GAME/1_… is the first")
        return [Label(label=s.label, time_ms=s.time_ms) for s in spots if whose is None or s.half == whose[1]]
    if not isinstance(said, list):
        raise Misconfigured(f"labels '{file}': neither a Labels-v2.json nor a list of rows with label and time_ms")
    return [_row(row, f"labels '{file}', row {n}") for n, row in enumerate(said, 1)]


def _file(folder: Path, base: str) -> Path:
    whose = soccernet.half_of(base)
    tried: Iterable[Path] = [folder / f"{base}.json", folder / base / soccernet.LABELS_FILE]
    tried = [*([folder / whose[0] / soccernet.LABELS_FILE] if whose else []), *tried]
    for file in tried:
        if file.is_file():
            return file
    raise Misconfigured(f"--labels {folder}: there is none of {', '.join(str(f.relative_to(folder)) for f in tried)}")


def _row(row: Any, where: str) -> Label:
    label = row.get("label") if isinstance(row, dict) else None
    if not isinstance(label, str):
        raise Misconfigured(f"{where}: a row has a label")
    at = row.get("time_ms", 1000 * t if isinstance(t := row.get("time"), int | float) else None)
    if at is None and "start_ms" in row and "end_ms" in row:
        try:
            at = (row["start_ms"] + row["end_ms"]) / 2
        except TypeError:
            at = None
    if not isinstance(at, int | float) or isinstance(at, bool) or not 0 <= at < 2**53:
        raise Misconfigured(f"{where}: no time_ms, time, or start_ms and end_ms from 0 on")
    return Label(label=label, time_ms=round(at))
