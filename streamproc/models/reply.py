"""A chat completion, whole or streamed, as far as anyone here reads it. What cannot be read is Garbled, with the place.

Characters that are none are replaced and numbers that cannot be are not believed: neither is worth an answer.

Text is kept as the model wrote it; what it thought goes apart. Reading JSON out of the text is `recovery`'s work.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import orjson

from streamproc.messages import Tokens
from streamproc.models.failures import Garbled, Interrupted, ServerFailed

if TYPE_CHECKING:
    import httpx2

Finish = Literal["stop", "length", "refused"]

MOST_TOKENS: Final = 10**8
"""More than any context has."""

LOAD_HEADER: Final = {"endpoint-load-metrics-format": "JSON"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One choice."""

    text: str
    finish: Finish
    """`length`: cut short. `refused`: by the model or a filter; its text is what it said instead, and no answer."""
    reasoning: str | None = None
    logprobs: tuple[tuple[str, float], ...] | None = None
    """Token and log-probability; what the server leaves out is not invented."""
    top: tuple[tuple[tuple[str, float], ...], ...] | None = None
    """The alternatives of each token, where they were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the server says of itself with an answer."""

    waiting: float | None = None
    cache_use: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    samples: tuple[Sample, ...]
    model: str | None
    """As the server names it."""
    tokens: Tokens | None
    load: Load | None = None
    first_token_s: float | None = None
    notes: tuple[str, ...] = ()
    """What of it was not taken as it came, in words."""


# whole --------------------------------------------------------------------------------------------------------------


class _TopLogprob(msgspec.Struct):
    token: str
    logprob: float | None = None


class _Logprob(_TopLogprob):
    top_logprobs: list[_TopLogprob] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] | None = None


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Details(msgspec.Struct):
    cached_tokens: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    prompt_tokens_details: _Details | None = None


class _Completion(msgspec.Struct):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    mended: bool = False
    """Ours: characters or numbers that are none were replaced."""


_decode: Final = msgspec.json.Decoder(_Completion).decode


def _completion(data: bytes, hop: str) -> _Completion:
    try:
        found = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        found = _mended(data, e, hop)
    if found.error is not None and not found.choices:
        # Some gateways answer 200 and put the failure of who stands behind them inside.
        raise ServerFailed(f"{hop}: an error under status 200: {str(found.error)[:300]}")
    return found


def _mended(data: bytes, why: Exception, hop: str) -> _Completion:
    """Without the bytes, half characters and numbers that are none; Garbled where more is wrong with it."""
    try:
        said = json.loads(data.decode(errors="replace"), parse_constant=lambda _name: None)
        found = _decode(json.dumps(said, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        raise Garbled(f"{hop}: no chat completion: {why}") from why
    found.mended = True
    return found


def whole(data: bytes, headers: httpx2.Headers, *, hop: str) -> Reply:
    if headers.get("content-type", "").startswith("text/html"):
        # Of whoever stands before the server, and says that it is not there.
        raise ServerFailed(f"{hop}: a web page instead of an answer: {data[:200].decode(errors='replace')}")
    found = _completion(data, hop)
    if not found.choices:
        raise Garbled(f"{hop}: an answer without choices")
    choices = sorted(found.choices, key=lambda c: c.index)
    if any(c.message is None for c in choices):
        raise Garbled(f"{hop}: a choice without a message")
    return Reply(
        samples=tuple(_sample(c, c.message or _Message()) for c in choices),
        model=found.model,
        tokens=_tokens(found.usage),
        load=load_of(headers),
        notes=_notes(found.usage, mended=found.mended),
    )


def _sample(choice: _Choice, message: _Message) -> Sample:
    text, reasoning = _plain(message.content), message.reasoning_content or message.reasoning
    if reasoning is None:
        text, reasoning = apart(text, cut=choice.finish_reason == "length")
    filtered = choice.finish_reason == "content_filter"
    refused = bool(message.refusal) or filtered
    entries = choice.logprobs.content if choice.logprobs else None
    return Sample(
        text=message.refusal or (f"stopped by a content filter: {text}".rstrip(": ") if filtered else text),
        finish="refused" if refused else "length" if choice.finish_reason == "length" else "stop",
        reasoning=reasoning,
        logprobs=tuple((e.token, e.logprob) for e in entries if e.logprob is not None) if entries else None,
        top=tuple(tuple((t.token, t.logprob) for t in e.top_logprobs or () if t.logprob is not None) for e in entries)
        if entries and any(e.top_logprobs for e in entries)
        else None,
    )


def _plain(content: str | list[Any] | None) -> str:
    """Some servers answer with a list of parts."""
    if isinstance(content, list):
        return "".join(str(p.get("text") or "") if isinstance(p, dict) else str(p) for p in content)
    return content or ""


def apart(text: str, *, cut: bool) -> tuple[str, str | None]:
    """Text and thoughts, where no parser on the server took them apart. Templates often open the thought themselves, so
    only its end is in the text; a thought that was cut off has no answer behind it."""
    before, end, after = text.partition("</think>")
    if end:
        return after.lstrip(), before.replace("<think>", "", 1).strip()
    if cut and text.lstrip().startswith("<think>"):
        return "", text.replace("<think>", "", 1).strip()
    return text, None


def _tokens(usage: _Usage | None) -> Tokens | None:
    """None where nobody counts, or where it cannot be: budgets and bills go by it."""
    if usage is None or usage.prompt_tokens is None or not _believed(usage):
        return None
    into, cached, out = _counts(usage)
    return Tokens(into=into, cached=cached or 0, out=out or 0)


def _counts(usage: _Usage) -> tuple[Any, Any, Any]:
    details = usage.prompt_tokens_details
    return usage.prompt_tokens, details.cached_tokens if details else None, usage.completion_tokens


def _believed(usage: _Usage) -> bool:
    return all(n is None or (type(n) is int and 0 <= n <= MOST_TOKENS) for n in _counts(usage))


def _notes(usage: _Usage | None, *, mended: bool) -> tuple[str, ...]:
    notes = ["characters or numbers that are none were replaced"] if mended else []
    if usage is not None and not _believed(usage):
        notes.append(f"the server's count of tokens is not believed: {str(_counts(usage))[:100]}")
    return tuple(notes)


def load_of(headers: httpx2.Headers) -> Load | None:
    """Out of `endpoint-load-metrics: JSON {"named_metrics": {…}}`; silence, or another format, is None."""
    said = headers.get("endpoint-load-metrics")
    if said is None or not said.startswith("JSON"):
        return None
    try:
        metrics = orjson.loads(said[4:])["named_metrics"]
        return Load(
            waiting=_number(metrics.get("num_requests_waiting")), cache_use=_number(metrics.get("kv_cache_usage_perc"))
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


# streamed -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Growing:
    text: list[str] = field(default_factory=list)
    thought: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    logprobs: list[_Logprob] = field(default_factory=list)
    finish: str | None = None

    def take(self, choice: _Choice) -> bool:
        """Whether anything was said."""
        delta = choice.delta or _Message()
        said = False
        for into, piece in (
            (self.text, _plain(delta.content)),
            (self.thought, delta.reasoning_content or delta.reasoning),
            (self.refusal, delta.refusal),
        ):
            if piece:
                into.append(piece)
                said = True
        if choice.logprobs and choice.logprobs.content:
            self.logprobs.extend(choice.logprobs.content)
        self.finish = choice.finish_reason or self.finish
        return said


async def streamed(
    pieces: AsyncIterable[bytes], headers: httpx2.Headers, *, hop: str, since: Callable[[], float]
) -> Reply:
    """The answer put together from server-sent events. `since()` is the time since the call was sent."""
    growing, model, usage, first_s = dict[int, _Growing](), None, None, None
    done = mended = False
    async for data in _events(pieces):
        if data == b"[DONE]":
            done = True
            break
        found = _completion(data, hop)
        model, usage, mended = found.model or model, found.usage or usage, mended or found.mended
        for choice in found.choices or ():
            if growing.setdefault(choice.index, _Growing()).take(choice) and first_s is None:
                first_s = since()
    if not growing:
        raise Garbled(f"{hop}: a stream without choices")
    if not done and any(g.finish is None for g in growing.values()):
        raise Interrupted(f"{hop}: the stream ended in the middle of an answer")
    samples = []
    for index in sorted(growing):
        g = growing[index]
        message = _Message("".join(g.text), "".join(g.refusal) or None, None, "".join(g.thought) or None)
        samples.append(
            _sample(_Choice(index, None, None, g.finish, _Logprobs(g.logprobs) if g.logprobs else None), message)
        )
    return Reply(
        samples=tuple(samples),
        model=model,
        tokens=_tokens(usage),
        load=load_of(headers),
        first_token_s=first_s,
        notes=_notes(usage, mended=mended),
    )


async def _events(pieces: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    """The `data:` of each server-sent event, however the network cut them; one of several lines is one JSON all the same."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
    if rest.startswith(b"data:"):
        yield rest[5:].strip()
