"""The called side of all stages: a process that speaks OpenAI's chat API, answers as the truth says, and remembers who asked
for what, when.

    python -m tests.chaos.pipeline_endpoint LATENCY_S SEED

It prints its port, and does what it is told on stdin, a line each: `down S`, `storm S` (429), `flaky S` (errors, cut and
senseless answers among good ones), `report FILE` (and prints how many calls stand there). What it did not answer in good order was no answer, and is not remembered:
whoever gets none has to ask again. Callers say who they are by their key.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson
import pybase64
import uvloop

from tests.chaos.pipeline_truth import ASKED, DETECT, REFUSED, Asked, answer, number_of

FLAKY = 0.3
"""The share of answers that goes wrong meanwhile; several times in a row, and a call is given up, as it should be."""
MODELS = (
    b'{"object":"list","data":[{"id":"a","object":"model"},{"id":"b","object":"model"},{"id":"c","object":"model"}]}'
)


class Call(NamedTuple):
    """One answer that was given, or was still owed when the caller was gone."""

    key: tuple[str, str, str]
    worker: int
    began: float
    answered: float | None


class Endpoint:
    def __init__(self, latency_s: float, rng: random.Random) -> None:
        self.latency_s, self.rng = latency_s, rng
        self.calls: list[Call] = []
        self.connections: set[Connection] = set()
        self.until = dict.fromkeys(("storm", "flaky"), 0.0)
        self.port = 0
        self.server: asyncio.Server | None = None

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]

    async def down(self, seconds: float) -> None:
        """Nobody is there; who was being answered hears no more."""
        assert self.server is not None
        self.server.close()
        for connection in list(self.connections):
            connection.asked = None
            connection.transport.abort()
        await asyncio.sleep(seconds)
        await self.listen()

    def now(self, weather: str) -> bool:
        return time.time() < self.until[weather]

    def report(self, file: Path) -> None:
        for connection in list(self.connections):
            connection.owe()
        file.write_bytes(b"".join(orjson.dumps(tuple(call)) + b"\n" for call in self.calls))
        print(len(self.calls), flush=True)


class Connection(asyncio.Protocol):
    """One call after the other."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.data, self.needs = endpoint, bytearray(), 0
        self.asked: tuple[Asked, str, int, float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods, not by its class
        self.endpoint.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # the protocol's signature
        self.endpoint.connections.discard(self)
        self.owe()

    def owe(self) -> None:
        """What will not be answered has been asked for all the same."""
        if self.asked is not None:
            asked, model, worker, began = self.asked
            self.asked = None
            self.endpoint.calls.append(Call(_key(asked, model), worker, began, None))

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.needs:
            if (end := self.data.find(b"\r\n\r\n")) < 0:
                return
            head = bytes(self.data[:end])
            if head.startswith(b"GET"):
                self.data.clear()
                self.write(200, MODELS)
                return
            self.key = head.lower().partition(b"authorization: bearer worker-")[2].partition(b"\r\n")[0]
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self.begins, self.needs = end + 4, end + 4 + int(length)
        if len(self.data) >= self.needs:
            body = bytes(self.data[self.begins : self.needs])
            self.data.clear()
            self.needs = 0
            self.take(orjson.loads(body))

    def take(self, body: dict[str, Any]) -> None:
        endpoint = self.endpoint
        asked = asked_in(body)
        if asked is None:  # a call to see whether anybody is there
            self.later(200, completion("yes", body))
        elif endpoint.now("storm"):
            self.write(429, b'{"error":{"message":"too many"}}', b"retry-after: 1\r\n")
        elif endpoint.now("flaky") and endpoint.rng.random() < FLAKY:
            self.spoil()
        elif asked.manner == REFUSED:
            self.later(400, b'{"error":{"message":"this one is refused","type":"invalid_request_error"}}')
        else:
            self.asked = (asked, body["model"], int(self.key), time.time())
            self.later(200, completion(answer(asked), body))

    def spoil(self) -> None:
        match self.endpoint.rng.randrange(4):
            case 0:
                self.later(500, b'{"error":{"message":"a mistake of ours"}}')
            case 1:
                self.transport.abort()
            case 2:
                self.later(200, b"<html>a proxy speaks</html>")
            case _:
                self.transport.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"
                )
                self.transport.close()

    def later(self, status: int, body: bytes) -> None:
        seconds = self.endpoint.latency_s * self.endpoint.rng.uniform(0.5, 1.5)
        asyncio.get_running_loop().call_later(seconds, self.write, status, body)

    def write(self, status: int, body: bytes, more: bytes = b"") -> None:
        if self.transport.is_closing():
            return
        head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n"
        if self.asked is not None and status == 200:
            asked, model, worker, began = self.asked
            self.asked = None
            self.endpoint.calls.append(Call(_key(asked, model), worker, began, time.time()))
        self.transport.write(head % (status, more, len(body)) + body)


def asked_in(body: dict[str, Any]) -> Asked | None:
    """What a call asks for; None where it is none of ours."""
    content = body["messages"][-1]["content"]
    texts = [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
    found = ASKED.search(texts[-1])
    if found is None:
        return None
    kind, stream, rest = found.groups()
    if kind in ("caption", "context", DETECT):
        picture = next(part["image_url"]["url"] for part in content if part["type"] == "image_url")
        return Asked(kind, stream, f"{number_of(pybase64.b64decode(picture.partition(',')[2]))}")
    if kind == "describe":
        event = texts[-1].partition("] ")[2].partition(" [/]")[0]
        return Asked(kind, stream, event.partition(" (from ")[0])
    return Asked(kind, stream, rest.strip())


def _key(asked: Asked, model: str) -> tuple[str, str, str]:
    """Two models are asked the same, and are two calls."""
    kind = f"{asked.kind}.{model}"
    return kind, asked.stream, asked.number


def completion(text: str, body: dict[str, Any]) -> bytes:
    message = {"role": "assistant", "content": text}
    choices = [{"index": i, "message": message, "finish_reason": "stop"} for i in range(body.get("n", 1))]
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    said = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
    return orjson.dumps({**said, "choices": choices, "usage": usage})


async def main(latency_s: float, seed: int) -> None:
    endpoint = Endpoint(latency_s, random.Random(seed))
    await endpoint.listen()
    print(endpoint.port, flush=True)
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        told, _, value = line.decode().strip().partition(" ")
        if told == "report":
            endpoint.report(Path(value))
        elif told == "down":
            await endpoint.down(float(value))
        else:
            endpoint.until[told] = time.time() + float(value)


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1]), int(sys.argv[2])))
