"""What a run or a model saw, out of whatever file it is in: games of results_spotting.json, `run --out` folders,
detections.jsonl, the `[{"time", "raw"}]` that others write; or streams of a bus. All of it as one kind of row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streamproc.cli.frame import opened, run
from streamproc.errors import Misconfigured, Rejected
from streamproc.formats import predictions, soccernet
from streamproc.formats.problems import Problems
from streamproc.messages import Sighting
from streamproc.models.recovery.events import events
from streamproc.models.recovery.labels import OTHER, Labels

if TYPE_CHECKING:
    from streamproc.messages import Life
    from streamproc.settings import Settings

SOCCER = Labels(soccernet.LABELS, soccernet.SPELLINGS)


class Seen(NamedTuple):
    """One event that a run or model speaks of."""

    stream: str
    """Without the '@trial' of a replay; '' where the file is about one stream and does not say which."""
    time_ms: int
    label: str
    team: str | None
    confidence: float | None
    text: str | None
    model: str | None
    place: str
    """File and row."""
    found_by: tuple[str, ...] = ()
    """Of an event that several models may have seen: those that did …"""
    looked: tuple[str, ...] = ()
    """… and all that looked."""

    def plain(self) -> dict[str, Any]:
        return {key: value for key, value in self._asdict().items() if value not in (None, ())}


class Window(msgspec.Struct, kw_only=True):
    """A line of detections.jsonl, as far as it is looked at here."""

    stream: str
    service: str | None = None
    index: int = 0
    start_ms: int
    end_ms: int
    outcome: str
    events: list[Sighting] | None = None
    reason: str | None = None
    until_index: int | None = None
    count: int | None = None
    model: str | None = None
    how: str | None = None


class _Vote(msgspec.Struct, kw_only=True):
    model: str


class _Life(msgspec.Struct, kw_only=True):
    id: str
    revision: int = 0
    label: str
    time_ms: int
    team: str | None = None
    confidence: float | None = None
    details: str | None = None
    votes: list[_Vote] = []
    looked: list[str] = []


class _Event(msgspec.Struct, kw_only=True):
    stream: str = ""
    event: _Life | None = None


def read(path: Path, problems: Problems) -> list[Seen]:
    """Everything in a file, or below a folder."""
    if not path.exists():
        raise Misconfigured(f"{path}: no such file or folder")
    rows = [row for file in _files(path) for row in _file(file, path, problems)]
    if not rows:
        problems.add("no event in it", str(path))
    return rows


def windows(path: Path) -> Iterator[tuple[str, Window]]:
    """(place, window) of a detections.jsonl, or of all below a folder; gaps among them, but not the end of a stream."""
    files = sorted(path.rglob("detections.jsonl")) if path.is_dir() else [path]
    if not files:
        raise Misconfigured(f"{path}: no detections.jsonl below it")
    for file in files:
        for place, window in _lines(file):
            if window.count is None:
                yield place, window


def _lines(file: Path) -> Iterator[tuple[str, Window]]:
    decoder = msgspec.json.Decoder(Window)
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield f"{file} row {number}", decoder.decode(line)
                except msgspec.DecodeError as e:
                    raise Rejected(f"{file} row {number}: {e}") from e


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    for name in (soccernet.PREDICTIONS_FILE, "events.json", "detections.jsonl"):
        if found := sorted(path.rglob(name)):
            return found
    raise Misconfigured(f"{path}: no {soccernet.PREDICTIONS_FILE}, events.json or detections.jsonl below it")


def _file(file: Path, root: Path, problems: Problems) -> Iterator[Seen]:
    if file.suffix == ".jsonl":
        return _detections(file)
    data = file.read_bytes()
    try:
        document = msgspec.json.decode(data)
    except msgspec.DecodeError as e:
        raise Rejected(f"{file}: {e}") from e
    first = document[0] if isinstance(document, list) and document else {}
    if isinstance(document, dict) and "predictions" in document:
        game = file.parent.relative_to(root).as_posix() if root.is_dir() else ""
        return _spots(data, file, game, problems)
    if isinstance(first, dict) and "raw" in first:
        return _said(data, file, problems)
    if isinstance(document, list) and all(
        isinstance(row, dict) and ("event" in row or "id" in row) for row in document
    ):
        return _events(document, file)
    raise Rejected(f"{file}: neither results_spotting.json, nor events.json, nor a list of {{'time', 'raw'}}")


def _spots(data: bytes, file: Path, game: str, problems: Problems) -> Iterator[Seen]:
    for number, spot in enumerate(soccernet.read_predictions(data, file=str(file), problems=problems), start=1):
        yield Seen(
            f"{game}/{spot.half}",
            spot.time_ms,
            spot.label,
            spot.team,
            spot.confidence,
            None,
            None,
            f"{file} prediction {number}",
        )


def _said(data: bytes, file: Path, problems: Problems) -> Iterator[Seen]:
    for number, row in enumerate(predictions.read(data, file=str(file)), start=1):
        place = f"{file} row {number}"
        answer = events(row.raw, SOCCER)
        if answer.outcome == "unreadable":
            problems.add("text that cannot be read as events", place)
        for event in answer.events:
            label = event.said or event.label if event.label == OTHER else event.label
            yield Seen("", round(1000 * row.time), label, event.team, event.confidence, event.details, None, place)


def _events(document: list[dict[str, Any]], file: Path) -> Iterator[Seen]:
    """The last revision of each event: records with an event inside, or the events themselves."""
    last: dict[str, tuple[int, Seen]] = {}
    for number, row in enumerate(document, start=1):
        place = f"{file} row {number}"
        try:
            record = msgspec.convert(row, _Event) if "event" in row else _Event(event=msgspec.convert(row, _Life))
        except msgspec.ValidationError as e:
            raise Rejected(f"{place}: {e}") from e
        if (life := record.event) is None:
            continue
        stream = plainly(record.stream or life.id.rpartition("/")[0])
        if life.id not in last or last[life.id][0] <= life.revision:
            last[life.id] = (life.revision, _seen(life, stream, place))
    return (seen for _, seen in last.values())


def _seen(life: _Life | Life, stream: str, place: str) -> Seen:
    by = tuple(dict.fromkeys(vote.model for vote in life.votes))
    looked = tuple(life.looked)
    return Seen(stream, life.time_ms, life.label, life.team, life.confidence, life.details, None, place, by, looked)


def _detections(file: Path) -> Iterator[Seen]:
    for place, window in _lines(file):
        middle = (window.start_ms + window.end_ms) // 2
        for event in window.events or ():
            at = middle if event.time_ms is None else event.time_ms
            yield Seen(
                plainly(window.stream),
                at,
                event.label,
                event.team,
                event.confidence,
                event.details,
                window.model,
                place,
            )


def plainly(stream: str) -> str:
    """Repeats and replays are of the same as what they repeat."""
    return stream.partition("@")[0]


def game_of(stream: str) -> str:
    """GAME of GAME/1_720p and of GAME/1, as SoccerNet's files have it: what happens in two halves hangs together."""
    half = soccernet.half_of(stream) or soccernet.half_of(f"{stream}_half")
    return half[0] if half else stream


# streams ------------------------------------------------------------------------------------------------------------


def on_bus(told: Settings, names: Sequence[str], problems: Problems) -> dict[str, list[Seen]]:
    """Stream → its events as they stand."""
    from streamproc.pipeline import exporting
    from streamproc.pipeline.exporting import Landed
    from streamproc.pipeline.progress import followed
    from streamproc.settings import EmbeddedAt, parse_bus

    at = parse_bus(told.bus)
    if isinstance(at, EmbeddedAt) and not at.path.exists():
        raise Misconfigured(
            f"{names[0]}: no such file or folder, and no bus at {at.path} that could have such a stream"
        )

    async def landed() -> list[Landed]:
        async with opened(told) as bus, followed(bus) as progress:
            return await exporting.landed(bus, progress, await exporting.chosen(bus, names), ["events"])

    found = {one.source.stream: [f.event for f in one.found()] for one in run(landed())}
    for name in [name for name, lives in found.items() if not lives]:
        problems.add("no event in it", name)
    return {name: [_seen(life, plainly(name), life.id) for life in lives] for name, lives in found.items()}
