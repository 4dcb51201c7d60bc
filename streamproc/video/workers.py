"""Worker processes, asked from a loop: one job each at a time, killed when they are silent for too long.

A worker that crashed or hung is replaced; the job that it had fails with `Lost`, and trying again is up to the caller.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from streamproc import errors
from streamproc.errors import Retryable
from streamproc.video.worker import HEAD

if TYPE_CHECKING:
    from streamproc.video.jobs import Job

MEMORY = 4 * 2**30
"""Address space of one worker; a picture of 8K takes a fiftieth."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKIO_WORKER_THREADS": "1"}
"""numpy, and the client of object stores, start threads for what no worker does, and their stacks count as memory."""


class Lost(Retryable):
    """A worker crashed, or was killed because it did not answer."""


class Spare:
    """Places for what is decoded before anybody waits for it, over all who ask: each file by itself, a thousand of them would
    hold more than there is memory."""

    def __init__(self, count: int) -> None:
        self.free = count

    def take(self) -> bool:
        if not self.free:
            return False
        self.free -= 1
        return True

    def give(self) -> None:
        self.free += 1


class Workers:
    """A fixed number of processes, started when they are first needed."""

    def __init__(self, size: int, *, silence_s: float = 120, memory_bytes: int = MEMORY) -> None:
        self.size, self._silence_s, self._memory = size, silence_s, memory_bytes
        self._free, self._free_for_long = asyncio.Semaphore(size), asyncio.Semaphore(size)
        self.spare = Spare(2 * size)
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()
        self._begun: list[tuple[Job, asyncio.Task[Any]]] = []

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._all]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, task in self._begun:
            task.cancel()
        await asyncio.gather(*(task for _, task in self._begun), return_exceptions=True)
        await asyncio.gather(*(self._kill(worker) for worker in list(self._all)))

    async def wake(self) -> None:
        """Start them before the first job: they load what they need while whoever asks does the same, who is left a core."""
        while len(self._all) < max(1, self.size - 1) and not self._free.locked():
            async with self._free:  # jobs that come meanwhile start those that they need
                self._idle.append(await self._start())

    def ahead(self, job: Job, then: Callable[[Any], Job | None] = lambda _answer: None) -> None:
        """Begin with it, and with what its answer leads to: whoever asks for `one` like it has its answer then, or the rest of
        the wait."""
        self._begun.append((job, asyncio.create_task(self._early(job, then))))

    async def _early(self, job: Job, then: Callable[[Any], Job | None]) -> Any:
        answer = await self._one(job)
        if next_one := then(answer):
            self.ahead(next_one)
        return answer

    async def ask(self, job: Job, *, long: bool = False) -> AsyncGenerator[Any]:
        """The parts of a worker's answer, as they come. `long`: whoever asks takes them as he has room, for minutes maybe;
        those have processes of their own, as many, so that nobody else waits until he has."""
        async with self._free_for_long if long else self._free:
            worker = self._idle.pop() if self._idle else await self._start()
            answered = False
            try:
                self._send(worker, job)
                while True:
                    kind, what = await self._receive(worker)
                    answered = kind != "part"
                    if kind == "error":
                        raise _error(*what)
                    if kind == "end":
                        return
                    yield what
            finally:  # a worker that still speaks of this job is no use for the next
                if answered:
                    self._idle.append(worker)
                else:
                    await self._kill(worker)

    async def one(self, job: Job) -> Any:
        """The single part of an answer."""
        for i, (begun, task) in enumerate(self._begun):
            if begun == job:
                del self._begun[i]
                return await task
        return await self._one(job)

    async def _one(self, job: Job) -> Any:
        async with aclosing(self.ask(job)) as parts:
            found = [part async for part in parts]
        return found[0]

    async def _start(self) -> asyncio.subprocess.Process:
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "streamproc.video.worker",
            str(self._memory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | ONE_THREAD,
            start_new_session=True,  # a Ctrl-C of the terminal is for whoever asks them, who ends them
        )
        self._all.add(worker)
        return worker

    def _send(self, worker: asyncio.subprocess.Process, job: Job) -> None:
        assert worker.stdin
        data = pickle.dumps(job, protocol=pickle.HIGHEST_PROTOCOL)
        worker.stdin.write(len(data).to_bytes(HEAD, "big") + data)

    async def _receive(self, worker: asyncio.subprocess.Process) -> tuple[str, Any]:
        assert worker.stdout
        kind, what = "beat", None
        try:
            while kind == "beat":
                async with asyncio.timeout(self._silence_s):
                    size = int.from_bytes(await worker.stdout.readexactly(HEAD), "big")
                    kind, what = pickle.loads(await worker.stdout.readexactly(size))  # our own child's
            return kind, what
        except TimeoutError:
            raise Lost(f"decoder silent for {self._silence_s:g} s, killed") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Lost(f"decoder died ({_end(await worker.wait())})") from None

    async def _kill(self, worker: asyncio.subprocess.Process) -> None:
        self._all.discard(worker)
        with suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()
        if worker.stdin:
            worker.stdin.close()


def _end(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _error(name: str, text: str, fields: dict[str, Any]) -> errors.StreamprocError:
    """The error a worker met, by its class; those that are made of more than a text have it as fields."""
    kind = getattr(errors, name)
    return kind(**fields) if fields else kind(text)  # type: ignore[no-any-return]  # each of them is one
