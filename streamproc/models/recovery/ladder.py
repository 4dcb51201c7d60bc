"""Down the ladder: which JSON values stand in a text, and by which rung they were read.

    json      the whole text is JSON
    fenced    JSON in a ``` block
    embedded  JSON among prose
    lenient   JSON but for quotes, commas, literals, comments
    closed    … with only brackets missing at the end
    cut       … broken off: the objects that had been whole

Before any of them what is not the answer goes: thoughts, the prompt said again, turns of a chat (`echo`).
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import orjson
from msgspec import Struct

from streamproc.models.recovery.lenient import scan

LONGEST: Final = 2**18
"""Characters that are looked at at all, and only by the strict rungs."""
LONGEST_BROKEN: Final = 10_000
"""Characters that the patient rungs look at, some 2,500 tokens: what is behind counts as cut off."""

_FENCE: Final = re.compile(r"```[ \t]*+[\w+-]{0,20}+[ \t]*+\n?+(.*?)```", re.DOTALL)
_OPEN_FENCE: Final = re.compile(r"```[ \t]*+(?:json|JSON|python|javascript|js)?+[ \t]*+\n?+(?=\s*+[\[{])")
_TURN: Final = re.compile(
    r"(?:^|\n)[ \t]*(?:assistant:|<\|assistant\|>|<\|im_start\|>[ \t]*assistant|assistant[ \t]*\n|model[ \t]*\n)"
    r"|\[/INST\]|<\|start_header_id\|>[ \t]*assistant[ \t]*<\|end_header_id\|>",
    re.IGNORECASE,
)
_SPEAKERS: Final = ("assistant", "model", "[/inst]")
_SPECIAL: Final = re.compile(r"</?s>|<\|(?:im_end|end|endoftext|eot_id|assistant|user|begin_of_box|end_of_box)\|>")
_MOST_BLOCKS: Final = 64
_MOST_VALUES: Final = 256
_ECHO_CHARACTERS: Final = 24
"""A line of the prompt that is at least so long is not said again by chance."""

_decoder: Final = json.JSONDecoder()


class Read(Struct, frozen=True):
    """Values in the text's order, and the rungs that were needed. No rung: no JSON stands in it."""

    values: tuple[Any, ...]
    how: tuple[str, ...]
    text: str
    """What was left of the text once what is not the answer was gone."""
    whole: bool = False
    """The values are all that there is: no prose stands around them."""


def read(text: str, *, prompt: str | None = None, cut: bool = False) -> Read:
    """`cut`: the server said that the answer ended by length. `prompt`: what it may have said again."""
    if text.startswith("```"):  # with plain JSON by far the most frequent
        if (found := _fenced(text, 0)) is not None:
            return Read(found, ("fenced",), text, whole=True)
    elif (value := _strict(text)) is not _NOTHING:
        return Read((value,), ("json",), text, whole=True)
    answer, how = without_echo(text, prompt)
    if how and (value := _strict(answer)) is not _NOTHING:
        return Read((value,), (*how, "json"), answer, whole=True)
    if (start := answer.find("```")) >= 0:
        found = _fenced(answer, start)
        if found is not None:
            return Read(found, (*how, "fenced"), answer, whole=True)
        answer = _OPEN_FENCE.sub("", answer[:LONGEST]).replace("```", "\n")
    if (values := _embedded(answer)) is not None:
        return Read(values, (*how, "embedded"), answer)
    shortened = answer[:LONGEST_BROKEN]
    lenient = scan(shortened, cut=cut or len(shortened) < len(answer))
    if not lenient.values:
        return Read((), (*how, "cut") if lenient.broken else how, answer)
    rungs = ["lenient"]
    if lenient.closed:
        rungs.append("closed")
    if lenient.broken or len(shortened) < len(answer):
        rungs.append("cut")
    return Read(tuple(lenient.values), (*how, *rungs), answer, whole=_only(shortened))


_NOTHING: Final = object()


def _strict(text: str) -> Any:
    if len(text) > LONGEST:
        return _NOTHING
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _NOTHING


def _fenced(text: str, start: int) -> tuple[Any, ...] | None:
    """The values of all blocks, if each is JSON; blocks of other things beside it are none of ours."""
    values = []
    for block in islice(_FENCE.finditer(text[:LONGEST], start), _MOST_BLOCKS):
        value = _strict(block[1])
        if value is not _NOTHING:
            values.append(value)
        elif "{" in block[1] or "[" in block[1]:
            return None
    return tuple(values) or None


def _embedded(text: str) -> tuple[Any, ...] | None:
    """Every value among the prose, if all that opens is strict JSON."""
    text, values, at = text[:LONGEST], list[Any](), 0
    while (opening := _next(text, at)) and len(values) < _MOST_VALUES:
        try:
            value, at = _decoder.raw_decode(text, opening - 1)
        except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError of its own
            return None
        values.append(value)
    return tuple(values) or None


_OPENING: Final = re.compile(r"[{\[]")


def _next(text: str, at: int) -> int:
    """One past the next bracket; 0 where there is none."""
    found = _OPENING.search(text, at)
    return found.end() if found else 0


def _only(text: str) -> bool:
    """Nothing but JSON stands in it, as far as its ends tell."""
    return text.lstrip()[:1] in ("{", "[") and text.rstrip()[-1:] in ("}", "]")


# what is not the answer ---------------------------------------------------------------------------------------------


def without_echo(text: str, prompt: str | None) -> tuple[str, tuple[str, ...]]:
    """The text without thoughts, turns before the answer, and lines of the prompt; and which of them there were."""
    how, answer = [], text[:LONGEST]
    if "</think>" in answer:
        answer = answer.rpartition("</think>")[2]
        how.append("thoughts")
    if "<|" in answer or "s>" in answer:
        answer = _SPECIAL.sub(lambda m: m[0] if m[0] == "<|assistant|>" else "", answer)
    if prompt and (said := _repeated(answer, prompt)) is not None:
        answer = said
        how.append("echo")
    folded = answer.lower()
    turns = list(_TURN.finditer(answer)) if any(name in folded for name in _SPEAKERS) else []
    if turns and answer[turns[-1].end() :].strip():
        if answer[: turns[-1].start()].strip() and "echo" not in how:
            how.append("echo")
        answer = answer[turns[-1].end() :]
    return answer.strip(), tuple(how)


def _repeated(answer: str, prompt: str) -> str | None:
    """The answer without what it repeats of the prompt; None where it repeats nothing."""
    if len(answer) >= _ECHO_CHARACTERS and (shared := _shared(answer, prompt)):
        return answer[shared:]
    told = _told(prompt)
    lines = answer.splitlines()
    # 'İ' in lower case is two characters; no other grows. A heap of lines has thousands that are too short.
    repeats = {i for i, line in enumerate(lines) if 2 * len(line) >= _ECHO_CHARACTERS and _bare(line) in told}
    if all(lines[i].lstrip().startswith(("{", "[")) for i in repeats):
        return None  # a line of JSON that stands in the prompt as an example may well be the answer
    return "\n".join(line for i, line in enumerate(lines) if i not in repeats)


def _shared(answer: str, prompt: str) -> int:
    """How much of the answer's beginning is the prompt, all of it."""
    start = len(answer) - len(answer.lstrip())
    prompt = prompt.strip()
    return start + len(prompt) if len(prompt) >= _ECHO_CHARACTERS and answer.startswith(prompt, start) else 0


@lru_cache(maxsize=64)
def _told(prompt: str) -> frozenset[str]:
    return frozenset(b for line in prompt.splitlines() if len(b := _bare(line)) >= _ECHO_CHARACTERS)


def _bare(line: str) -> str:
    return line.strip(" \t>*_#").lower()
