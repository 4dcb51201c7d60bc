"""A compacted topic's partition, followed through the database: page by page, as the heads move."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from streamproc.bus.embedded.log import Part, Portion, read, span
from streamproc.bus.table import Newest
from streamproc.errors import Expired, Retryable

if TYPE_CHECKING:
    from streamproc.bus.embedded.bus import Embedded

PORTION = Portion(max_records=1000, max_bytes=16 * 2**20)
LONG_S = 3600.0
AGAIN_S = 0.5

log = logging.getLogger(__name__)


class EmbeddedTable(Newest):
    def __init__(self, bus: Embedded, part: Part) -> None:
        super().__init__()
        self._bus, self._part = bus, part
        self._at = 0
        self._one = asyncio.Lock()

    async def caught_up(self) -> None:
        _, end = await self._bus.reader.call(lambda db: span(db, self._part))
        while self._at < end:
            await self._advance()

    async def follow(self) -> None:
        """Until the bus closes."""
        tp = self._part.tp
        self._bus.heads.watch([tp])
        while True:
            await self._bus.heads.beyond({tp: self._at}, wait_s=LONG_S)
            try:
                await self._advance()
            except Retryable as e:  # raised, it would be the end of the bus
                log.warning("%s[%d]: %s", self._part.topic, self._part.partition, e)
                await asyncio.sleep(AGAIN_S)

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
                self.take(record)
