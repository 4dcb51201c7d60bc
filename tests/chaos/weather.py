"""The harm: at random points of the work done, so that a slow machine gets as much of it as a fast one."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.chaos.worker import UNREACHABLE

KILL, STOP, DRAIN, JOIN, BROKER, DISK = "kill", "stop", "drain", "join", "broker", "disk"


class Harm(NamedTuple):
    """Who asked for something until then may have lost it, and what it had in hand is asked for again from then on."""

    worker: int | None
    """None: all of them, where it was their broker."""
    since: float
    until: float
    """What was asked for before is the harmed one's."""


SLACK_S = 0.5
"""What a process has sent and the endpoint has not read so far, when it is killed or stopped."""


@dataclass
class Workers:
    """Processes of `tests.chaos.worker`."""

    where: str
    port: int
    session_s: float
    running: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    asleep: set[int] = field(default_factory=set)
    harms: list[Harm] = field(default_factory=list)
    """Everything that may cost a call. Joins, leaves and drains may not."""
    wakes: list[tuple[int, float]] = field(default_factory=list)
    """(worker, when) it was let go on after SIGSTOP."""
    counts: Counter[str] = field(default_factory=Counter)
    """What those who left in order have counted."""
    failures: list[str] = field(default_factory=list)
    _next: int = 0

    async def start(self) -> int:
        number, self._next = self._next, self._next + 1
        self.running[number] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.worker", self.where, str(self.port), str(number), str(self.session_s)),
            stdout=asyncio.subprocess.PIPE,
        )
        return number

    def pick(self, rng: random.Random) -> int:
        return rng.choice([n for n in self.running if n not in self.asleep] or list(self.running))

    def harm(self, worker: int | None, since: float, *, slack_s: float = SLACK_S) -> None:
        self.harms.append(Harm(worker, since, time.time() + slack_s))

    async def kill(self, number: int) -> None:
        process, since = self.running.pop(number), time.time()
        if not self._ended(number, process):
            process.kill()
        await process.wait()
        self.harm(number, since)
        self.asleep.discard(number)

    async def stop(self, number: int) -> None:
        """SIGSTOP for longer than the session, then SIGCONT: it wakes as a zombie."""
        process = self.running[number]
        self.asleep.add(number)
        self.harm(number, time.time())
        if process.returncode is None:
            os.kill(process.pid, signal.SIGSTOP)
        await asyncio.sleep(self.session_s * 2)
        if number in self.running and process.returncode is None:
            self.wakes.append((number, time.time()))
            os.kill(process.pid, signal.SIGCONT)
            self.asleep.discard(number)

    async def drain(self, number: int, *, within_s: float = 60.0) -> None:
        process = self.running.pop(number)
        if self._ended(number, process):
            return
        process.terminate()
        try:
            async with asyncio.timeout(within_s):
                said, _ = await process.communicate()
                code = await process.wait()
        except TimeoutError:
            process.kill()
            code = await process.wait()
        else:
            self.counts.update(json.loads(said or b"{}"))
        if code not in (0, UNREACHABLE, -signal.SIGTERM):  # the last: told before it was listening
            self.failures.append(f"worker {number} was drained and ended with {code}")

    def _ended(self, number: int, process: asyncio.subprocess.Process) -> bool:
        """It has come before us: one that found no broker at its start may; any other that ends on its own is a finding."""
        if process.returncode not in (None, UNREACHABLE):
            self.failures.append(f"worker {number} ended with {process.returncode}")
        return process.returncode is not None

    async def look(self) -> None:
        """A worker that ends on its own is a finding; one that found no broker at its start is started again."""
        for number, process in list(self.running.items()):
            if process.returncode == UNREACHABLE:
                del self.running[number]
                await self.start()
            elif process.returncode is not None:
                self.failures.append(f"worker {number} ended with {process.returncode} on its own")
                del self.running[number]

    async def close(self) -> None:
        for number in list(self.running):
            process = self.running.pop(number)
            if process.returncode is None:
                process.kill()
            await process.wait()


class SmallDisk:
    """A disk of its own that can be filled: a tmpfs, where we may mount one (Linux, root)."""

    def __init__(self, folder: Path, *, size_mb: int) -> None:
        self.folder = folder
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
        self.mounted = (
            sys.platform == "linux" and subprocess.run(command, capture_output=True, check=False).returncode == 0
        )

    async def full_for(self, seconds: float) -> None:
        ballast = self.folder / "ballast"
        free_bytes = shutil.disk_usage(self.folder).free
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free_bytes - 2**20))
        await asyncio.sleep(seconds)
        ballast.unlink()

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=True)


def schedule(rng: random.Random, *, inputs: int, kills: int, brokers: int, disks: int) -> list[tuple[int, str]]:
    """(outcomes landed, what happens then), in order."""
    kinds = [KILL] * kills + [STOP, DRAIN, JOIN] * max(1, kills // 12) + [BROKER] * brokers + [DISK] * disks
    rng.shuffle(kinds)
    points = sorted(rng.randrange(inputs * 95 // 100) for _ in kinds)
    return list(zip(points, kinds, strict=True))
