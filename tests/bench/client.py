"""What a model call costs this process, against the least that could carry it; and what a window sends.

Bare: aiohttp, orjson and pybase64, with nothing between them. Both in one run, turn by turn, so that a busy machine is
busy for both.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from statistics import median

import aiohttp
import numpy as np
import orjson
import pybase64
import simplejpeg
import uvloop

from streamproc.models.body import Manner
from streamproc.models.call import Call
from streamproc.models.endpoint import Endpoint
from streamproc.models.observer import running
from streamproc.models.prompt import Picture, Prompt
from streamproc.models.transport import AiohttpTransport

ROUNDS = 9
SYSTEM, QUESTION = "You watch soccer. " * 12, "What happens? Answer with JSON. " * 12

Line = tuple[str, float, float | None, bool | None]


@contextmanager
def answering(seconds: float) -> Iterator[str]:
    """The server has a process of its own, so that its work is not counted."""
    command = [sys.executable, "-m", "tests.bench._answering", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        finally:
            server.terminate()


async def cost(call: Callable[[], Awaitable[object]], *, calls: int, at_once: int) -> float:
    """CPU seconds of this process a call, once every caller has its connection."""
    began, ended, done = 0.0, 0.0, 0

    async def caller() -> None:
        nonlocal began, ended, done
        while not ended:
            await call()
            done += 1
            if done == 2 * at_once:
                began = time.process_time()
            elif done == 2 * at_once + calls:
                ended = time.process_time()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller())
    return (ended - began) / calls


def bare(session: aiohttp.ClientSession, url: str, jpegs: list[bytes]) -> Callable[[], Awaitable[object]]:
    async def call() -> object:
        images = [
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + pybase64.b64encode_as_string(j)}}
            for j in jpegs
        ]
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": [*images, {"type": "text", "text": QUESTION}]},
        ]
        body = orjson.dumps({"model": "m", "messages": messages, "max_tokens": 512})
        headers = {"content-type": "application/json", "authorization": "Bearer EMPTY"}
        async with session.post(f"{url}/chat/completions", data=body, headers=headers) as response:
            return orjson.loads(await response.read())

    return call


def ours(endpoint: Endpoint, jpegs: list[bytes]) -> Callable[[], Awaitable[object]]:
    async def call() -> object:
        pictures = tuple(Picture(j, 1000 * i) for i, j in enumerate(jpegs))
        return await endpoint.ask(Call(prompt=Prompt(QUESTION, system=SYSTEM, pictures=pictures)), deadline_s=60)

    return call


async def ratios() -> list[Line]:
    jpegs = [random.Random(i).randbytes(22_000) for i in range(16)]
    lines = list[Line]()
    with answering(0.0) as url:
        async with AiohttpTransport() as transport, aiohttp.ClientSession() as session:
            endpoint = Endpoint(url, Manner(model="m"), transport=transport)
            for images, goal in ((4, 3.5), (16, 2.6)):
                least, call = bare(session, url, jpegs[:images]), ours(endpoint, jpegs[:images])
                rounds = list[tuple[float, float]]()
                for _ in range(ROUNDS + 1):
                    rounds.append((await cost(least, calls=300, at_once=16), await cost(call, calls=300, at_once=16)))
                del rounds[0]
                ratio = median(mine / theirs for theirs, mine in rounds)
                lines.append(
                    (f"client: CPU of a call, {images} images, of a bare one", round(ratio, 2), goal, ratio <= goal)
                )
                lines.append(
                    (
                        f"client: CPU of a call, {images} images, in µs",
                        round(1e6 * median(m for _, m in rounds)),
                        None,
                        None,
                    )
                )
    return lines


async def crowd() -> list[Line]:
    """The server's delay grows with the crowd, so that calls come at the same rate."""
    jpegs = [random.Random(i).randbytes(22_000) for i in range(4)]
    with answering(0.128) as few, answering(2.0) as many:
        async with AiohttpTransport() as transport:
            calls = [
                (ours(Endpoint(url, Manner(model="m"), transport=transport), jpegs), n)
                for url, n in ((few, 64), (many, 1000))
            ]
            rounds = list[float]()
            for _ in range(7):
                alone, crowded = [await cost(call, calls=1500, at_once=n) for call, n in calls]
                rounds.append(crowded / alone)
    ratio = median(rounds)
    return [("client: CPU of a call, 1,000 in flight, of one among 64", round(ratio, 2), 1.2, ratio <= 1.2)]


async def bytes_sent() -> list[Line]:
    """Windows of four frames, each sharing two with the one before."""
    noise = np.random.default_rng(1)
    frames = [bytes(simplejpeg.encode_jpeg(noise.integers(0, 255, (112, 112, 3), np.uint8))) for _ in range(102)]
    sent = dict[bool, int]()
    async with AiohttpTransport() as transport, running() as (url, _):
        for uuids in (False, True):
            endpoint = Endpoint(url, Manner(model="observer", uuids=uuids), transport=transport)
            sent[uuids] = 0
            for first in range(0, 100, 2):
                pictures = tuple(Picture(f, 1000 * (first + i)) for i, f in enumerate(frames[first : first + 4]))
                heard = await endpoint.ask(Call(prompt=Prompt("What happens?", pictures=pictures)), deadline_s=60)
                sent[uuids] += heard.sent_bytes
    share = sent[True] / sent[False]
    return [("client: bytes of a window, half of it shared, uuid honoured", round(share, 3), 0.55, share <= 0.55)]


def run() -> Iterator[Line]:
    for part in (ratios, crowd, bytes_sent):
        yield from uvloop.run(part())
