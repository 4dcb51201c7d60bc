"""Locate: where in a stretch of a stream it happens, concluded from what the captions say, without a picture.

The captions become a table, one line a caption, and several samples of a text model name a line of it; they vote. With
`rule = "trigger"` nobody is asked: the first caption that speaks of an incident is the place, else the first hazard, else
the one that counts most. A short stream is one table; a long one is looked at in stretches, an incident each.

Lines go by the number of their frame where frames are counted (`sampling.every`), else by the number of their window. A
caption that failed, or was never made, has no line: one that says 'nothing known' reads like an event to a model that
looks for one, and the numbers show the hole. What a caption means is the task's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, ClassVar, Final, Literal, Self

from msgspec import Struct
from msgspec.structs import replace
from pydantic import Field, model_validator

from streamproc.messages import Caption, Incident, Outcome, Record, Source
from streamproc.models.prompt import Prompt
from streamproc.models.recovery.fields import Fields, fields
from streamproc.models.reply import Sample
from streamproc.models.vote import located
from streamproc.stage import Fold, Look, Row
from streamproc.stages.asking import Models, asked, plain, spoken
from streamproc.stages.options import Asking, ModelName, Text, Told, filled, variables
from streamproc.stages.reasons import UNREADABLE

NO_CAPTIONS: Final = "no-captions"
CELL_CHARACTERS: Final = 300
"""A caption may be a page; a line of a table is not."""

SYSTEM: Final = "You read notes that were taken while a video was watched, and say where in it something happened."
PROMPT: Final = """Each line of this table describes one moment of a video, in the order of time; '-' is not known.

{table}

At which line does the most important event of the video begin? Weigh the lines against each other: one line alone may be mistaken.
Answer with JSON that holds nothing but '{number}', the number in the first column of that line. Where nothing happens it is {first}."""


class Options(Asking):
    """[locate]"""

    VARIABLES: ClassVar[Mapping[str, str]] = {
        "table": "the captions, a line each",
        "number": "what the first column is called: 'frame', or 'row' where frames are not counted",
        "first": "the number of the first line",
        "last": "the number of the last line",
    }

    model: ModelName = Field(description="A text model.")
    rule: Literal["votes", "trigger"] = Field(
        "votes",
        description="Ask the model; or take the first incident, else the first hazard, else the highest counts.",
    )
    system: Text = Field(SYSTEM, description="Stands before everything else; the same for every call.")
    prompt: Text = Field(PROMPT, description="What is asked about a table.")
    samples: int = Field(12, ge=1, le=64, description="Answers asked for at once; they vote.")
    temperature: float | None = Field(0.6, ge=0, le=2, description="What makes the samples differ.")
    max_tokens: int = Field(4096, ge=1, le=65_536, description="Of one answer; models that think need many.")
    rows: int = Field(200, ge=2, le=2000, description="Of one table; a longer stream is looked at in stretches.")
    stretch_s: float | None = Field(None, gt=0, description="Of one table; absent: as long as its rows go.")
    columns: tuple[str, ...] = Field((), description="Fields of the captions to show; none named: all of them.")
    incident: str = Field("incident", description="The field that is 1 for an incident and 0 for a hazard.")
    counts: tuple[str, ...] = Field(
        ("cyclists", "animals", "pedestrians", "vehicles"), description="Fields that count; for the rule 'trigger'."
    )

    @model_validator(mode="after")
    def _the_prompt_shows_the_table(self) -> Self:
        if "table" not in variables(self.prompt):
            raise ValueError("prompt: it has no {table}, so the model would see no captions")
        return self


# the table ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the lines of a stream's tables are called, and what time that is."""

    source: Source

    @property
    def every(self) -> int | None:
        said: int | None = (self.source.task.get("sampling") or {}).get("every")
        return None if self.source.live else said

    @property
    def name(self) -> str:
        return "frame" if self.every else "row"

    def of(self, index: int) -> int:
        """Of the first frame of a window; of the window, from 1, where frames are not counted."""
        if not self.every:
            return index + 1
        grid, step_s = self.source.grid, Fraction(self.source.grid.step)
        return 1 + self.every * ceil((Fraction(grid.origin) + (index - grid.first) * step_s) / step_s)

    def next(self, number: int) -> int:
        return number + (self.every or 1)

    def time_ms(self, number: int) -> int:
        """Also of frames between two lines."""
        if not self.every:
            return self.source.grid.starts_ms(number - 1)
        return round(1000 * Fraction(self.source.grid.step) * (number - 1) / self.every)


class Stretch(Struct, frozen=True, array_like=True):
    """The captions since the last incident."""

    begin_ms: int
    utc: str | None
    first: int
    """Its number, caption or not."""
    last: int
    failed: bool = False
    """Captions among them failed."""
    rows: int = 0
    lines: tuple[str, ...] = ()
    """Header and rows; another header stands where a revision changed the columns. None with the rule 'trigger'."""
    columns: tuple[str, ...] = ()
    incident: int | None = None
    hazard: int | None = None
    most: tuple[int, int] | None = None
    """The highest count, and whose it is first."""


def _added(stretch: Stretch, row: Row, caption: Caption | None, numbers: Numbers, told: Options) -> Stretch:
    """The stretch with one more row."""
    stretch = replace(
        stretch, last=numbers.of(row.until - 1), failed=stretch.failed or (caption is None and row.outcome == "failed")
    )
    if caption is None:
        return stretch
    number, said = stretch.last, caption.fields or {}
    if told.rule == "trigger":
        return replace(_triggered(stretch, number, said, told), rows=stretch.rows + 1)
    columns = told.columns or _columns(numbers.source, caption)
    header = () if columns == stretch.columns else (" | ".join((numbers.name, "time_s", *columns)),)
    shown = {"text": caption.text, **said}
    line = " | ".join((str(number), f"{row.start_ms / 1000:g}", *(_cell(shown.get(c)) for c in columns)))
    return replace(stretch, rows=stretch.rows + 1, lines=(*stretch.lines, *header, line), columns=columns)


def _triggered(stretch: Stretch, number: int, said: Mapping[str, Any], told: Options) -> Stretch:
    sign, count = said.get(told.incident), sum(v for c in told.counts if isinstance(v := said.get(c), int))
    if sign == 1 and stretch.incident is None:
        stretch = replace(stretch, incident=number)
    if sign == 0 and not isinstance(sign, bool) and stretch.hazard is None:
        stretch = replace(stretch, hazard=number)
    return replace(stretch, most=(count, number)) if stretch.most is None or count > stretch.most[0] else stretch


def _columns(source: Source, caption: Caption) -> tuple[str, ...]:
    """All that captions of this task say; their text where they say nothing else."""
    return tuple((source.task.get("caption") or {}).get("fields") or caption.fields or ("text",))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = " ".join(plain(value).replace("|", "/").split())
    return (text if len(text) <= CELL_CHARACTERS else f"{text[: CELL_CHARACTERS - 1]}…") or "-"


# the stage ----------------------------------------------------------------------------------------------------------


class Locate(Fold):
    reads, writes = ("captions",), ("incidents",)
    State: ClassVar[Any] = Stretch | None

    def __init__(self, model: str | None, models: Models) -> None:
        self.model, self.models = model or "", models
        self._told = Told("locate", Options)

    def joins(self, source: Source) -> tuple[str, ...]:
        return tuple(s for s in source.services if s.startswith("caption."))

    async def fold(self, row: Row, state: Stretch | None, look: Look) -> tuple[Sequence[Record], Stretch | None]:
        source = look.source(row)
        told, numbers = self._told.of(source), Numbers(source)
        if row.ended:
            return ([await self._concluded(row, state, numbers, told)] if state else []), None
        first = numbers.of(row.index)
        stretch = state or Stretch(row.start_ms, row.utc, first, first)
        said = [r for r in row.of.values() if isinstance(r, Caption) and r.outcome == "done"]
        stretch = _added(stretch, row, said[0] if said else None, numbers, told)
        next_ms = source.grid.starts_ms(row.until)
        if stretch.rows < told.rows and (told.stretch_s is None or next_ms < stretch.begin_ms + 1000 * told.stretch_s):
            return [], stretch
        return [await self._concluded(row, stretch, numbers, told)], None

    def otherwise(
        self, row: Row, state: Stretch | None, outcome: Outcome, reason: str
    ) -> tuple[Sequence[Record], Stretch | None]:
        """Nobody could say where: a stretch has its outcome all the same, and the next one begins."""
        if state is None and (row.ended or row.outcome != "done"):
            return [], None
        since = {"start_ms": state.begin_ms, "utc": state.utc} if state else {}
        return [Incident.of(row, until_index=None, outcome=outcome, reason=reason, **since)], None

    async def _concluded(self, row: Row, stretch: Stretch, numbers: Numbers, told: Options) -> Incident:
        place: dict[str, Any] = {"until_index": None, "start_ms": stretch.begin_ms, "utc": stretch.utc}
        if not stretch.rows:
            outcome = "failed" if stretch.failed else "skipped"
            return Incident.of(row, outcome=outcome, reason=NO_CAPTIONS, **place)
        if told.rule == "votes":
            return Incident.of(row, **place, **await self._voted(stretch, numbers, told))
        most = stretch.most[1] if stretch.most and stretch.most[0] else None
        number = next((n for n in (stretch.incident, stretch.hazard, most) if n is not None), stretch.first)
        return Incident.of(row, **place, **_at(number, numbers))

    async def _voted(self, stretch: Stretch, numbers: Numbers, told: Options) -> dict[str, Any]:
        shown = {
            "table": "\n".join(stretch.lines),
            "number": numbers.name,
            "first": str(stretch.first),
            "last": str(stretch.last),
        }
        schema = _schema(numbers.name, stretch.first, numbers.next(stretch.last) - 1)
        prompt = Prompt(filled(told.prompt, shown), system=filled(told.system, shown) or None, schema=schema)
        answer = await asked(self.models, self.model, prompt, told, numbers.source)
        read = [_read(sample, prompt) for sample in answer.reply.samples]
        said = tuple(r.values.get(numbers.name) if r else None for r in read)
        found = located(said)
        return {
            **_at(stretch.first if found.value is None else found.value, numbers),
            "reason": UNREADABLE if found.value is None else None,
            "votes": found.votes,
            "samples": said,
            "how": next((r.how for r in read if r and r.values), None),
            **spoken(answer),
        }


def _at(number: int, numbers: Numbers) -> dict[str, Any]:
    return {"frame": number if numbers.every else None, "time_ms": numbers.time_ms(number)}


def _schema(name: str, first: int, last: int) -> dict[str, Any]:
    """A frame between two lines may be meant; one that the stretch does not have is no answer to its table."""
    number = {"type": "integer", "minimum": first, "maximum": last}
    return {"type": "object", "properties": {name: number}, "required": [name], "additionalProperties": False}


def _read(sample: Sample, prompt: Prompt) -> Fields | None:
    if sample.finish == "refused":
        return None
    return fields(sample.text, prompt.schema or {}, prompt=prompt.question, cut=sample.finish == "length")
