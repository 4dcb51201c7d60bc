"""The prompts of the tasks that ship, as they go over the wire, pinned in `prompts/`: a change of one is seen, and meant.

`python -m tests.stages.test_golden_prompts` writes them anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from streamproc.messages import Context
from streamproc.models.body import Manner, encoded
from streamproc.models.prompt import Prompt
from streamproc.stages import caption, context, detect
from streamproc.stages.form import Fields
from streamproc.stages.options import Labels
from tests.sim import toys
from tests.stages.watching import task, window

GOLDEN = Path(__file__).parent / "prompts"
OF = toys.source("m", services=(), count=0)
SECOND = window(OF, 1)

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "soccer.context": ("soccer", "context", {}),
    "soccer.detect": ("soccer", "detect", {}),
    "dashcam.caption": ("dashcam", "caption", {}),
    "any.context": ("any", "context", {"context": {"model": "m"}}),
    "any.caption": ("any", "caption", {}),
    "any.detect": ("any", "detect", {}),
    "any.detect.labels": (
        "any",
        "detect",
        {"labels": {"names": ["Red car", "Fire"], "about": {"Fire": "flames are seen"}}},
    ),
    "any.detect.question": ("any", "detect", {"detect": {"question": "tell me when a red car passes"}}),
}
"""Name → task, stage, and what is set on top."""


def known(fields: Fields) -> Context:
    return Context.of(SECOND, fields={name: f"the {name}" for name in fields})


def prompt(name: str) -> Prompt:
    of, stage, more = CASES[name]
    said = task(of, **more)
    wanted = Labels.model_validate(said.get("labels", {}))
    told = known(context.Options.model_validate(said["context"]).fields) if "context" in said else None
    if stage == "context":
        options = context.Options.model_validate(said["context"])
        return context.prompt_of(options, [(f.t_ms, f.jpeg) for f in SECOND.frames])
    if stage == "caption":
        return caption.prompt_of(caption.Options.model_validate(said["caption"]), wanted, SECOND, told)
    return detect.prompt_of(detect.Options.model_validate(said["detect"]), wanted, SECOND, told)


def wire(of: Prompt) -> list[tuple[str, str]]:
    """What a server gets, part by part: who says it, and what."""
    body = orjson.loads(encoded(of, Manner(model="m", json_mode="schema", label="{time_s:g} s"), {}).data)
    parts = list[tuple[str, str]]()
    for message in body["messages"]:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            parts.append((message["role"], part["text"] if part["type"] == "text" else "[picture]"))
    if form := body.get("response_format"):
        schema = orjson.dumps(form["json_schema"]["schema"], option=orjson.OPT_INDENT_2).decode()
        parts.append(("schema", schema))
    return parts


def shown(of: Prompt) -> str:
    return "\n\n".join(f"## {who}\n{what}" for who, what in wire(of)) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_the_prompt_of_a_task_is_the_one_that_is_pinned(name: str) -> None:
    assert shown(prompt(name)) == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", CASES)
def test_constant_things_come_first_then_the_stream_then_pictures_in_time_order_and_the_question_last(
    name: str,
) -> None:
    of = prompt(name)
    parts = [part for part in wire(of) if part[0] != "schema"]
    pictures = [i for i, (_, what) in enumerate(parts) if what == "[picture]"]
    assert parts[0] == ("system", of.system)
    assert parts[-1] == ("user", of.question)
    assert pictures[-1] == len(parts) - 2
    times = [float(parts[i - 1][1].removesuffix(" s")) for i in pictures]
    assert times == sorted(times) == [2, 3, 4, 5]
    if of.context is not None:
        assert parts[1] == ("user", of.context)
        assert pictures[0] == 3


@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith(".context")])
def test_two_windows_of_a_stream_share_all_but_their_pictures(name: str) -> None:
    """What differs from call to call is paid for each time; and results are told apart by the prompt's hash."""
    of, stage, more = CASES[name]
    said = task(of, **more)
    wanted = Labels.model_validate(said.get("labels", {}))
    room = {"caption": caption, "detect": detect}[stage]
    options: Any = room.Options.model_validate(said[stage])
    digests = {room.prompt_of(options, wanted, window(OF, i), None).digest for i in (0, 1, 700)}
    assert len(digests) == 1


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case in CASES:
        (GOLDEN / f"{case}.txt").write_text(shown(prompt(case)))
