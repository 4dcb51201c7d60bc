"""A compacted topic's partition in memory: the newest value of every key. What every bus's `Table` is, but for the reading.

Who follows the log feeds it, record by record in the log's order, and knows how far that has come; nothing here waits.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable

from streamproc.wire import Stored


class Newest:
    def __init__(self) -> None:
        self._newest: dict[bytes, Stored] = {}
        self._keys: list[bytes] = []
        """Those, in order."""
        self._heard: dict[object, Callable[[Stored], None]] = {}

    def get(self, key: bytes) -> Stored | None:
        return self._newest.get(key)

    def under(self, prefix: bytes) -> list[Stored]:
        found = []
        for i in range(bisect_left(self._keys, prefix), len(self._keys)):
            if not self._keys[i].startswith(prefix):
                break
            found.append(self._newest[self._keys[i]])
        return found

    def on_change(self, heard: Callable[[Stored], None]) -> Callable[[], None]:
        listener = object()  # the same function may listen twice
        self._heard[listener] = heard

        def stop() -> None:
            self._heard.pop(listener, None)

        return stop

    def take(self, record: Stored) -> None:
        """The log's next record: in force from now on, or the end of what its key had; then whoever listens hears it."""
        if record.value is None:
            if self._newest.pop(record.key, None) is not None:
                del self._keys[bisect_left(self._keys, record.key)]
        else:
            if record.key not in self._newest:
                insort(self._keys, record.key)
            self._newest[record.key] = record
        for heard in list(self._heard.values()):
            heard(record)
