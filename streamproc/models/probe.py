"""What a live endpoint really honours. Servers pass over what they do not know in silence, so each question is put in a way
that only a server which understood it can answer right.

Nothing is written down here; whoever asked is told what to write on the card, under `[speak]`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import orjson
import pybase64
import simplejpeg

from streamproc.errors import Rejected, Retryable
from streamproc.models.body import LengthKey
from streamproc.models.card import Served
from streamproc.models.endpoint import Endpoint, endpoints, same_model
from streamproc.models.failures import CacheMiss, TooMuch
from streamproc.models.reply import Reply
from streamproc.models.transport import AiohttpTransport

DEADLINE_S: Final = 60.0

MOST_IMAGES: Final = 64
"""More is not tried: it costs tokens, and no window has so many."""

ANSWERS_AT_MOST: Final = 100_000_000
"""Tokens that no context has room for: the refusal names the room, and costs nothing."""

Verdict = Literal["yes", "no", "unclear"]
Part = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    ability: str
    verdict: Verdict
    seen: str
    """What it was judged by."""
    write: str | None = None
    """A line for the card, where there is one."""


class Probe:
    """Asks one endpoint in the plainest manner, whatever its card believes. `fresh` names pictures nobody has shown yet."""

    def __init__(self, endpoint: Endpoint, *, fresh: str) -> None:
        self._endpoint, self._fresh = endpoint, fresh
        self._length: LengthKey = "max_tokens"
        self._answered_as: str | None = None

    async def all(self) -> list[Finding]:
        """Raises where nobody is there, or nobody answers; what one ability brings about is its finding."""
        found = [await self.model()]
        if found[0].verdict == "yes":
            first = await self._first()
            found += [*self._named(), first]
            found += [await self._one(ability) for ability in self._abilities()]
        return found

    async def _first(self) -> Finding:
        """What cannot be asked at all, as the key is wrong or a web page comes, is no finding about every ability."""
        try:
            return await self.max_tokens()
        except Rejected as e:
            return Finding("max_tokens", "no", str(e)[:200])

    def _named(self) -> Iterator[Finding]:
        """What a server lists and what it then answers by may be two models."""
        wanted = self._endpoint.manner.model
        if self._answered_as and not same_model(self._answered_as, wanted):
            seen = f"asked for {wanted} it answers as '{self._answered_as[:100]}'"
            yield Finding("name", "no", seen, f'served_name = "{self._answered_as[:100]}"')

    def _abilities(self) -> Sequence[Callable[[], Awaitable[Finding]]]:
        return (
            self.images,
            self.uuid,
            self.video,
            self.n,
            self.json_schema,
            self.choice,
            self.logprobs,
            self.priority,
            self.load,
            self.stream,
            self.cached,
            self.context,
        )

    async def _one(self, ability: Callable[[], Awaitable[Finding]]) -> Finding:
        name = getattr(ability, "__name__", "")
        try:
            return await ability()
        except Rejected as e:
            return Finding(name, "no", str(e)[:200])
        except Retryable as e:
            return Finding(name, "unclear", str(e)[:200])

    async def _ask(self, *content: Part, most: int = 8, **params: Any) -> Reply:
        reply = await self._endpoint.raw(content, {self._length: most, **params}, deadline_s=DEADLINE_S)
        self._answered_as = reply.model
        return reply

    # one ability each ---------------------------------------------------------------------------------------------------

    async def model(self) -> Finding:
        served, wanted = await self._endpoint.serves(), self._endpoint.manner.model
        seen = f"it serves {', '.join(served[:5]) or 'nothing'}{' …' if len(served) > 5 else ''}"
        if wanted in served:
            return Finding("model", "yes", seen)
        near = [m for m in served if same_model(m, wanted)] or list(served)
        return Finding("model", "no", seen, f'served_name = "{near[0]}"' if near else None)

    async def max_tokens(self) -> Finding:
        """First, as the others limit their answers by the name that it finds: a refusal of every call would be taken for
        one of everything else."""
        try:
            await self._ask(ASK)
        except Rejected as refusal:
            self._length = "max_completion_tokens"
            try:
                await self._ask(ASK)
            except Rejected:
                self._length = "max_tokens"  # it was not the name
                raise refusal from None
            return Finding("max_tokens", "no", str(refusal)[:200], f'length_key = "{self._length}"')
        return Finding("max_tokens", "yes", "it took the older name for the limit of an answer")

    async def images(self) -> Finding:
        """Twice as many each time, until it is too much; a server that names its limit ends it at once."""
        taken, n = 0, 1
        while n <= MOST_IMAGES:
            try:
                await self._ask(*[_image(_grey(3 * i)) for i in range(n)], ASK)
            except Rejected as e:
                most = e.limit if isinstance(e, TooMuch) and e.of == "images" and e.limit is not None else taken
                verdict: Verdict = "yes" if most else "no"
                return Finding("images", verdict, f"it takes {most}, not {n}", f"image_limit = {most}")
            taken, n = n, 2 * n
        return Finding("images", "yes", f"it took {taken}; more was not tried")

    async def uuid(self) -> Finding:
        """By a uuid that nobody has sent there is nothing to answer; by one that was sent there is."""
        sent, never = ({"uuid": f"probe-{self._fresh}-{name}"} for name in ("sent", "never"))
        nothing: Part = {"type": "image_url", "image_url": None}
        await self._ask({**_image(_grey(77)), **sent}, ASK)
        try:
            await self._ask({**nothing, **never}, ASK)
        except CacheMiss:
            pass
        except Rejected as e:
            return Finding("uuid", "no", str(e)[:200], "uuids = false")
        else:
            return Finding("uuid", "no", "it answered about a picture that nobody sent", "uuids = false")
        try:
            await self._ask({**nothing, **sent}, ASK)
        except CacheMiss:
            return Finding("uuid", "no", "it knows uuids, and keeps no pictures by them", "uuids = false")
        return Finding("uuid", "yes", "it still had the picture it was sent", "uuids = true")

    async def video(self) -> Finding:
        """A clip must cost tokens, or it was passed over; fewer than its pictures, or nothing is won by it."""
        frames = [_grey(60, side=224), _grey(190, side=224)]
        nothing = await self._ask(ASK)
        clip = await self._ask(_clip(frames), ASK)
        images = await self._ask(*map(_image, frames), ASK)
        if not (nothing.tokens and clip.tokens and images.tokens):
            return Finding("video", "unclear", "a clip was taken, and no tokens were counted")
        if clip.tokens.into <= nothing.tokens.into + 2:
            return Finding("video", "no", "the clip was passed over in silence", 'media = "images"')
        seen = f"{clip.tokens.into} tokens as a clip, {images.tokens.into} as images"
        return Finding("video", "yes", seen, 'media = "clips"' if clip.tokens.into < images.tokens.into else None)

    async def n(self) -> Finding:
        came = len((await self._ask(ASK, n=3, temperature=1.0)).samples)
        verdict: Verdict = "yes" if came == 3 else "no"
        return Finding(
            "n", verdict, f"{came} of 3 samples came", f"samples_at_once = {'true' if came == 3 else 'false'}"
        )

    async def json_schema(self) -> Finding:
        """A word that no question would bring about; then any object at all."""
        schema = {
            "type": "object",
            "properties": {"k": {"const": "zq7"}},
            "required": ["k"],
            "additionalProperties": False,
        }
        form = {"type": "json_schema", "json_schema": {"name": "probe", "schema": schema, "strict": True}}
        if await self._json(response_format=form) == {"k": "zq7"}:
            return Finding("json_schema", "yes", "it kept to a schema", 'json_mode = "schema"')
        objects = isinstance(await self._json(response_format={"type": "json_object"}), dict)
        seen = "a schema is passed over, any JSON is kept to" if objects else "what form is asked for is passed over"
        return Finding("json_schema", "no", seen, f'json_mode = "{"object" if objects else "text"}"')

    async def _json(self, **params: Any) -> Any:
        try:
            return orjson.loads((await self._ask(_text("Name a colour, as JSON."), **params, most=64)).samples[0].text)
        except (Rejected, orjson.JSONDecodeError):
            return None

    async def choice(self) -> Finding:
        said = (await self._ask(ASK, structured_outputs={"choice": ["zq7", "zq8"]})).samples[0].text.strip()
        return Finding("choice", "yes" if said in {"zq7", "zq8"} else "no", f"of zq7 and zq8 it chose '{said[:40]}'")

    async def logprobs(self) -> Finding:
        sample = (await self._ask(ASK, logprobs=True, top_logprobs=2)).samples[0]
        if sample.logprobs is None:
            return Finding("logprobs", "no", "none came")
        return Finding("logprobs", "yes", "with alternatives" if sample.top else "without alternatives")

    async def priority(self) -> Finding:
        """Only a refusal says anything: whoever takes it may still pass over it."""
        await self._ask(ASK, priority=1)
        return Finding(
            "priority", "unclear", "taken, but silence is not support: is `--scheduling-policy priority` set?"
        )

    async def load(self) -> Finding:
        load = (await self._ask(ASK)).load
        told = load is not None and load.waiting is not None
        return Finding(
            "load", "yes" if told else "no", "it says how many calls wait" if told else "no such header came"
        )

    async def stream(self) -> Finding:
        came = (await self._ask(ASK, stream=True)).first_token_s is not None
        return Finding("stream", "yes" if came else "no", "it came in pieces" if came else "it came in one piece")

    async def cached(self) -> Finding:
        """The same long beginning twice."""
        beginning = _text(f"Probe {self._fresh}. " + "The quick brown fox jumps over the lazy dog. " * 60)
        await self._ask(beginning, ASK)
        tokens = (await self._ask(beginning, ASK)).tokens
        cached = tokens.cached if tokens else 0
        return Finding(
            "cached", "yes" if cached else "no", f"of a prompt asked twice {cached} tokens were told as cached"
        )

    async def context(self) -> Finding:
        try:
            await self._ask(ASK, most=ANSWERS_AT_MOST)
        except TooMuch as e:
            if e.of == "tokens" and e.limit is not None:
                return Finding("context", "yes", f"it has room for {e.limit} tokens", f"context_tokens = {e.limit}")
            return Finding("context", "unclear", str(e)[:200])
        except Rejected as e:
            return Finding("context", "unclear", str(e)[:200])
        return Finding("context", "unclear", "it takes any number of tokens to answer with, and does not say its own")


async def check(served: Served, *, environ: Mapping[str, str], fresh: str) -> dict[str, list[Finding]]:
    """Each replica's URL and what it honours. Raises where one is not there."""
    async with AiohttpTransport() as transport:
        replicas = endpoints(served, environ=environ, transport=transport)
        return {replica.url: await Probe(replica, fresh=fresh).all() for replica in replicas}


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


ASK: Final = _text("Answer with one word.")


def _grey(shade: int, *, side: int = 56) -> bytes:
    """A picture that is cheap to send and to look at."""
    return bytes(simplejpeg.encode_jpeg(np.full((side, side, 3), shade % 256, np.uint8), quality=80))


def _image(jpeg: bytes) -> Part:
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{pybase64.b64encode_as_string(jpeg)}"}}


def _clip(jpegs: Sequence[bytes]) -> Part:
    data = ",".join(pybase64.b64encode_as_string(j) for j in jpegs)
    return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{data}"}}
