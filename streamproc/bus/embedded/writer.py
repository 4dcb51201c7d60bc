"""The writing thread: jobs that wait together go into one transaction, and it is on the disk before anyone hears of it.

Order of events, for every transaction:
1. large payloads are appended to the segment and that is synced: rows never refer to what is not there,
2. under the gate: BEGIN IMMEDIATE, each job in a SAVEPOINT of its own (a fenced one undoes nothing but itself), COMMIT,
   now and then a checkpoint,
3. outside the gate the WAL is synced, so that processes share the disk's flush,
4. the jobs' callers hear of it, then the readers.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from streamproc.bus.contract import PARTITIONS
from streamproc.bus.embedded.gate import Gate
from streamproc.bus.embedded.place import Place, sync_data, sync_folder
from streamproc.bus.embedded.reader import settle
from streamproc.bus.embedded.schema import check, connect, create, empty, meant
from streamproc.bus.embedded.segments import Segments
from streamproc.errors import DiskFull, Fatal, Misconfigured, StreamprocError, Unreachable, UnseenEnd

MERGED = 64
CHECKPOINT_BYTES = 4 * 2**20
CHECKPOINT_EVERY_S = 0.25
TRANSACTION_BYTES = 24 * 1024
"""What a small transaction puts into the WAL beside its payload: about six pages."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Tx(Protocol):
    """What a job may know of the transaction it is part of."""

    db: sqlite3.Connection
    now_ms: int


class Work(Protocol):
    """What a job does. `size_bytes` 0: it needs no room, and may run on a full disk."""

    size_bytes: int

    def stow(self, segments: Segments) -> None:
        """Before the transaction: large payloads."""

    def apply(self, tx: Tx) -> Any:
        """Within it. Whatever it raises undoes this job alone."""


@dataclass(slots=True)
class Plain:
    """Work that is one function."""

    apply: Callable[[Tx], Any]
    size_bytes: int = 0

    def stow(self, segments: Segments) -> None:
        pass


@dataclass(slots=True)
class Job:
    work: Work
    future: asyncio.Future[Any]
    result: Any = None
    failure: BaseException | None = None


class Writer:
    def __init__(
        self,
        place: Place,
        *,
        partitions: int | None,
        busy_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._place, self._partitions, self._busy_s, self._clock = place, partitions, busy_s, clock
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[int] = self._loop.create_future()
        """How many partitions the bus has, once it is open; or why it cannot be opened."""
        self.gate: Gate
        self.wake_others: Callable[[], None] = _nothing
        """Called on the thread when something has landed."""
        self.stir: Callable[[], None] = _nothing
        """Called on the loop, then."""
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()  # bounded by the callers: each waits for its own
        self._segments = Segments(place.segments)
        self._unswept_bytes = 0
        self._swept = 0.0
        self._broken: str | None = None
        self._closed: str | None = None
        self.db: sqlite3.Connection
        self.now_ms = 0
        self._thread = threading.Thread(target=self._run, name=f"writes {place.database.name}", daemon=True)
        self._thread.start()

    def do(self, work: Work) -> asyncio.Future[Any]:
        """Settled once it is on the disk for good, or with why it is not. Cancelling it undoes nothing."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if (over := self._broken or self._closed) is not None:
            future.set_exception(Fatal(over))
        else:
            self._jobs.put(Job(work, future))
        return future

    async def close(self) -> None:
        """What was given is done first."""
        self._jobs.put(None)
        self._closed = "the bus is closed"
        await asyncio.to_thread(self._thread.join)

    # on the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            partitions = self._open()
        except BaseException as e:  # noqa: BLE001 - whoever opens hears it, whatever it is
            self._loop.call_soon_threadsafe(settle, self.opened, None, e)
            return
        self._loop.call_soon_threadsafe(settle, self.opened, partitions, None)
        open_ = True
        while open_:
            jobs, open_ = self._waiting()
            if jobs:
                self._transact(jobs)
        self._segments.close()
        os.close(self._wal)
        # No lock to be had for closing: let the process's end close it, rather than checkpoint outside the gate.
        with suppress(StreamprocError), self.gate.held():
            self.db.close()

    def _open(self) -> int:
        place = self._place
        try:
            place.make()
            with ExitStack() as parts:
                self.gate = Gate(place.gate, busy_s=self._busy_s)
                parts.callback(self.gate.close)
                with self.gate.held():
                    partitions = self._open_database()
                parts.pop_all()
                return partitions
        except sqlite3.Error as e:
            raise meant(e, place.database, waited_s=self._busy_s) from e
        except OSError as e:
            if e.errno in FULL:
                raise DiskFull(f"{place.database}: {e.strerror}. Make room, and open it again") from e
            raise Misconfigured(f"{place.database}: {e.strerror}. Name a path that can be written") from e

    def _open_database(self) -> int:
        place = self._place
        place.check_before_opening()
        self.db = connect(place.database, busy_s=self._busy_s)
        with ExitStack() as parts:
            parts.callback(self.db.close)
            if place.identity() is None and empty(self.db):
                create(self.db, partitions=self._partitions or PARTITIONS)
            identity, partitions, commits = check(self.db, place.database, partitions=self._partitions)
            place.settle(identity)
            place.check_mark(commits)
            self._wal = os.open(place.wal, os.O_RDWR | os.O_CLOEXEC)
            sync_folder(place.database.parent)  # a WAL whose name the disk does not have is no WAL
            parts.pop_all()
        return partitions

    def _waiting(self) -> tuple[list[Job], bool]:
        """At least one job, and those that wait behind it; False once there will be no more."""
        jobs = [self._jobs.get()]
        with suppress(Empty):
            while len(jobs) < MERGED and jobs[-1] is not None:
                jobs.append(self._jobs.get_nowait())
        return [j for j in jobs if j is not None], jobs[-1] is not None

    def _transact(self, jobs: list[Job]) -> None:
        try:
            before_bytes = self._segments.taken_bytes
            todo = self._stow(jobs)
            if todo:
                commits = self._commit(todo, stowed_bytes=self._segments.taken_bytes - before_bytes)
                self._sync(commits)
        except StreamprocError as e:
            fail(jobs, e)
        except BaseException as e:  # noqa: BLE001 - a bug: nobody may wait for ever for a thread that is gone
            self._undo()
            fail(jobs, e)
        self._loop.call_soon_threadsafe(self._settle, jobs)
        if any(job.failure is None for job in jobs):
            self.wake_others()

    def _settle(self, jobs: list[Job]) -> None:
        for job in jobs:
            settle(job.future, job.result, job.failure)
        self.stir()

    def _stow(self, jobs: list[Job]) -> list[Job]:
        """Those whose payloads are on the disk; the others have failed."""
        if self._broken is not None:
            raise Fatal(self._broken)
        try:
            if size := sum(job.work.size_bytes for job in jobs):
                self._place.check_room(size)
        except DiskFull as e:
            fail([job for job in jobs if job.work.size_bytes], e)
        for job in jobs:
            if job.failure is None:
                try:
                    job.work.stow(self._segments)
                except OSError as e:
                    job.failure = DiskFull(
                        f"{self._place.segments}: {e.strerror}. Nothing was written; make room, and landing goes on"
                    )
                    job.failure.__cause__ = e
        try:
            self._segments.sync()
        except OSError as e:
            full = DiskFull(
                f"{self._place.segments}: {e.strerror}. Nothing was written; make room, and landing goes on"
            )
            full.__cause__ = e
            fail([job for job in jobs if job.work.size_bytes], full)  # the others may be those who make room
        return [job for job in jobs if job.failure is None]

    def _commit(self, jobs: list[Job], *, stowed_bytes: int) -> int:
        db = self.db
        with self.gate.held():
            self._place.check()
            committing = False
            try:
                db.execute("BEGIN IMMEDIATE")
                self.now_ms = int(self._clock() * 1000)
                for job in jobs:
                    self._apply(job)
                [[commits]] = db.execute("UPDATE bus SET commits = commits + 1 RETURNING commits").fetchall()
                committing = True
                db.execute("COMMIT")
            except sqlite3.Error as e:
                self._undo()
                failure = meant(e, self._place.database, waited_s=self._busy_s)
                if isinstance(failure, UnseenEnd) and not committing:
                    failure = Unreachable(
                        str(self._place.database),
                        f"the disk failed ({e})",
                        remedy="Nothing was written. Check the disk",
                    )
                raise failure from e
            inline_bytes = sum(job.work.size_bytes for job in jobs) - stowed_bytes  # what segments took is in no WAL
            self._unswept_bytes += TRANSACTION_BYTES + max(0, inline_bytes)
            self._checkpoint()
        return int(commits)

    def _apply(self, job: Job) -> None:
        db = self.db
        db.execute("SAVEPOINT job")
        try:
            job.result = job.work.apply(self)
        except sqlite3.Error:  # the disk's or the file's trouble: the whole transaction's
            raise
        except BaseException as e:  # noqa: BLE001 - Fenced, or the caller's mistake: this job's alone
            job.failure = e
            db.execute("ROLLBACK TO job")
        db.execute("RELEASE job")

    def _undo(self) -> None:
        # SQLITE_FULL has rolled back already; what cannot be rolled back was never committed
        with suppress(sqlite3.Error):
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")

    def _checkpoint(self) -> None:
        """After COMMIT nothing may report failure: a checkpoint that found no room is tried again later."""
        now = time.monotonic()
        if self._unswept_bytes < CHECKPOINT_BYTES or now - self._swept < CHECKPOINT_EVERY_S:
            return
        self._swept = now
        with suppress(sqlite3.Error):
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._unswept_bytes = 0

    def _sync(self, commits: int) -> None:
        try:
            sync_data(self._wal)
        except OSError as e:
            # What the disk holds now, nobody can know: pages that failed to be written count as written from here on.
            self._broken = (
                f"the disk of {self._place.database} failed to sync ({e}); what landed last is unknown."
                " End this process and start again"
            )
            raise UnseenEnd(self._broken) from e
        with suppress(OSError):  # it has landed: a mark that lags is a weaker guard, no failure
            self._place.set_mark(commits)


def fail(jobs: list[Job], failure: BaseException) -> None:
    for job in jobs:
        job.failure = job.failure or failure


def _nothing() -> None:
    pass
