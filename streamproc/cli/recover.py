"""`streamproc recover`: how the text of models is read. A line in, a line out; no bus, no model."""

from __future__ import annotations

import sys
from typing import Any

import typer

from streamproc.cli.frame import Code, emit, say
from streamproc.errors import Unparseable


def register(app: typer.Typer) -> None:
    app.command(
        epilog="""Example: echo '{"raw": "1. **Goal** (home, 0.9): scored"}' | streamproc recover""",
        short_help="Show how the text of a model is read.",
    )(recover)


def recover() -> None:
    """Read model texts from stdin, a line {"raw": …} each, and print for each what was read and how.

    Beside raw a line may say "prompt" (what the model was asked, so that its echo is known) and "finish" ("length" where
    the answer was cut off). Labels stay as they were said.
    """
    from streamproc.models.recovery.events import Answer, events

    bad = False
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            raw, prompt, cut = _asked(line)
        except Unparseable as e:
            bad = True
            say(f'line {number} is not {{"raw": …}}: {e}')
            emit(_shown(Answer(outcome="unreadable", how="no line of raw", events=())))
            continue
        emit(_shown(events(raw, prompt=prompt, cut=cut)))
    if bad:
        say(f'{bad} lines are not {{"raw": …}}')
        raise typer.Exit(Code.FAILED)


def _asked(line: bytes) -> tuple[str, str | None, bool]:
    import orjson

    try:
        said: Any = orjson.loads(line)
    except orjson.JSONDecodeError as e:
        raise Unparseable(f"no JSON: {e}") from e
    if not isinstance(said, dict) or not isinstance(said.get("raw"), str):
        raise Unparseable('no object with a string under "raw"')
    prompt = said.get("prompt")
    return said["raw"], prompt if isinstance(prompt, str) else None, said.get("finish") == "length"


def _shown(answer: Any) -> dict[str, Any]:
    return {"outcome": answer.outcome, "how": answer.how, "events": answer.events}
