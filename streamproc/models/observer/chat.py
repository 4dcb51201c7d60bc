"""A chat completion from a request's body, as vLLM would give it: pictures read, kept by uuid, refused beyond limits.

Knows no HTTP. `Settings.honours` takes abilities away, so that probes and clients can be tried on servers that pass over
things in silence.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import pybase64

from streamproc.models.observer.answers import Facts, Impossible, by_choice, by_schema, in_words
from streamproc.models.observer.faults import Fault
from streamproc.models.observer.pictures import Picture, Unreadable, compare, measure
from streamproc.models.observer.tables import rows_in

ABILITIES: Final = frozenset(
    {"uuid", "n", "json_schema", "choice", "logprobs", "video", "load", "stream", "cached", "max_tokens"}
)

PATCH: Final = 28
"""A token is 28 × 28 pixels, as with Qwen2.5-VL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    model: str = "observer"
    honours: frozenset[str] = ABILITIES
    image_limit: int | None = None
    context_tokens: int = 32_768
    cached_items: int = 1_024
    key: str | None = None
    seconds: float = 0.0
    """How long an answer takes at the least; a laptop's tests want none."""


class Refusal(Exception):  # it becomes an answer, not a traceback
    """A status and what is said with it."""

    def __init__(self, status: int, message: str, *, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind


@dataclass(slots=True)
class _Read:
    """A request, understood."""

    texts: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    """Digest of all up to each part, with the tokens so far: what a prefix cache goes by."""
    tokens: list[int] = field(default_factory=list)


class Observer:
    """State of one server: what it has been shown, what is under way, what came in."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.shown = OrderedDict[str, tuple[Picture, ...]]()
        self.prefixes = OrderedDict[str, None]()
        self.under_way = 0
        self.calls = 0
        self.times_failed = dict[str, int]()
        self._one = threading.Lock()

    # what came in ----------------------------------------------------------------------------------------------------

    def read(self, body: Mapping[str, Any]) -> _Read:
        read, digest, tokens, items = _Read(), hashlib.blake2b(digest_size=16), 0, 0
        for message in body.get("messages") or ():
            content = message.get("content")
            for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or ():
                if part.get("type") == "text":
                    text = str(part.get("text", ""))
                    read.texts.append(text)
                    if timed := re.match(r"\D{0,12}(\d+(?:\.\d+)?) ?s\b", text):
                        read.times_s.append(float(timed[1]))
                    if numbered := re.match(r"Frame (\d{1,9}):", text):
                        read.numbers.append(int(numbered[1]))
                    mark, tokens = text.encode(), tokens + len(text.encode()) // 4 + 1
                else:
                    items += 1
                    pictures = self._item(part)
                    read.pictures.extend(pictures)
                    mark = repr([(p.width, p.height, p.brightness) for p in pictures]).encode()
                    # A video's frames are taken two by two.
                    tokens += sum(_tokens(p) for p in pictures) // (2 if len(pictures) > 1 else 1)
                digest.update(mark)
                read.prefixes.append(digest.hexdigest())
                read.tokens.append(tokens)
        limit = self.settings.image_limit
        if limit is not None and items > limit:
            raise Refusal(400, f"At most {limit} image(s) may be provided in one prompt.")
        return read

    def _item(self, part: Mapping[str, Any]) -> tuple[Picture, ...]:
        kind = part.get("type")
        if kind not in {"image_url", "video_url"} or (kind == "video_url" and "video" not in self.settings.honours):
            raise Refusal(400, f"Unknown part type: {kind}")
        uuid = part.get("uuid") if "uuid" in self.settings.honours else None
        if uuid is not None and uuid in self.shown:
            self.shown.move_to_end(uuid)
            return self.shown[uuid]
        url = (part.get(kind) or {}).get("url") if isinstance(part.get(kind), dict | None) else part.get(kind)
        if url is None:
            missing = f"Cache miss for item with uuid '{uuid}'" if uuid else "Cache miss for an item without uuid"
            raise Refusal(400, f"{missing}, but its data is not provided")
        if not str(url).startswith("data:"):
            raise Refusal(
                500, f"Cannot reach '{str(url)[:80]}': the observer fetches nothing", kind="InternalServerError"
            )
        try:
            pieces = str(url).partition(",")[2].split(",")
            pictures = tuple(measure(pybase64.b64decode(piece, validate=True)) for piece in pieces)
        except (Unreadable, ValueError) as e:
            raise Refusal(400, f"Failed to load image: {e}") from e
        if uuid is not None:
            self.shown[uuid] = pictures
            while len(self.shown) > self.settings.cached_items:
                self.shown.popitem(last=False)
        return pictures

    # what goes out ---------------------------------------------------------------------------------------------------

    def answer(self, body: Mapping[str, Any], fault: Fault | None) -> dict[str, Any]:
        """A whole chat completion. Runs in a thread, one at a time: pictures are decoded here, and caches change."""
        with self._one:
            return self._answer(body, fault)

    def _answer(self, body: Mapping[str, Any], fault: Fault | None) -> dict[str, Any]:
        if body.get("model") != self.settings.model:
            raise Refusal(404, f"The model `{body.get('model')}` does not exist.", kind="NotFoundError")
        if "max_tokens" in body and "max_tokens" not in self.settings.honours:
            raise Refusal(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'"
                " instead.",
            )
        read = self.read(body)
        most = int(body.get("max_completion_tokens") or body.get("max_tokens") or 512)
        into = read.tokens[-1] if read.tokens else 0
        if into + most > self.settings.context_tokens:
            raise Refusal(
                400,
                f"This model's maximum context length is {self.settings.context_tokens} tokens. However, you requested"
                f" {into + most} tokens ({into} in the messages, {most} in the completion).",
            )
        n = int(body.get("n") or 1) if "n" in self.settings.honours else 1
        choices, out = [], 0
        for index in range(n):
            choice, tokens = self._choice(body, read, index, most, fault)
            choices.append(choice)
            out += tokens
        usage: dict[str, Any] = {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}
        if "cached" in self.settings.honours:
            usage["prompt_tokens_details"] = {"cached_tokens": self._cached(read)}
        return {
            "id": f"chatcmpl-{self.calls}",
            "object": "chat.completion",
            "created": 0,
            "model": fault.model if fault and fault.model else self.settings.model,
            "choices": choices,
            "usage": usage,
        }

    def _choice(
        self, body: Mapping[str, Any], read: _Read, index: int, most: int, fault: Fault | None
    ) -> tuple[dict[str, Any], int]:
        text = self._text(body, read, index)
        if fault is not None:
            text = fault.text(text)
        words = re.findall(r"\s*\S+|\s+$", text)
        finish = "stop"
        if len(words) > most:
            words, finish = words[:most], "length"
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words)}
        choice = {"index": index, "message": message, "finish_reason": finish, "logprobs": None}
        if body.get("logprobs") and "logprobs" in self.settings.honours:
            choice["logprobs"] = {"content": [_logprob(w, int(body.get("top_logprobs") or 0)) for w in words]}
        if fault is not None:
            fault.choice(choice)
        return choice, len(words)

    def _text(self, body: Mapping[str, Any], read: _Read, index: int) -> str:
        text = "\n".join(read.texts)
        noise = None
        if float(body.get("temperature") or 0) > 0 and (index or body.get("seed") is not None):
            noise = random.Random(f"{body.get('seed')}/{index}/{read.prefixes[-1:]}")
        times = read.times_s if len(read.times_s) == len(read.pictures) else ()
        numbers = read.numbers if len(read.numbers) == len(read.pictures) else ()
        facts = Facts(text, compare(read.pictures), times, numbers, rows_in(text), noise)
        structured, form = body.get("structured_outputs") or {}, body.get("response_format") or {}
        try:
            if structured.get("choice") and "choice" in self.settings.honours:
                return by_choice(facts, [str(c) for c in structured["choice"]])
            if form.get("type") == "json_schema" and "json_schema" in self.settings.honours:
                return orjson.dumps(by_schema(facts, form["json_schema"]["schema"])).decode()
            if (schema := _schema_in(text)) is not None:
                return orjson.dumps(by_schema(facts, schema)).decode()
        except Impossible as e:
            raise Refusal(400, f"Grammar error: {e}") from e
        said = in_words(facts)
        if form.get("type") != "json_object":
            return said
        if said == "None" or said.startswith("["):
            return orjson.dumps({"events": [] if said == "None" else orjson.loads(said)}).decode()
        return orjson.dumps({"text": said}).decode()

    def load(self, wanted: str) -> dict[str, str]:
        """The header that tells how many wait, to those who ask for it in JSON."""
        if "load" not in self.settings.honours or wanted.lower() != "json":
            return {}
        metrics = {"kv_cache_usage_perc": 0.0, "num_requests_waiting": float(max(0, self.under_way - 8))}
        return {"endpoint-load-metrics": f"JSON {orjson.dumps({'named_metrics': metrics}).decode()}"}

    def _cached(self, read: _Read) -> int:
        """Tokens of the longest beginning that was seen before."""
        known = 0
        for prefix, tokens in zip(read.prefixes, read.tokens, strict=True):
            if prefix not in self.prefixes:
                break
            known = tokens
        self.prefixes.update(dict.fromkeys(read.prefixes))
        while len(self.prefixes) > 16 * self.settings.cached_items:
            self.prefixes.popitem(last=False)
        return known


def _tokens(picture: Picture) -> int:
    return math.ceil(picture.width / PATCH) * math.ceil(picture.height / PATCH)


def _logprob(word: str, top: int) -> dict[str, Any]:
    """Made up, but always the same: there is no model that could be unsure."""
    value = -(int.from_bytes(hashlib.blake2b(word.encode(), digest_size=2).digest(), "big") / 65536) / 10
    others = [{"token": f"{word}{'_' * i}", "logprob": value - 3 * i, "bytes": None} for i in range(top)]
    return {"token": word, "logprob": value, "bytes": None, "top_logprobs": others}


def _schema_in(text: str) -> Any:
    """A JSON schema on a line of its own at the end of the question, for models that have no other way to be told."""
    line = text.rstrip().rpartition("\n")[2]
    if not line.startswith("{"):
        return None
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and ("properties" in found or "type" in found) else None
