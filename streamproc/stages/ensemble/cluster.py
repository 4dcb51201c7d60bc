"""One call that joins several descriptions of an incident into what most of them say.

The model puts together those with the same reason, and answers for the largest group: its smallest frame, and two
sentences that have at most so many words in all. What it says is checked: a frame that no description has gives way to the
most frequent one, the smallest of several; too many words are asked for once more, and then the group's own sentences stand,
of the description that is most like the others. An answer that cannot be read decides nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import product
from typing import Any, Final

import orjson
from msgspec import Struct
from rapidfuzz import fuzz

from streamproc.models.call import Answer, Call
from streamproc.models.prompt import Prompt
from streamproc.models.recovery.fields import fields
from streamproc.models.vote import mode
from streamproc.stages.ensemble.rows import FRAME, Row
from streamproc.stages.options import filled

TEXTS: Final = ("before", "reason")
DECIDES: Final = (FRAME, *TEXTS)
"""Of a row; the rest is not asked for."""

SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "members": {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 64},
        FRAME: {"type": "integer", "minimum": 0},
        "before": {"type": "string", "maxLength": 400},
        "reason": {"type": "string", "maxLength": 400},
    },
    "required": ["members", *DECIDES],
    "additionalProperties": False,
}

SYSTEM: Final = (
    "You compare descriptions that several observers wrote of the same incident, and say what most of them say."
)
PROMPT: Final = """Each line describes the same incident in a video. `start_frame` is where it begins, `before` what was seen until then, `reason` why it happened.

{inputs}

1. Put together the lines whose `reason` means the same, in whatever words. Take the largest group; of several as large the one whose smallest start_frame is smaller.
2. Answer with JSON: `members`, the numbers of the lines in that group; `start_frame`, the smallest one in the group; `before` and `reason`, one plain sentence each, saying what the group says and nothing that no line of it says. Both sentences together have at most {words} words."""

_TOO_LONG: Final = "\n\nYou have answered this with {said} words. Both sentences together have at most {words} words."
_UNREAD: Final = "\n\nYour answer could not be read. Answer with the JSON and nothing else."

Ask = Callable[[Call], Awaitable[Answer]]


class Asked(Struct, frozen=True, kw_only=True):
    """How to ask: the task's options, as far as they matter here."""

    system: str = SYSTEM
    prompt: str = PROMPT
    words: int = 30
    again: int = 1
    samples: int = 1
    max_tokens: int = 4096
    params: Mapping[str, float] = {}


class Decision(Struct, frozen=True, kw_only=True):
    fields: dict[str, Any]
    """Empty where no answer could be read."""
    members: tuple[int, ...]
    """Rows of the group, from 0; none where the model named none that there are."""
    how: str


def prompt_of(rows: Sequence[Row], asked: Asked, remark: str = "") -> Prompt:
    lines = [
        orjson.dumps({"line": number, **{name: row.get(name) for name in DECIDES}}).decode()
        for number, row in enumerate(rows, 1)
    ]
    question = filled(asked.prompt, {"inputs": "\n".join(lines), "words": str(asked.words)})
    return Prompt(question + remark, system=asked.system or None, schema=SCHEMA)


async def clustered(rows: Sequence[Row], asked: Asked, ask: Ask) -> tuple[Decision, list[Answer]]:
    """The decision, and all that was answered on the way to it."""
    answers, remark, longer = list[Answer](), "", None
    for _ in range(1 + asked.again):
        prompt = prompt_of(rows, asked, remark)
        call = Call(prompt=prompt, samples=asked.samples, max_tokens=asked.max_tokens, params=asked.params)
        answers.append(await ask(call))
        remark = _UNREAD
        for sample in answers[-1].reply.samples:
            if sample.finish == "refused":
                continue
            read = fields(sample.text, SCHEMA, prompt=prompt.question, cut=sample.finish == "length")
            if not all(read.values.get(name) not in (None, "") for name in DECIDES):
                continue
            if (said := words(read.values)) <= asked.words:
                return _decided(read.values, rows, read.how), answers
            longer = longer or (read.values, read.how)
            remark = filled(_TOO_LONG, {"said": str(said), "words": str(asked.words)})
    if longer is None:
        return Decision(fields={}, members=(), how="unreadable"), answers
    decision = _decided(longer[0], rows, f"{longer[1]}, too many words")
    own = sentences([rows[m] for m in decision.members] or rows, asked.words)
    return Decision(fields=decision.fields | own, members=decision.members, how=decision.how), answers


def _decided(said: Mapping[str, Any], rows: Sequence[Row], how: str) -> Decision:
    frames = [row[FRAME] for row in rows if row.get(FRAME) is not None]
    members = tuple(sorted({m - 1 for m in said.get("members", ()) if 0 < m <= len(rows)}))
    theirs = [rows[m][FRAME] for m in members if rows[m].get(FRAME) is not None]
    frame = said[FRAME]
    if frames and frame not in frames:
        frame, how = mode(frames), f"{how}, frame of no input"
    elif theirs:
        frame = min(theirs)
    return Decision(fields={FRAME: frame, **{name: said[name].strip() for name in TEXTS}}, members=members, how=how)


def words(row: Row) -> int:
    """Of both sentences."""
    return sum(len(str(row.get(name) or "").split()) for name in TEXTS)


def sentences(rows: Sequence[Row], most: int) -> dict[str, str]:
    """Out of the rows themselves, of the one whose reason is most like the others'. Where its two are too long together the
    next ones' are tried, then one of each; two that are too long in every pairing are cut."""
    alike = sorted(rows, key=lambda row: -sum(_alike(row, other) for other in rows))
    for before, reason in [*((row, row) for row in alike), *product(alike, alike)]:
        both = {"before": str(before.get("before") or ""), "reason": str(reason.get("reason") or "")}
        if words(both) <= most:
            return both
    shorter = {name: str(alike[0].get(name) or "").split() for name in TEXTS}
    before_words = min(len(shorter["before"]), max(most // 2, most - len(shorter["reason"])))
    return {
        "before": " ".join(shorter["before"][:before_words]),
        "reason": " ".join(shorter["reason"][: most - before_words]),
    }


def _alike(row: Row, other: Row) -> float:
    return fuzz.token_sort_ratio(str(row.get("reason") or ""), str(other.get("reason") or "")) / 100
