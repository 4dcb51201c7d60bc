"""The bytes of a chat call. Built once by orjson around pictures that pybase64 has written, and never taken apart again.

A picture, clip or video that the server has seen may go by its uuid alone. The uuid comes from the encoded bytes and the
processor's settings: a server answers the same uuid with other bytes from the old ones, and says nothing.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
import pybase64

from streamproc.models.prompt import Picture, Prompt

Media = Literal["images", "clips", "video"]
JsonMode = Literal["schema", "object", "text"]
LengthKey = Literal["max_tokens", "max_completion_tokens"]

SEEN_ITEMS: Final = 4096
"""A server's cache is bounded by bytes, and nobody says by how many: what it dropped costs one call that is sent again."""


class Seen:
    """What one replica has had of us, newest last. Cleared when it restarts."""

    def __init__(self, items: int = SEEN_ITEMS) -> None:
        self._items, self._of = items, OrderedDict[str, None]()

    def __contains__(self, uuid: str) -> bool:
        return uuid in self._of

    def __len__(self) -> int:
        return len(self._of)

    def add(self, uuids: tuple[str, ...]) -> None:
        for uuid in uuids:
            self._of[uuid] = None
            self._of.move_to_end(uuid)
        while len(self._of) > self._items:
            self._of.popitem(last=False)

    def clear(self) -> None:
        self._of.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a model is spoken to, as far as it shows in the bytes."""

    model: str
    media: Media = "images"
    json_mode: JsonMode = "text"
    label: str | None = None
    """Text before each picture: `Time {time_s:.1f}s:`, `<|image_{number}|>`. For clips and video, before each of them."""
    length_key: LengthKey = "max_tokens"
    system_prefix: str | None = None
    uuids: bool = False
    processor: str = ""
    """What else decides how a picture is understood; part of its uuid."""
    extra: Mapping[str, Any] | None = None
    """Into every body."""
    priorities: bool = False
    """The server takes the calls of a lower `priority` first."""


@dataclass(frozen=True, slots=True)
class Body:
    data: bytes
    uuids: tuple[str, ...]
    """Of all items, where the model knows uuids."""
    spared: int
    """Items that went by their uuid alone."""


def encoded(prompt: Prompt, manner: Manner, params: Mapping[str, Any], *, seen: Seen | None = None) -> Body:
    """`params`: temperature, n, max_tokens and their like. Without `seen` everything goes with its data."""
    uuids, spared = list[str](), 0
    content = list[Any]()
    if prompt.context:
        content.append(_text(prompt.context))
    for number, item in enumerate(_items(prompt, manner.media), 1):
        for before in (p.before for p in item):
            if before:
                content.append(_text(before))
        if manner.label:
            content.append(
                _text(manner.label.format(time_s=item[0].t_ms / 1000, number=number, until_s=item[-1].t_ms / 1000))
            )
        uuid = None
        if manner.uuids:
            uuid = _uuid(item, manner.processor)
            uuids.append(uuid)
        known = seen is not None and uuid is not None and uuid in seen
        spared += known
        content.append(_part(item, manner.media, uuid, with_data=not known))
    question, answer = _asked(prompt, manner.json_mode)
    content.append(_text(question))
    system = "\n\n".join(s for s in (manner.system_prefix, prompt.system) if s)
    messages: list[Any] = [{"role": "system", "content": system}] if system else []
    # Text-only servers know no lists of parts, so where there is only text it goes as text.
    messages.append(
        {"role": "user", "content": content if prompt.pictures else "\n\n".join(c["text"] for c in content)}
    )
    data = orjson.dumps({"model": manner.model, "messages": messages, **answer, **(manner.extra or {}), **params})
    return Body(data, tuple(uuids), spared)


def _items(prompt: Prompt, media: Media) -> Iterator[tuple[Picture, ...]]:
    """What goes as one part each."""
    if media == "images":
        for picture in prompt.pictures:
            yield (picture,)
    elif media == "clips" and prompt.clips:
        for first, last in prompt.clips:
            yield prompt.pictures[first : last + 1]
    elif prompt.pictures:
        yield prompt.pictures


def _uuid(item: tuple[Picture, ...], processor: str) -> str:
    digest = hashlib.blake2b(processor.encode(), digest_size=16)
    for picture in item:
        digest.update(len(picture.jpeg).to_bytes(8, "little"))
        digest.update(picture.jpeg)
    return digest.hexdigest()


def _part(item: tuple[Picture, ...], media: Media, uuid: str | None, *, with_data: bool) -> Any:
    kind = "image_url" if media == "images" else "video_url"
    part: dict[str, Any] = {"type": kind, kind: None}
    if with_data:
        head = b'"data:image/jpeg;base64,' if media == "images" else b'"data:video/jpeg;base64,'
        # A fragment goes in as it is: orjson need not look for what to escape in base64.
        part[kind] = {
            "url": orjson.Fragment(b"".join((head, b",".join(pybase64.b64encode(p.jpeg) for p in item), b'"')))
        }
    if uuid is not None:
        part["uuid"] = uuid
    return part


def _asked(prompt: Prompt, mode: JsonMode) -> tuple[str, dict[str, Any]]:
    """The question, and what else the body says of the answer's form."""
    if prompt.schema is None:
        return prompt.question, {}
    if mode == "schema":
        schema = {"name": "answer", "schema": prompt.schema, "strict": True}
        return prompt.question, {"response_format": {"type": "json_schema", "json_schema": schema}}
    told = f"{prompt.question}\n\nAnswer with JSON by this schema, and nothing else:\n{orjson.dumps(prompt.schema).decode()}"
    return told, {"response_format": {"type": "json_object"}} if mode == "object" else {}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
