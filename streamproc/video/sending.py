"""Complete segments on their way from the spool to an object store, in a thread of their own: no picture waits for a network.

A segment leaves the spool once it is in the store. What a process that was killed left behind goes with the next recorder
of that stream on this machine; while the store cannot be reached the spool keeps what a folder would keep.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from streamproc.errors import Misconfigured, Unreachable
from streamproc.video.bucket import Bucket
from streamproc.video.keep import Keep, segments

log = logging.getLogger(__name__)

AGAIN_S = 5.0
"""After the store could not be reached."""


class Sending:
    """Of one recorder."""

    def __init__(self, keep: Keep, *, again_s: float = AGAIN_S, now: Callable[[], float] = time.time) -> None:
        assert keep.bucket, "the recording is in an object store"
        self._keep, self._bucket, self._again_s, self._now = keep, Bucket(keep.bucket), again_s, now
        self._todo: SimpleQueue[Path | None] = SimpleQueue()
        """Not bounded: names only, of what lies on the disk."""
        self._closed = threading.Event()
        for segment in segments(keep.folder):
            self._todo.put(segment.path)
        self._thread = threading.Thread(target=self._run, name="footage", daemon=True)
        self._thread.start()

    def add(self, segment: Path) -> None:
        """It is complete."""
        self._todo.put(segment)

    def close(self) -> None:
        """Nothing more is added. What is left is still sent, if the store takes it now; nobody waits for that."""
        self._closed.set()
        self._todo.put(None)

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        told = False
        while (segment := self._todo.get()) is not None:
            while True:
                try:
                    self._send(segment)
                    told = False
                    break
                except FileNotFoundError:  # it made room, or another recorder's thread has sent it
                    break
                except (Unreachable, Misconfigured) as e:
                    if not told:  # once; it may fail for hours
                        log.warning("%s", e)
                    told = True
                    if self._closed.wait(self._again_s):
                        return

    def _send(self, segment: Path) -> None:
        self._bucket.put(f"{self._keep.below}/{segment.name}", segment)
        segment.unlink(missing_ok=True)
        self._trim()

    def _trim(self) -> None:
        """As in a folder: the oldest go."""
        there = sorted(self._bucket.below(f"{self._keep.below}/"), key=lambda one: one.key)
        total, gone = sum(one.size_bytes for one in there), []
        oldest = self._now() - self._keep.hours * 3600
        for one in there[:-1]:
            if one.put_s >= oldest and (self._keep.size_bytes is None or total <= self._keep.size_bytes):
                break
            gone.append(one.key)
            total -= one.size_bytes
        self._bucket.remove(gone)
