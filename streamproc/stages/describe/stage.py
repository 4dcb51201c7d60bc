"""The stage: incidents as they come and events when they close, with pictures around them; one service a model and preset.

A description is told from all of its rounds; it says how far the samples agreed, and which pictures were looked at by the
preset's name. What nobody could read is `failed`, and so is what has no pictures any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, Self

from pydantic import Field, field_validator, model_validator

from streamproc.errors import Rejected, did_you_mean
from streamproc.messages import Description, Event, Frame, Incident, Outcome, Record, Source
from streamproc.models.prompt import Picture
from streamproc.stage import Each, Look
from streamproc.stages.asking import Models
from streamproc.stages.describe.presets import KNOWN, Preset, around
from streamproc.stages.describe.rounds import Case, Round, SoFar, heard, left, next_call
from streamproc.stages.options import Asking, Labels, ModelName, Text, Told, variables

NOT_CLOSED: Final = "not-closed"
UNREADABLE: Final = "unreadable"
UNREACHABLE: Final = "footage-unreachable"

SYSTEM: Final = "You describe what happens in a video, from pictures of it in the order of time. You say what is seen, and nothing else."
PROMPT: Final = """The pictures are from around {event}. In one or two plain sentences: what happens, who or what takes part, and how does it end?"""


class Options(Asking):
    """[describe]"""

    VARIABLES: ClassVar[Mapping[str, str]] = {
        "event": "what is described: a label and its time, or the place where something was found",
        "frame": "the number of the frame in the middle of it; of the picture, where frames are not counted",
        "frames": "the numbers of the frames shown",
        "labels": "the task's labels, a line each",
        "said": "the fields that the rounds before have found, a line each",
    }
    PROMPTS: ClassVar[tuple[str, ...]] = ("system",)

    models: tuple[ModelName, ...] = Field((), description="Each describes by itself; a service each.")
    presets: tuple[str, ...] = Field(
        ("6-5-10",),
        min_length=1,
        description=f"Which pictures: BEFORE-AFTER-STEP, a service each. Tried ones: {', '.join(KNOWN)}.",
    )
    system: Text = Field(SYSTEM, description="Stands before everything else; the same for every call.")
    rounds: tuple[Round, ...] = Field(
        (Round(name="story", prompt=PROMPT, fields={"text": {"type": "string", "maxLength": 1000}}),),
        min_length=1,
        description="Questions about the same pictures, one after the other.",
    )
    samples: int = Field(4, ge=1, le=64, description="Answers asked for at once; they vote.")
    max_tokens: int = Field(4096, ge=1, le=65_536, description="Of one answer; models that think need many.")
    penalty_most: float = Field(
        1.5,
        ge=1,
        le=2,
        description="An empty field is asked for again with the repetition penalty raised by 0.1, up to this.",
    )
    longest: int | None = Field(
        768, ge=16, le=65_500, description="Pixels of a picture's longer side; absent: as it is."
    )

    @field_validator("presets")
    @classmethod
    def _presets_are_some(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            Preset.named(name)
        return names

    @model_validator(mode="after")
    def _rounds_use_what_there_is(self) -> Self:
        for one in self.rounds:
            for variable in variables(one.prompt):
                if variable not in self.VARIABLES:
                    raise ValueError(
                        f"round '{one.name}': no variable '{{{variable}}}'{did_you_mean(variable, self.VARIABLES)}"
                    )
        return self


@dataclass(frozen=True, slots=True)
class Extent:
    """Which pictures there are of a stream."""

    begin_s: float
    end_s: float
    rate: float
    """Frames a second, on the whole."""
    frames: int | None = None
    """How many, where they have numbers: in files."""


class Footage(Protocol):
    """Where pictures can be fetched again. Both raise Rejected, `footage-unreachable`, past a deadline of its own."""

    async def extent(self, source: Source) -> Extent: ...

    async def numbered(self, source: Source, numbers: Sequence[int], *, longest: int | None) -> Sequence[Frame]:
        """Those of a file, by numbers from 1."""

    async def timed(self, source: Source, times_s: Sequence[float], *, longest: int | None) -> Sequence[Frame]:
        """The first at or behind each time."""


class Describe(Each):
    reads, writes = ("incidents", "events"), ("descriptions",)

    def __init__(self, model: str, preset: str, models: Models, footage: Footage) -> None:
        self.model, self.preset, self.models, self.footage = model, preset, models, footage
        self._preset = Preset.named(preset)
        self._told, self._labels = Told("describe", Options), Told("labels", Labels)

    async def handle(self, record: Incident | Event, look: Look) -> Description:
        if isinstance(record, Event) and (record.event is None or record.event.state != "close"):
            return Description.of(record, outcome="skipped", reason=NOT_CLOSED, preset=self.preset)
        source = look.source(record)
        told = self._told.of(source)
        frames = await self._frames(record, source, told)
        if not frames:
            raise Rejected(UNREACHABLE)
        case = self._case(record, frames, told, self._labels.of(source))
        so_far = SoFar()
        while call := next_call(case, so_far):
            try:
                answer = await self.models.ask(
                    self.model, call, stream=source.stream, live=source.live, deadline_s=told.deadline_s
                )
            except Rejected:
                if not so_far.again:
                    raise
                so_far = left(so_far)  # it takes no such penalty, say; what it said before stands
                continue
            so_far = heard(case, so_far, answer)
        return self._description(record, so_far)

    def otherwise(self, record: Incident | Event, outcome: Outcome, reason: str) -> Record:
        return Description.of(record, outcome=outcome, reason=reason, preset=self.preset)

    async def _frames(self, record: Incident | Event, source: Source, told: Options) -> Sequence[Frame]:
        """Where frames have numbers they are fetched by them; else a frame is a part of a second."""
        there = await self.footage.extent(source)
        middle_s = _middle_ms(record) / 1000
        said: int | None = (source.task.get("sampling") or {}).get("every")
        step_ms = source.grid.starts_ms(source.grid.first + 1) - source.grid.starts_ms(source.grid.first)
        rows = said or max(1, round(step_ms / 1000 * there.rate))
        if there.frames is not None:
            number = record.frame if isinstance(record, Incident) else None
            at = number or 1 + round(middle_s * there.rate)
            numbers = around(at, of=there.frames, preset=self._preset, rows=rows)
            return await self.footage.numbered(source, numbers, longest=told.longest)
        count = 1 + int((there.end_s - there.begin_s) * there.rate)
        at = 1 + round((middle_s - there.begin_s) * there.rate)
        numbers = around(at, of=count, preset=self._preset, rows=rows)
        times_s = [there.begin_s + (n - 1) / there.rate for n in numbers]
        return await self.footage.timed(source, times_s, longest=told.longest)

    def _case(self, record: Incident | Event, frames: Sequence[Frame], told: Options, labels: Labels) -> Case:
        middle_ms = _middle_ms(record)
        nearest = min(range(len(frames)), key=lambda i: abs(frames[i].t_ms - middle_ms))
        numbers = [frame.frame or i for i, frame in enumerate(frames, 1)]
        return Case(
            rounds=told.rounds,
            pictures=tuple(
                Picture(f.jpeg, f.t_ms, before=f"{'Frame' if f.frame else 'Picture'} {n}:")
                for f, n in zip(frames, numbers, strict=True)
            ),
            system=told.system or None,
            values={
                "event": _event(record),
                "frame": str(record.frame if isinstance(record, Incident) and record.frame else numbers[nearest]),
                "frames": ", ".join(map(str, numbers)),
                "labels": labels.listed(),
            },
            samples=told.samples,
            max_tokens=told.max_tokens,
            params=told.params(),
            penalty_most=told.penalty_most,
        )

    def _description(self, record: Incident | Event, so_far: SoFar) -> Description:
        spoken: dict[str, Any] = {
            **so_far.said,
            "tokens": so_far.tokens,
            "seconds": so_far.seconds,
            "attempts": so_far.attempts,
            "preset": self.preset,
        }
        if not so_far.fields:
            return Description.of(record, outcome="failed", reason=UNREADABLE, **spoken)
        agreement = so_far.agreement
        return Description.of(
            record,
            fields=so_far.fields,
            samples=so_far.samples,
            agreement=None if agreement is None else round(agreement, 4),
            **spoken,
        )


def _middle_ms(record: Incident | Event) -> int:
    """The moment that it is about."""
    said = record.time_ms if isinstance(record, Incident) else record.event.time_ms if record.event else None
    return (record.start_ms + record.end_ms) // 2 if said is None else said


def _event(record: Incident | Event) -> str:
    """In words."""
    when = f"{_middle_ms(record) / 1000:g} s"
    if isinstance(record, Incident):
        return f"frame {record.frame} ({when})" if record.frame else when
    assert record.event is not None, "only closed events are described"
    event = record.event
    of = f" of team {event.team}" if event.team else ""
    told = f": {event.details}" if event.details else ""
    return f"'{event.label}'{of} at {when} (from {event.start_ms / 1000:g} s to {event.end_ms / 1000:g} s{told})"
