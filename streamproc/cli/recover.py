"""`streamproc recover`: how the text of models is read. A line in, a line out; no bus, no model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from streamproc.cli.frame import Code, SetOption, emit, say
from streamproc.errors import Misconfigured, Unparseable, did_you_mean

if TYPE_CHECKING:
    from streamproc.stages.form import Said
    from streamproc.task import Task

READS = ("detect", "caption", "context")
"""Stages whose answers are read here, the first of them that a task has unless a line names another."""


def register(app: typer.Typer) -> None:
    app.command(
        epilog="""Example: echo '{"raw": "1. **Goal** (home, 0.9): scored"}' | streamproc recover --task soccer""",
        short_help="Show how the text of a model is read.",
    )(recover)


def recover(
    task: Annotated[
        str | None, typer.Option("--task", metavar="T", help="Read as this task does: its labels, its fields.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Read model texts from stdin, a line {"raw": …} each, and print for each what was read and how.

    Beside raw a line may say "prompt" (what the model was asked, so that its echo is known), "finish" ("length" where
    the answer was cut off) and "stage" (detect, caption or context; by default the first of them that the task has).
    Without a task labels stay as they were said. Answers of caption and context have "fields", and no events.
    """
    if set_ and task is None:
        raise Misconfigured("--set changes an option of a task: name it with --task")
    readers, bad = _readers(task, set_ or ()), 0
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            asked = _asked(line, readers)
        except Unparseable as e:
            bad += 1
            say(f'line {number} is not {{"raw": …}}: {e}')
            emit({"outcome": "unreadable", "how": "no line of raw", "events": []})
            continue
        emit(readers[asked.stage](asked))
    if bad:
        say(f'{bad} lines are not {{"raw": …}}')
        raise typer.Exit(Code.FAILED)


class Asked(NamedTuple):
    """A line, understood."""

    raw: str
    prompt: str | None
    cut: bool
    stage: str


Read = Callable[[Asked], dict[str, Any]]


def _asked(line: bytes, readers: dict[str, Read]) -> Asked:
    import orjson

    try:
        said: Any = orjson.loads(line)
    except orjson.JSONDecodeError as e:
        raise Unparseable(f"no JSON: {e}") from e
    if not isinstance(said, dict) or not isinstance(said.get("raw"), str):
        raise Unparseable('no object with a string under "raw"')
    prompt, stage = said.get("prompt"), said.get("stage", next(iter(readers)))
    if not isinstance(stage, str) or stage not in readers:
        raise Unparseable(f"no answers of '{stage}' are read{did_you_mean(str(stage), readers)}")
    return Asked(said["raw"], prompt if isinstance(prompt, str) else None, said.get("finish") == "length", stage)


# reading ------------------------------------------------------------------------------------------------------------


def _readers(name: str | None, options: Sequence[str]) -> dict[str, Read]:
    """Stage → how its answers are read."""
    if name is None:
        return {"detect": _as_said}
    from streamproc.task import load

    task = load(name, options=options)
    made: dict[str, Callable[[Task], Read]] = {"detect": _detect, "caption": _caption, "context": _context}
    found = {stage: made[stage](task) for stage in READS if getattr(task, stage) is not None}
    if not found:
        raise Misconfigured(
            f"task '{task.name}' has none of the stages {', '.join(READS)}, whose answers are read here"
        )
    return found


def _as_said(asked: Asked) -> dict[str, Any]:
    from streamproc.models.recovery.events import events

    found = events(asked.raw, prompt=asked.prompt, cut=asked.cut)
    return {"outcome": found.outcome, "how": found.how, "events": found.events}


def _detect(task: Task) -> Read:
    from msgspec.structs import replace

    from streamproc.models.recovery.events import events
    from streamproc.stages import detect

    assert task.detect is not None, "it is read where the task has it"
    labels, alone = detect.known(task.detect, task.labels), detect.only(task.detect, task.labels)

    def read(asked: Asked) -> dict[str, Any]:
        found = events(asked.raw, labels, prompt=asked.prompt, cut=asked.cut)
        said = [e if task.labels.teams else replace(e, team=None) for e in found.events]
        if alone:  # asked a question, whatever it calls what it sees is the answer
            said = [replace(e, label=alone, said=e.said or (e.label if e.label != alone else None)) for e in said]
        return {"outcome": found.outcome, "how": found.how, "events": said}

    return read


def _caption(task: Task) -> Read:
    from streamproc.models.prompt import Prompt
    from streamproc.models.reply import Sample
    from streamproc.stages import caption, form

    assert task.caption is not None, "it is read where the task has it"
    fields = task.caption.fields
    schema = form.schema(fields, task.caption.optional) if fields else None

    def read(asked: Asked) -> dict[str, Any]:
        sample = Sample(text=asked.raw, finish="length" if asked.cut else "stop")
        return _shown(caption.read([sample], Prompt(asked.prompt or "", schema=schema)))

    return read


def _context(task: Task) -> Read:
    from streamproc.models.reply import Sample
    from streamproc.stages import form

    assert task.context is not None, "it is read where the task has it"
    schema = form.schema(task.context.fields, task.context.optional)

    def read(asked: Asked) -> dict[str, Any]:
        sample = Sample(text=asked.raw, finish="length" if asked.cut else "stop")
        return _shown(form.said([sample], schema, prompt=asked.prompt or ""))

    return read


def _shown(said: Said) -> dict[str, Any]:
    outcome = "done" if said.values else "unreadable"
    return {"outcome": outcome, "how": said.how, "events": [], "fields": said.values, "missing": said.missing}
