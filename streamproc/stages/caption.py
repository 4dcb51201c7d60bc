"""Caption: what a window shows, in words or in fields.

A task that declares no fields gets the model's own words. One that does gets an object, held to its schema where the model
can be, and read leniently where it cannot; fields that are missing, or say what they may not, are asked for again. What is
missing then stays missing; an answer of which nothing can be read is no caption.

What happens when is not asked here: that is `detect`'s business, and of many captions in a row `locate`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, Self

from pydantic import Field, model_validator

from streamproc.errors import LeftOut, did_you_mean
from streamproc.messages import Caption, Context, Source, Window
from streamproc.models.call import Answer
from streamproc.models.prompt import Prompt
from streamproc.models.recovery.ladder import without_echo
from streamproc.models.reply import Sample
from streamproc.models.vote import vote
from streamproc.stage import Each, Look
from streamproc.stages.asking import Contexts, Models, asked, context_part, pictures, spoken, told
from streamproc.stages.form import Fields, Said, explained, said, schema
from streamproc.stages.options import Informed, Labels, ModelName, Text, Told, filled
from streamproc.stages.reasons import NO_PICTURES, UNREADABLE

TEXT: Final = "text"
"""The field of this name is the caption's text; without any fields the whole answer is."""

SYSTEM: Final = "You are shown pictures of a video in time order. Say what is to be seen in them, and nothing else."
PROMPT: Final = "Say in two sentences what these pictures show."
PROMPT_OF_FIELDS: Final = """Say what these pictures show. Answer with a JSON object that has these fields:
{fields}"""
AGAIN: Final = "Answer with all fields. Left out, or answered with what is not allowed there, was: {missing}."


class Options(Informed):
    """[caption]"""

    VARIABLES: ClassVar[Mapping[str, str]] = {
        **Informed.VARIABLES,
        "fields": "the fields of an answer, a line each: what they mean and may be",
        "labels": "the task's labels, a line each",
    }

    model: ModelName = Field(description="Who looks at the windows.")
    system: Text = Field(SYSTEM, description="Stands before everything else; the same for every window.")
    prompt: Text = Field(PROMPT, description="The question, behind the pictures.")
    fields: Fields = Field({}, description="What a caption has: name → JSON schema of its value. None: words alone.")
    optional: tuple[str, ...] = Field((), description="Fields that an answer may lack.")
    again: int = Field(1, ge=0, le=4, description="How often fields that are missing are asked for again.")

    @model_validator(mode="before")
    @classmethod
    def _fields_are_asked_for(cls, said: Any) -> Any:
        asks = not isinstance(said, dict) or "prompt" in said or not said.get("fields")
        return said if asks else said | {"prompt": PROMPT_OF_FIELDS}

    @model_validator(mode="after")
    def _only_fields_that_there_are(self) -> Self:
        for name in self.optional:
            if name not in self.fields:
                raise ValueError(f"optional: no field '{name}'{did_you_mean(name, self.fields)}")
        return self


def prompt_of(options: Options, labels: Labels, window: Window, context: Context | None) -> Prompt:
    values = told(context) | {"fields": explained(options.fields), "labels": labels.listed()}
    return Prompt(
        filled(options.prompt, values),
        system=filled(options.system, values) or None,
        context=context_part(options, values),
        pictures=pictures(window),
        clips=window.clips,
        schema=schema(options.fields, options.optional) if options.fields else None,
    )


def read(samples: Sequence[Sample], prompt: Prompt) -> Said:
    """What an answer to a prompt says."""
    if prompt.schema is not None:
        return said(samples, prompt.schema, prompt=prompt.question)
    texts = [without_echo(s.text, prompt.question) for s in samples if s.finish != "refused"]
    words = [{TEXT: text} for text, _ in texts if text]
    if not words:
        return Said(values={}, missing=(TEXT,), how="text")
    if len(samples) > 1:
        return Said(values=vote(words, {TEXT: "text"}).values, missing=(), how=f"{len(words)} of {len(samples)} votes")
    cut = ("cut",) if samples[0].finish == "length" else ()
    return Said(values=words[0], missing=(), how=", ".join((*texts[0][1], "text", *cut)))


class Captioner(Each):
    """One service a model: `caption.M`."""

    reads, writes, tables = ("windows",), ("captions",), ("contexts",)

    def __init__(self, model: str, models: Models) -> None:
        self._model, self._models = model, models
        self._options, self._labels = Told("caption", Options), Told("labels", Labels)
        self._contexts = Contexts()

    async def handle(self, record: Window, look: Look) -> Caption:
        if not record.frames:
            return Caption.of(record, outcome="skipped", reason=NO_PICTURES)
        source = look.source(record)
        options = self._options.of(source)
        context = self._contexts.of(source, record.index, look, wait_s=options.context_wait_s)
        prompt = prompt_of(options, self._labels.of(source), record, context)
        answers, found = await self._asked(prompt, options, source)
        spoke = spoken(*answers, how=found.how, context=context.id if context else None)
        if not found.values:
            return Caption.of(record, outcome="failed", reason=UNREADABLE, **spoke)
        fields = {name: value for name, value in found.values.items() if name != TEXT}
        return Caption.of(record, text=found.values.get(TEXT), fields=fields or None, **spoke)

    async def _asked(self, prompt: Prompt, options: Options, source: Source) -> tuple[list[Answer], Said]:
        """Asked again while something is missing, as often as may be. What was said first stays."""
        answers, values, how = list[Answer](), dict[str, Any](), list[str]()
        question = prompt
        while True:
            try:
                answers.append(await asked(self._models, self._model, question, options, source))
            except LeftOut as e:
                if not answers:
                    raise
                how.append(f"not asked again: {e}")
                break
            found = read(answers[-1].reply.samples, question)
            values = found.values | values
            how.append(found.how)
            missing = tuple(name for name in found.missing if name not in values)
            if not missing or len(answers) > options.again:
                break
            again = AGAIN.format(missing=", ".join(missing))
            question = replace(prompt, question=f"{prompt.question}\n\n{again}")
        if missing and values:
            how.append(f"without {', '.join(missing)}")
        return answers, Said(values=values, missing=missing, how="; ".join(how))
