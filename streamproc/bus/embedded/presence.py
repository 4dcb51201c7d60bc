"""Who is alive: for each process that works a locked byte, which its death frees at once, and a heartbeat, which its
stopping lets go stale. One file for all; ids of processes are never used twice. (A byte for each process and not for each
lease: leases live and die with their process, and a hundred of them cost one heartbeat.)

POSIX locks belong to the process, and closing *any* descriptor of the file drops them all. So the file is open once per
process however many buses are, and which bytes are ours the process itself keeps in mind.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

Standing = Literal["alive", "stale", "gone"]

_BEAT = struct.Struct("<d")
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_s() -> float:
    """One clock for all processes of a machine, which also counts while it sleeps."""
    return time.clock_gettime(_CLOCK)


class Alive:
    """The file. Of one process, for all its buses on it."""

    _open: dict[tuple[int, int], Alive] = {}  # noqa: RUF012 - the process's, as the locks are
    _guard = threading.Lock()

    def __init__(self, fd: int, inode: tuple[int, int]) -> None:
        self._fd, self._inode = fd, inode
        self._users = 0
        self._mine: set[int] = set()

    @classmethod
    def open(cls, path: Path) -> Alive:
        with cls._guard:
            path.touch(exist_ok=True)  # closes no descriptor of a file that we hold locks on: `touch` sets times only
            found = path.stat()
            inode = found.st_dev, found.st_ino
            if inode not in cls._open:
                cls._open[inode] = Alive(os.open(path, os.O_RDWR | os.O_CLOEXEC), inode)
            alive = cls._open[inode]
            alive._users += 1
            return alive

    def close(self) -> None:
        with self._guard:
            self._users -= 1
            if not self._users:
                del self._open[self._inode]
                os.close(self._fd)

    def enter(self, process: int, now_s: float) -> None:
        with self._guard:
            self.beat(process, now_s)
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, process)
            self._mine.add(process)

    def leave(self, process: int) -> None:
        with self._guard:
            self._mine.discard(process)
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, process)

    def beat(self, process: int, now_s: float) -> None:
        os.pwrite(self._fd, _BEAT.pack(now_s), process * _BEAT.size)

    def standing(self, process: int, now_s: float, *, session_s: float) -> Standing:
        with self._guard:
            if process not in self._mine:
                try:
                    fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, process)
                except OSError:
                    pass  # somebody has it (or asks just like us: then the next look will tell)
                else:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, process)
                    return "gone"
        said = os.pread(self._fd, _BEAT.size, process * _BEAT.size)
        beat_s = _BEAT.unpack(said)[0] if len(said) == _BEAT.size else 0.0
        return "stale" if now_s - beat_s > session_s else "alive"


class Presence:
    """This bus's own process id and heartbeat."""

    def __init__(self, alive: Alive, *, session_s: float, boot: Callable[[], float] = boot_s) -> None:
        self._alive, self._session_s, self._boot = alive, session_s, boot
        self.process: int | None = None
        self._last_s = 0.0

    def enter(self, process: int) -> None:
        now_s = self._boot()
        self._alive.enter(process, now_s)
        self.process, self._last_s = process, now_s

    def leave(self) -> None:
        if self.process is not None:
            self._alive.leave(self.process)
            self.process = None

    def fresh(self) -> bool:
        return self.process is not None and self._boot() - self._last_s < self._session_s

    def beat(self) -> bool:
        """False where it came too late: somebody may have taken our leases by now, so `beat_again` has to find out.

        The second look at the clock is for a process stopped between reading it and writing: then the file says too old
        a time, somebody takes over by it, and we must not believe what we wrote.
        """
        if self.process is None:
            return True
        now_s = self._boot()
        if not self.fresh():
            return False
        self._alive.beat(self.process, now_s)
        if not self.fresh():
            return False
        self._last_s = now_s
        return True

    def beat_again(self) -> float:
        """After a pause; only under the gate, where nobody takes a lease meanwhile. `revived` once those lost are given up."""
        assert self.process is not None
        now_s = self._boot()
        self._alive.beat(self.process, now_s)
        return now_s

    def revived(self, beat_s: float) -> None:
        self._last_s = beat_s

    def standing(self, process: int) -> Standing:
        return self._alive.standing(process, self._boot(), session_s=self._session_s)

    def close(self) -> None:
        self.leave()
        self._alive.close()
