"""The called side: answers after a while, and remembers who asked for what, when."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field
from math import inf

Key = tuple[str, int]
"""Stream and index."""


@dataclass(slots=True)
class Call:
    worker: int
    began: float
    """Wall clock, as all times here."""
    answered: float = inf


@dataclass
class Endpoint:
    """A TCP server of JSON lines: `[worker, stream, index]` in, `[stream, index]` out."""

    rng: random.Random
    latency_s: float
    calls: dict[Key, list[Call]] = field(default_factory=lambda: defaultdict(list))
    port: int = 0

    async def __aenter__(self) -> Endpoint:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                worker, stream, index = json.loads(line)
                call = Call(worker, time.time())
                self.calls[stream, index].append(call)
                task = asyncio.create_task(self._answer(writer, stream, index, call))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except ConnectionError:
            pass  # the worker was killed: what it asked for is counted all the same
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, stream: str, index: int, call: Call) -> None:
        await asyncio.sleep(self.latency_s * self.rng.uniform(0.5, 1.5))
        call.answered = time.time()
        if not writer.is_closing():
            writer.write(json.dumps([stream, index]).encode() + b"\n")


class Caller:
    """The worker's side of the connection."""

    def __init__(self, port: int, worker: int) -> None:
        self.port, self.worker = port, worker
        self._waiting: dict[Key, asyncio.Future[None]] = {}

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while line := await self._reader.readline():
            stream, index = json.loads(line)
            if (answer := self._waiting.pop((stream, index), None)) and not answer.done():
                answer.set_result(None)

    async def ask(self, stream: str, index: int) -> None:
        answer = self._waiting[stream, index] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps([self.worker, stream, index]).encode() + b"\n")
        await answer

    async def close(self) -> None:
        self._task.cancel()
        self._writer.close()
