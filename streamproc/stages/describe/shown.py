"""Pictures of records that are being asked about, kept from one round to the next: those that had to go are fetched again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from streamproc.messages import Frame

MOST_BYTES: Final = 64 * 2**20
"""Of all records together. The newest one's are kept however large they are: its call holds them anyway."""


class Shown:
    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._of: OrderedDict[str, Sequence[Frame]] = OrderedDict()

    def keep(self, record: str, frames: Sequence[Frame]) -> None:
        self.pop(record)
        self._of[record] = frames
        self._bytes += _size(frames)
        while self._bytes > self._most_bytes and len(self._of) > 1:
            self.pop(next(iter(self._of)))

    def pop(self, record: str) -> Sequence[Frame] | None:
        """And keep them no longer; None: they are not there."""
        frames = self._of.pop(record, None)
        self._bytes -= _size(frames or ())
        return frames


def _size(frames: Sequence[Frame]) -> int:
    return sum(len(frame.jpeg) for frame in frames)
