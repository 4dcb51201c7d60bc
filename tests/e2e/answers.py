"""An endpoint that answers as a test says: it looks which colours of `films` are in the pictures, and the test does the rest."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pybase64
import simplejpeg
from aiohttp import web

MODEL = "scripted"
Says = Callable[[frozenset[str]], str | int | bytes]
"""Colours that are to be seen → a text, the status of a refusal, or the body of a 200, whatever is in it."""


@dataclass
class Scripted:
    """Change `says`, and the next answer is another."""

    says: Says
    url: str = ""
    model: str = MODEL
    headers: Mapping[str, str] = field(default_factory=dict)
    latency_s: float = 0.0
    counts: bool = False
    """The tokens that a call is said to have read are its number, so that what landed tells which answer it is."""
    asked: list[bytes] = field(default_factory=list)
    """What each call was about, in the order in which they came; numbered from 1."""

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.model}]}, headers=dict(self.headers))

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        said, number = self.says(_colours(body)), self._heard(body)
        if isinstance(said, int):
            return web.json_response({"error": {"message": "not this picture", "code": said}}, status=said)
        if isinstance(said, bytes):
            return web.Response(body=said, content_type="application/json")
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        await asyncio.sleep(self.latency_s)
        usage = {"prompt_tokens": number if self.counts else 5, "completion_tokens": 5, "total_tokens": 10}
        answer = {"id": "c", "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}
        return web.json_response(answer)

    def _heard(self, body: Mapping[str, Any]) -> int:
        self.asked.append(hashlib.sha256(json.dumps(body["messages"]).encode()).digest())
        return len(self.asked)


@contextmanager
def scripted(says: Says, *, latency_s: float = 0.0, counts: bool = False) -> Iterator[Scripted]:
    """On a loop of its own: commands have theirs."""
    served, up, loop = Scripted(says, latency_s=latency_s, counts=counts), threading.Event(), asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", served.models)
        app.router.add_post("/v1/chat/completions", served.chat)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner

    def work() -> None:
        runner = loop.run_until_complete(start())
        up.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert up.wait(30), "it did not come up"
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


def _colours(body: Mapping[str, Any]) -> frozenset[str]:
    seen: set[str] = set()
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "image_url":
                seen |= _seen(pybase64.b64decode(part["image_url"]["url"].partition(",")[2]))
    return frozenset(seen)


def _seen(jpeg: bytes) -> set[str]:
    red, green, blue = np.moveaxis(simplejpeg.decode_jpeg(jpeg).astype(int), 2, 0)
    found = {"red": (red > 150) & (green < 90) & (blue < 90), "blue": (blue > 150) & (red < 90) & (green < 110)}
    return {name for name, where in found.items() if where.mean() > 0.02}
