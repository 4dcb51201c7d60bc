"""Context: what must be known of a stream before anything in it can be understood: teams and kits, place, scene.

One call about the opening seconds, and again at fixed strides where the task says so. Every later prompt draws on its
answer, so others wait for it, but only for so long, and its failing stops nobody: then a record says that nothing is known.

The opening begins with the first picture there is. It is asked about once there are as many pictures as are wanted, evenly
spread, or its time has passed, or the stream or the stretch ends, or so many windows have come that who waits for the
answer would hold up decoding.

Pictures are state until then, and state has a largest size: where they have more than 8 MiB together, every other one is
let go of, as often as it takes, so that those that stay are as evenly spread as before. One that is larger by itself is
asked about at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self
from weakref import WeakKeyDictionary

from msgspec import Struct
from pydantic import ConfigDict, Field, model_validator

from streamproc.messages import Context, Outcome, Record, Source, Window
from streamproc.models.prompt import Picture, Prompt
from streamproc.stage import Fold, Look, Row
from streamproc.stages.asking import Models, asked, spoken
from streamproc.stages.form import Fields, explained, said, schema
from streamproc.stages.options import Asking, ModelName, Stretches, Text, Told, ahead, filled
from streamproc.stages.reasons import NO_PICTURES, UNREADABLE

KEPT_BYTES: Final = 8 * 2**20
"""Of an opening's pictures together, between two rows."""

SYSTEM: Final = "You are shown the beginning of a video in time order. Say what is to be seen in it, and nothing else."
PROMPT: Final = """Others will watch this video piece by piece and need to know what it is. Answer with JSON:
{fields}"""
SCENE: Final[dict[str, dict[str, Any]]] = {
    "scene": {
        "type": "string",
        "maxLength": 300,
        "description": "where it is, what goes on there, and how to tell apart who takes part, in two sentences",
    }
}


class Options(Asking, Stretches):
    """[context]"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    VARIABLES: ClassVar[Mapping[str, str]] = {
        "fields": "the fields of an answer, a line each: what they mean and may be"
    }

    model: ModelName = Field(description="Who looks at the opening.")
    system: Text = Field(SYSTEM, description="Stands before everything else.")
    prompt: Text = Field(PROMPT, description="The question, behind the pictures.")
    fields: Fields = Field(SCENE, min_length=1, description="What is to be known: name → JSON schema of its value.")
    optional: tuple[str, ...] = Field((), description="Fields that an answer may lack.")
    opening_s: float = Field(15.0, gt=0, le=600, description="Stream time that is looked at.")
    frames: int = Field(8, ge=1, le=64, description="Pictures of it, evenly spread; large ones are thinned to 8 MiB.")

    @model_validator(mode="after")
    def _one_opening_at_a_time(self) -> Self:
        if self.every_s and self.every_s < self.opening_s:
            raise ValueError(f"every_s is {self.every_s:g}: less than the {self.opening_s:g} s of opening_s")
        return self


class Opening(Struct, array_like=True):
    """What has been seen of a stretch's beginning."""

    begin: int
    until: int | None
    """Windows that the answer holds for."""
    since_ms: int = 0
    """Of the first picture."""
    opened: int = 0
    """At which window that was."""
    pictures: list[tuple[int, bytes]] = []
    closed: bool = False
    """Asked, or given up."""
    every: int = 1
    """Of the pictures that are wanted, each so manieth is kept."""

    @property
    def size_bytes(self) -> int:
        return sum(len(jpeg) for _, jpeg in self.pictures)

    def complete(self, options: Options) -> bool:
        return len(self.pictures) * self.every >= options.frames

    def take(self, window: Window, options: Options) -> None:
        """Of the pictures that come, each time the first that is due."""
        for frame in window.frames:
            if not self.pictures:
                self.since_ms, self.opened = frame.t_ms, window.index
            due_ms = self.since_ms + len(self.pictures) * self.every * options.opening_s * 1000 / options.frames
            new = not self.pictures or frame.t_ms > self.pictures[-1][0]
            within = frame.t_ms < self.since_ms + options.opening_s * 1000 and not self.complete(options)
            if new and within and frame.t_ms >= due_ms:
                self.pictures.append((frame.t_ms, frame.jpeg))
                self._thin()

    def _thin(self) -> None:
        while len(self.pictures) > 1 and self.size_bytes > KEPT_BYTES:
            self.pictures, self.every = self.pictures[::2], self.every * 2

    def over(self, row: Row, options: Options, *, ahead: int) -> bool:
        """Nothing is to be waited for any more, or must not be: decoding stops `ahead` of those who wait."""
        return (
            self.complete(options)
            or self.size_bytes > KEPT_BYTES
            or row.end_ms >= self.since_ms + options.opening_s * 1000
            or row.ended
            or (self.until is not None and row.until >= self.until)
            or row.until - self.opened >= max(1, ahead // 2)
        )


def prompt_of(options: Options, opening: Sequence[tuple[int, bytes]]) -> Prompt:
    values = {"fields": explained(options.fields)}
    return Prompt(
        filled(options.prompt, values),
        system=filled(options.system, values) or None,
        pictures=tuple(Picture(jpeg, t_ms) for t_ms, jpeg in opening),
        schema=schema(options.fields, options.optional),
    )


class Contextualiser(Fold):
    """`context.M`. Its records stand in the table under the number of the first window that they hold for."""

    reads, writes = ("windows",), ("contexts",)
    State = Opening | None

    def __init__(self, model: str, models: Models) -> None:
        self._model, self._models = model, models
        self._options = Told("context", Options)
        self._under_way: WeakKeyDictionary[Row, Opening] = WeakKeyDictionary()
        """What is asked about at which row, for as long as that is in hand: `otherwise` is told only what stood before it."""

    def joins(self, source: Source) -> tuple[str, ...]:  # noqa: ARG002  # the same for all
        return ("decode",)

    def sub(self, record: Context, number: int) -> str:  # noqa: ARG002  # the stretch says it
        return str(record.from_)

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[Sequence[Record], Any]:
        source = look.source(row)
        options = self._options.of(source)
        opening: Opening | None = state
        if not row.ended:
            begin, until = options.of(source.grid, row.index)
            if opening is None or opening.begin != begin:
                opening = Opening(begin, until)
            self._see(opening, row, options)
        if opening is None or opening.closed or not (row.ended or opening.pictures):
            return [], opening
        if not opening.over(row, options, ahead=ahead(source)):
            return [], opening
        return [await self._asked(opening, row, options, source)], _closed(opening)

    def _see(self, opening: Opening, row: Row, options: Options) -> None:
        for record in row.of.values():
            if isinstance(record, Window) and not opening.closed:
                opening.take(record, options)

    async def _asked(self, opening: Opening, row: Row, options: Options, source: Source) -> Context:
        if not opening.pictures:
            return _context(opening, row, outcome="skipped", reason=NO_PICTURES)
        prompt = prompt_of(options, opening.pictures)
        self._under_way[row] = _closed(opening)
        answer = await asked(self._models, self._model, prompt, options, source)
        found = said(answer.reply.samples, prompt.schema or {}, prompt=prompt.question)
        thinned = f"; thinned to {len(opening.pictures)} pictures, as they are large" if opening.every > 1 else ""
        spoke = spoken(answer, how=found.how + thinned)
        if not found.values:
            return _context(opening, row, outcome="failed", reason=UNREADABLE, **spoke)
        return _context(opening, row, fields=found.values, **spoke)

    def otherwise(self, row: Row, state: Any, outcome: Outcome, reason: str) -> tuple[Sequence[Record], Any]:
        opening = self._under_way.get(row)
        if opening is None:
            return [], state
        return [_context(opening, row, outcome=outcome, reason=reason)], opening


def _context(opening: Opening, row: Row, **fields: Any) -> Context:
    holds = {"from_": opening.begin, "until_": opening.until, "until_index": None}
    return Context.of(row, **holds, start_ms=min(opening.since_ms, row.end_ms), **fields)


def _closed(opening: Opening) -> Opening:
    """Its pictures are needed no more."""
    return Opening(opening.begin, opening.until, opening.since_ms, closed=True)
