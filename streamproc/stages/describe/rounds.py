"""Questions about the same pictures, one after the other: each sees what was concluded before, several samples answer it,
and their votes stand. A field that comes out empty is asked for again, with a higher penalty on repetition each time.

Nothing here calls anybody: `next_call` says what to ask, `heard` what an answer comes to, and all that is known between
two calls is one plain struct, so that it can be kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from msgspec import Struct
from msgspec.structs import replace
from pydantic import Field

from streamproc.messages import Seconds, Tokens
from streamproc.models.call import Answer, Call
from streamproc.models.prompt import Picture, Prompt
from streamproc.models.recovery.fields import fields
from streamproc.models.vote import kinds_of, vote
from streamproc.stages.asking import kept, plain, sound
from streamproc.stages.form import Fields, explained, schema
from streamproc.stages.options import Section, Text, filled

PENALTY_STEP: Final = 0.1


class Round(Section):
    """One question, and the fields of its answer."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = Field(description="What the question is about.")
    prompt: Text = Field(description="The question.")
    fields: Fields = Field(
        {},
        description="Name → JSON schema. Choices are voted on, numbers have their median, texts come from the best sample. None: those of all rounds before.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What does not change from round to round."""

    rounds: Sequence[Round]
    pictures: tuple[Picture, ...]
    system: str | None
    context: str | None
    values: Mapping[str, str]
    """Variables of the prompts."""
    samples: int
    max_tokens: int
    params: Mapping[str, float]
    penalty: float = 1.0
    """On repetition: what is raised where an answer has holes; the task's, else that of the model's card."""
    penalty_most: float

    def form(self, number: int) -> Mapping[str, Any]:
        """The fields that a round asks for."""
        now, *before = reversed(self.rounds[: number + 1])
        return now.fields or {name: wanted for one in reversed(before) for name, wanted in one.fields.items()}


class SoFar(Struct, frozen=True, omit_defaults=True):
    """What is known between two calls."""

    round: int = 0
    again: int = 0
    """How often this round was asked again."""
    found: dict[str, Any] = {}
    """By this round. What stands is not asked for again, so a later answer does not change it."""
    fields: dict[str, Any] = {}
    """By the rounds before; the last that has a field has the say."""
    samples: tuple[dict[str, Any], ...] = ()
    """Of the last round that could be read."""
    agreements: tuple[float, ...] = ()
    """One a round."""
    texts: tuple[str, ...] = ()
    """All that was said, as it came, as far as a record carries it."""
    said: int = 0
    """How many characters that was."""
    model: str | None = None
    prompt: str | None = None
    """Of the first question."""
    how: str | None = None
    tokens: Tokens = Tokens(into=0, out=0)
    seconds: Seconds = Seconds(queued=0.0, served=0.0)
    attempts: int = 0

    @property
    def agreement(self) -> float | None:
        return sum(self.agreements) / len(self.agreements) if self.agreements else None


def next_call(case: Case, so_far: SoFar) -> Call | None:
    """What to ask next; None: nothing is left to ask."""
    if so_far.round == len(case.rounds):
        return None
    params = dict(case.params)
    if so_far.again:
        params["repetition_penalty"] = _penalty(case, so_far.again)
    return Call(prompt=_prompt(case, so_far), samples=case.samples, max_tokens=case.max_tokens, params=params)


def heard(case: Case, so_far: SoFar, answer: Answer) -> SoFar:
    """What is known behind the answer to `next_call`."""
    asked, form = _prompt(case, so_far), schema(case.form(so_far.round))
    read = [
        fields(s.text, form, prompt=asked.question, cut=s.finish == "length")
        for s in answer.reply.samples
        if s.finish != "refused"
    ]
    values, said = [r.values for r in read if r.outcome == "done"], [sound(s.text) for s in answer.reply.samples]
    tally = vote(values, kinds_of(form))
    found = tally.values | so_far.found
    so_far = replace(
        so_far,
        found=found,
        samples=tuple(values) or so_far.samples,
        agreements=so_far.agreements
        if so_far.again or tally.agreement is None
        else (*so_far.agreements, tally.agreement),
        texts=tuple(kept([*so_far.texts, *said])),
        said=so_far.said + sum(map(len, said)),
        model=answer.model,
        prompt=so_far.prompt or answer.prompt,
        how=next((r.how for r in read if r.outcome == "done"), so_far.how),
        tokens=_sum(so_far.tokens, answer.tokens),
        seconds=Seconds(
            queued=round(so_far.seconds.queued + answer.queued_s, 3),
            served=round(so_far.seconds.served + answer.served_s, 3),
        ),
        attempts=so_far.attempts + answer.attempts,
    )
    holes = form["properties"].keys() - found.keys()
    if holes and _penalty(case, so_far.again + 1) <= case.penalty_most:
        return replace(so_far, again=so_far.again + 1)
    return left(so_far)


def left(so_far: SoFar) -> SoFar:
    """On to the next round, with what this one has found."""
    return replace(so_far, round=so_far.round + 1, again=0, found={}, fields=so_far.fields | so_far.found)


def _penalty(case: Case, again: int) -> float:
    return round(case.penalty + PENALTY_STEP * again, 3)


def _prompt(case: Case, so_far: SoFar) -> Prompt:
    """The same beginning and the same pictures in every round, so that a server keeps what it made of them."""
    form = case.form(so_far.round)
    said = "\n".join(f"{name}: {plain(value)}" for name, value in so_far.fields.items())
    values = {**case.values, "said": said or "nothing", "fields": explained(form)}
    question = filled(case.rounds[so_far.round].prompt, values)
    return Prompt(question, system=case.system, context=case.context, pictures=case.pictures, schema=schema(form))


def _sum(one: Tokens, other: Tokens) -> Tokens:
    return Tokens(into=one.into + other.into, cached=one.cached + other.cached, out=one.out + other.out)
