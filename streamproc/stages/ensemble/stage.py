"""The stage: a verdict on every incident, and on every event when it closes, of all that models and describers said of it.

An event's verdict says who found it (`votes`); what is described of it, or of an incident, becomes one row of fields by the
task's rule: `vote` over describers, `fill` the holes of the first from the next, or `cluster` (one call of a text model,
which decides start frame and sentences; the rest is the most frequent). What several `detect` services see of one moment
was brought together by dedup, and nothing is matched here again.

A verdict keeps the step of what it judges: what is open, failed or missing has a skipped or failed one with the reason. So
has an event that too few have seen, or that falls short of its label's threshold; its fields and confidence still say why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from streamproc.messages import Description, Event, Incident, Life, Outcome, Record, Source, Verdict
from streamproc.models.call import Answer, Call
from streamproc.models.vote import Kind, kinds_of
from streamproc.stage import Fold, Look, Row
from streamproc.stages.asking import Models, ask
from streamproc.stages.ensemble import rows, votes
from streamproc.stages.ensemble.cluster import PROMPT, SYSTEM, Asked
from streamproc.stages.ensemble.described import Described, by_cluster, by_filling, by_vote
from streamproc.stages.ensemble.votes import Calibration, Probability
from streamproc.stages.options import Asking, ModelName, Text, Told
from streamproc.stages.reasons import NOT_CLOSED

TOO_FEW: Final = "too-few-models"
BELOW: Final = "below-threshold"
UNDESCRIBED: Final = "undescribed"

DETECT, DEDUP, LOCATE, DESCRIBE = "detect.", "dedup", "locate", "describe."


class Options(Asking):
    """[ensemble]"""

    VARIABLES: ClassVar[Mapping[str, str]] = {
        "inputs": "the descriptions, a line of JSON each",
        "words": "how many words both sentences may have together",
    }

    rule: Literal["vote", "fill", "cluster"] = Field(
        "vote",
        description="How descriptions become one: by vote; the first with its holes filled; or a text model's majority cluster.",
    )
    model: ModelName | None = Field(None, description="`cluster`: the text model that is asked.")
    over: Literal["events", "incidents"] | None = Field(
        None,
        description="What is judged, where the task has both; absent: incidents where it locates any, else events.",
    )
    at_least: int = Field(1, ge=1, le=64, description="Models that must have seen an event.")
    thresholds: dict[str, Probability] = Field(
        {}, description="Label → the confidence it needs; the file that `score thresholds --out` writes."
    )
    calibration: Calibration | None = Field(
        None, description="What a confidence is worth; the file that `score calibration --out` writes."
    )
    hole: dict[str, Any] = Field(
        dict(rows.HOLE), description="`fill`: what a description says that saw nothing; it gives way to the next."
    )
    system: Text = Field(SYSTEM, description="`cluster`: stands before everything else.")
    prompt: Text = Field(PROMPT, description="`cluster`: what is asked.")
    words: int = Field(30, ge=2, le=1000, description="`cluster`: of both sentences together, at most.")
    again: int = Field(
        1, ge=0, le=8, description="`cluster`: how often an answer that breaks the rules is asked for anew."
    )
    max_tokens: int = Field(4096, ge=1, le=65_536, description="Of one answer; models that think need many.")

    @model_validator(mode="before")
    @classmethod
    def _a_model_where_one_is_asked(cls, told: Any) -> Any:
        """Nobody's model is the observer, as in every task."""
        if isinstance(told, dict) and told.get("rule") == "cluster" and not told.get("model"):
            return {**told, "model": "observer"}
        return told

    @model_validator(mode="after")
    def _and_none_where_none_is(self) -> Options:
        if self.model is not None and self.rule != "cluster":
            raise ValueError(f"rule '{self.rule}' asks no model; 'cluster' does")
        return self

    def asked(self) -> Asked:
        return Asked(
            system=self.system,
            prompt=self.prompt,
            words=self.words,
            again=self.again,
            samples=self.samples,
            max_tokens=self.max_tokens,
            params=self.params(),
        )


class Ensemble(Fold):
    reads, writes = ("incidents", "events", "descriptions"), ("verdicts",)

    def __init__(self, model: str | None = None, models: Models | None = None) -> None:
        self.model, self.models = model, models
        self._told = Told("ensemble", Options)

    def joins(self, source: Source) -> tuple[str, ...]:
        described = (s for s in source.services if s.startswith(DESCRIBE))
        return (judged(source), *described)

    def counts(self, source: Source, root: str) -> bool:
        """Describers speak of events and of incidents; a verdict is on one kind."""
        return root == judged(source)

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[list[Record], Any]:  # noqa: ARG002  # it keeps none
        if row.ended:
            return [], None
        source = look.source(row)
        told, of = self._told.of(source), row.of.get(row.root)
        if of is None or of.outcome != "done":
            outcome: Outcome = of.outcome if of else "skipped"
            return _nothing(row, outcome, (of and of.reason) or outcome), None
        descriptions = [r for r in _in_order(row, source) if r.outcome == "done" and r.fields]
        if isinstance(of, Incident):
            return [await self._on_incident(row, of, descriptions, source, told)], None
        if isinstance(of, Event) and of.event is not None and of.event.state == "close":
            return [await self._on_event(row, of, of.event, descriptions, source, told)], None
        return _nothing(row, "skipped", NOT_CLOSED), None

    def otherwise(self, row: Row, state: Any, outcome: Outcome, reason: str) -> tuple[list[Record], Any]:  # noqa: ARG002  # it keeps none
        return ([] if row.ended else _nothing(row, outcome, reason)), None

    # verdicts

    async def _on_event(
        self, row: Row, of: Event, event: Life, descriptions: Sequence[Description], source: Source, told: Options
    ) -> Verdict:
        by = votes.found(event, [s.removeprefix(DETECT) for s in source.services if s.startswith(DETECT)])
        described = await self._described(descriptions, source, told)
        own = {"team": event.team, "details": event.details}
        fields = {
            **{name: value for name, value in own.items() if value is not None},
            **described.fields,
            "found": by.found,
            "disagreement": list(by.disagreement),
            "absent": list(by.absent),
        }
        line = told.calibration
        said = by.agreement if line is not None and line.of == "agreement" else by.confidence
        confidence = calibrated(said, told, event.label)
        return Verdict.of(
            row,
            until_index=None,
            **_standing(told, event.label, confidence, len(by.found_by)),
            **described.spoken(),
            fields=fields,
            label=event.label,
            time_ms=event.time_ms,
            confidence=confidence,
            found_by=by.found_by,
            inputs=(of.id, *(d.id for d in descriptions)),
        )

    async def _on_incident(
        self, row: Row, of: Incident, descriptions: Sequence[Description], source: Source, told: Options
    ) -> Verdict:
        described = await self._described(descriptions, source, told)
        said = described.fields.get(rows.FRAME)
        frame = said if isinstance(said, int) else of.frame
        place = {
            "frame": frame,
            "time_ms": _time_ms(frame, of, source),
            "inputs": (of.id, *(d.id for d in descriptions)),
        }
        if not descriptions and any(s.startswith(DESCRIBE) for s in source.services):
            return Verdict.of(row, until_index=None, outcome="failed", reason=UNDESCRIBED, **place)
        label = said if isinstance(said := described.fields.get("label"), str) else None
        confidence = None if described.agreement is None else calibrated(described.agreement, told, label)
        return Verdict.of(
            row,
            until_index=None,
            **_standing(told, label, confidence, None),
            **described.spoken(),
            **place,
            fields=described.fields or None,
            label=label,
            confidence=confidence,
            found_by=tuple(_describer(d) for d in descriptions if not rows.is_hole(d.fields or {}, told.hole)),
        )

    async def _described(self, descriptions: Sequence[Description], source: Source, told: Options) -> Described:
        model, models = self.model, self.models
        if told.rule == "fill":
            return by_filling(descriptions, told.hole)
        if told.rule == "vote" or model is None or models is None:
            return by_vote(descriptions, _kinds(source))

        async def asked(call: Call) -> Answer:
            return await ask(models, model, call, source, deadline_s=told.deadline_s)

        return await by_cluster(descriptions, _kinds(source), told.asked(), asked)


def judged(source: Source) -> str:
    """The service whose numbers are judged."""
    located = next((s for s in source.services if s.partition(".")[0] == LOCATE), None)
    over = (source.task.get("ensemble") or {}).get("over")
    return located if located and over != "events" else DEDUP


def calibrated(confidence: float, told: Options, label: str | None) -> float:
    return round(told.calibration(confidence, label), 6) if told.calibration else confidence


def _standing(told: Options, label: str | None, confidence: float | None, models: int | None) -> dict[str, Any]:
    """The outcome: whether it is believed."""
    if models is not None and models < told.at_least:
        return {"outcome": "skipped", "reason": TOO_FEW}
    if not votes.believed(label, confidence, told.thresholds):
        return {"outcome": "skipped", "reason": BELOW}
    return {}


def _nothing(row: Row, outcome: Outcome, reason: str) -> list[Record]:
    """One verdict a number, also for a row of many, so that verdicts keep the step of what they judge."""
    one = Verdict.of(row, until_index=None, outcome=outcome, reason=reason)
    return [one for _ in range(row.index, row.until)]


def _in_order(row: Row, source: Source) -> list[Description]:
    """As the task names the describers."""
    found = (row.of.get(s) for s in source.services if s.startswith(DESCRIBE))
    return [r for r in found if isinstance(r, Description)]


def _describer(description: Description) -> str:
    return description.service.removeprefix(DESCRIBE)


def _kinds(source: Source) -> dict[str, Kind]:
    """How describe's fields are decided, as its rounds declare them."""
    declared: dict[str, Any] = {}
    for one in (source.task.get("describe") or {}).get("rounds") or ():
        declared |= one.get("fields") or {}
    return kinds_of({"properties": declared})


def _time_ms(frame: int | None, of: Incident, source: Source) -> int | None:
    """Of a frame; the incident's own where the frame is its own, or frames are not counted."""
    every: int | None = (source.task.get("sampling") or {}).get("every")
    if frame is None or frame == of.frame or not every:
        return of.time_ms
    return round(1000 * Fraction(source.grid.step) * (frame - 1) / every)
