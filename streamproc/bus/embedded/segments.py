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


class Where(NamedTuple):
    segment: int
    position: int
    length: int
    crc: int


def file_of(folder: Path, segment: int) -> Path:
    return folder / f"{segment:016x}.seg"


class Segments:
    """Writes; belongs to the writing thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._id = self._end = self._synced = 0

    def append(self, payload: bytes) -> Where:
        if self._fd < 0 or self._end >= SEGMENT_BYTES:
            self._begin()
        position, view = self._end, memoryview(payload)
        while view:  # a full disk may take a part; the next payload then overwrites it
            view = view[os.pwrite(self._fd, view, self._end + len(payload) - len(view)) :]
        self._end += len(payload)
        return Where(self._id, position, len(payload), zlib.crc32(payload))

    def sync(self) -> None:
        """What was appended is on the disk; rows may refer to it."""
        if self._fd < 0 or self._synced == self._end:
            return
        sync_data(self._fd)
        if not self._synced:
            sync_folder(self._folder)
        self._synced = self._end

    def retire(self) -> None:
        """Close the active segment, so that it can be removed once nobody needs it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _begin(self) -> None:
        self.retire()
        while self._fd < 0:
            id_ = secrets.randbits(62)
            path = file_of(self._folder, id_)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:  # else a sweep got between the two lines above
                self._fd, self._id, self._end, self._synced = fd, id_, 0, 0
            else:
                os.close(fd)


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
