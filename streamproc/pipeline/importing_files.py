"""Files of results as what a service of ours would have said of streams: an answer a number, from the first to the last.

    predictions   `[{"time", "raw"}]`: one stream; the text of a row is read as that of a model, by the task's labels
    spotting      results_spotting.json: two streams, the halves of a game; a spot lies in the window of its time
    2coool        a submission: a stream a clip, with the incident that its row names, and the row as a description

Several files are parts of one. What they do not speak of was looked at and nothing was there, for no such file says what
its model has not looked at; the longest silence is told, and whoever knows better imports less. No bus here.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from typing import Any

import msgspec

from streamproc.errors import Misconfigured, Rejected
from streamproc.formats import predictions, soccernet, submission
from streamproc.formats.predictions import Said
from streamproc.formats.problems import Problems
from streamproc.formats.soccernet import Spot
from streamproc.formats.submission import Clip
from streamproc.messages import Answer, Description, Detection, Grid, Incident, Sighting, Window
from streamproc.models.reply import Sample
from streamproc.stages import detect
from streamproc.task import Sampling, Task
from streamproc.video.recipe import grid_of, sampling_of
from streamproc.video.sources import check
from streamproc.wire import topic_of

HALVES = {1: "1_half", 2: "2_half"}
"""What a game's streams are called."""
ROW = "row"
"""The preset of a describer that is a file."""
MOST = 1_000_000
"""Windows of one stream: more than three weeks of them."""
ENVELOPE_BYTES = 4096
"""Of a record, at most: its id, its service, and who published it."""
CLIP_MS = 1000
"""Nobody says how long a clip is: each counts as a second."""


class Format(StrEnum):
    predictions = "predictions"
    spotting = "spotting"
    submission = "2coool"


@dataclass(frozen=True, slots=True)
class File:
    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """One stream, as the files tell it."""

    stream: str
    format: Format
    model: str
    task: Task
    """With the stages alone that such results go through."""
    grid: Grid
    said: Mapping[str, Sequence[Answer]]
    """Service → its answers by number. Who speaks, and of which life, is filled in where they are published."""
    digest: str


def services(format_: Format, models: Sequence[str]) -> tuple[str, ...]:
    """Those that have spoken once results of these models are there."""
    if format_ is Format.submission:
        return ("locate", *(f"describe.{model}.{ROW}" for model in models))
    return tuple(f"detect.{model}" for model in models)


def guessed(file: File) -> Format:
    """By what is in it."""
    if file.name.lower().endswith(".csv") or file.data.removeprefix(b"\xef\xbb\xbf").startswith((b"video", b'"video"')):
        return Format.submission
    return Format.spotting if file.data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else Format.predictions


def brought(
    files: Sequence[File], format_: Format, *, stream: str, model: str, task: Task, say: Callable[[str], None]
) -> list[Brought]:
    """Every stream of the files, in their order. `say` is told what is odd, and stops nothing."""
    read = {
        Format.predictions: _predictions,
        Format.spotting: _spotting,
        Format.submission: _submission,
    }[format_]
    check(stream, remedy="give another with --as")
    only, grid = _task(task, format_, [model]), _grid(task, format_)
    found = read(files, stream, model, only, grid, say)
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(hashlib.blake2b(file.data).digest())
    made = []
    for name, said in found.items():
        check(name, remedy="streams are called after --as and the videos of the file")
        _fits(said)
        made.append(
            Brought(
                stream=name,
                format=format_,
                model=model,
                task=only,
                grid=grid,
                said=said,
                digest=digest.hexdigest(),
            )
        )
    return made


def _fits(said: Mapping[str, Sequence[Answer]]) -> None:
    """Each answer into a record of its topic, before any of them is published."""
    for answer in (a for answers in said.values() for a in answers):
        most = topic_of(type(answer)).max_bytes
        if (size := len(msgspec.json.encode(answer)) + ENVELOPE_BYTES) > most:
            at = f"{answer.stream} at {answer.start_ms / 1000:g} s"
            raise Rejected(f"{at}: {size} bytes of text, where {most} are allowed")


def with_models(task: Task, format_: Format, models: Sequence[str]) -> Task:
    """The same task with results of these."""
    return _task(task, format_, models)


def _task(task: Task, format_: Format, models: Sequence[str]) -> Task:
    off = dict.fromkeys(("context", "caption", "locate"))
    by, other = ("describe", "detect") if format_ is Format.submission else ("detect", "describe")
    section = getattr(task, by)
    if section is None:
        raise Misconfigured(
            f"the task '{task.name}' has no stage '{by}', through which results of the format {format_} go; "
            "name another with --task"
        )
    changes: dict[str, Any] = {**off, other: None, by: section.model_copy(update={"models": tuple(models)})}
    if format_ is Format.submission:
        changes |= {"dedup": None, "sampling": Sampling(fps="1")}  # frames of a file that is not here cannot be timed
    return task.model_copy(update=changes)


def _grid(task: Task, format_: Format) -> Grid:
    if format_ is Format.submission:
        return grid_of(Sampling(fps="1").model_dump())
    return grid_of(task.sampling.model_dump())


def _at(stream: str, index: int, start_ms: int, end_ms: int) -> dict[str, Any]:
    """The envelope, as far as a file tells it."""
    return {
        "id": "",
        "service": "",
        "root": "",
        "stream": stream,
        "generation": 0,
        "revision": 0,
        "index": index,
        "start_ms": start_ms,
        "end_ms": end_ms,
        "outcome": "done",
    }


# windows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Windows:
    """Which window a time lies in, and what is said of those that nobody speaks of."""

    stream: str
    grid: Grid
    length_ms: int

    @classmethod
    def of(cls, stream: str, task: Task, grid: Grid) -> Windows:
        return cls(stream, grid, round(1000 * sampling_of(task.sampling.model_dump(), grid).length_s))

    def index(self, time_s: Fraction, place: str) -> int:
        index = int(time_s / Fraction(self.grid.step))
        if index >= MOST:
            raise Rejected(f"{place}: time {float(time_s):g} is window {index} of its stream; it may have {MOST}")
        return index

    def silent(self, index: int) -> Detection:
        """Looked at, nothing there."""
        start_ms = self.grid.starts_ms(index)
        return Detection(**_at(self.stream, index, start_ms, start_ms + self.length_ms), events=(), how="not named")

    def all(self, found: Mapping[int, Detection]) -> list[Answer]:
        return [found.get(i) or self.silent(i) for i in range(max(found, default=-1) + 1)]


def silent(stream: str, index: int, task: Task, grid: Grid) -> Detection:
    """What is said of a window that other models of the stream have, and these files do not reach."""
    return Windows.of(stream, task, grid).silent(index)


def _predictions(
    files: Sequence[File], stream: str, model: str, task: Task, grid: Grid, say: Callable[[str], None]
) -> dict[str, dict[str, Sequence[Answer]]]:
    windows = Windows.of(stream, task, grid)
    rows: dict[int, list[Said]] = defaultdict(list)
    for file in files:
        for number, row in enumerate(predictions.read(file.data, file=file.name), start=1):
            rows[windows.index(Fraction(repr(row.time)), f"{file.name} row {number}")].append(row)
    if not rows:
        raise Rejected(f"{files[0].name}: no rows; there is nothing to import")
    found = {index: _detection(windows, index, said, task, model) for index, said in sorted(rows.items())}
    unread = [d for d in found.values() if d.outcome == "failed"]
    if unread:
        say(
            f"{stream}: the text of {len(unread)} windows cannot be read; the first is at {unread[0].start_ms / 1000:g} s"
        )
    _tell_silence(windows, sorted(rows), say)
    return {stream: {f"detect.{model}": windows.all(found)}}


def _detection(windows: Windows, index: int, rows: Sequence[Said], task: Task, model: str) -> Detection:
    """One answer a window; where rows begin in between, its stretch is theirs."""
    assert task.detect is not None, "`_task` has seen to it"
    starts = [round(1000 * row.time) for row in rows]
    place = _at(windows.stream, index, min(starts), max(starts) + windows.length_ms)
    events: list[Sighting] = []
    hows: list[str] = []
    read = 0
    for row, start_ms in zip(rows, starts, strict=True):
        window = Window(**_at(windows.stream, index, start_ms, start_ms + windows.length_ms))
        sample = Sample(text=row.raw, finish="stop")
        seen = detect.read([sample], task.detect, task.labels, window, question="")
        hows.append(seen.how)
        if seen.events is not None:
            read += 1
            events += [_timed(event, window, alone=len(rows) == 1) for event in seen.events]
    if read < len(rows) > 1:
        hows.append(f"{len(rows) - read} of {len(rows)} texts unreadable")
    raw = rows[0].raw if len(rows) == 1 else msgspec.json.encode([row.raw for row in rows]).decode()
    spoke: dict[str, Any] = {"model": model, "raw": raw, "how": "; ".join(dict.fromkeys(hows))}
    if not read:
        return Detection(**place | {"outcome": "failed", "reason": "unreadable"}, **spoke)
    return Detection(**place, **spoke, events=tuple(events))


def _timed(event: Sighting, window: Window, *, alone: bool) -> Sighting:
    """Of several rows in one window each keeps its own moment."""
    if alone or event.time_ms is not None:
        return event
    return msgspec.structs.replace(event, time_ms=(window.start_ms + window.end_ms) // 2)


def _tell_silence(windows: Windows, spoken: Sequence[int], say: Callable[[str], None]) -> None:
    silences = [(b - a, a + 1, b) for a, b in pairwise([-1, *spoken]) if b - a > 1]
    if silences:
        _, begin, until = max(silences, key=lambda s: (s[0], -s[1]))
        starts = windows.grid.starts_ms
        say(
            f"{windows.stream}: {spoken[-1] + 1} windows, {len(spoken)} of them named. What is not is taken for seen, and for "
            f"nothing; at most {(starts(until) - starts(begin)) / 1000:g} s at a stretch, from {starts(begin) / 1000:g} s"
        )


# halves of a game ---------------------------------------------------------------------------------------------------


def _spotting(
    files: Sequence[File], stream: str, model: str, task: Task, grid: Grid, say: Callable[[str], None]
) -> dict[str, dict[str, Sequence[Answer]]]:
    problems = Problems()
    known = {name.casefold() for name in task.labels.names}
    spots: list[Spot] = []
    for file in files:
        for spot in soccernet.read_predictions(file.data, file=file.name, problems=problems):
            if known and spot.label.casefold() not in known:
                problems.add("label that the task does not have, left out", f"{file.name} ('{spot.label}')")
                continue
            spots.append(spot)
    for line in problems.lines():
        say(line)
    if not spots:
        raise Rejected(f"{files[0].name}: no prediction that could be taken over")
    return {
        f"{stream}/{name}": {
            f"detect.{model}": _half(
                Windows.of(f"{stream}/{name}", task, grid), [s for s in spots if s.half == half], model
            )
        }
        for half, name in HALVES.items()
    }


def _half(windows: Windows, spots: Iterable[Spot], model: str) -> list[Answer]:
    by_window: dict[int, list[Spot]] = defaultdict(list)
    for spot in spots:
        by_window[windows.index(Fraction(spot.time_ms, 1000), windows.stream)].append(spot)
    return windows.all({index: _spotted(windows, index, said, model) for index, said in by_window.items()})


def _spotted(windows: Windows, index: int, spots: Sequence[Spot], model: str) -> Detection:
    start_ms = windows.grid.starts_ms(index)
    events = tuple(
        Sighting(label=s.label, team=s.team, confidence=s.confidence, time_ms=s.time_ms)
        for s in sorted(spots, key=lambda s: (s.time_ms, s.label))
    )
    raw = [_as_said(event, start_ms) for event in events]
    return Detection(
        **_at(windows.stream, index, start_ms, start_ms + windows.length_ms),
        model=model,
        raw=msgspec.json.encode(raw).decode(),
        events=events,
    )


def _as_said(event: Sighting, start_ms: int) -> dict[str, Any]:
    """As a model would have written it, since such a file has no text of its own."""
    team = {"team": event.team} if event.team else {}
    assert event.time_ms is not None, "a spot has a time"
    time = (event.time_ms - start_ms) / 1000
    return {"label": event.label, **team, "confidence": event.confidence, "time": time}


# clips --------------------------------------------------------------------------------------------------------------


def _submission(
    files: Sequence[File],
    stream: str,
    model: str,
    task: Task,
    grid: Grid,  # noqa: ARG001  # clips are no windows
    say: Callable[[str], None],  # noqa: ARG001  # nothing of a submission is left out
) -> dict[str, dict[str, Sequence[Answer]]]:
    labels = _labels(task)
    found: dict[str, dict[str, Sequence[Answer]]] = {}
    for file in files:
        for clip in submission.read(file.data, file=file.name, labels=labels):
            name = f"{stream}/{clip.video}"
            if name in found:
                raise Rejected(f"{file.name}: video {clip.video} stands in a file before it already")
            found[name] = _clip(name, clip, model)
    if not found:
        raise Rejected(f"{files[0].name}: no clip; there is nothing to import")
    return found


def _labels(task: Task) -> Sequence[str]:
    """Of the field that describers answer with; the list that a row's label must be of."""
    assert task.describe is not None, "`_task` has seen to it"
    declared = [one.fields["label"] for one in task.describe.rounds if "label" in (one.fields or {})]
    return tuple(declared[0].get("enum", ())) if declared else ()


def _clip(name: str, clip: Clip, model: str) -> dict[str, Sequence[Answer]]:
    fields = {field: value for field, value in asdict(clip).items() if field != "video"}
    place = _at(name, 0, 0, CLIP_MS)
    row = msgspec.json.encode(fields).decode()
    located, described = services(Format.submission, [model])
    return {
        located: [Incident(**place, frame=clip.start_frame)],
        described: [Description(**place, model=model, raw=row, fields=fields, preset=ROW)],
    }
