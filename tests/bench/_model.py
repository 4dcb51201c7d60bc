"""A model behind a socket at next to no cost: it answers so many calls at a time, each after so long. `… LATENCY_S SLOTS EVERY [GROWTH MARK]`.

It may batch as real ones do: with all its slots busy a call takes 1 + GROWTH times as long as one that is alone.

Prints its port. To the opening of a match it answers who plays, to one in EVERY of all other questions that there was a
goal, and to the rest that there was nothing. GET /answered says when each call began and ended, and whether its
instructions begin with MARK somewhere: with the words of an opening, where nobody says otherwise.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import cast

import orjson
import uvloop

MODEL = b"m"
CONTEXT = orjson.dumps(
    {"home_team": "A", "home_kit": "red", "away_team": "B", "away_kit": "blue", "scene": "a stadium"}
).decode()
GOAL = '[{"label": "Goal", "confidence": 0.9}]'
OPENING = b"opening seconds"
BEGINNING = 400
"""Bytes of a call in which its instructions begin."""
SERVED = b'{"object":"list","data":[{"id":"%s","object":"model"}]}' % MODEL


class Model:
    def __init__(self, latency_s: float, slots: int, every: int, growth: float = 0.0, mark: bytes = OPENING) -> None:
        self.latency_s, self.slots, self.free, self.every = latency_s, slots, slots, every
        self.growth, self.mark = growth, mark
        self.waiting: deque[Connection] = deque()
        self.spans: list[tuple[float, float, bool]] = []
        """(when a call came, when it was answered, whether it bears the mark), by the clock that all processes share."""
        self.asked = 0

    def take(self, connection: Connection) -> None:
        if self.free:
            self.free -= 1
            self.begin(connection)
        else:
            self.waiting.append(connection)

    def begin(self, connection: Connection) -> None:
        slower = 1 + self.growth * (self.slots - self.free) / self.slots
        asyncio.get_running_loop().call_later(self.latency_s * slower, self.end, connection)

    def end(self, connection: Connection) -> None:
        connection.answer()
        while self.waiting:
            if not (next_one := self.waiting.popleft()).transport.is_closing():
                self.begin(next_one)
                return
        self.free += 1


class Connection(asyncio.Protocol):
    def __init__(self, model: Model) -> None:
        self.model, self.head, self.begins, self.left = model, bytearray(), bytearray(), 0
        self.opening, self.marked, self.began = False, False, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods, not by its class

    def data_received(self, data: bytes) -> None:
        if self.left:
            self.left -= len(data)
            self.begins += data[: BEGINNING - len(self.begins)]
        else:
            self.head += data
            if (end := self.head.find(b"\r\n\r\n")) < 0:
                return
            if self.head.startswith(b"GET"):
                self.get()
                return
            length = self.head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self.left = int(length) - (len(self.head) - end - 4)
            self.begins = self.head[end + 4 : end + 4 + BEGINNING]
            self.head = bytearray()
        if self.left == 0:
            self.opening, self.marked = OPENING in self.begins, self.model.mark in self.begins
            self.began = time.time()
            self.model.take(self)

    def get(self) -> None:
        asks_for_spans = self.head.startswith(b"GET /answered")
        self.head = bytearray()
        self.write(orjson.dumps(self.model.spans) if asks_for_spans else SERVED)

    def answer(self) -> None:
        model = self.model
        text = CONTEXT if self.opening else GOAL if model.asked % model.every == 0 else "None"
        model.asked += not self.opening
        if not self.transport.is_closing():
            model.spans.append((self.began, time.time(), self.marked))
            self.write(WHOLE % orjson.dumps(text))

    def write(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % len(body) + body)


WHOLE = (
    b'{"id":"x","object":"chat.completion","created":1,"model":"'
    + MODEL
    + b'","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":%s},"finish_reason":"stop"}],"usage":{"prompt_tokens":1371,"completion_tokens":20,"total_tokens":1391}}'
)


async def main() -> None:
    latency_s, slots, every, *batches = sys.argv[1:]
    growth, mark = batches or ("0", OPENING.decode())
    model = Model(float(latency_s), int(slots), int(every), float(growth), mark.encode())
    server = await asyncio.get_running_loop().create_server(lambda: Connection(model), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
