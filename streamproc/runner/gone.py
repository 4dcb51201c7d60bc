"""Gone: what tables still say of streams of which nothing else is left.

Tables keep the newest of every key for ever: `coverage` a row for each service and hour of a stream, `contexts` for each
stretch, `sources` for each revision. Of one life of a stream they go, all in one landing, once

    1. the stream was removed, or has another life, and is forgotten here (see `ends`),
    2. every service that a revision named, or that has spoken, has accounted for all its numbers, the end among them,
    3. no topic has a record any more that is as old as the last of these rows: everything that was said of it has
       expired, so nobody asks for its source, and no service says anything of it again.

One row stays: the newest revision of the newest life. It tells which lives the name had, and so that of the next one,
for as long as any service may remember numbers of the one before; and what the name was.

Whoever follows sources does it, as the one owner of the stream who reads both tables anyhow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from streamproc import wire
from streamproc.errors import Expired, Retryable
from streamproc.messages import Coverage, Source
from streamproc.ranges import Ranges
from streamproc.topics import SEPARATOR, deployment, key_of, stream_of
from streamproc.wire import Entry, Stored

if TYPE_CHECKING:
    from streamproc.bus.contract import Table
    from streamproc.runner.runner import Runner

log = logging.getLogger(__name__)

TABLES = ("sources", "coverage", "contexts")
APART_MS = 3_600_000
"""What lands together is stamped within this, whatever the clocks of several brokers do."""


class Gone:
    """Of one lease."""

    def __init__(self, runner: Runner) -> None:
        self.r = runner

    async def clear(self) -> None:
        """Every life that is gone, one after the other."""
        r = self.r
        try:
            there = await r.shared.bus.topics()
            tables = {name: await r.shared.bus.follow(name, r.lease.partition) for name in TABLES if name in there}
            oldest_ms = await self._oldest_ms(list(there))
            for rows, kept in self._candidates(tables):
                if oldest_ms <= max(row.time_ms for row in rows) + APART_MS:
                    continue
                for row in rows:
                    if row is not kept:
                        r.book.emit(Entry(row.topic, row.partition, row.key, None))
                log.info("%s: '%s' is gone, and %d rows with it", r.service, stream_of(rows[0].key), len(rows))
                await r.landings.flush()
        except Retryable as e:
            log.warning("%s[%d]: looking for streams that are gone: %s", r.service, r.lease.partition, e)

    def _candidates(self, tables: dict[str, Table]) -> Iterator[tuple[list[Stored], Stored | None]]:
        """Lives that are over by what tables say, their rows, and of these the one that stays."""
        if not {"sources", "coverage"} <= tables.keys():
            return
        lives: dict[str, dict[int, list[tuple[Source, Stored]]]] = {}
        for stored in tables["sources"].under(b""):
            if isinstance(source := wire.row(stored), Source):
                lives.setdefault(source.stream, {}).setdefault(source.generation, []).append((source, stored))
        remembered = self.r.book.remembered()
        for stream, generations in lives.items():
            newest = max(generations)
            for generation, revisions in generations.items():
                source, stored = max(revisions, key=lambda r: r[0].revision)
                over = generation < newest or source.state == "removed"
                if not over or (stream, generation) in remembered:
                    continue
                coverage = _of(tables["coverage"], stream, 2, generation)
                contexts = _of(tables["contexts"], stream, 0, generation) if "contexts" in tables else []
                kept = stored if generation == newest else None
                rows = [*(s for _, s in revisions), *coverage, *contexts]
                if rows != [kept] and _through([s for s, _ in revisions], coverage):
                    yield rows, kept

    async def _oldest_ms(self, there: list[str]) -> float:
        """When the oldest record was landed that can still be read in this partition, tables aside."""
        bus, partition = self.r.shared.bus, self.r.lease.partition
        oldest = float("inf")
        for name in (t.name for t in deployment() if t.name in there and not t.compacted):
            while True:
                begin, end = await bus.span(name, partition)
                try:
                    found = await bus.read(name, partition, begin, max_records=1, max_bytes=1) if begin < end else []
                except Expired:
                    continue  # it has moved on meanwhile
                break
            oldest = min([oldest, *(s.time_ms for s in found)])
        return oldest


def _through(revisions: list[Source], coverage: list[Stored]) -> bool:
    """Everybody has accounted for everything."""
    told: dict[tuple[str, str], Ranges] = {}
    counts: dict[tuple[str, str], int] = {}
    for stored in coverage:
        hour = wire.row(stored)
        if not isinstance(hour, Coverage):
            return False
        taken = told.setdefault((hour.service, hour.root), Ranges())
        for lo, hi in hour.taken:
            taken.add(lo, hi)
        if hour.count is not None:
            counts[hour.service, hour.root] = hour.count
    named = {service for source in revisions for service in source.services}
    if named - {service for service, _ in told}:
        return False
    return all(whose in counts and not _owed(revisions, *whose, taken, counts[whose]) for whose, taken in told.items())


def _owed(revisions: list[Source], service: str, root: str, taken: Ranges, count: int) -> bool:
    """Some number has no outcome of a service, though a revision names it. Numbers off the grid begin with its first."""
    first = min((lo for lo, _ in taken), default=0)
    unowed = Ranges()
    if revisions[0].grid.root == root:
        revisions = sorted(revisions, key=lambda s: s.revision)
        starts = [s.from_index if s.revision else 0 for s in revisions]
        first = 0
        for source, lo, hi in zip(revisions, starts, [*starts[1:], count + 1], strict=True):
            if service not in source.services and lo < hi:
                unowed.add(lo, hi)
    return bool((taken | unowed).missing(first, count + 1))


def _of(table: Table, stream: str, place: int, generation: int) -> list[Stored]:
    """Rows of one life: what its generation is at this place of the sub-key, in whole or before a dot."""
    rows = table.under(key_of(stream, ""))
    subs = ((row, row.key.decode(errors="replace").split(SEPARATOR)[1:]) for row in rows)
    return [row for row, sub in subs if len(sub) > place and sub[place].partition(".")[0] == str(generation)]
