"""The gate: whoever writes holds it, and so does whoever checkpoints or closes the database.

Not optional: SQLite before 3.51.3 can corrupt a WAL that is reset while two writers' checkpoints meet. It also names who
stands in the way, which SQLite's own locks do not.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamproc.errors import Unreachable

STEP_S, STEPS_S = 0.0002, 0.005
"""First and longest wait between two tries. flock cannot be told to give up, and a stopped holder never lets go."""


class Gate:
    def __init__(self, path: Path, *, busy_s: float) -> None:
        self._path, self._busy_s = path, busy_s
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    @contextmanager
    def held(self) -> Iterator[None]:
        self._take()
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _take(self) -> None:
        give_up, step = None, STEP_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                give_up = give_up or now + self._busy_s
                if now > give_up:
                    raise blocked(self._path, self._busy_s) from None
                time.sleep(step)
                step = min(2 * step, STEPS_S)
            else:
                return

    def close(self) -> None:
        os.close(self._fd)


def blocked(path: Path, waited_s: float) -> Unreachable:
    """Says who holds a lock on one of the bus's files, and whether that process is stopped."""
    who = [f"process {pid}{' (stopped)' if _stopped(pid) else ''}" for pid in holders(path)]
    return Unreachable(
        str(path),
        f"locked for more than {waited_s:g} s by {' and '.join(who) or 'another process'}",
        remedy="Nothing was written. Let that process go on (`kill -CONT PID`) or end it (`kill -KILL PID`)",
    )


def holders(path: Path) -> list[int]:
    """Processes other than this one that hold a lock on the file, where the system tells (/proc/locks)."""
    try:
        inode = path.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:  # macOS has no such list, and the file may be gone: then the error names nobody
        return []
    found = set()
    for line in locks.splitlines():
        fields = line.split()
        if "->" not in fields and len(fields) >= 6 and fields[5].rsplit(":", 1)[-1] == str(inode):
            found.add(int(fields[4]))
    return sorted(found - {os.getpid(), -1, 0})


def _stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "Tt"
    except (OSError, IndexError):  # ended meanwhile
        return False
