"""What has landed, in the formats of others: rows of predictions, spots of a game, rows of a submission, rows of a table.

Each says what of a stream cannot be told in it; nothing is made up to fill a row but what stands for 'nothing' there.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from streamproc.errors import Misconfigured
from streamproc.formats import soccernet
from streamproc.formats.predictions import Said
from streamproc.formats.problems import Problems
from streamproc.formats.soccernet import Spot
from streamproc.formats.submission import KINDS, Clip
from streamproc.messages import Verdict
from streamproc.pipeline.exporting import Found, Landed

TOPICS: Final = {
    "json": ("events", "captions", "detections", "incidents", "descriptions", "verdicts"),
    "csv": ("events", "verdicts"),
    "predictions": ("events", "verdicts", "detections"),
    "spotting": ("events", "verdicts"),
    "2coool": ("incidents", "descriptions", "verdicts"),
}
"""Format → the topics it is made of."""

# predictions --------------------------------------------------------------------------------------------------------


def has_events(one: Landed) -> bool:
    """Some service makes events of what models see."""
    return "dedup" in one.source.services


def predictions(one: Landed, model: str | None) -> list[Said]:
    """A row an event that is believed: where its first window begins, and what was said of that window."""
    said = one.detections()
    rows = []
    for found in one.found():
        if not found.believed or not found.seen_by(model):
            continue
        first = min((v for v in found.event.votes if model in (None, v.model)), key=lambda v: (v.index, v.model))
        window = said.get((first.model, first.index))
        start_ms = found.event.start_ms if window is None or model is None else window.start_ms
        rows.append(Said(start_ms / 1000, (window and window.raw) or found.event.label))
    return sorted(rows, key=lambda row: row.time)


# games --------------------------------------------------------------------------------------------------------------


def games(streams: Iterable[Landed]) -> dict[str, dict[int, Landed]]:
    """Game → half → stream, of those that are halves of games."""
    found: dict[str, dict[int, Landed]] = {}
    for one in streams:
        if (half := soccernet.half_of(one.source.stream)) is None:
            continue
        halves = found.setdefault(half[0], {})
        if half[1] in halves:
            raise Misconfigured(
                f"'{halves[half[1]].source.stream}' and '{one.source.stream}' are the same half of one game; name the one that is meant"
            )
        halves[half[1]] = one
    return found


def spots(halves: dict[int, Landed], model: str | None, problems: Problems) -> list[Spot]:
    """Every event that is believed and that SoccerNet has a label for, half by half."""
    return [
        spot
        for half, one in sorted(halves.items())
        for found in one.found()
        if found.believed and found.seen_by(model)
        if (spot := _spot(half, found, model, problems)) is not None
    ]


def _spot(half: int, found: Found, model: str | None, problems: Problems) -> Spot | None:
    event = found.event
    label = soccernet.label_of(event.label)
    if label is None:
        problems.add("label that SoccerNet does not have, left out", f"{event.id} ('{event.label}')")
        return None
    return Spot(
        half=half,
        time_ms=event.time_ms,
        label=label,
        confidence=found.confidence(model),
        team=event.team,
        start_ms=event.start_ms,
        end_ms=event.end_ms,
    )


# clips --------------------------------------------------------------------------------------------------------------

NOTHING: Final = Clip(
    video="",
    start_frame=1,
    incident=-1,
    severity="0. No Crash",
    ego=0,
    label="unknown",
    cyclists=0,
    animals=0,
    pedestrians=0,
    vehicles=0,
    before="",
    reason="",
)
"""The row of a clip of which nothing is known: what `ensemble --rule fill` takes for a hole."""


@dataclass(frozen=True, slots=True)
class Row:
    """Of a submission."""

    clip: Clip
    lacks: str | None
    """What is not known of it."""


def is_described(one: Landed) -> bool:
    """A submission is made of what describers say."""
    return any(s.startswith("describe.") for s in one.source.services)


def clips(streams: Sequence[Landed], model: str | None) -> Iterator[Row]:
    """A row a stream; called by the last part of the name where that tells them apart."""
    last = [one.source.stream.rpartition("/")[2] for one in streams]
    alike = len(set(last)) < len(last)
    for one, name in zip(streams, last, strict=True):
        yield _row(one, one.source.stream if alike else name, model)


def _row(one: Landed, video: str, model: str | None) -> Row:
    fields = _described(one, model)
    if fields is None:
        return Row(_clip(video, {}), "nothing is known of it")
    incident = one.incident()
    if incident is not None and incident.frame is not None:
        fields = {"start_frame": incident.frame, **fields}
    lacking = [name for name in KINDS if not isinstance(fields.get(name), type(getattr(NOTHING, name)))]
    return Row(_clip(video, fields), f"no {', '.join(lacking)}" if lacking else None)


def _clip(video: str, fields: dict[str, Any]) -> Clip:
    """What is not said, or not of the kind, is as in a row of nothing."""
    nothing = {name: getattr(NOTHING, name) for name in KINDS}
    told = {name: fields[name] for name, empty in nothing.items() if isinstance(fields.get(name), type(empty))}
    return Clip(video=video, **nothing | told)


def _described(one: Landed, model: str | None) -> dict[str, Any] | None:
    """The verdict's fields; where nobody judges, or one model is asked for, those of a description."""
    if model is None and "ensemble" in {s.partition(".")[0] for s in one.source.services}:
        verdict = next((v for v in one.verdicts() if v.outcome == "done" and v.fields), None)
        if verdict is None:
            return None
        frame = {} if verdict.frame is None else {"start_frame": verdict.frame}
        return {**frame, **(verdict.fields or {})}
    order = [s for s in one.source.services if model is None or s.startswith(f"describe.{model}.")]
    told = [d for d in one.descriptions() if d.outcome == "done" and d.fields and d.service in order]
    return min(told, key=lambda d: order.index(d.service)).fields if told else None


# tables -------------------------------------------------------------------------------------------------------------

COLUMNS: Final = {
    "stream": "which stream",
    "id": "of the event; of a verdict on an incident its own",
    "label": "what it is",
    "team": "whose, where events have teams",
    "start_s": "where its first window begins, in seconds",
    "end_s": "where its last window ends",
    "time_s": "its moment",
    "frame": "the frame at which it begins, where frames are counted",
    "confidence": "of the verdict, else of the event",
    "found_by": "models that saw it, with blanks between",
    "outcome": "done: believed; skipped or failed: for the reason beside it; open: no verdict so far",
    "reason": "why it is not believed",
    "details": "what was said of it",
    "fields": "all else that the verdict says, as JSON",
}
"""Column → what stands in it."""
OWN: Final = ("team", "details", "reason")
"""Fields of a verdict that have a column."""


def table(streams: Iterable[Landed], model: str | None) -> bytes:
    """A row an event, or a verdict on an incident."""
    lines = io.StringIO(newline="")
    out = csv.DictWriter(lines, list(COLUMNS), lineterminator="\n")
    out.writeheader()
    for one in streams:
        found = [f for f in one.found() if f.seen_by(model)]
        out.writerows(_event(one, f, model) for f in found)
        judged = [v for v in one.verdicts() if _on_incident(v)]
        out.writerows(_incident(one, v) for v in judged if model is None or model in _models(v))
    return lines.getvalue().encode()


def _event(one: Landed, found: Found, model: str | None) -> dict[str, Any]:
    event, verdict = found.event, found.verdict
    return {
        "stream": one.source.stream,
        "id": event.id,
        "label": event.label,
        "team": event.team,
        "start_s": event.start_ms / 1000,
        "end_s": event.end_ms / 1000,
        "time_s": event.time_ms / 1000,
        "confidence": found.confidence(model),
        "found_by": " ".join(sorted({v.model for v in event.votes})),
        "outcome": verdict.outcome if verdict else "done" if event.state == "close" else "open",
        "reason": verdict.reason if verdict else None,
        "details": event.details,
        "fields": _rest(verdict),
    }


def _incident(one: Landed, verdict: Verdict) -> dict[str, Any]:
    said = verdict.fields or {}
    return {
        "stream": one.source.stream,
        "id": verdict.id,
        "label": verdict.label,
        "start_s": verdict.start_ms / 1000,
        "end_s": verdict.end_ms / 1000,
        "time_s": None if verdict.time_ms is None else verdict.time_ms / 1000,
        "frame": verdict.frame,
        "confidence": verdict.confidence,
        "found_by": " ".join(verdict.found_by or ()),
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "details": said.get("reason"),
        "fields": _rest(verdict),
    }


def _on_incident(verdict: Verdict) -> bool:
    return any(re.match(r"locate[./]", input_) for input_ in verdict.inputs or ())


def _models(verdict: Verdict) -> set[str]:
    """Describers are called after a model and a preset."""
    return {name.rpartition(".")[0] for name in verdict.found_by or ()}


def _rest(verdict: Verdict | None) -> str | None:
    rest = {name: value for name, value in ((verdict and verdict.fields) or {}).items() if name not in OWN}
    return json.dumps(rest, ensure_ascii=False) if rest else None
