"""Events of `run --out` folders as predictions whose confidence is agreement: how many models saw them, in how many windows.

It is the number that the ensemble computes when its calibration is one of agreement, so a fit means the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from streamproc.cli.scoring import games as folders
from streamproc.cli.scoring.games import Games
from streamproc.errors import Misconfigured, Rejected
from streamproc.formats import soccernet
from streamproc.formats.problems import Problems
from streamproc.formats.soccernet_columns import NUMBER
from streamproc.messages import Life
from streamproc.score.spots import Predictions, Stretches
from streamproc.stages.ensemble.votes import agreed

FILE = "events.json"


def read(labels: Path, folder: Path) -> Games:
    """The games that the labels have, and the events of their halves, from FOLDER/GAME/1_…/events.json."""
    problems = Problems()
    names, true = folders.labelled(labels, problems=problems)
    if not (files := sorted(folder.rglob(FILE))):
        raise Misconfigured(
            f"{folder}: no {FILE} below it; agreement needs a `run --out` folder, or two --predictions or more"
        )
    rows: list[tuple[int, int, int, float]] = []
    halves: dict[int, Path] = {}
    for file in files:
        half = soccernet.half_of(file.parent.relative_to(folder).as_posix())
        if half is None or half[0] not in names:
            problems.add("events of a stream that is no half of a game with labels, left out", str(file))
            continue
        part = 2 * names.index(half[0]) + half[1] - 1
        if part in halves:
            raise Rejected(f"{half[0]}: half {half[1]} twice, {halves[part]} and {file}")
        halves[part] = file
        rows += _rows(file, part, problems)
    for part in sorted(set(range(2 * len(names))) - halves.keys()):
        problems.add("half without events, scored as if nothing had been found", f"{names[part // 2]} {part % 2 + 1}")
    if not halves:
        raise Misconfigured(f"{folder}: no events of a stream GAME/1_… or GAME/2_… with labels in {labels}")
    return Games(
        names=names,
        truth=folders.truth(true),
        predictions=Predictions.of(rows),
        true_spans=Stretches.of([]),
        said_spans=Stretches.of([]),
        every=names,
        problems=problems,
    )


def _rows(file: Path, part: int, problems: Problems) -> Iterator[tuple[int, int, int, float]]:
    last: dict[str, Life] = {}
    for number, row in enumerate(_decoded(file), start=1):
        try:
            life = msgspec.convert(row, Life)
        except msgspec.ValidationError as e:
            raise Rejected(f"{file} row {number}: {e}") from e
        label = soccernet.label_of(life.label)
        if label is None:
            problems.add("label unknown, left out", f"{file} row {number} ('{life.label}')")
        elif life.id not in last or last[life.id].revision <= life.revision:
            last[life.id] = msgspec.structs.replace(life, label=label)
    for life in last.values():
        seen = {(vote.model, vote.index) for vote in life.votes}
        looked = {vote.model for vote in life.votes} | set(life.looked)
        yield part, NUMBER[life.label], life.time_ms, agreed(seen, looked=len(looked))


def _decoded(file: Path) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[dict[str, Any]])
    except (msgspec.DecodeError, RecursionError) as e:
        raise Rejected(f"{file}: {e}") from e
