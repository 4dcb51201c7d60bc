"""Tail: what an owner before has said last, and its state knows nothing of. For whoever numbers its records itself.

A broker can tear a landing (KAFKA-20734): its records stand, the cursor behind them is lost. What would go on from there
as if nothing had been said would end a stream that was removed meanwhile at a number that readers have as a window: they
take that end for one that comes again, and wait for another for ever.

So before a run begins here, the last stretch of what was written is read, and what stands there is taken into the book:
it lands, and whoever comes next knows it, too. From then on no number that has an outcome gets another, and an end stands
behind all that do.

Torn is only what an owner lands last: it is fenced by it, or gone. So there is nothing to look for before the last
landing that is whole, and that one coverage tells: its rows land with what they speak of, and where one says what the
state does, both have landed. After a whole landing this is a request or two and the few seconds that clocks may differ.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from streamproc import wire
from streamproc.errors import Expired, Retryable
from streamproc.messages import Coverage, Grid, Record, Source
from streamproc.runner.cover import Cover, Hour
from streamproc.runner.inputs import Place
from streamproc.runner.speech import bare
from streamproc.topics import key_of, topic
from streamproc.wire import Stored

if TYPE_CHECKING:
    from streamproc.bus.contract import Table
    from streamproc.runner.pace import Paced
    from streamproc.runner.runner import Runner

log = logging.getLogger(__name__)

APART_MS = 5_000
"""By which the clocks of two brokers differ at most: coverage may lie on another than what it speaks of."""
READ_BYTES = 4 * 2**20


class Tail:
    """Of one lease that has just been taken."""

    def __init__(self, runner: Runner, look: Paced) -> None:
        self.r, self.look, self.name = runner, look, runner.stage.writes[0]

    async def adopt(self) -> None:
        """Take into the book what stands. A bus that is away is waited for."""
        r = self.r
        while True:
            try:
                tables = [await r.shared.bus.follow(name, r.lease.partition) for name in ("coverage", "sources")]
                for table in tables:
                    await table.caught_up()
                if (known_ms := self._whole_ms(tables[0]) or self._named_ms(tables[1])) is None:
                    return
                since_ms = max(0, known_ms - APART_MS)
                begin = await r.shared.bus.offset_at(self.name, r.lease.partition, since_ms)
                adopted = await self._adopt_from(begin)
            except Retryable as e:
                r.go_on_or_leave(e)
                log.warning("%s[%d]: %s", r.service, r.lease.partition, e)
                await r.pause()
            else:
                break
        if adopted:
            log.warning(
                "%s[%d]: %d numbers stand in %s of which the state knows nothing: a landing was torn; going on behind them",
                r.service,
                r.lease.partition,
                adopted,
                self.name,
            )

    def _whole_ms(self, coverage: Table) -> int:
        """When the last landing happened that is known to be whole; 0 where none is."""
        rows: list[tuple[Stored, Hour]] = []
        for cover in self.r.book.covers.values():
            for number, hour in cover.hours.items():
                sub = (self.r.service, cover.root, str(cover.generation), str(number))
                if row := coverage.get(key_of(cover.stream, *sub)):
                    rows.append((row, hour))
        rows.sort(key=lambda known: known[0].time_ms, reverse=True)
        return next((row.time_ms for row, hour in rows if _agree(row, hour)), 0)

    def _named_ms(self, sources: Table) -> int | None:
        """Since when anything can stand at all: since there is a source that names us. None where there is none, as before
        the first replay; others have written here for days."""
        named = [row.time_ms for row in sources.under(b"") if (s := wire.row(row)) and self.r.service in s.services]
        return min(named, default=None)

    async def _adopt_from(self, offset: int) -> int:
        r, adopted = self.r, 0
        end = (await r.shared.bus.span(self.name, r.lease.partition)).end
        while offset < end:
            try:
                found = await r.shared.bus.read(
                    self.name, r.lease.partition, offset, max_records=r.shared.bounds.batch, max_bytes=READ_BYTES
                )
            except Expired as e:
                offset = e.begin
                continue
            if not found:
                break
            adopted += sum(self._adopt(stored) for stored in found)
            offset = found[-1].offset + 1
        return adopted

    def _adopt(self, stored: Stored) -> int:
        """How many numbers of this record were not known."""
        r, record = self.r, self._place(stored)
        if record is None or record.service != r.service or record.root != r.service:
            return 0
        run, life = r.book.runs.get(record.stream), (record.stream, record.generation)
        if run.generation > record.generation if run else self.look.over(*life):
            return 0  # it is over, and that has landed
        source = self.look.find(*life, record.revision)
        if source is None or r.service not in source.services:
            return 0
        parts = owed(r.book.covers.get((r.service, *life)), source, [record])
        for part in parts:
            r.book.cover(part, part.outcome, source)
        return sum(part.until - part.index for part in parts)

    def _place(self, stored: Stored) -> Record | None:
        """Without what it shows, which may be large or elsewhere."""
        if (place := wire.envelope(topic(self.name), stored)) or not (whose := wire.identify(stored)):
            return place
        sequence, index = whose
        where = Place(sequence, index, index + 1, *self.look.where(sequence, index))
        return bare(self.name, where, service=sequence.service, outcome="done")


def _agree(row: Stored, hour: Hour) -> bool:
    """What is landed of an hour is what is known of it. From one that cannot be read nothing follows; an older one will do."""
    said: Coverage | None = wire.row(row)
    return said is not None and list(said.taken) == hour.taken.pairs() and said.count == hour.count


def owed(cover: Cover | None, source: Source, records: Sequence[Record]) -> list[Record]:
    """Of records of one life, in order, the parts whose numbers have no outcome so far."""
    end = cover.end if cover else 0
    if cover is None or not records or records[0].index >= end:
        return list(records)
    if (last := records[-1]).ended:
        if cover.count is not None:
            records = records[:-1]  # said already, here or further back
        elif last.index < end:
            records = list(_behind(end, records, source.grid))
    return [
        _part(record, lo, hi, source.grid)
        for record in records
        for lo, hi in (
            cover.untaken(record.index, record.until) if record.index < end else [(record.index, record.until)]
        )
    ]


def _behind(end: int, records: Sequence[Record], grid: Grid) -> Iterator[Record]:
    """An end that comes too early, and what failed before it: that is why it ends."""
    for record in records:
        if not record.ended and record.outcome != "failed":
            yield record
            continue
        by_ms = grid.starts_ms(end) - grid.starts_ms(record.index)
        until = end + record.until - record.index
        yield replace(
            record,
            index=end,
            until_index=None if record.until_index is None else until,
            start_ms=record.start_ms + by_ms,
            end_ms=record.end_ms + by_ms,
            utc=_later(record.utc, by_ms),
            count=None if record.count is None else end,
        )
        end = until


def _part(record: Record, lo: int, hi: int, grid: Grid) -> Record:
    """[lo, hi) of a record."""
    if (lo, hi) == (record.index, record.until):
        return record
    start_ms = record.start_ms if lo == record.index else grid.starts_ms(lo)
    return replace(
        record,
        index=lo,
        until_index=None if hi == lo + 1 else hi,
        start_ms=start_ms,
        end_ms=record.end_ms if hi == record.until else grid.starts_ms(hi),
        utc=_later(record.utc, start_ms - record.start_ms),
    )


def _later(utc: str | None, by_ms: int) -> str | None:
    if utc is None or not by_ms:
        return utc
    return (datetime.fromisoformat(utc) + timedelta(milliseconds=by_ms)).isoformat(timespec="milliseconds")
