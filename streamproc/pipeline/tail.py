"""Results of some streams as they land, in the order of each partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamproc import wire
from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.errors import Expired, Unparseable
from streamproc.messages import Source
from streamproc.topics import partition_of, topic

BATCH, BATCH_BYTES = 500, 4 * 2**20


class Tail:
    """Read it again and again: each time it gives what has come since."""

    def __init__(
        self, bus: Bus, topics: Sequence[str], sources: Sequence[Source], *, claims: Claims | None = None
    ) -> None:
        self._bus, self._claims = bus, claims
        self._generations = {s.stream: s.generation for s in sources}
        partitions = sorted({partition_of(s.stream, bus.partitions) for s in sources})
        self._at: dict[tuple[str, int], int] = dict.fromkeys(((name, p) for name in topics for p in partitions), 0)

    async def come(self) -> list[tuple[str, Any]]:
        """(topic, record) of all that has landed since the last time; where that fails, all of it the next time."""
        found: list[tuple[str, Any]] = []
        at = dict(self._at)
        for (name, p), offset in self._at.items():
            while True:
                try:
                    batch = await self._bus.read(name, p, offset, max_records=BATCH, max_bytes=BATCH_BYTES)
                except Expired as e:
                    offset = e.begin  # noqa: PLW2901  # what is no longer there cannot be shown
                    continue
                if not batch:
                    break
                offset = batch[-1].offset + 1  # noqa: PLW2901  # the next batch
                for stored in batch:
                    stream = stored.key.split(b"\0", 1)[0].decode(errors="replace")
                    if stream not in self._generations:
                        continue
                    try:
                        whole = await self._claims.check_out(stored) if self._claims else stored
                        record = wire.decode(topic(name), whole)
                    except Unparseable:
                        continue  # `topics tail` shows it, with the reason
                    if record.generation == self._generations[stream]:
                        found.append((name, record))
            at[name, p] = offset
        self._at = at
        return found
