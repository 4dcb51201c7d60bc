"""The reading thread: one read-only connection, and whatever else blocks but does not write rows."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from streamproc.bus.embedded.gate import Gate
from streamproc.bus.embedded.place import Place
from streamproc.bus.embedded.schema import connect, meant
from streamproc.errors import Fatal, StreamprocError

T = TypeVar("T")

Job = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]


class Reader:
    def __init__(self, place: Place, gate: Gate, *, busy_s: float) -> None:
        self._place, self._gate, self._busy_s = place, gate, busy_s
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()  # bounded by the callers: each waits for its own
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"reads {place.database.name}", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Do it on the thread. A statement must be run to its end there: one left open would pin the WAL."""
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(Fatal("the bus is closed"))
        else:
            self._jobs.put((work, future))
        return future

    def _run(self) -> None:
        db = None
        while job := self._jobs.get():
            work, future = job
            result: Any = None
            failure: BaseException | None = None
            try:
                if db is None:
                    db = connect(self._place.database, busy_s=self._busy_s)
                    db.execute("PRAGMA query_only=ON")
                result = work(db)
            except (StreamprocError, OSError) as e:
                failure = e
            except sqlite3.Error as e:
                failure = meant(e, self._place.database, waited_s=self._busy_s)
            except BaseException as e:  # noqa: BLE001 - a bug: the caller gets it, the thread goes on for the others
                failure = e
            self._loop.call_soon_threadsafe(settle, future, result, failure)
        if db is not None:
            # the last connection checkpoints as it closes; where the gate is not to be had, the process's end closes it
            with suppress(StreamprocError), self._gate.held():
                db.close()

    async def close(self) -> None:
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)


def settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():  # its caller was cancelled and is gone
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)
