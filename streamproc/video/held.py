"""The file that was decoded from last, kept open between two slices of it: to open a long one costs what a second of it does.

A file is the same as long as its address and what the file system says of it are. Nothing is kept of one that was damaged,
or in which decoding came to an error.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from streamproc.video.address import Address
from streamproc.video.container import Opened, opened
from streamproc.video.limits import Limits

Mark = tuple[Hashable, ...]


class Held:
    """At most one file."""

    def __init__(self) -> None:
        self._mark: Mark | None = None
        self._video: Opened | None = None
        self._open = ExitStack()

    @contextmanager
    def opened(self, address: Address, limits: Limits) -> Iterator[Opened]:
        """As `container.opened`; it may stand anywhere, its decoder holds nothing."""
        mark = _mark(address)
        video = self._video
        if video is None or mark is None or mark != self._mark or limits != video.limits:
            self.close()
            video = self._open.enter_context(opened(address, limits))
        self._video = self._mark = None
        try:
            yield video
            video.stream.codec_context.flush_buffers()
        except BaseException:
            self.close()
            raise
        if mark is None or video.damage:
            self.close()
        else:
            self._video, self._mark = video, mark

    def close(self) -> None:
        self._video = self._mark = None
        self._open.close()


def _mark(address: Address) -> Mark | None:
    """None of what is no file: a server may cut a connection that nobody reads from."""
    if not address.is_file:
        return None
    try:
        there = Path(address.target).stat()
    except OSError:
        return None  # opening it says why
    return (address.target, address.format, there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns)
