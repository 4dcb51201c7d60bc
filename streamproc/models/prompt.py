"""What is asked, and how it becomes the bytes of a chat call: constant things first, pictures in time order, question last.

Servers keep what prompts share from their beginning, so the order is worth more than half of the tokens of a second
question. Nothing here sends anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import orjson

BYTES_PER_TOKEN: Final = 3
"""Cautious: English has about 4, JSON and names about 3."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame. `before` is what was said before it was seen; its time is a matter of the model's label."""

    jpeg: bytes
    t_ms: int
    before: str | None = None


@dataclass(frozen=True)
class Prompt:
    """`prompt = system + context + pictures + question`, in this order, for every model."""

    question: str
    system: str | None = None
    context: str | None = None
    pictures: tuple[Picture, ...] = ()
    clips: tuple[tuple[int, int], ...] = ()
    """[first, last] picture of each clip, inclusive; they go over the wire whole where the model takes clips."""
    schema: Mapping[str, Any] | None = None
    """JSON schema of the answer. Bound its strings and arrays, or the answer ends by length."""

    @cached_property
    def digest(self) -> str:
        """Of everything but the pictures: which prompt an answer answers."""
        return hashlib.blake2b(
            orjson.dumps([self.system, self.context, self.question, self.schema], option=orjson.OPT_SORT_KEYS),
            digest_size=8,
        ).hexdigest()

    @property
    def text_tokens(self) -> int:
        texts = [self.system, self.context, self.question, *(p.before for p in self.pictures)]
        return sum(len(t.encode()) for t in texts if t) // BYTES_PER_TOKEN + 16


def thinned(prompt: Prompt, keep: int) -> Prompt:
    """`keep` pictures spread evenly, first and last among them. What stood before the others is not lost: it moves on."""
    n = len(prompt.pictures)
    if keep >= n:
        return prompt
    chosen = {round(i * (n - 1) / (keep - 1)) for i in range(keep)} if keep > 1 else {n // 2} if keep else set[int]()
    kept, waiting = list[Picture](), list[str]()
    for i, picture in enumerate(prompt.pictures):
        if picture.before:
            waiting.append(picture.before)
        if i in chosen:
            kept.append(replace(picture, before="\n".join(waiting) or None))
            waiting.clear()
    # A clip that lost a frame is no longer the clip that the neighbour window has too: what is left goes as one.
    clips = ((0, keep - 1),) if prompt.clips and keep else ()
    return replace(prompt, pictures=tuple(kept), clips=clips, question="\n".join([*waiting, prompt.question]))
