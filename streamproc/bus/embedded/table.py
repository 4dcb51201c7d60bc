"""A compacted topic's partition, followed: the newest value of every key, in memory."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamproc.bus.embedded.log import Part, Portion, read, span
from streamproc.errors import Expired
from streamproc.wire import Stored

if TYPE_CHECKING:
    from streamproc.bus.embedded.bus import Embedded

PORTION = Portion(max_records=1000, max_bytes=16 * 2**20)
LONG_S = 3600.0


class EmbeddedTable:
    def __init__(self, bus: Embedded, part: Part) -> None:
        self._bus, self._part = bus, part
        self._at = 0
        self._newest: dict[bytes, Stored] = {}
        self._keys: list[bytes] = []
        """In order."""
        self._heard: list[Callable[[Stored], None]] = []
        self._one = asyncio.Lock()

    def get(self, key: bytes) -> Stored | None:
        return self._newest.get(key)

    def under(self, prefix: bytes) -> list[Stored]:
        found = []
        for i in range(bisect_left(self._keys, prefix), len(self._keys)):
            if not self._keys[i].startswith(prefix):
                break
            found.append(self._newest[self._keys[i]])
        return found

    async def caught_up(self) -> None:
        _, end = await self._bus.reader.call(lambda db: span(db, self._part))
        while self._at < end:
            await self._advance()

    def on_change(self, heard: Callable[[Stored], None]) -> Callable[[], None]:
        self._heard.append(heard)

        def stop() -> None:
            if heard in self._heard:
                self._heard.remove(heard)

        return stop

    async def follow(self) -> None:
        """Until the bus closes."""
        tp = self._part.tp
        self._bus.heads.watch([tp])
        while True:
            await self._bus.heads.beyond({tp: self._at}, wait_s=LONG_S)
            await self._advance()

    async def _advance(self) -> None:
        """One page on, whoever asks first: both who follows and who wants to be caught up."""
        async with self._one:
            try:
                page = await self._bus.reader.call(
                    lambda db: read(db, self._bus.payloads, self._part, self._at, PORTION)
                )
            except (
                Expired
            ) as e:  # newest values are never trimmed from a compacted topic; of others we know what there is
                self._at = e.begin
                return
            self._at = page.next
            for record in page.records:
                self._take(record)

    def _take(self, record: Stored) -> None:
        if record.value is None:
            if self._newest.pop(record.key, None) is not None:
                del self._keys[bisect_left(self._keys, record.key)]
        else:
            if record.key not in self._newest:
                insort(self._keys, record.key)
            self._newest[record.key] = record
        for heard in list(self._heard):
            heard(record)
