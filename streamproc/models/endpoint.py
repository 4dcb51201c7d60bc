"""One replica of one model: a call goes out, an answer or one of our errors comes back.

It speaks the model's manner, keeps to its limits, and helps itself where the remedy is certain: pictures the server has
lost are sent again, an input that is too much goes again with fewer frames, then smaller ones, then is rejected. When to
call, how often, and whom else to ask is the pool's business.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, cast

import httpx2
import msgspec
import openai
import orjson
from openai._models import FinalRequestOptions
from openai._types import RequestOptions

from streamproc.errors import Rejected, Retryable, Unreachable
from streamproc.messages import Tokens
from streamproc.models.body import Body, Manner, Seen, encoded
from streamproc.models.call import Call, Heard
from streamproc.models.card import Served
from streamproc.models.failures import BadRequest, CacheMiss, OutOfMemory, Overdue, Refused, TooMuch
from streamproc.models.fit import Fit, fitted, halved
from streamproc.models.key import struck, struck_pieces
from streamproc.models.mapping import broken, failure
from streamproc.models.prompt import thinned
from streamproc.models.reply import LOAD_HEADER, Reply, streamed, whole

log = logging.getLogger(__name__)

CONNECT_S: Final = 10.0

UNNAMED: Final = "default"
"""What the card for any server calls its model, where nobody has said its name."""
YIELDING: Final = 1
"""The priority of what may wait; vLLM takes the lowest first, and what says nothing has 0."""

NO_KEY: Final = "EMPTY"
"""The client wants one; it is what vLLM's documents use for none."""

_TIMEOUT: Final = httpx2.Timeout(None, connect=CONNECT_S).as_dict()
"""None for reads: that would start anew with each drop of an answer that drips. Hence the deadline."""

_OPTIONS: Final[RequestOptions] = {
    "headers": {},
    "params": {},
    "timeout": None,
    "max_retries": 0,
    "follow_redirects": False,
    "idempotency_key": "-",  # else the client makes a random one for each call, and has no header to send it in
}
"""Said in full, because the client copies deeply what is left unsaid, for each call."""


@dataclass(slots=True)
class _Bill:
    sent: Callable[[], None] = lambda: None
    sent_bytes: int = 0
    spared: int = 0


class _Client(openai.AsyncOpenAI):
    """The same client, that does not make anew for each call what is the same in all: URL, headers, timeouts. Nor does it
    tell everyone what machine this is. Errors, and everything but a chat call, are its own."""

    sent: Sequence[tuple[str, str]] = ()

    def _build_request(self, options: FinalRequestOptions, *, retries_taken: int = 0) -> httpx2.Request:
        if not isinstance(options.content, bytes):
            return super()._build_request(options, retries_taken=retries_taken)
        return httpx2.Request(
            "POST", _parsed(options.url), headers=self.sent, content=options.content, extensions={"timeout": _TIMEOUT}
        )


@lru_cache(maxsize=256)
def _parsed(url: str) -> httpx2.URL:
    return httpx2.URL(url)


class Endpoint:
    """One URL of one model. `transport` is shared by all endpoints of a process and closed by whoever made it."""

    def __init__(
        self,
        url: str,
        manner: Manner,
        *,
        transport: httpx2.AsyncBaseTransport,
        fit: Fit | None = None,
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        samples_at_once: bool = True,
        any_name: bool = False,
    ) -> None:
        """`any_name`: nobody said what the model is called there. Where the server lists but one that one is meant, and
        whatever it answers under is right."""
        self.url, self.manner, self.fit = url.rstrip("/"), manner, fit or Fit()
        self.seen = Seen()
        self._chat = f"{self.url}/chat/completions"  # whole, since joining it with the base costs more than sending it
        self._params, self._samples_at_once, self._key = dict(params or {}), samples_at_once, key
        self._any_name, self._misnamed = any_name, False
        self._to_be_named, self._naming = any_name, asyncio.Lock()
        self._client = _Client(
            base_url=self.url,
            api_key=key or NO_KEY,
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            http_client=openai.DefaultAsyncHttpxClient(transport=transport, follow_redirects=False, trust_env=False),
        )
        self._client.sent = (
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("authorization", f"Bearer {key or NO_KEY}"),
            *LOAD_HEADER.items(),
            *(headers or {}).items(),
        )

    def __repr__(self) -> str:
        return f"Endpoint({self.hop})"

    @property
    def hop(self) -> str:
        """How errors name it."""
        return f"{self.manner.model} at {self.url}"

    def forget(self) -> None:
        """It may have restarted: what it was shown is gone."""
        self.seen.clear()

    def takes(self, samples: int) -> int:
        """Calls for so many samples, as far as is known."""
        return 1 if self._samples_at_once else samples

    async def ask(
        self, call: Call, *, deadline_s: float, with_data: bool = False, sent: Callable[[], None] = lambda: None
    ) -> Heard:
        """The answer. `with_data` sends every picture, as hedges and failovers must; the deadline holds for all of it.
        `sent` is told of each call that goes out, before it does."""
        bill = _Bill(sent)
        try:
            async with asyncio.timeout(deadline_s):
                if self._to_be_named:
                    await self._name()
                reply, notes = await self._ask(call, bill, with_data=with_data)
        except TimeoutError as e:
            raise Overdue(f"{self.hop}: no answer within {deadline_s:g} s") from e
        return Heard(reply=reply, notes=notes, sent_bytes=bill.sent_bytes, spared=bill.spared)

    async def _ask(self, call: Call, bill: _Bill, *, with_data: bool) -> tuple[Reply, tuple[str, ...]]:
        """Down the ladder of what may be too much, one rung a refusal."""
        notes, smaller, given = list[str](), False, call.prompt
        while True:
            prompt, left_out = fitted(given, self.fit, answer_tokens=call.max_tokens)
            frames = len(prompt.pictures)
            try:
                reply = await self._sampled(replace(call, prompt=prompt), bill, with_data=with_data)
                return reply, (*notes, *left_out, *reply.notes)
            except TooMuch as e:
                if e.of == "images" and e.limit is not None and 0 < e.limit < frames:
                    self.fit = replace(self.fit, images=e.limit)  # known from now on; `fitted` leaves out and says so
                    continue
                if frames < 2:
                    raise
                given = thinned(prompt, frames // 2)
                notes.append(f"{frames // 2} of {frames} frames: the server took no more {e.of}")
            except OutOfMemory:
                if smaller or not frames:
                    raise
                if not any("out of memory" in n for n in notes) and frames > 1:
                    given = thinned(prompt, (frames + 1) // 2)
                    notes.append(f"{(frames + 1) // 2} of {frames} frames: the server ran out of memory")
                else:
                    given, smaller = await asyncio.to_thread(halved, prompt), True
                    notes.append("pictures at half their width and height: the server ran out of memory")

    async def _sampled(self, call: Call, bill: _Bill, *, with_data: bool) -> Reply:
        """All samples: in one call where the server does that, and what is missing in calls of one."""
        if call.samples == 1:
            return _together([await self._once(call, 1, bill, with_data=with_data)], 1)
        replies = [await self._once(call, call.samples if self._samples_at_once else 1, bill, with_data=with_data)]
        if (missing := call.samples - len(replies[0].samples)) > 0:
            self._samples_at_once = False
            # The first has brought the pictures, so that the others can name them.
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._once(call, 1, bill, with_data=with_data)) for _ in range(missing)]
            except ExceptionGroup as e:
                raise e.exceptions[0] from e
            replies += [t.result() for t in tasks]
        return _together(replies, call.samples)

    async def _once(self, call: Call, n: int, bill: _Bill, *, with_data: bool) -> Reply:
        params = {**self._params, self.manner.length_key: call.max_tokens, **call.params}
        if n > 1:
            params["n"] = n
        if call.yields and self.manner.priorities:
            params["priority"] = YIELDING
        if call.stream:
            params |= {"stream": True, "stream_options": {"include_usage": True}}
        body = encoded(call.prompt, self.manner, params, seen=None if with_data else self.seen)
        try:
            reply = await self._send(body, bill, stream=call.stream)
        except CacheMiss:
            self.seen.clear()  # it restarted, or its cache turned over: what else we believe of it is old, too
            if not body.spared:
                raise
            body = encoded(call.prompt, self.manner, params)
            reply = await self._send(body, bill, stream=call.stream)
        self.seen.add(body.uuids)
        if all(s.finish == "refused" for s in reply.samples):
            said = reply.samples[0].text[:300] or "refused without a word"
            raise Refused(f"{self.hop}: {said}", tokens=reply.tokens)
        return self._named(reply)

    async def _send(self, body: Body, bill: _Bill, *, stream: bool) -> Reply:
        bill.sent()
        bill.sent_bytes += len(body.data)
        bill.spared += body.spared
        began = time.perf_counter()
        try:
            if not stream:
                response = await self._client.post(
                    self._chat, content=body.data, cast_to=httpx2.Response, options=_OPTIONS
                )
                return whole(struck(response.content, self._key), response.headers, hop=self.hop)
            # `stream` with a plain response gives it unread; the client's types know streams of its own only.
            response = cast(
                Any,
                await self._client.post(
                    self._chat,
                    options=_OPTIONS,
                    content=body.data,
                    cast_to=httpx2.Response,
                    stream=True,
                    stream_cls=openai.AsyncStream[Any],
                ),
            )
            try:
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    data = struck(await response.aread(), self._key)
                    return whole(data, response.headers, hop=self.hop)  # it does not stream
                pieces = struck_pieces(response.aiter_raw(), self._key)
                return await streamed(pieces, response.headers, hop=self.hop, since=lambda: time.perf_counter() - began)
            finally:
                await response.aclose()
        except openai.OpenAIError as e:
            raise failure(e, hop=self.hop, secret=self._key) from e
        except httpx2.RequestError as e:  # while a stream is read nobody wraps them
            raise broken(e, hop=self.hop, secret=self._key) from e

    def _named(self, reply: Reply) -> Reply:
        """With a note where it comes from another than was asked, which is told once: gateways have names of their own for
        the model that is meant, so it may be right."""
        if not reply.model or self._any_name or same_model(reply.model, self.manner.model):
            return reply
        name = reply.model[:100]
        if not self._misnamed:
            log.warning(
                "%s: it answers as '%s'. If another model is served there correct `urls`; else say its name in `served_name`",
                self.hop,
                name,
            )
        self._misnamed = True
        return replace(reply, notes=(*reply.notes, f"it answered as '{name}'"))

    async def _name(self) -> None:
        """Ollama and vLLM know their models by their own names only."""
        async with self._naming:
            try:
                listed = await self.serves() if self._to_be_named else ()
            except Rejected:  # it lists none, and takes any name
                listed = ()
            except Retryable:
                return  # the call meets the same, and says it
            if several := ambiguous(self.url, listed):
                raise BadRequest(several)
            if len(listed) == 1:
                self.manner = replace(self.manner, model=listed[0])
            self._to_be_named = False

    async def raw(self, content: Sequence[Mapping[str, Any]], params: Mapping[str, Any], *, deadline_s: float) -> Reply:
        """One call just as it is said, past all that helps: no limits kept, nothing sent again. For probes."""
        messages = [{"role": "user", "content": content}]
        body = Body(orjson.dumps({"model": self.manner.model, "messages": messages, **params}), (), 0)
        try:
            async with asyncio.timeout(deadline_s):
                return await self._send(body, _Bill(), stream=bool(params.get("stream")))
        except TimeoutError as e:
            raise Overdue(f"{self.hop}: no answer within {deadline_s:g} s") from e

    async def serves(self, *, deadline_s: float = 10.0) -> tuple[str, ...]:
        """The models it lists; the cheapest sign of life."""
        try:
            async with asyncio.timeout(deadline_s):
                response = await self._client.get("/models", cast_to=httpx2.Response)
            listed = msgspec.json.decode(struck(response.content, self._key), type=_Models)
            return tuple(m.id for m in listed.data)
        except TimeoutError as e:
            raise Overdue(f"{self.hop}: no answer within {deadline_s:g} s") from e
        except openai.OpenAIError as e:
            raise failure(e, hop=self.hop, secret=self._key) from e
        except msgspec.MsgspecError as e:
            raise Unreachable(
                self.hop, f"/models is no list of models: {e}", remedy="Is the URL that of the API, ending in /v1?"
            ) from e


def endpoints(
    served: Served, *, environ: Mapping[str, str], transport: httpx2.AsyncBaseTransport
) -> tuple[Endpoint, ...]:
    """The replicas of a model where it is served, spoken to as its card says."""
    speak, key = served.card.speak, served.key(environ)
    manner = Manner(
        model=served.model,
        media=speak.media,
        json_mode=speak.json_mode,
        length_key=speak.length_key,
        label=speak.label,
        system_prefix=speak.system_prefix,
        uuids=speak.uuids,
        processor=served.card.processor,
        extra=speak.extra,
        priorities=served.card.serve is not None and served.card.serve.scheduling_policy == "priority",
    )
    # A limit counts what goes as a picture; clips and videos are held to the context alone.
    images = speak.image_limit if speak.media == "images" or speak.image_limit == 0 else None
    fit = Fit(images=images, context_tokens=speak.context_tokens, image_tokens=speak.image_tokens)
    return tuple(
        Endpoint(
            url,
            manner,
            transport=transport,
            fit=fit,
            params=served.card.sampling.params(),
            key=key,
            samples_at_once=speak.samples_at_once,
            any_name=served.model == UNNAMED,
        )
        for url in served.urls
    )


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


def ambiguous(url: str, listed: Sequence[str]) -> str | None:
    """What to say where a model without a name cannot be told from others."""
    if len(listed) < 2 or UNNAMED in listed:
        return None
    some = ", ".join(listed[:5]) + (" …" if len(listed) > 5 else "")
    return f"{url} serves {some}: say which is meant, as `served_name` in [endpoints.NAME]"


_RELEASE: Final = re.compile(r"[-@_](?:\d[\d.-]*|latest|v\d+)")


def same_model(said: str, wanted: str) -> bool:
    """Whether an answer is from the model that was asked. Providers add a release, or leave the maker's name out;
    `gpt-4o-mini` is not a release of `gpt-4o`."""
    short, long = sorted((name.lower().rsplit("/", 1)[-1].removesuffix(":free") for name in (said, wanted)), key=len)
    return long == short or (long.startswith(short) and _RELEASE.fullmatch(long[len(short) :]) is not None)


def _together(replies: list[Reply], wanted: int) -> Reply:
    """Several answers as one, with no more samples than were wanted. Tokens are summed: that is what was paid."""
    if len(replies) == 1 and len(replies[0].samples) <= wanted:
        return replies[0]
    tokens = [r.tokens for r in replies if r.tokens is not None]
    return replace(
        replies[0],
        samples=tuple(s for r in replies for s in r.samples)[:wanted],
        tokens=Tokens(
            into=sum(t.into for t in tokens), cached=sum(t.cached for t in tokens), out=sum(t.out for t in tokens)
        )
        if tokens
        else None,
        load=replies[-1].load,
        notes=tuple(dict.fromkeys(n for r in replies for n in r.notes)),
    )
