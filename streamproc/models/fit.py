"""What a model takes of a prompt. The rest is left out evenly over time, and the notes say so: never in silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from streamproc import jpeg
from streamproc.models.failures import TooMuch
from streamproc.models.prompt import Picture, Prompt, thinned


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
    return fit.image_tokens(*jpeg.size_of(pictures[0].jpeg))


def halved(prompt: Prompt) -> Prompt:
    """Every picture at half its width and height; for servers that ran out of memory. Takes a millisecond a picture."""
    return replace(prompt, pictures=tuple(replace(p, jpeg=_half(p.jpeg)) for p in prompt.pictures))


def _half(data: bytes) -> bytes:
    import numpy as np  # for the day on which a server runs out of memory
    import simplejpeg

    width, height = jpeg.size_of(data)
    small = simplejpeg.decode_jpeg(data, min_height=max(1, height // 2), min_width=max(1, width // 2), min_factor=2)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=90))
