"""The client against real servers: the observer with its faults, and sockets that misbehave as no server library would."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx2
import numpy as np
import openai
import orjson
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from streamproc.errors import Rejected, Retryable, StreamprocError, Throttled, Unreachable
from streamproc.models.body import Manner, Seen
from streamproc.models.call import Call, Heard
from streamproc.models.card import Served, cards
from streamproc.models.desk import Model, Record
from streamproc.models.endpoint import UNNAMED, Endpoint, endpoints, same_model
from streamproc.models.failures import (
    BadRequest,
    CacheMiss,
    Garbled,
    Interrupted,
    OutOfMemory,
    Overdue,
    QuotaSpent,
    Refused,
    ServerFailed,
    TooMuch,
)
from streamproc.models.fit import Fit
from streamproc.models.key import struck_pieces
from streamproc.models.mapping import broken, failure, retry_after_s
from streamproc.models.observer import ABILITIES, Settings, running
from streamproc.models.pool import Pool
from streamproc.models.prompt import Picture, Prompt
from streamproc.models.replicas import Asked
from streamproc.models.transport import AiohttpTransport

KEY = "sk-very-secret-0123456789"


def jpeg(shade: int = 90, *, width: int = 196, height: int = 112) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.full((height, width, 3), shade, np.uint8)))


def window(frames: int = 4, *, first: int = 0, **more: Any) -> Prompt:
    pictures = tuple(Picture(jpeg(40 + 3 * (first + i)), 1000 * (first + i)) for i in range(frames))
    return Prompt(**({"question": "What happens?", "pictures": pictures} | more))


@pytest.fixture
async def transport() -> AsyncIterator[AiohttpTransport]:
    async with AiohttpTransport() as transport:
        yield transport


Make = Callable[..., Endpoint]


async def counted(endpoint: Endpoint, call: Call, *, with_data: bool = False) -> tuple[Heard, int]:
    """The answer, and the calls that it took."""
    calls = list[None]()
    heard = await endpoint.ask(call, deadline_s=10, with_data=with_data, sent=lambda: calls.append(None))
    return heard, len(calls)


@pytest.fixture
async def observer(transport: AiohttpTransport) -> AsyncIterator[Make]:
    """An endpoint of an observer; `fault` makes every call of it go wrong."""
    async with running() as (url, _):

        def make(fault: str | None = None, *, fit: Fit | None = None, n: bool = True, **manner: Any) -> Endpoint:
            headers = {"x-observer": fault} if fault else {}
            how = Manner(**({"model": "observer"} | manner))
            return Endpoint(url, how, transport=transport, headers=headers, fit=fit, samples_at_once=n, key=KEY)

        yield make


# answers --------------------------------------------------------------------------------------------------------------


async def test_an_answer_has_text_tokens_and_what_was_sent(observer: Make) -> None:
    heard = await observer().ask(Call(prompt=window()), deadline_s=10)
    (sample,) = heard.reply.samples
    assert "4 frames" in sample.text
    assert (sample.finish, sample.reasoning) == ("stop", None)
    assert heard.reply.tokens is not None
    assert heard.reply.tokens.into > 4 * 28
    assert heard.reply.load is not None
    assert heard.reply.load.waiting == 0
    assert heard.sent_bytes > 4 * len(jpeg())


async def test_a_streamed_answer_is_the_same_and_tells_when_it_began(observer: Make) -> None:
    endpoint = observer()
    whole = await endpoint.ask(Call(prompt=window(), samples=2, params={"temperature": 1}), deadline_s=10)
    streamed = await endpoint.ask(
        Call(prompt=window(), samples=2, params={"temperature": 1}, stream=True), deadline_s=10
    )
    assert streamed.reply.samples == whole.reply.samples
    assert streamed.reply.tokens is not None
    assert whole.reply.tokens is not None
    assert streamed.reply.tokens.out == whole.reply.tokens.out
    assert whole.reply.first_token_s is None
    assert streamed.reply.first_token_s is not None


async def test_samples_come_in_one_call_where_the_server_honours_n(observer: Make) -> None:
    endpoint = observer()
    assert endpoint.takes(4) == 1
    heard, calls = await counted(endpoint, Call(prompt=window(), samples=4))
    assert (len(heard.reply.samples), calls) == (4, 1)


async def test_samples_come_in_several_calls_where_it_does_not_and_tokens_are_summed(observer: Make) -> None:
    one = await observer().ask(Call(prompt=window()), deadline_s=10)
    endpoint = observer(n=False)
    assert endpoint.takes(4) == 4
    heard, calls = await counted(endpoint, Call(prompt=window(), samples=4))
    assert (len(heard.reply.samples), calls) == (4, 4)
    assert one.reply.tokens is not None
    assert heard.reply.tokens is not None
    assert heard.reply.tokens.into == 4 * one.reply.tokens.into


async def test_a_server_that_ignores_n_in_silence_is_asked_for_the_rest(transport: AiohttpTransport) -> None:
    async with running(Settings(honours=frozenset({"logprobs", "max_tokens"}))) as (url, _):
        endpoint = Endpoint(url, Manner(model="observer"), transport=transport)
        assert endpoint.takes(3) == 1
        both = [await counted(endpoint, Call(prompt=window(), samples=3)) for _ in range(2)]
        assert endpoint.takes(3) == 3
    assert [(len(heard.reply.samples), calls) for heard, calls in both] == [(3, 3), (3, 3)]


async def test_the_limit_of_an_answer_goes_by_the_name_that_its_model_takes(transport: AiohttpTransport) -> None:
    async with running(Settings(honours=ABILITIES - {"max_tokens"})) as (url, _):
        with pytest.raises(BadRequest, match="max_completion_tokens"):
            await Endpoint(url, Manner(model="observer"), transport=transport).ask(Call(prompt=window()), deadline_s=5)
        newer = Endpoint(url, Manner(model="observer", length_key="max_completion_tokens"), transport=transport)
        heard = await newer.ask(Call(prompt=window(), max_tokens=1), deadline_s=5)
    assert heard.reply.samples[0].finish == "length"


async def test_the_overlap_goes_by_uuid_and_a_lost_cache_is_sent_again(transport: AiohttpTransport) -> None:
    async with running() as (url, server):
        endpoint = Endpoint(url, Manner(model="observer", uuids=True), transport=transport)
        first = await counted(endpoint, Call(prompt=window(4)))
        second = await counted(endpoint, Call(prompt=window(4, first=2)))
        server.shown.clear()
        third = await counted(endpoint, Call(prompt=window(4, first=4)))
        full = await counted(endpoint, Call(prompt=window(4, first=4)), with_data=True)
    assert [(heard.spared, calls) for heard, calls in (first, second, third, full)] == [(0, 1), (2, 1), (2, 2), (0, 1)]
    assert third[0].reply.samples == full[0].reply.samples


async def test_thoughts_are_kept_apart_from_the_answer(observer: Make) -> None:
    (sample,) = (await observer("think").ask(Call(prompt=window()), deadline_s=10)).reply.samples
    assert sample.reasoning == "What is there to see?"
    assert sample.text.startswith("Measured")


async def test_an_answer_cut_by_length_and_one_without_content_are_answers(observer: Make) -> None:
    (cut,) = (await observer("length").ask(Call(prompt=window()), deadline_s=10)).reply.samples
    (silent,) = (await observer("silent").ask(Call(prompt=window()), deadline_s=10)).reply.samples
    assert (cut.finish, silent.text) == ("length", "")


async def test_logprobs_come_with_their_alternatives(observer: Make) -> None:
    call = Call(prompt=window(), params={"logprobs": True, "top_logprobs": 2})
    for stream in (False, True):
        (sample,) = (
            await observer().ask(Call(prompt=call.prompt, params=call.params, stream=stream), deadline_s=10)
        ).reply.samples
        assert sample.logprobs is not None
        assert sample.top is not None
        assert len(sample.top[0]) == 2
        assert "".join(token for token, _ in sample.logprobs) == sample.text


# too much --------------------------------------------------------------------------------------------------------------


async def test_frames_beyond_the_limit_are_left_out_evenly_and_said_so(observer: Make) -> None:
    heard = await observer(fit=Fit(images=3)).ask(Call(prompt=window(9)), deadline_s=10)
    assert "3 frames" in heard.reply.samples[0].text
    assert heard.notes == ("3 of 9 frames: the model takes no more images",)


async def test_a_limit_the_server_names_is_kept_from_then_on(transport: AiohttpTransport) -> None:
    async with running(Settings(image_limit=3)) as (url, _):
        endpoint = Endpoint(url, Manner(model="observer"), transport=transport)
        first = await counted(endpoint, Call(prompt=window(9)))
        second = await counted(endpoint, Call(prompt=window(9)))
    assert [calls for _, calls in (first, second)] == [2, 1]
    assert first[0].notes == second[0].notes == ("3 of 9 frames: the model takes no more images",)


async def test_a_context_that_is_overrun_loses_frames_until_it_fits(transport: AiohttpTransport) -> None:
    async with running(Settings(context_tokens=800)) as (url, _):
        endpoint = Endpoint(url, Manner(model="observer"), transport=transport)
        heard = await endpoint.ask(Call(prompt=window(16)), deadline_s=10)
        assert "8 of 16 frames" in heard.notes[0]
        with pytest.raises(TooMuch, match="maximum context length"):
            await endpoint.ask(Call(prompt=Prompt("word " * 2000)), deadline_s=10)


async def test_out_of_memory_takes_frames_then_size_and_then_fails(observer: Make) -> None:
    once = await observer("oom; times=1; id=once").ask(Call(prompt=window(8)), deadline_s=10)
    twice = await observer("oom; times=2; id=twice").ask(Call(prompt=window(8)), deadline_s=10)
    assert once.notes == ("4 of 8 frames: the server ran out of memory",)
    assert twice.notes == (*once.notes, "pictures at half their width and height: the server ran out of memory")
    with pytest.raises(OutOfMemory):
        await observer("oom").ask(Call(prompt=window(8)), deadline_s=10)


# what goes wrong -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("400", BadRequest),
        ("401", Unreachable),
        ("402", QuotaSpent),
        ("403", Unreachable),
        ("404", Unreachable),
        ("409", ServerFailed),
        ("413", TooMuch),
        ("422", BadRequest),
        ("429", Throttled),
        ("500", ServerFailed),
        ("502", ServerFailed),
        ("503", ServerFailed),
        ("529", Throttled),
        ("miss", CacheMiss),
        ("garbage", ServerFailed),
        ("cut", Garbled),
        ("empty", Garbled),
        ("huge=10485760", Garbled),
        ("refuse", Refused),
        ("filter", Refused),
        ("hang", Overdue),
    ],
)
async def test_each_failure_is_of_its_class_whole_or_streamed(
    observer: Make, fault: str, error: type[StreamprocError]
) -> None:
    for stream in (False, True):
        with pytest.raises(error) as raised:
            await observer(fault).ask(Call(prompt=window(1), stream=stream), deadline_s=0.2 if fault == "hang" else 20)
        assert type(raised.value) is error
        assert "observer" in str(raised.value)


async def test_retry_after_reaches_whoever_waits(observer: Make) -> None:
    with pytest.raises(Throttled) as raised:
        await observer("429; retry-after=17").ask(Call(prompt=window(1)), deadline_s=10)
    assert raised.value.retry_after_s == 17


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after-ms": "150"}, 0.15),
        ({"retry-after": "Sat, 21 Nov 2026 08:00:30 GMT", "date": "Sat, 21 Nov 2026 08:00:00 GMT"}, 30),
        ({"retry-after": "Sat, 21 Nov 2026 07:00:00 GMT", "date": "Sat, 21 Nov 2026 08:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "999999"}, 999_999),
        ({"retry-after": "99999999"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after-ms": "inf"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after-ms": "-1"}, None),
        ({"retry-after": "Sat, 21 Nov 2099 08:00:30 GMT", "date": "Sat, 21 Nov 2026 08:00:00 GMT"}, None),
        ({"retry-after": "Sat, 21 Nov 2026 08:00:30 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_spellings_as_far_as_it_can_be_believed(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after_s(httpx2.Headers(headers)) == seconds


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"error": {"message": "This model's maximum context length is 8192 tokens."}}, TooMuch),
        (
            400,
            {
                "error": {
                    "message": "The decoder prompt (length 11405) is longer than the maximum model length of 8192."
                }
            },
            TooMuch,
        ),
        (400, {"error": {"message": "At most 10 image(s) may be provided in one prompt."}}, TooMuch),
        (400, {"error": {"message": "content_filter: the response was filtered"}}, Refused),
        (400, {"detail": "bad"}, BadRequest),
        (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, QuotaSpent),
        (429, {"error": {"message": "Quota exceeded: GenerateRequestsPerDayPerProject"}}, QuotaSpent),
        (429, {"error": {"message": "Rate limit reached for requests per min"}}, Throttled),
        (500, {"error": {"message": "CUDA out of memory. Tried to allocate"}}, OutOfMemory),
        (500, "a plain text", ServerFailed),
    ],
)
async def test_what_one_status_means_is_read_from_what_was_said(
    transport: AiohttpTransport, status: int, body: Any, error: type[StreamprocError]
) -> None:
    async with speaking(_response(status, body)) as url:
        with pytest.raises(error) as raised:
            await Endpoint(url, Manner(model="m"), transport=transport).ask(Call(prompt=Prompt("?")), deadline_s=5)
    assert type(raised.value) is error


def gemini(*quotas: str, delay: str | None = "37s") -> Any:
    """A refusal as Gemini words it, whatever limit it is about."""
    details: list[dict[str, Any]] = [{"@type": "QuotaFailure", "violations": [{"quotaId": q} for q in quotas]}]
    details += [{"@type": "RetryInfo", "retryDelay": delay}] if delay else []
    said = f"You exceeded your current quota, please check your plan and billing details. {'See the documents. ' * 30}"
    return [{"error": {"code": 429, "message": said, "status": "RESOURCE_EXHAUSTED", "details": details}}]


@pytest.mark.parametrize(
    ("body", "error", "rest_s"),
    [
        (gemini("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"), Throttled, 37),
        (gemini("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", delay=None), Throttled, None),
        (gemini("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), QuotaSpent, None),
        (gemini("TokensPerMinute", "GenerateRequestsPerDayPerProject"), QuotaSpent, None),
        (gemini(), Throttled, 37),
        (gemini(delay=None), QuotaSpent, None),
        ({"error": {"message": "You exceeded your current quota. Please retry in 20.5s."}}, Throttled, 20.5),
        ({"error": {"message": "15 requests per minute, 1500 per day are allowed"}}, Throttled, None),
        ({"error": {"message": "on requests per day (RPD): used 200. Please try again in 7m12s."}}, Throttled, 432),
        ({"error": {"message": "on tokens per min (TPM). Please try again in 20ms."}}, Throttled, 0.02),
        ({"error": {"message": "Your daily limit is reached"}}, QuotaSpent, None),
        ({"error": {"message": "Slow down, and retry in a while"}}, Throttled, None),
    ],
)
async def test_a_limit_by_the_minute_is_no_spent_quota_and_the_rest_it_names_is_kept(
    transport: AiohttpTransport, body: Any, error: type[Throttled], rest_s: float | None
) -> None:
    async with speaking(_response(429, body)) as url:
        with pytest.raises(Throttled) as raised:
            await Endpoint(url, Manner(model="m"), transport=transport).ask(Call(prompt=Prompt("?")), deadline_s=5)
    assert (type(raised.value), raised.value.retry_after_s) == (error, rest_s)
    assert "'details'" not in str(raised.value)


async def test_an_error_under_status_200_is_the_servers_trouble(transport: AiohttpTransport) -> None:
    async with speaking(_response(200, {"error": {"message": "upstream", "code": 502}})) as url:
        with pytest.raises(ServerFailed, match="upstream"):
            await Endpoint(url, Manner(model="m"), transport=transport).ask(Call(prompt=Prompt("?")), deadline_s=5)


@pytest.mark.parametrize("content", [b'"half \\ud800 of one"', b'"half \xff of one"'])
async def test_characters_that_are_none_are_replaced_and_that_is_said(
    transport: AiohttpTransport, content: bytes
) -> None:
    body = b'{"choices": [{"message": {"content": %s}, "finish_reason": "stop"}]}' % content
    async with speaking(_spoken(200, body)) as url:
        heard = await Endpoint(url, Manner(model="m"), transport=transport).ask(Call(prompt=Prompt("?")), deadline_s=5)
    text = heard.reply.samples[0].text
    assert text in {"half ? of one", "half \N{REPLACEMENT CHARACTER} of one"}
    assert text.encode()
    assert heard.notes == ("characters or numbers that are none were replaced",)


@pytest.mark.parametrize("count", [b"1" + b"0" * 30, b"1e30", b"-5", b'"many"', b"[1]"])
async def test_a_count_of_tokens_that_cannot_be_is_not_believed(transport: AiohttpTransport, count: bytes) -> None:
    for usage in (b'{"prompt_tokens": %s, "completion_tokens": 1}', b'{"prompt_tokens": 1, "completion_tokens": %s}'):
        body = b'{"choices": [{"message": {"content": "yes"}}], "usage": %s}' % (usage % count)
        async with speaking(_spoken(200, body)) as url:
            endpoint = Endpoint(url, Manner(model="m"), transport=transport)
            heard = await endpoint.ask(Call(prompt=Prompt("?")), deadline_s=5)
        assert heard.reply.tokens is None
        assert len(heard.notes) == 1
        assert "not believed" in heard.notes[0]


async def test_another_models_name_is_told_once_and_noted_each_time(
    observer: Make, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = observer("model=gpt-2")
    for _ in range(3):
        assert "it answered as 'gpt-2'" in (await endpoint.ask(Call(prompt=window(1)), deadline_s=20)).notes
    assert ["it answers as 'gpt-2'" in record.getMessage() for record in caplog.records] == [True]


async def test_a_redirect_is_followed_by_nobody_and_told(transport: AiohttpTransport) -> None:
    raw = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: https://elsewhere/v1\r\ncontent-length: 0\r\n\r\n"
    async with speaking(raw) as url:
        with pytest.raises(Unreachable, match="https://elsewhere/v1"):
            await Endpoint(url, Manner(model="m"), transport=transport).ask(Call(prompt=Prompt("?")), deadline_s=5)


async def test_lists_of_parts_nulls_and_reasoning_fields_are_read(transport: AiohttpTransport) -> None:
    answer = {
        "model": None,
        "usage": None,
        "choices": [
            {"index": 1, "message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}},
            {"index": 0, "message": {"content": "c", "reasoning": "d"}, "finish_reason": "stop", "logprobs": None},
        ],
    }
    async with speaking(_response(200, answer)) as url:
        endpoint = Endpoint(url, Manner(model="m"), transport=transport)
        reply = (await endpoint.ask(Call(prompt=Prompt("?"), samples=2), deadline_s=5)).reply
    assert [(s.text, s.reasoning) for s in reply.samples] == [("c", "d"), ("ab", None)]
    assert reply.tokens is None


async def test_a_stream_that_ends_in_the_middle_is_an_interruption(transport: AiohttpTransport) -> None:
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "half"}}]}\n\n'
    raw = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + event
    async with speaking(raw) as url:
        with pytest.raises(Interrupted, match="middle"):
            await Endpoint(url, Manner(model="m"), transport=transport).ask(
                Call(prompt=Prompt("?"), stream=True), deadline_s=5
            )


async def test_models_are_listed_and_what_is_no_list_is_told(observer: Make, transport: AiohttpTransport) -> None:
    assert await observer().serves() == ("observer",)
    async with speaking(_response(200, {"hello": 1})) as url:
        with pytest.raises(Unreachable, match="ending in /v1"):
            await Endpoint(url, Manner(model="m"), transport=transport).serves()


@pytest.mark.parametrize(
    ("said", "wanted", "same"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o", True),
        ("gpt-4o-mini", "gpt-4o", False),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl-7b-instruct", True),
        ("Qwen/Qwen2.5-VL-72B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct", False),
        ("google/gemma-3-27b-it:free", "google/gemma-3-27b-it", True),
        ("mistral-small-latest", "mistral-small", True),
    ],
)
def test_another_models_name_is_known_from_a_release_of_the_same(said: str, wanted: str, *, same: bool) -> None:
    assert same_model(said, wanted) is same


QUOTED: dict[str, Callable[[], bytes]] = {
    "an error": lambda: _response(401, {"error": {"message": f"Incorrect API key provided: {KEY}."}}),
    "a long error": lambda: _response(400, {"error": {"message": "x" * 490 + KEY}}),
    "an error under status 200": lambda: _response(200, {"error": {"message": f"no such key: {KEY}"}}),
    "a redirect": f"HTTP/1.1 302 X\r\nlocation: http://a/?key={KEY}\r\ncontent-length: 0\r\n\r\n".encode,
    "a proxy's page": lambda: _spoken(200, f"<html>Bearer {KEY}".encode()).replace(b"application/json", b"text/html"),
    "a refusal": lambda: _response(200, {"choices": [{"message": {"refusal": f"not with {KEY}"}}]}),
    "an answer": lambda: _response(200, {"model": KEY, "choices": [{"message": {"content": f"yes, {KEY}"}}]}),
    "a stream": lambda: _spoken(200, _sse(KEY)).replace(b"application/json", b"text/event-stream"),
}
"""Where servers quote the key of whoever calls."""


def _sse(said: str) -> bytes:
    delta = orjson.dumps({"model": said, "choices": [{"delta": {"content": f"yes, {said}"}, "finish_reason": "stop"}]})
    return b"data: " + delta + b"\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", QUOTED)
async def test_the_key_is_in_no_error_log_answer_or_repr(
    transport: AiohttpTransport, caplog: pytest.LogCaptureFixture, where: str, stream: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    async with speaking(QUOTED[where]()) as url:
        endpoint = Endpoint(url, Manner(model="m"), transport=transport, key=KEY)
        try:
            said = repr(await endpoint.ask(Call(prompt=Prompt("?"), stream=stream), deadline_s=5))
        except StreamprocError as e:
            said = f"{e} {e!r}"
    assert KEY[:12] not in f"{said} {endpoint!r} {caplog.text}"
    nothing_quoted = where == "a long error" or (where == "a stream" and not stream)
    assert "***" in said or nothing_quoted


@pytest.mark.parametrize("stream", [False, True])
async def test_a_word_that_stands_for_no_key_may_stand_in_an_answer(transport: AiohttpTransport, stream: bool) -> None:
    said = _sse("EMPTY") if stream else orjson.dumps({"choices": [{"message": {"content": "yes, EMPTY"}}]})
    raw = _spoken(200, said)
    async with speaking(raw.replace(b"application/json", b"text/event-stream") if stream else raw) as url:
        endpoint = Endpoint(url, Manner(model="m"), transport=transport, key="EMPTY")
        heard = await endpoint.ask(Call(prompt=Prompt("?"), stream=stream), deadline_s=5)
    assert heard.reply.samples[0].text == "yes, EMPTY"


@given(st.lists(st.integers(0, 80), max_size=6), st.integers(0, 3))
def test_the_key_is_struck_out_of_a_stream_wherever_it_is_cut(cuts: list[int], times: int) -> None:
    text = f"sk-v sk-very-{KEY * times} sk-very-secret".encode()
    edges = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]

    async def pieces() -> AsyncIterator[bytes]:
        for lo, hi in pairwise(edges):
            yield text[lo:hi]

    async def joined() -> bytes:
        return b"".join([piece async for piece in struck_pieces(pieces(), KEY)])

    assert asyncio.run(joined()) == text.replace(KEY.encode(), b"***")


# enumerated ------------------------------------------------------------------------------------------------------------


def _openai_errors() -> list[openai.OpenAIError]:
    """One of every error that openai has."""
    request = httpx2.Request("POST", "http://a/v1/chat/completions")
    found = list[openai.OpenAIError]()
    for name in (n for n in openai.__all__ if n.endswith("Error")):
        kind = getattr(openai, name)
        if not (inspect.isclass(kind) and issubclass(kind, openai.OpenAIError)):
            continue
        if issubclass(kind, openai.APIStatusError):
            status = getattr(kind, "status_code", 500)
            response = httpx2.Response(status if isinstance(status, int) else 500, request=request)
            found.append(
                kind(response=response, body=None)
                if kind is openai.OAuthError
                else kind("m", response=response, body=None)
            )
        elif kind is openai.APITimeoutError:
            found.append(kind(request))
        elif kind is openai.APIConnectionError:
            found.append(kind(request=request))
        elif kind is openai.APIResponseValidationError:
            found.append(kind(httpx2.Response(200, request=request), None))
        elif kind is openai.APIError:
            found.append(kind("m", request, body=None))
    return found


def test_every_error_of_openai_has_its_class() -> None:
    kinds = {type(e) for e in _openai_errors()}
    assert {openai.RateLimitError, openai.APITimeoutError, openai.InternalServerError} <= kinds
    assert len(kinds) >= 14
    for e in _openai_errors():
        assert isinstance(failure(e, hop="m at a", secret=None), Retryable | Rejected)


def test_every_error_of_httpx2_has_its_class() -> None:
    kinds = [k for n in dir(httpx2) if inspect.isclass(k := getattr(httpx2, n)) and issubclass(k, httpx2.RequestError)]
    assert len(kinds) >= 18
    for kind in kinds:
        assert isinstance(broken(kind("m"), hop="m at a", secret=None), Retryable)


# what is used of the client's inside ------------------------------------------------------------------------------------


async def test_the_client_is_as_we_use_it(transport: AiohttpTransport) -> None:
    """Held here because no document promises it: raw bytes in, the bare response out, our own headers, no retries."""
    seen = list[httpx2.Request]()

    class Watching(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return await transport.handle_async_request(request)

    async with running() as (url, server):
        endpoint = Endpoint(url, Manner(model="observer"), transport=Watching(), key=KEY, headers={"x-observer": "500"})
        with pytest.raises(ServerFailed):
            await endpoint.ask(Call(prompt=window(1)), deadline_s=5)
    (request,) = seen
    assert server.calls == 1
    assert request.url == f"{url}/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["endpoint-load-metrics-format"] == "JSON"
    assert not [name for name in request.headers if name.startswith("x-stainless")]  # so `_build_request` is ours
    assert orjson.loads(request.content)["model"] == "observer"
    assert request.extensions["timeout"] == {"connect": 10.0, "read": None, "write": None, "pool": None}


async def test_a_model_that_nobody_named_is_the_one_that_the_server_lists(transport: AiohttpTransport) -> None:
    async with running() as (url, _):
        endpoint = Endpoint(url, Manner(model=UNNAMED), transport=transport, any_name=True)
        heard = await asyncio.gather(*(endpoint.ask(Call(prompt=window(1)), deadline_s=10) for _ in range(3)))
    assert endpoint.manner.model == "observer"
    assert [h.reply.model for h in heard] == ["observer"] * 3


async def test_of_several_it_is_asked_which_is_meant() -> None:
    class Two(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            assert request.url.path == "/v1/models", "no call goes out"
            return httpx2.Response(200, json={"data": [{"id": "a"}, {"id": "b"}]}, request=request)

    endpoint = Endpoint("http://127.0.0.1:1/v1", Manner(model=UNNAMED), transport=Two(), any_name=True)
    with pytest.raises(BadRequest, match="serves a, b: say which is meant, as `served_name`"):
        await endpoint.ask(Call(prompt=window(1)), deadline_s=10)


@pytest.mark.parametrize(("priorities", "said"), [(True, [None, 1]), (False, [None, None])])
async def test_what_may_wait_says_so_where_the_server_knows_of_priorities(
    transport: AiohttpTransport, priorities: bool, said: list[int | None]
) -> None:
    bodies = list[dict[str, Any]]()

    class Watching(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            bodies.append(orjson.loads(request.content))
            return await transport.handle_async_request(request)

    async with running() as (url, _):
        endpoint = Endpoint(url, Manner(model="observer", priorities=priorities), transport=Watching())
        for yields in (False, True):
            await endpoint.ask(Call(prompt=window(1), yields=yields), deadline_s=10)
    assert [body.get("priority") for body in bodies] == said


def test_a_server_started_as_its_card_says_knows_of_priorities() -> None:
    card, other = cards()["qwen2.5-vl-7b"], cards()["openai-compatible"]
    for one, knows in ((card, True), (other, False)):
        (endpoint,) = endpoints(Served("m", one, ("http://127.0.0.1:1/v1",)), environ={}, transport=AiohttpTransport())
        assert endpoint.manner.priorities == knows


def test_what_was_seen_is_bounded_and_the_oldest_goes_first() -> None:
    seen = Seen(3)
    seen.add(("a", "b", "c"))
    seen.add(("a", "d"))
    assert [u in seen for u in "abcd"] == [True, False, True, True]
    assert len(seen) == 3


# sockets -----------------------------------------------------------------------------------------------------------------


def _response(status: int, body: Any) -> bytes:
    return _spoken(status, orjson.dumps(body))


def _spoken(status: int, data: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


@asynccontextmanager
async def speaking(raw: bytes) -> AsyncIterator[str]:
    """A socket that reads a request and says just these bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    async with serving(handle) as url:
        yield url


@asynccontextmanager
async def serving(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=2**24)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


async def test_a_reset_is_an_interruption(transport: AiohttpTransport) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with serving(reset) as url:
        with pytest.raises(Interrupted):
            await Endpoint(url, Manner(model="m"), transport=transport).ask(Call(prompt=Prompt("?")), deadline_s=5)


async def test_one_of_three_real_replicas_dies_and_no_window_fails(transport: AiohttpTransport) -> None:
    """The whole way, from the pool to sockets: overlapping windows of many streams, uuids, a server that goes away."""
    records, well_under_way = list[Record](), asyncio.Event()

    def record(record: Record) -> None:
        records.append(record)
        if len(records) == 40:
            well_under_way.set()

    async with running() as (one, _), running() as (two, _), AsyncExitStack() as dying:
        three, _ = await dying.enter_async_context(running())
        manner = Manner(model="observer", uuids=True)
        replicas: list[tuple[Asked, float]] = [
            (Endpoint(u, manner, transport=transport), 1.0) for u in (one, two, three)
        ]
        pool = Pool([Model(name="m", endpoints=replicas)], record=record, rng=random.Random(1))

        async def stream(name: str, shade: int) -> list[str]:
            said = list[str]()
            for first in range(0, 24, 2):
                pictures = tuple(Picture(jpeg(40 + (7 * shade + i) % 200), 1000 * i) for i in range(first, first + 4))
                answer = await pool.ask("m", Call(prompt=Prompt("?", pictures=pictures)), stream=name)
                said.append(answer.reply.samples[0].text)
            return said

        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(stream(f"s{n}", n)) for n in range(12)]
            await well_under_way.wait()
            await dying.aclose()
    assert all("4 frames" in text for task in streams for text in task.result())
    assert {r.url for r in records if r.outcome == "done"} == {one, two, three}
    assert {r.outcome for r in records} - {"done"} <= {"Unreachable", "Interrupted", "cancelled"}
    pool.close()
