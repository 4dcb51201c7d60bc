"""The stage: incidents as they come and events when they close, with pictures around them; one service a model and preset.

A description is told from all of its rounds; it says how far the samples agreed, and which pictures were looked at by the
preset's name. What nobody could read is `failed`, and so is what has no pictures any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import floor
from typing import Any, ClassVar, Final, Protocol, Self

import orjson
from pydantic import Field, field_validator, model_validator

from streamproc.errors import Rejected, did_you_mean
from streamproc.messages import Context, Description, Event, Frame, Incident, Outcome, Record, Source
from streamproc.models.prompt import Picture
from streamproc.stage import Look, Rounds
from streamproc.stages.asking import Contexts, Models, ask, context_part, left_out, told
from streamproc.stages.describe.presets import KNOWN, Preset, around
from streamproc.stages.describe.rounds import Case, Round, SoFar, heard, left, next_call
from streamproc.stages.describe.shown import Shown
from streamproc.stages.options import Informed, Labels, ModelName, Text, Told, filled, variables
from streamproc.stages.reasons import NOT_CLOSED, UNREADABLE
from streamproc.video.jobs import Reach
from streamproc.video.keep import UNREACHABLE

SYSTEM: Final = "You describe what happens in a video, from pictures of it in the order of time. You say what is seen, and nothing else."
PROMPT: Final = """The pictures are from around {event}. In one or two plain sentences: what happens, who or what takes part, and how does it end?"""


class Options(Informed):
    """[describe]"""

    VARIABLES: ClassVar[Mapping[str, str]] = {
        **Informed.VARIABLES,
        "event": "what is described: a label and its time, or the place where something was found",
        "frame": "the number of the frame in the middle of it; of the picture, where frames are not counted",
        "frames": "the numbers of the frames shown",
        "fields": "what the fields of the answer mean and may be, a line each",
        "labels": "the task's labels, a line each",
        "said": "the fields that the rounds before have found, a line each",
    }
    PROMPTS: ClassVar[tuple[str, ...]] = ("system", "context")

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
        description="Questions about the same pictures, one after the other: name, prompt (which may use what `context` may), fields.",
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
        for name in self.PROMPTS:
            for variable in variables(getattr(self, name)):
                if variable in ("said", "fields"):
                    raise ValueError(f"{name}: it stands before every round, and knows no '{{{variable}}}' of any")
        if not self.rounds[0].fields:
            raise ValueError(f"round '{self.rounds[0].name}': it has no fields, and there is no round before it")
        for one in self.rounds:
            for variable in variables(one.prompt):
                if variable not in self.VARIABLES:
                    raise ValueError(
                        f"round '{one.name}': no variable '{{{variable}}}'{did_you_mean(variable, self.VARIABLES)}"
                    )
        return self


class Footage(Protocol):
    """Where pictures can be fetched again. All raise Rejected, `footage-unreachable`, past a deadline of its own."""

    async def reach(self, source: Source) -> Reach: ...

    async def numbered(self, source: Source, numbers: Sequence[int], *, longest: int | None) -> Sequence[Frame]:
        """Those of a file, by numbers from 1."""

    async def timed(self, source: Source, times_s: Sequence[float], *, longest: int | None) -> Sequence[Frame]:
        """The first at or behind each time."""


class Sampled(Models, Protocol):
    def sampling(self, model: str) -> Mapping[str, Any]:
        """What its card says, for calls that do not."""


class Describe(Rounds):
    reads, writes, tables = ("incidents", "events"), ("descriptions",), ("contexts",)
    SoFar: ClassVar[Any] = SoFar

    def __init__(self, model: str, preset: str, models: Sampled, footage: Footage) -> None:
        self.model, self.preset, self.models, self.footage = model, preset, models, footage
        self._preset = Preset.named(preset)
        self._options, self._labels, self._contexts = Told("describe", Options), Told("labels", Labels), Contexts()
        self._shown = Shown()

    async def round(self, record: Incident | Event, so_far: SoFar | None, look: Look) -> Description | SoFar:
        if isinstance(record, Event) and (record.event is None or record.event.state != "close"):
            return Description.of(record, outcome="skipped", reason=NOT_CLOSED, preset=self.preset)
        source, known = look.source(record), so_far or SoFar()
        options = self._options.of(source)
        context = self._contexts.of(source, _window(source, _middle_ms(record)), look, wait_s=options.context_wait_s)
        if known.round == len(options.rounds):
            self._shown.pop(record.id)
            return self._description(record, known, context)
        frames = await self._pictures(record, source, options)
        if not frames:
            raise Rejected(UNREACHABLE)
        case = self._case(record, frames, options, self._labels.of(source), told(context))
        call = next_call(case, known)
        assert call is not None, "there are rounds left"
        try:
            answer = await ask(self.models, self.model, call, source, deadline_s=options.deadline_s)
        except Rejected:
            if not known.again:
                raise
            return left(known)  # it takes no such penalty, say; what it said before stands
        return heard(case, known, answer)

    async def _pictures(self, record: Incident | Event, source: Source, options: Options) -> Sequence[Frame]:
        """The same for every round, and so fetched once where the rounds follow each other."""
        if (frames := self._shown.pop(record.id)) is None:
            frames = await self._frames(record, source, options)
        self._shown.keep(record.id, frames)
        return frames

    def otherwise(self, record: Incident | Event, outcome: Outcome, reason: str) -> Record:
        self._shown.pop(record.id)
        return Description.of(record, outcome=outcome, reason=reason, preset=self.preset)

    async def _frames(self, record: Incident | Event, source: Source, options: Options) -> Sequence[Frame]:
        """Where frames have numbers they are fetched by them; else a frame is a part of a second."""
        there = await self.footage.reach(source)
        middle_s = _middle_ms(record) / 1000
        said: int | None = (source.task.get("sampling") or {}).get("every")
        step_ms = source.grid.starts_ms(source.grid.first + 1) - source.grid.starts_ms(source.grid.first)
        rows = said or max(1, round(step_ms / 1000 * there.rate))
        if there.frames is not None:
            number = record.frame if isinstance(record, Incident) else None
            at = number or 1 + round(middle_s * there.rate)
            numbers = around(at, of=there.frames, preset=self._preset, rows=rows)
            return await self.footage.numbered(source, numbers, longest=options.longest)
        count = 1 + int((there.end_s - there.begin_s) * there.rate)
        at = 1 + round((middle_s - there.begin_s) * there.rate)
        numbers = around(at, of=count, preset=self._preset, rows=rows)
        times_s = [there.begin_s + (n - 1) / there.rate for n in numbers]
        return await self.footage.timed(source, times_s, longest=options.longest)

    def _case(
        self, record: Incident | Event, frames: Sequence[Frame], options: Options, labels: Labels, known: dict[str, str]
    ) -> Case:
        middle_ms = _middle_ms(record)
        nearest = min(range(len(frames)), key=lambda i: abs(frames[i].t_ms - middle_ms))
        numbers = [frame.frame or i for i, frame in enumerate(frames, 1)]
        values = {
            **known,
            "event": _event(record),
            "frame": str(record.frame if isinstance(record, Incident) and record.frame else numbers[nearest]),
            "frames": ", ".join(map(str, numbers)),
            "labels": labels.listed(),
        }
        return Case(
            rounds=options.rounds,
            pictures=tuple(
                Picture(f.jpeg, f.t_ms, before=f"{'Frame' if f.frame else 'Picture'} {n}:")
                for f, n in zip(frames, numbers, strict=True)
            ),
            system=filled(options.system, values) or None,
            context=context_part(options, values),
            values=values,
            samples=options.samples,
            max_tokens=options.max_tokens,
            params=(params := options.params()),
            penalty={**self.models.sampling(self.model), **params}.get("repetition_penalty", 1.0),
            penalty_most=options.penalty_most,
        )

    def _description(self, record: Incident | Event, so_far: SoFar, context: Context | None) -> Description:
        agreement = so_far.agreement
        found: dict[str, Any] = {
            "fields": so_far.fields,
            "samples": so_far.samples,
            "agreement": None if agreement is None else round(agreement, 4),
        }
        return Description.of(
            record,
            preset=self.preset,
            model=so_far.model,
            prompt=so_far.prompt,
            raw=orjson.dumps(so_far.texts).decode(),
            how="; ".join([*filter(None, [so_far.how]), *left_out(so_far.texts, so_far.said)]) or None,
            context=context.id if context else None,
            tokens=so_far.tokens,
            seconds=so_far.seconds,
            attempts=so_far.attempts,
            **(found if so_far.fields else {"outcome": "failed", "reason": UNREADABLE}),
        )


def _window(source: Source, time_ms: int) -> int:
    """The number of the window that begins there or before."""
    grid = source.grid
    return max(0, grid.first + floor((Fraction(time_ms, 1000) - Fraction(grid.origin)) / Fraction(grid.step)))


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
