"""How a task speaks to a stage: a section of options, each declared once with its type, default, bounds and a line of help.

The command line, `tasks show`, the checks and what is written into a source all derive from these declarations.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Final, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from streamproc.errors import Rejected, did_you_mean
from streamproc.messages import Grid, Source

Text = Annotated[str, Field(max_length=100_000)]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
"""Services are called after models."""


class Section(BaseModel):
    """Options that belong together; a table of a task's file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Labels(Section):
    """What is looked for, and how models call it. A bare list, or names with commas between them, is `names`."""

    names: tuple[str, ...] = Field((), description="What is looked for, in the words that results shall use.")
    aliases: dict[str, str] = Field({}, description="What models say instead → the name.")
    about: dict[str, str] = Field({}, description="Name → a line that tells a model when to say it.")
    teams: bool = Field(default=False, description="Events belong to a team, home or away.")

    @model_validator(mode="before")
    @classmethod
    def _names_alone(cls, told: Any) -> Any:
        if isinstance(told, str):
            told = [name.strip() for name in told.split(",") if name.strip()]
        return {"names": told} if isinstance(told, list | tuple) else told

    @model_validator(mode="after")
    def _only_names_that_there_are(self) -> Self:
        for name in [*self.aliases.values(), *self.about]:
            if name not in self.names:
                raise ValueError(f"no label '{name}'{did_you_mean(name, self.names)}")
        if len({n.casefold() for n in self.names}) < len(self.names):
            raise ValueError("two labels are the same but for their case")
        return self

    def listed(self) -> str:
        """As a prompt shows them, a line each."""
        return "\n".join(f"- {name} — {self.about[name]}" if name in self.about else f"- {name}" for name in self.names)


class Asking(Section):
    """Options of every stage that asks a model."""

    VARIABLES: ClassVar[Mapping[str, str]] = {}
    """What its prompts may use as {name}, each with a line of help."""
    PROMPTS: ClassVar[tuple[str, ...]] = ("system", "prompt")
    """Options that are prompts."""

    system: Text = Field("", description="Stands before everything else; the same for every call.")
    samples: int = Field(1, ge=1, le=64, description="Answers asked for at once; they vote.")
    max_tokens: int = Field(512, ge=1, le=65_536, description="Of one answer; longer ones are cut.")
    temperature: float | None = Field(None, ge=0, le=2, description="Absent: as the model's card says.")
    top_p: float | None = Field(None, gt=0, le=1, description="Absent: as the model's card says.")
    repetition_penalty: float | None = Field(None, gt=0, le=2, description="Absent: as the model's card says.")
    deadline_s: float = Field(300.0, gt=0, description="Of one attempt of a call.")

    @model_validator(mode="after")
    def _prompts_use_what_there_is(self) -> Self:
        for name in self.PROMPTS:
            for variable in variables(getattr(self, name) or ""):
                if variable not in self.VARIABLES:
                    raise ValueError(f"{name}: no variable '{{{variable}}}'{did_you_mean(variable, self.VARIABLES)}")
        return self

    def params(self) -> dict[str, float]:
        """What goes over the card's sampling defaults."""
        told = {n: getattr(self, n) for n in ("temperature", "top_p", "repetition_penalty")}
        return {name: value for name, value in told.items() if value is not None}


class Informed(Asking):
    """Options of stages whose prompts draw on what is known of the stream."""

    VARIABLES: ClassVar[Mapping[str, str]] = {"context": "what is known of the stream, a line each"}
    PROMPTS: ClassVar[tuple[str, ...]] = ("system", "context", "prompt")

    context: Text = Field(
        "What is known of this video:\n{context}",
        description="Stands before the pictures, where something is known of the stream.",
    )
    context_wait_s: float = Field(
        60.0, ge=0, description="How long a context is waited for, by the clock; then it goes without."
    )


class Stretches(Section):
    """How far what was seen at a beginning holds."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    """Others than its owner read it too, and only this."""

    every_s: float = Field(0.0, ge=0, description="Asked again each so many seconds of stream time; 0: once.")

    def of(self, grid: Grid, index: int) -> tuple[int, int | None]:
        """[from, until) of the stretch that an index lies in: a function of the grid, so that whoever needs what holds there
        knows where to look for it."""
        if not self.every_s:
            return 0, None
        count = max(1, round(Fraction(self.every_s) / Fraction(grid.step)))
        begin = grid.first + (index - grid.first) // count * count
        return max(0, begin), begin + count


AHEAD: Final = 256
"""Where a task does not say."""


def ahead(source: Source) -> int:
    """Windows that decoding may run ahead of the slowest reader."""
    return source.task.get("ahead") or AHEAD


_VARIABLE = re.compile(r"\{([a-z][a-z_]*)\}")
"""JSON in a prompt has quotes or blanks behind its braces, so it is left alone."""


def variables(template: str) -> Iterator[str]:
    for found in _VARIABLE.finditer(template):
        yield found[1]


def filled(template: str, values: Mapping[str, str]) -> str:
    """A prompt with its variables filled in. What a variable holds is not looked at again."""
    return _VARIABLE.sub(lambda found: values[found[1]], template)


T = TypeVar("T", bound=Section)


class Told(Generic[T]):
    """One section of the tasks that sources carry, parsed once a source."""

    KEPT = 1024

    def __init__(self, section: str, kind: type[T]) -> None:
        self._section, self._kind = section, kind
        self._parsed: OrderedDict[int, tuple[dict[str, Any], T]] = OrderedDict()
        """By identity of the task, which is kept with it, so that the identity stays its own."""

    def of(self, source: Source) -> T:
        known = self._parsed.get(id(source.task))
        if known is not None:
            self._parsed.move_to_end(id(source.task))
            return known[1]
        try:
            parsed = self._kind.model_validate(source.task.get(self._section, {}))
        except ValidationError as e:
            raise Rejected(
                f"task of {source.stream}, revision {source.revision}: '{self._section}' cannot be read: {e}"
            ) from e
        self._parsed[id(source.task)] = (source.task, parsed)
        if len(self._parsed) > self.KEPT:
            self._parsed.popitem(last=False)
        return parsed
