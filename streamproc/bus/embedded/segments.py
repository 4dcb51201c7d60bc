"""Large payloads, in append-only files beside the database: one set per process, 64 MiB each, removed whole.

In the database they would cost twice the writing and a WAL that grows by hundreds of MB a second under a slow reader; a
segment is removed in under a millisecond. Which partitions still need which segment, the database knows (`trim.py`).

The active segment is flocked by its writer: nobody removes what somebody may still append to. Closed ones are never
opened for writing again. A landing that did not happen leaves bytes that nobody refers to, and that is all it leaves.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from streamproc.bus.embedded.place import sync_data, sync_folder
from streamproc.errors import Corrupt

LARGE_BYTES = 16 * 1024
SEGMENT_BYTES = 64 * 2**20
OPEN_READS = 64
VECTOR = 256


class Where(NamedTuple):
    segment: int
    position: int
    length: int
    crc: int


def file_of(folder: Path, segment: int) -> Path:
    return folder / f"{segment:016x}.seg"


class Segments:
    """Writes; belongs to the writing thread. Payloads are collected and written together: `append` all, then `sync` once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._id = self._end = self._written = 0
        self._waiting: list[bytes] = []
        self._retiring = False
        self.taken_bytes = 0
        """In all, by whatever segment."""

    def append(self, payload: bytes) -> Where:
        if not self._waiting and (self._fd < 0 or self._end >= SEGMENT_BYTES):
            self._begin()
        where = Where(self._id, self._end, len(payload), zlib.crc32(payload))
        self._waiting.append(payload)
        self._end += len(payload)
        self.taken_bytes += len(payload)
        return where

    def sync(self) -> None:
        """What was appended is on the disk; rows may refer to it."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            first = not self._written
            try:
                self._write(waiting)
                sync_data(self._fd)
                if first:
                    sync_folder(self._folder)
            except OSError:
                self._close()  # what it holds from here on, nobody can know; what it held before is on the disk
                raise
            self._written = self._end
        if self._retiring:
            self._close()

    def retire(self) -> None:
        """Close the active segment with the next `sync`, so that it can be removed once nobody needs it."""
        self._retiring = True

    def close(self) -> None:
        self._close()

    def _write(self, payloads: list[bytes]) -> None:
        at = self._written
        for i in range(0, len(payloads), VECTOR):
            some = payloads[i : i + VECTOR]
            done = os.pwritev(self._fd, some, at)
            at += done
            for payload in some:  # a write may stop short, the more so on a disk that runs full
                if done < len(payload):
                    at += _write_rest(self._fd, payload[max(0, done) :], at)
                done -= len(payload)

    def _begin(self) -> None:
        self._close()
        while self._fd < 0:
            id_ = secrets.randbits(62)
            path = file_of(self._folder, id_)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:  # else a sweep got between the two lines above
                self._fd, self._id, self._end, self._written = fd, id_, 0, 0
            else:
                os.close(fd)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._retiring = -1, False


def _write_rest(fd: int, rest: bytes, at: int) -> int:
    view = memoryview(rest)
    while view:
        view = view[os.pwrite(fd, view, at + len(rest) - len(view)) :]
    return len(rest)


class Payloads:
    """Reads; belongs to the reading thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fds: OrderedDict[int, int] = OrderedDict()

    def read(self, where: Where) -> bytes:
        """FileNotFoundError where the segment is gone: then the record has expired."""
        payload = os.pread(self._fd(where.segment), where.length, where.position)
        if len(payload) != where.length or zlib.crc32(payload) != where.crc:
            path = file_of(self._folder, where.segment)
            raise Corrupt(
                f"{path} is damaged at byte {where.position} ({where.length} bytes). Records elsewhere are still readable;"
                " put the file back from a copy, or read on behind this record"
            )
        return payload

    def _fd(self, segment: int) -> int:
        if (fd := self._fds.get(segment)) is not None:
            self._fds.move_to_end(segment)
            return fd
        fd = os.open(file_of(self._folder, segment), os.O_RDONLY | os.O_CLOEXEC)
        self._fds[segment] = fd
        if len(self._fds) > OPEN_READS:
            os.close(self._fds.popitem(last=False)[1])
        return fd

    def forget_removed(self) -> None:
        """An open descriptor keeps a removed segment's bytes on the disk."""
        for segment in [s for s, fd in self._fds.items() if not os.fstat(fd).st_nlink]:
            os.close(self._fds.pop(segment))

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])


def sweep(folder: Path, needed: Callable[[int], bool]) -> int:
    """Remove segments that no row refers to and nobody writes to; how many bytes that freed.

    `needed` is asked under the segment's lock: a writer lets go of it only after its rows are committed.
    """
    freed = 0
    for path in folder.glob("*.seg"):
        segment = int(path.stem, 16)
        if needed(segment):  # by far the most; spares the lock
            continue
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # another process sweeps too
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not needed(segment):
                freed += os.fstat(fd).st_size
                path.unlink(missing_ok=True)
        except BlockingIOError:  # somebody's active segment
            continue
        finally:
            os.close(fd)
    return freed
