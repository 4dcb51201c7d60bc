"""Results of some streams as they land, in the order of each partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.messages import Source
from streamproc.pipeline.reading import record_of, stored_in
from streamproc.topics import partition_of, stream_of


class Newcomers:
    """Ask again and again: each time it gives what has come since."""

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
            async for stored in stored_in(self._bus, name, p, offset):
                at[name, p] = stored.offset + 1
                generation = self._generations.get(stream_of(stored.key))
                if generation is None or (record := await record_of(stored, self._claims)) is None:
                    continue
                if record.generation == generation:
                    found.append((name, record))
        self._at = at
        return found
