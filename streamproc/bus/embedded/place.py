"""Where a bus lies on the disk, and whether that is still the place that was opened. No SQL, no rows.

Beside `PATH` (the database, with SQLite's own `PATH-wal` and `PATH-shm`) stands the folder `PATH.d`:

    identity    which database belongs here
    mark        how many transactions were on the disk for sure, at the least
    gate        locked by whoever writes
    alive       a locked byte and a heartbeat for each process that works
    segments/   large payloads
    wake/       a socket for each process that listens
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
from pathlib import Path

from streamproc.errors import Corrupt, DiskFull, Misconfigured

NETWORK = {
    *("9p", "afs", "afpfs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"),
    *("nfs", "nfs4", "ocfs2", "orangefs", "smb2", "smb3", "smbfs"),
    *("fuse.cephfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
}
"""File systems whose locks and shared memory do not reach the other machines (or the host) that see the same file."""

SOCKET_PATH_BYTES = 100
"""What a Unix socket's path may take on every system we run on (macOS: 104, Linux: 108)."""

_MARK = struct.Struct("<Q")


class Place:
    def __init__(self, path: Path, *, floor_bytes: int) -> None:
        self.database = path.resolve()  # a link must not lead to a second gate before one database
        self.folder = self.database.with_name(self.database.name + ".d")
        self.wal = self.database.with_name(self.database.name + "-wal")
        self.gate = self.folder / "gate"
        self.alive = self.folder / "alive"
        self.segments = self.folder / "segments"
        self._identity = self.folder / "identity"
        self._mark = self.folder / "mark"
        self._floor_bytes = floor_bytes
        self._mark_fd = -1
        self._seen: dict[Path, tuple[int, int]] = {}

    def make(self) -> None:
        """The folders; refused where the disk is another machine's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        mounts = Path("/proc/self/mountinfo")  # other systems: SQLite itself refuses what it can tell
        if mounts.exists() and (kind := file_system(self.folder.resolve(), mounts.read_text())) in NETWORK:
            raise Misconfigured(
                f"{self.database} lies on a network disk ({kind}), where the locks of SQLite's WAL mode do not hold."
                " Put it on a local disk, or use Kafka (`--bus kafka://…`) where several machines work together"
            )
        self.segments.mkdir(exist_ok=True)

    @property
    def wake(self) -> Path:
        """The folder of the sockets; elsewhere if the path would be too long for one. Known only once there is an identity."""
        if len(os.fsencode(self.folder)) + 24 <= SOCKET_PATH_BYTES:
            return self.folder / "wake"
        return Path(tempfile.gettempdir()) / f"streamproc-{self.identity()}"

    # identity -------------------------------------------------------------------------------------------------------

    def identity(self) -> str | None:
        try:
            return self._identity.read_text().strip()
        except FileNotFoundError:
            return None

    def check_before_opening(self) -> None:
        """Corrupt where a database should be and is not: going on would start from nothing, silently."""
        there = self.database.exists() and self.database.stat().st_size > 0
        if not there and (identity := self.identity()) is not None:
            raise Corrupt(
                f"{self.database} was {'emptied' if self.database.exists() else 'removed'}; the bus {identity} that stood there is gone."
                f" Put it back from a copy (with its -wal), or remove {self.folder} to begin anew"
            )

    def settle(self, identity: str) -> None:
        """The database opened is `identity`: it is the one that belongs here, or becomes it."""
        if (known := self.identity()) is None:
            write_whole(self._identity, identity + "\n")
        elif known != identity:
            raise Corrupt(
                f"{self.database} is the bus {identity}, but {self.folder} belongs to {known}: one of the two was exchanged."
                " Put the right one back; large payloads are in the folder, all else in the file"
            )
        for path in (self.database, self.wal):
            self._seen[path] = _inode(path)

    def check(self) -> None:
        """The files opened still stand where they stood. Raises Corrupt where they do not: nobody would find what we write."""
        for path, seen in self._seen.items():
            try:
                now = _inode(path)
            except FileNotFoundError:
                now = None
            if now != seen:
                raise Corrupt(
                    f"{path} was {'removed' if now is None else 'replaced'} while it was open. Nothing was written since."
                    " Put it back, or end all processes that have it open and start again"
                )

    # mark -----------------------------------------------------------------------------------------------------------

    def check_mark(self, commits: int) -> None:
        """A file copied without its WAL, or with a cut one, is a whole database that lacks the last transactions."""
        self._mark_fd = os.open(self._mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        said = os.pread(self._mark_fd, _MARK.size, 0)
        if len(said) == _MARK.size and (lost := _MARK.unpack(said)[0] - commits) > 0:
            raise Corrupt(
                f"{self.database} lacks its last {lost} transaction(s): its -wal was cut, emptied or not copied with it."
                f" What is there is whole up to then. Put the -wal back, or remove {self._mark} to go on without them"
            )

    def set_mark(self, commits: int) -> None:
        """Only after the disk has them: a mark ahead of the WAL would cry loss after a power cut."""
        os.pwrite(self._mark_fd, _MARK.pack(commits), 0)

    # room -----------------------------------------------------------------------------------------------------------

    def check_room(self, bytes_: int) -> None:
        """Keep a floor free, so that what is there stays readable (WAL mode writes to read) and can be trimmed."""
        free = shutil.disk_usage(self.folder).free
        if free < self._floor_bytes + bytes_:
            raise DiskFull(
                f"{free / 2**20:.0f} MiB are free on the disk of {self.database}, and {self._floor_bytes / 2**20:.0f} MiB are kept"
                " so that it stays readable. Nothing was written; make room, and landing goes on"
            )

    def close(self) -> None:
        if self._mark_fd >= 0:
            os.close(self._mark_fd)
            self._mark_fd = -1


def file_system(path: Path, mountinfo: str) -> str:
    """The type of the file system that `path` lies on, by /proc/self/mountinfo; '' if it does not say."""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, type_ = left.split(" "), right.split(" ", 1)[0]
        if len(fields) < 5 or not type_:
            continue
        mount = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        # later lines are mounted over earlier ones, hence >=
        if path.is_relative_to(mount) and len(mount) >= best:
            best, kind = len(mount), type_
    return kind


def write_whole(path: Path, text: str) -> None:
    """The file has the whole text or does not exist, also after a power cut."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with new.open("w") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    new.rename(path)
    sync_folder(path.parent)


def sync_data(fd: int) -> None:
    """The disk has it, not just its cache: on macOS only F_FULLFSYNC says so."""
    if full := getattr(fcntl, "F_FULLFSYNC", None):
        fcntl.fcntl(fd, full)
    else:
        os.fdatasync(fd)


def sync_folder(folder: Path) -> None:
    """A new file's name is on the disk only once its folder is."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
