"""Pacing: a writer of files and replays keeps at most so far ahead of the slowest running service that reads it; a writer of
feeds knows how far that is behind.

What each service has accounted for is read off the coverage table. Where a service is not running nobody waits for it:
retention holds what it has not read.
"""

from __future__ import annotations

import asyncio

from streamproc.bus.contract import Bus
from streamproc.messages import Coverage, Source
from streamproc.ranges import Ranges
from streamproc.runner.cover import Accounted
from streamproc.runner.look import Look, Tables
from streamproc.topics import key_of, stream_of
from streamproc.wire import Stored

RUNNING_FOR_S = 60.0
"""A service counts as running for so long after it was last seen: a restart must not let a writer run away."""
LOOK_EVERY_S = 1.0


class Roster:
    """Which services are running, as the bus knows; asked at most once a second, by whoever needs it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._seen: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        """Whoever comes while one asks waits for his answer: not knowing so far is no licence to run away."""

    async def running(self, service: str) -> bool:
        clock = asyncio.get_running_loop().time  # a wall clock may be set back, and nobody would be asked for as long
        async with self._asking.setdefault(service, asyncio.Lock()):
            if clock() - self._asked.get(service, float("-inf")) >= LOOK_EVERY_S:
                if await self._bus.members(service):
                    self._seen[service] = clock()
                self._asked[service] = clock()
        return clock() - self._seen.get(service, float("-inf")) < RUNNING_FOR_S


class Paced(Look):
    """A `stage.Pace`: a look that also knows how far others are."""

    def __init__(self, tables: Tables, service: str, *, writes: str, roster: Roster) -> None:
        super().__init__(tables, service)
        self._writes, self._roster = writes, roster
        self._accounted: dict[str, dict[tuple[int, str], Accounted]] = {}
        """Of streams that are paced now: generation, service → what it has accounted for."""
        self._moved: dict[str, asyncio.Event] = {}

    def heard(self, stored: Stored) -> None:
        super().heard(stored)
        stream = stream_of(stored.key)
        if stored.topic == "coverage" and stored.value is not None and stream in self._accounted:
            record = self.tables.get("coverage", stored.key.decode(errors="replace"))
            if isinstance(record, Coverage):
                self._hear(record)

    def _hear(self, record: Coverage) -> None:
        key = (record.generation, record.service)
        self._accounted[record.stream].setdefault(key, Accounted()).hear(record)
        self._moved[record.stream].set()

    def _listen(self, stream: str) -> None:
        self._accounted[stream], self._moved[stream] = {}, asyncio.Event()
        for record in self.tables.under("coverage", key_of(stream, "").decode()):
            self._hear(record)

    def over(self, stream: str, generation: int) -> bool:
        """We have said the last of this life of a stream, however long ago."""
        ours = key_of(stream, self.service, self.service, str(generation), "").decode()
        return any(record.ended for record in self.tables.under("coverage", ours))

    def rest(self, stream: str) -> None:
        """Nobody paces it any more; should somebody do again, the table still has it."""
        self._accounted.pop(stream, None)
        self._moved.pop(stream, None)
        self.tables.forget({stream})

    async def room(self, source: Source, index: int, *, ahead: int) -> None:
        if source.stream not in self._accounted:
            self._listen(source.stream)
        moved = self._moved[source.stream]
        while True:
            moved.clear()
            behind = [s for s in source.readers.get(self._writes, ()) if index >= self._base(source, s) + ahead]
            if not behind or not [s for s in behind if await self._roster.running(s)]:
                return
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await moved.wait()
            except TimeoutError:
                continue  # look again: a service may have gone

    async def behind(self, source: Source, index: int) -> int:
        if source.stream not in self._accounted:
            self._listen(source.stream)
        bases = {s: self._base(source, s) for s in source.readers.get(self._writes, ())}
        running = [base for s, base in bases.items() if base < index and await self._roster.running(s)]
        return index - min([index, *running])

    def _base(self, source: Source, service: str) -> int:
        """The first index a service owes and has not accounted for."""
        accounted = self._accounted[source.stream].get((source.generation, service))
        taken = accounted.taken if accounted else Ranges()
        first = self.owed_from(source, service)
        return taken.base(first)
