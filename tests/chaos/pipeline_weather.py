"""All services as processes of their own, the endpoint that they ask, and the harm that comes to them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.pipeline_truth import DETECTORS, PRESET
from tests.chaos.weather import Harm

KILL, DRAIN, DOWN, STORM, FLAKY, BROKER, REMOVE = "kill", "drain", "down", "storm", "flaky", "broker", "remove"
UNREACHABLE, INTERRUPTED = 4, 130
"""Exit codes of a process that found no broker at its start, and of one that was told to end."""
SLACK_S = 1.0
"""What a process has sent and the endpoint has not read so far, when it is killed."""
FAILURES = 10
"""So many and it is given up: whoever cannot even start will not do so the next time."""
KILLED_AT_S = 0.2
"""Before and after it is seen to be dead."""

A, B = (f"detect.{model}" for model in DETECTORS)
DESCRIBE = f"describe.c.{PRESET}"
SERVICES = ("decode", "context.c", "caption.c", A, B, "dedup", "locate.c", DESCRIBE, "ensemble")
APART = (*((name,) for name in SERVICES), ("decode",), (A,), ("dedup",))
"""Every service has a process of its own, and some have two."""
TOGETHER = (("decode", "ensemble"), ("context.c", "caption.c", A), ("dedup", "locate.c", DESCRIBE), (A, B))
"""Few processes, for a short run: two work in one of the services."""

SETTINGS = """
session_s = {session_s}
partitions = {partitions}
topic_prefix = "{prefix}"
bus = "{bus}"
log_level = "warning"
[http]
port = 0
[bounds]
calls = 32
[endpoints.a]
card = "stub.toml"
urls = ["http://127.0.0.1:{port}/v1"]
served_name = "a"
api_key_env = "CHAOS_KEY"
[endpoints.b]
card = "stub.toml"
urls = ["http://127.0.0.1:{port}/v1"]
served_name = "b"
api_key_env = "CHAOS_KEY"
[endpoints.c]
card = "stub.toml"
urls = ["http://127.0.0.1:{port}/v1"]
served_name = "c"
api_key_env = "CHAOS_KEY"
"""
CARD = """
about = "Answers what is true"
model = "stub"
sources = ["made for this"]
[speak]
samples_at_once = true
"""


class Stub:
    """The endpoint's process."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process, self.port = process, port

    @classmethod
    async def start(cls, latency_s: float, seed: int) -> Stub:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.pipeline_endpoint", str(latency_s), str(seed)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        return cls(process, int(await process.stdout.readline()))

    def tell(self, told: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(told.encode() + b"\n")

    async def report(self, file: Path) -> bytes:
        assert self.process.stdout is not None
        self.tell(f"report {file}")
        async with asyncio.timeout(60):
            await self.process.stdout.readline()
        return await asyncio.to_thread(file.read_bytes)

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@dataclass(slots=True)
class Working:
    services: tuple[str, ...]
    process: asyncio.subprocess.Process


@dataclass
class Services:
    """Processes of `streamproc up`, in a folder with the settings of all."""

    folder: Path
    running: dict[int, Working] = field(default_factory=dict)
    harms: list[Harm] = field(default_factory=list)
    """Everything that may cost a call; drains may not."""
    wakes: list[tuple[int, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    kills: int = 0
    _next: int = 0

    async def start(self, services: Sequence[str]) -> int:
        number, self._next = self._next, self._next + 1
        repository = Path(__file__).parents[2]
        with (self.folder / f"{number:04}-{services[0]}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "streamproc", "up", *services, "--workers", "1"),
                cwd=self.folder,
                env={
                    **{
                        name: value
                        for name, value in os.environ.items()
                        if not name.startswith(("STREAMPROC_", "KAFKA_"))
                    },
                    "PYTHONPATH": str(repository),
                    "CHAOS_KEY": f"worker-{number}",
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
            )
        self.running[number] = Working(tuple(services), process)
        return number

    def harm(self, worker: int | None, since: float, *, slack_s: float = SLACK_S) -> None:
        self.harms.append(Harm(worker, since, time.time() + slack_s))

    async def kill(self, number: int) -> Working:
        working, since = self.running.pop(number), time.time()
        with suppress(ProcessLookupError):
            working.process.kill()
        await working.process.wait()
        self.harm(number, since - KILLED_AT_S)
        self.kills += 1
        return working

    async def drain(self, number: int, *, within_s: float = 60.0) -> Working:
        working = self.running.pop(number)
        with suppress(ProcessLookupError):
            working.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                code = await working.process.wait()
        except TimeoutError:
            working.process.kill()
            code = await working.process.wait()
        if code not in (0, INTERRUPTED, UNREACHABLE, -signal.SIGTERM):  # the last: told before it was listening
            self.failures.append(f"{working.services} was drained and ended with {code}: {self._last_words(number)}")
        return working

    async def look(self) -> None:
        """A process that ends on its own is a finding; one that found no broker at its start is started again."""
        for number, working in list(self.running.items()):
            code = working.process.returncode
            if code is None:
                continue
            del self.running[number]
            if code != UNREACHABLE:
                said = self._last_words(number)
                self.failures.append(f"{working.services} ended with {code} on its own: {said}")
            await self.start(working.services)

    def _last_words(self, number: int) -> str:
        log = next(self.folder.glob(f"{number:04}-*.log"))
        return log.read_text(errors="replace").strip()[-300:]

    async def close(self) -> None:
        for number in list(self.running):
            working = self.running.pop(number)
            if working.process.returncode is None:
                working.process.kill()
            await working.process.wait()


def schedule(rng: random.Random, *, windows: int, kills: int, brokers: int) -> list[tuple[int, str]]:
    """(windows accounted for, what happens then), in order."""
    some = max(1, kills // 12)
    kinds = [KILL] * kills + [DRAIN, DOWN, STORM, FLAKY, REMOVE] * some + [BROKER] * brokers
    rng.shuffle(kinds)
    points = sorted(rng.randrange(windows // 50, windows * 90 // 100) for _ in kinds)
    return list(zip(points, kinds, strict=True))
