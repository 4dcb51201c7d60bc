"""What a run will ask for, before it begins: windows, calls and tokens, as far as files and cards tell beforehand.

What comes of results (a table to look through, events to describe) is not known before there are any, and not guessed at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from streamproc.models.card import Served
from streamproc.models.prompt import BYTES_PER_TOKEN
from streamproc.pipeline.parts import PARTS, Plan
from streamproc.task import Task

WINDOWS = "windows"
ANSWER_TOKENS = 64
"""Of an answer about one window; most say that there is nothing."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is left of one stream: its windows, and one of its pictures as it is shown."""

    windows: int
    frames: int
    width: int
    height: int


@dataclass(slots=True)
class Forecast:
    windows: int = 0
    calls: int = 0
    tokens: int = 0
    unknown: bool = False
    """Of some model nobody knows how it counts a picture: tokens are those of the others."""

    def told(self) -> str:
        said = f"{self.windows:,} windows, about {self.calls:,} calls"
        if self.tokens:
            said += f" and {'more than ' if self.unknown else ''}{self.tokens:,} tokens"
        return said


def forecast(
    task: Task, plans: Sequence[Plan], served: Iterable[Served], left: Mapping[str, Sequence[Look]]
) -> Forecast:
    """`left`: service → what it has before it."""
    cards = {one.name: one.card for one in served}
    found = Forecast(windows=sum(look.windows for look in left.get("decode", ())))
    for plan in plans:
        if plan.model is None or WINDOWS not in PARTS[plan.stage].kind.reads or plan.stage == "context":
            continue
        section = getattr(task, plan.stage)
        text = (len(section.system) + len(section.prompt)) // BYTES_PER_TOKEN + ANSWER_TOKENS * section.samples
        card = cards.get(plan.model)
        for look in left.get(plan.service, ()):
            each = card.speak.image_tokens(look.width, look.height) if card else None
            found.unknown |= each is None
            found.calls += look.windows
            found.tokens += look.windows * (text + (each or 0) * look.frames) if each is not None else 0
    return found
