"""A folder that is watched: each video in it becomes a stream, once it has stopped growing. Nothing is opened."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streamproc.errors import Misconfigured
from streamproc.video.sources import VIDEOS, Found, check, in_folder

log = logging.getLogger(__name__)

SETTLED_S = 10.0
"""A file that has been the same for so long is taken for whole: whoever copies or records writes more often than that."""


@dataclass(slots=True)
class _Growing:
    shape: tuple[int, int]
    """Size, and when it was written last."""
    since_s: float


class Watched:
    """Asked again and again; says of each video once that it is there."""

    def __init__(
        self,
        folder: Path,
        *,
        settled_s: float = SETTLED_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._settled_s, self._clock = folder, settled_s, clock
        self._taken = set[str]()
        self._growing: dict[Path, _Growing] = {}
        self._passed_over = set[Path]()

    def look(self) -> list[Found]:
        """Videos that have stopped growing since the last look. Misconfigured where the folder cannot be read."""
        now, there = self._clock(), in_folder(self._folder)
        present = set(there)
        self._growing = {file: growing for file, growing in self._growing.items() if file in present}
        ready = [file for file in there if self._settled(file, now)]
        return [one for file in ready if (one := self._take(file))]

    def again(self, one: Found) -> None:
        """It was not whole: to be said once more, when it has been the same for as long again."""
        file = next(file for file in self._growing if os.path.abspath(file) == one.uri)
        self._growing[file].since_s = self._clock()
        self._passed_over.discard(file)
        self._taken.discard(one.name)

    def _settled(self, file: Path, now: float) -> bool:
        try:
            status = file.stat()
        except OSError:  # gone, or moved to its name, since the folder was read; the next look sees
            return False
        shape = (status.st_size, status.st_mtime_ns)
        before = self._growing.get(file)
        if before is None or before.shape != shape:
            self._growing[file] = _Growing(shape, now)
            return False
        return status.st_size > 0 and now - before.since_s >= self._settled_s

    def _take(self, file: Path) -> Found | None:
        if file in self._passed_over:
            return None
        self._passed_over.add(file)  # whatever becomes of it now, it is not looked at again
        name = file.relative_to(self._folder).with_suffix("").as_posix()
        if file.suffix[1:].lower() not in VIDEOS:
            log.warning("%s: left out, as no video by its ending", file)
            return None
        try:
            check(name)
        except Misconfigured as e:
            log.warning("%s: left out: %s", file, e)
            return None
        if name in self._taken:
            log.warning("%s: left out: there is a stream '%s' already", file, name)
            return None
        self._taken.add(name)
        return Found(name, os.path.abspath(file), live=False)
