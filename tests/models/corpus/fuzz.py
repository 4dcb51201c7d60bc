"""Strings that no model would write, and some that one might: answers broken at random, brackets in heaps, noise.

`invented` is the judge: what an answer says that does not stand in its text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from streamproc.models.recovery.events import Answer
from tests.models.corpus.answers import cases

_PIECES = (
    *"{}[]:,\"'`“”‘’\\/#*_-|()<>.\n \t0123456789",
    *(
        "```",
        "```json",
        "//",
        "/*",
        "*/",
        "\\u00e9",
        "\\ud800",
        "\\n",
        '\\"',
        "<think>",
        "</think>",
        "[INST]",
        "[/INST]",
    ),
    *("label", '"label"', "'label'", "label:", "event", "team", "confidence", "details", "time", "Team: ", "Event: "),
    *(
        "Goal",
        '"Goal"',
        "'Foul'",
        "Corner",
        "home",
        "away",
        "None",
        "null",
        "true",
        "NaN",
        "0.9",
        "1e999",
        "85%",
        "- ",
        "1. ",
    ),
    *(
        "**Goal**",
        '{"Goal": {',
        '"Corner": null',
        "**",
        "assistant\n",
        "ASSISTANT:",
        "events",
        '"events": [',
        "é",
        "中",
        "\u2028",
        "\x00",
        "\ud83d",
        "😀",
    ),
)
_HEAPS = ("{", "[", '"', "'", "{[", '{"', '{"a":', "[[", "]}", "\\", "/*", "//", "`", "```", " ", "\n", "(", "- ", "1. ", "|", "a", "0", ",", ":",
          '{"a":"x', "{'label':'Goal',", "**", "_", "<|", "</think>", "No ", "no significant ", "Label: ", "\t", '[""', "“", "#", '"\n')  # fmt: skip


def strings(seed: int, count: int, *, longest: int = 32_768) -> Iterator[str]:
    rng = random.Random(seed)
    answers = [c.raw for c in cases()]
    for _ in range(count):
        kind = rng.random()
        if kind < 0.6:
            yield _broken(rng, rng.choice(answers))
        elif kind < 0.7:
            yield _broken(rng, rng.choice(answers)) + rng.choice(_PIECES) + _broken(rng, rng.choice(answers))
        elif kind < 0.95:
            yield "".join(rng.choices(_PIECES, k=rng.randrange(60)))
        elif kind < 0.999:
            yield (
                rng.choice(_HEAPS) * rng.randrange(300) + rng.choice(answers) + rng.choice(_HEAPS) * rng.randrange(300)
            )
        else:
            heap = rng.choice(_HEAPS) + rng.choice(_HEAPS) * rng.randrange(2)
            yield heap * (longest // len(heap))


def _broken(rng: random.Random, text: str) -> str:
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(text) + 1)
        to = min(len(text), at + rng.choice((0, 0, 1, 1, 2, 5, 20)))
        what = rng.random()
        if what < 0.4:
            text = text[:at] + text[to:]
        elif what < 0.7:
            text = text[:at] + rng.choice(_PIECES) + text[to:]
        elif what < 0.8:
            text = text[:at] + text[at:to] * 2 + text[to:]
        elif what < 0.95:
            text = text[:at]
        else:
            text = text[at:]
    return text


_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d{1,3}))?")


def invented(text: str, answer: Answer) -> str | None:
    """What of an answer is not in the text, word by word and number by number."""
    once = _unescaped(text)
    plain = f"{once} {_unescaped(once)}"  # twice, too: JSON may stand in a string of JSON
    words = set(_WORD.findall(f"{text} {plain}".lower()))
    numbers = {
        float(f"{number[:300]}e{power}")
        for number, exponent in _NUMBER.findall(f"{text} {plain}")
        for power in ("0", exponent or "0")
    }
    for event in answer.events:
        for said in (event.said or event.label, event.team, event.details):
            for word in _WORD.findall((said or "").lower()):
                if word not in words and word not in plain.lower() and word not in text.lower():
                    return f"{word!r} of {event}"
        if event.confidence is not None and not any(
            abs(event.confidence - n / scale) < 1e-9 for n in numbers for scale in (1, 10, 100)
        ):
            return f"confidence of {event}"
    return None


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else {"n": "\n", "t": "\t"}.get(m[2], m[2]), text)
