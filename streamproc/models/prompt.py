"""What is asked, and how it becomes the bytes of a chat call: constant things first, pictures in time order, question last.

Servers keep what prompts share from their beginning, so the order is worth more than half of the tokens of a second
question. What a model cannot take is left out evenly over time, and the notes say so; it is never cut in silence.
Nothing here sends anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import orjson
import simplejpeg

from streamproc.models.failures import TooMuch

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a model takes: its card's limits, or what a server said of them."""

    images: int | None = None
    context_tokens: int | None = None
    image_tokens: Callable[[int, int], int | None] = field(default=lambda _width, _height: None)
    """Tokens of a picture of this width and height; None where nobody knows."""


def fitted(prompt: Prompt, fit: Fit, *, answer_tokens: int) -> tuple[Prompt, tuple[str, ...]]:
    """The prompt within the limits, and what was left out. Raises TooMuch where the text alone is too long."""
    notes: list[str] = []
    if fit.images is not None and len(prompt.pictures) > fit.images:
        notes.append(f"{fit.images} of {len(prompt.pictures)} frames: the model takes no more images")
        prompt = thinned(prompt, fit.images)
    if fit.context_tokens is None:
        return prompt, tuple(notes)
    room = fit.context_tokens - answer_tokens - prompt.text_tokens
    if room < 0:
        raise TooMuch(
            f"the text alone has about {prompt.text_tokens} tokens; with {answer_tokens} for the answer"
            f" that is more than the context of {fit.context_tokens}",
            of="tokens",
            limit=fit.context_tokens,
        )
    if prompt.pictures and (each := _picture_tokens(prompt.pictures, fit)) and each * len(prompt.pictures) > room:
        keep = room // each
        if not keep:
            raise TooMuch(f"one picture of {each} tokens is more than the {room} left", of="tokens", limit=room)
        notes.append(f"{keep} of {len(prompt.pictures)} frames: the context has room for {room} tokens of pictures")
        prompt = thinned(prompt, keep)
    return prompt, tuple(notes)


def _picture_tokens(pictures: Sequence[Picture], fit: Fit) -> int | None:
    """Of the first: the pictures of a prompt have one size."""
    height, width, *_ = simplejpeg.decode_jpeg_header(pictures[0].jpeg)
    return fit.image_tokens(width, height)


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


def halved(prompt: Prompt) -> Prompt:
    """Every picture at half its width and height; for servers that ran out of memory. Takes a millisecond a picture."""
    return replace(prompt, pictures=tuple(replace(p, jpeg=_half(p.jpeg)) for p in prompt.pictures))


def _half(jpeg: bytes) -> bytes:
    height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    small = simplejpeg.decode_jpeg(jpeg, min_height=max(1, height // 2), min_width=max(1, width // 2), min_factor=2)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=90))
