"""What handlers look up: tables of their partition, parsed once a record, and who waits for which key.

A table record that does not parse leaves the old one in force and is reported; a handler never sees it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from streamproc import wire
from streamproc.bus.contract import Bus, Table
from streamproc.errors import NotYet, Unparseable
from streamproc.messages import Placed, Sequence, Source
from streamproc.topics import key_of, stream_of, topic
from streamproc.wire import Stored

log = logging.getLogger(__name__)

PATIENCE_S = 300.0
"""How long a record waits for its source to be heard of. Tables are followed within milliseconds; this is for broken ones."""

MOST_IN_VAIN = 4096
"""Keys that were waited for in vain and are remembered; one that is forgotten is waited for once more."""


def source_key(stream: str, generation: int, revision: int) -> str:
    return key_of(stream, f"{generation}.{revision}").decode()


Rows = dict[bytes, tuple[Stored, Any]]
"""Key → the newest row and what it says."""

_PARSED: WeakKeyDictionary[Table, Rows] = WeakKeyDictionary()
"""Of each table that this process follows, for all services that look things up there: a thousand sources, parsed for each of
eight services, were a hundred megabytes."""


class Tables:
    """The tables of one partition."""

    def __init__(self, tables: dict[str, Table], stops: list[Callable[[], None]]) -> None:
        self._tables, self._stops = tables, stops
        self._parsed = {name: _PARSED.setdefault(table, {}) for name, table in tables.items()}

    @classmethod
    async def open(cls, bus: Bus, topics: tuple[str, ...], partition: int, heard: Callable[[Stored], None]) -> Tables:
        tables = {name: await bus.follow(name, partition) for name in topics}
        return cls(tables, [table.on_change(heard) for table in tables.values()])

    def close(self) -> None:
        for stop in self._stops:
            stop()

    def stored(self, name: str, key: str) -> Stored | None:
        return self._tables[name].get(key.encode())

    def get(self, name: str, key: str) -> Any | None:
        stored = self._tables[name].get(key.encode())
        return self._parse(stored) if stored is not None and stored.value is not None else None

    def under(self, name: str, prefix: str) -> list[Any]:
        parsed = [self._parse(s) for s in self._tables[name].under(prefix.encode()) if s.value is not None]
        return [record for record in parsed if record is not None]

    def forget(self, streams: set[str]) -> None:
        """Nobody asks for what is said of these, or so seldom that it may be parsed again."""
        for rows in self._parsed.values():
            for key in [key for key in rows if stream_of(key) in streams]:
                del rows[key]

    def drop(self, stored: Stored) -> None:
        """A row that is there no more."""
        self._parsed[stored.topic].pop(stored.key, None)

    def _parse(self, stored: Stored) -> Any | None:
        rows = self._parsed[stored.topic]
        before = rows.get(stored.key)
        if before is not None and before[0] is stored:
            return before[1]
        try:
            record = wire.decode(topic(stored.topic), stored)
        except Unparseable as e:
            record = before[1] if before else None
            kept = "the one before stays in force" if before else "there is none before it"
            log.error("%s[%d]@%d: %s; %s", stored.topic, stored.partition, stored.offset, e, kept)  # noqa: TRY400  # the cause says it all
        rows[stored.key] = (stored, record)
        return record


class Look:
    """The `stage.Look` of one lease, and a little more that only the runner needs."""

    def __init__(self, tables: Tables, service: str) -> None:
        self.tables, self.service = tables, service
        self._found: dict[tuple[str, int, int], Source] = {}
        """What a window asks for again and again; emptied whenever a source is heard of."""
        self._in_vain: dict[tuple[str, str], None] = {}
        """What one record has waited for in vain, others do not wait for: else each would anew, and all be late."""

    def source(self, record: Placed) -> Source:
        found = self.find(record.stream, record.generation, record.revision)
        if found is None:
            key = source_key(record.stream, record.generation, record.revision)
            raise NotYet("source-unknown", topic="sources", key=key, within_s=PATIENCE_S)
        return found

    def get(self, topic: str, stream: str, *sub: str) -> Any | None:
        return self.tables.get(topic, key_of(stream, *sub).decode())

    def expect(self, topic: str, stream: str, *sub: str, within_s: float) -> Any | None:
        key = key_of(stream, *sub).decode()
        found = self.tables.get(topic, key)
        if found is None and (topic, key) not in self._in_vain:
            raise NotYet(f"{topic}-missing", topic=topic, key=key, within_s=within_s, goes_without=True)
        return found

    def give_up(self, missing: NotYet) -> None:
        """Nobody waits for this key any more, until it is heard of."""
        self._in_vain[missing.topic, missing.key] = None
        if len(self._in_vain) > MOST_IN_VAIN:
            del self._in_vain[next(iter(self._in_vain))]

    def find(self, stream: str, generation: int, revision: int) -> Source | None:
        found: Source | None = self._found.get((stream, generation, revision))
        if found is None:
            found = self.tables.get("sources", source_key(stream, generation, revision))
            if found is not None:
                self._found[stream, generation, revision] = found
        return found

    def heard(self, stored: Stored) -> None:
        """Called for every record of every table followed."""
        if stored.topic == "sources":
            self._found.clear()
        if stored.value is None:
            self.tables.drop(stored)
        self._in_vain.pop((stored.topic, stored.key.decode(errors="replace")), None)

    def forget(self, streams: set[str]) -> None:
        """Nobody asks for these any more, or seldom."""
        self._found = {key: source for key, source in self._found.items() if key[0] not in streams}
        self.tables.forget(streams)

    def in_force(self, stream: str, generation: int, index: int) -> Source | None:
        """The revision that an index is made under, as far as is known here."""
        revisions = self.revisions(stream, generation)
        return max((s for s in revisions if s.from_index <= index), key=lambda s: s.revision, default=None)

    def revisions(self, stream: str, generation: int) -> list[Source]:
        found: list[Source] = self.tables.under("sources", key_of(stream, f"{generation}.").decode())
        return sorted(found, key=lambda s: s.revision)

    def where(self, sequence: Sequence, index: int) -> tuple[int, int, int]:
        """Revision, start and end in ms of a number of which nothing else is known."""
        source = self.in_force(sequence.stream, sequence.generation, index)
        if source is None:
            return 0, 0, 0
        grid = source.grid if source.grid.root == sequence.root else None
        start_ms, end_ms = (grid.starts_ms(index), grid.starts_ms(index + 1)) if grid else (0, 0)
        return source.revision, start_ms, end_ms

    def owed_from(self, source: Source, service: str) -> int:
        """The first index of the revision that names a service, going back as far as it is named without a break."""
        first = source
        for before in reversed(
            [s for s in self.revisions(source.stream, source.generation) if s.revision < source.revision]
        ):
            if service not in before.services:
                break
            first = before
        return first.from_index if first.revision else 0

    def first_named(self, source: Source, service: str) -> int:
        """The first index at which any revision of this life of the stream names a service."""
        named = [s for s in self.revisions(source.stream, source.generation) if service in s.services]
        return min((s.from_index if s.revision else 0 for s in named), default=source.from_index)
