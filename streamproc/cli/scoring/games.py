"""Folders of games as columns: which games there are, what is true of them, what was predicted, what was looked at."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
import numpy as np

from streamproc.errors import Misconfigured, Rejected, did_you_mean
from streamproc.formats import coverage, soccernet, soccernet_columns
from streamproc.formats.problems import Problems
from streamproc.formats.soccernet import LABELS, Spot
from streamproc.formats.soccernet_columns import NONE, NUMBER, Columns
from streamproc.score.spots import Ints, Predictions, Stretches, Truth

Place = Path | zipfile.Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Games:
    """Games in order of name. Part 2 g + h - 1 is half h of game g, everywhere."""

    names: list[str]
    truth: Truth
    predictions: Predictions
    true_spans: Stretches
    """Of rows that have a stretch. Their part is part × classes + label: a span answers one of its half and label only."""
    said_spans: Stretches
    every: Sequence[str] = ()
    """All games that have labels, also those that are not looked at here."""
    problems: Problems = field(default_factory=Problems)

    def moment(self, part: int, time_ms: int) -> str:
        return f"{self.names[part // 2]} {soccernet.game_time(part % 2 + 1, time_ms)}"

    def some(self, numbers: Sequence[int]) -> Games:
        """Only these games, numbered anew."""
        place = np.full(len(self.names), NONE, np.int64)
        place[list(numbers)] = np.arange(len(numbers))

        def moved(part: Ints, *, parts: int) -> tuple[Ints, Ints]:
            """Rows that stay, by game, and their new parts; a game has so many."""
            at = place[part // parts]
            kept = np.flatnonzero(at != NONE)
            kept = kept[np.argsort(at[kept], kind="stable")]
            return kept, at[kept] * parts + part[kept] % parts

        def spans(of: Stretches) -> Stretches:
            kept, part = moved(of.part, parts=2 * len(LABELS))
            return Stretches(part=part, start_ms=of.start_ms[kept], end_ms=of.end_ms[kept])

        true, true_part = moved(self.truth.part, parts=2)
        said, said_part = moved(self.predictions.part, parts=2)
        return Games(
            names=[self.names[g] for g in numbers],
            truth=replace(self.truth.where(true), part=true_part),
            predictions=replace(self.predictions.where(said), part=said_part),
            true_spans=spans(self.true_spans),
            said_spans=spans(self.said_spans),
            every=self.every,
            problems=self.problems,
        )


def rows(by_game: Sequence[Sequence[Spot]]) -> Iterator[tuple[int, Spot]]:
    """(part, spot), in the order of the columns."""
    return ((2 * g + spot.half - 1, spot) for g, spots in enumerate(by_game) for spot in spots)


def read(labels: Path, predictions: Path, *, wanted: str | None = None) -> Games:
    """The games that the labels have, or those of them that are `wanted`, and what was predicted for them."""
    problems = Problems()
    names, true = labelled(labels, wanted=wanted, problems=problems)
    every = sorted(_files(labels, soccernet.LABELS_FILE))
    predicted, spans = said(predictions, names, every=every, problems=problems)
    return Games(
        names=names,
        truth=truth(true),
        predictions=predicted,
        true_spans=_true_spans(true),
        said_spans=spans,
        every=every,
        problems=problems,
    )


def labelled(labels: Path, *, wanted: str | None = None, problems: Problems) -> tuple[list[str], list[list[Spot]]]:
    """Names of the games, and what happens in each."""
    files = _files(labels, soccernet.LABELS_FILE)
    names = sorted(files) if wanted is None else chosen(sorted(files), wanted)
    true = []
    for name in names:
        spots = soccernet.read_labels(files[name].read_bytes(), file=str(files[name]), problems=problems)
        true.append(spots)
        if not spots:
            problems.add("game without a single label", str(files[name]))
    if not any(true):
        raise Misconfigured(f"{labels}: {len(names)} games without a single label; there is nothing to score against")
    return names, true


def truth(by_game: Sequence[Sequence[Spot]]) -> Truth:
    return Truth.of((part, NUMBER[s.label], s.time_ms, s.shown) for part, s in rows(by_game))


def _true_spans(by_game: Sequence[Sequence[Spot]]) -> Stretches:
    return Stretches.of(
        (part * len(LABELS) + NUMBER[s.label], s.start_ms, s.end_ms)
        for part, s in rows(by_game)
        if s.start_ms is not None and s.end_ms is not None
    )


def said(
    folder: Path, names: Sequence[str], *, every: Iterable[str], problems: Problems
) -> tuple[Predictions, Stretches]:
    """What was predicted for each of these games, and the spans of it. Files for games that nobody labelled are counted."""
    files = _files(folder, soccernet.PREDICTIONS_FILE)
    for name in sorted(files.keys() - set(every)):
        problems.add("predictions for a game without labels, left out", str(files[name]))
    found: list[tuple[int, Columns]] = []
    for g, name in enumerate(names):
        if name not in files:
            problems.add("game without predictions, scored as if nothing had been found", f"{folder}: {name}")
            continue
        data = files[name].read_bytes()
        found.append((g, soccernet_columns.read_predictions(data, file=str(files[name]), problems=problems)))
        if not len(found[-1][1]):
            problems.add("file without a single prediction", str(files[name]))
    if not found:
        raise Misconfigured(
            f"{folder}: no {soccernet.PREDICTIONS_FILE} for any of the {len(names)} games; first looked for {names[0]}/"
        )
    return _together(found)


def _together(found: Sequence[tuple[int, Columns]]) -> tuple[Predictions, Stretches]:
    part = np.concatenate([2 * g + of.half - 1 for g, of in found])
    label, time_ms = (np.concatenate([getattr(of, name) for _, of in found]) for name in ("label", "time_ms"))
    confidence = np.concatenate([of.confidence for _, of in found])
    start_ms, end_ms = (np.concatenate([getattr(of, name) for _, of in found]) for name in ("start_ms", "end_ms"))
    have = np.flatnonzero(start_ms != NONE)
    spans = part[have] * len(LABELS) + label[have]
    have, spans = (c[np.lexsort((start_ms[have], spans))] for c in (have, spans))
    return (
        Predictions(part=part, label=label, time_ms=time_ms, confidence=confidence),
        Stretches(part=spans, start_ms=start_ms[have], end_ms=end_ms[have]),
    )


def again(games: Games, folder: Path) -> Games:
    """The same games and labels with another run's predictions."""
    problems = Problems()
    predicted, spans = said(folder, games.names, every=games.every, problems=problems)
    return replace(games, predictions=predicted, said_spans=spans, problems=problems)


def chosen(names: Sequence[str], wanted: str) -> list[str]:
    """Games by a file with a name a line (or a JSON list of names), or by patterns with commas between."""
    file = Path(wanted)
    if not file.is_file():
        patterns = [p.strip() for p in wanted.split(",") if p.strip()]
        if not patterns:
            raise Misconfigured(f"'{wanted}' names no game; patterns with commas between them do, or a file of names")
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise Misconfigured(f"no game is called '{pattern}'{did_you_mean(pattern, names)}")
        return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
    listed = _listed(file)
    for name in listed:
        if name not in names:
            raise Misconfigured(f"{file}: no labels for a game '{name}'{did_you_mean(name, names)}")
    if not listed:
        raise Misconfigured(f"{file}: names no game")
    return sorted(set(listed))


def _listed(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
        listed = msgspec.json.decode(text, type=list[str]) if text.lstrip().startswith("[") else text.splitlines()
    except (UnicodeDecodeError, msgspec.DecodeError) as e:
        raise Rejected(f"{file}: neither a name a line nor a JSON list of names: {e}") from e
    return [name.strip() for name in listed if name.strip()]


def apart(games: Games, fit: str, test: str) -> tuple[Games, Games]:
    """The games to choose on and the games to report on; none may be both."""
    sets = [chosen(games.names, wanted) for wanted in (fit, test)]
    if both := sorted(set(sets[0]) & set(sets[1])):
        raise Misconfigured(
            f"{len(both)} games are in --fit and in --test, first {both[0]}: a fit is judged on games it has not seen"
        )
    first, second = (games.some([games.names.index(name) for name in names]) for names in sets)
    return first, second


# covered time -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was looked at, as far as coverage files say so. Halves without one count as not looked at."""

    covered: Stretches
    whole_ms: int
    halves: int
    """How many halves a file speaks of."""


def looked_at(folder: Path, names: Sequence[str]) -> Looked | None:
    """From FOLDER/GAME/1_…/coverage.json and 2_…; None where there is no such file at all."""
    if not folder.exists():
        raise Misconfigured(f"{folder}: no such folder, so it cannot say what was looked at")
    rows: list[tuple[int, int, int]] = []
    whole_ms = halves = 0
    for g, name in enumerate(names):
        for half in (1, 2):
            files = sorted(folder.glob(f"{_literal(name)}/{half}_*/{coverage.FILE}"))
            if not files:
                continue
            if len(files) > 1:
                raise Rejected(f"{name}: coverage of half {half} twice, {files[0]} and {files[1]}")
            covered, whole = coverage.looked_at(coverage.read(files[0].read_bytes(), file=str(files[0])))
            rows += [(2 * g + half - 1, lo, hi) for lo, hi in covered]
            whole_ms += whole.total
            halves += 1
    return Looked(covered=Stretches.of(rows), whole_ms=whole_ms, halves=halves) if halves else None


def _literal(name: str) -> str:
    """A name for a glob to take as it stands."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


# files --------------------------------------------------------------------------------------------------------------


def _files(folder: Path, name: str) -> dict[str, Place]:
    """Game → its file of this name, below a folder or in a zip file."""
    if not folder.exists():
        raise Misconfigured(f"{folder}: no such folder")
    if folder.is_dir():
        found: dict[str, Place] = {path.parent.relative_to(folder).as_posix(): path for path in _below(folder, name)}
    else:
        found = dict(_zipped(folder, name))
    if not found:
        raise Misconfigured(f"{folder}: no {name} in it or below it")
    return found


def _below(folder: Path, name: str) -> Iterator[Path]:
    """Games may be links, as data sets are often laid out; a link that leads nowhere is met when it is read."""
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here) + os.sep
        folders[:] = [f for f in folders if not real.startswith(os.path.realpath(os.path.join(here, f)) + os.sep)]
        if name in files or name in folders:
            yield Path(here, name)


def _zipped(file: Path, name: str) -> Iterator[tuple[str, Place]]:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as e:
        raise Rejected(f"{file}: neither a folder nor a zip file") from e
    for inside in archive.namelist():
        game, _, last = inside.rpartition("/")
        if last == name:
            yield game, zipfile.Path(archive, inside)


def length_ms(games: Games, looked: Looked | None) -> int:
    """How long everything is: what coverage says, else to the last label or prediction of each half."""
    if looked is not None:
        return looked.whole_ms
    ends = np.zeros(2 * len(games.names), np.int64)
    np.maximum.at(ends, games.truth.part, games.truth.time_ms)
    np.maximum.at(ends, games.predictions.part, games.predictions.time_ms)
    return int(ends.sum())
