"""What services of the original have said, said again of the replay: results, their coverage, and what was known of the
stream.

An id comes from its place alone, so whatever stops this in the middle, the next one says what is left: nothing is there
twice. Coverage comes last: who is complete has been said whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice, repeat
from typing import Any

from msgspec.structs import replace

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.messages import Context, Coverage, Event, Record, Source, record_id
from streamproc.pipeline import streams
from streamproc.pipeline.job import Entered
from streamproc.pipeline.parts import DECODE, PARTS
from streamproc.pipeline.progress import Account, Progress
from streamproc.pipeline.replay import Replay
from streamproc.pipeline.replay_archive import Archive
from streamproc.pipeline.replay_results import DEDUP, LOCATE, ROOTS, Left
from streamproc.ranges import Ranges
from streamproc.runner.cover import HOUR_MS, Cover, sub_key
from streamproc.stages.reasons import NOT_CLOSED
from streamproc.stages.replay import EXPIRED
from streamproc.topics import topic
from streamproc.wire import Entry

CHUNK = 500
"""Entries that are published at once."""


async def enter(bus: Bus, progress: Progress, archive: Archive, replays: Sequence[Replay]) -> Entered:
    """All of them into the table, and what is said again of each."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for one in replays:
        if not one.known:
            await bus.publish([_context(c, one, bus.partitions, now) for c in one.contexts])
            await streams.publish(bus, one.revisions)
        said = {
            r.id for name in one.results for r in await archive.results(name, one.source.stream, one.source.generation)
        }
        entries = Saying(one, progress, partitions=bus.partitions, now=now).entries(said)
        while chunk := list(islice(entries, CHUNK)):
            await bus.publish(chunk)
            await asyncio.sleep(0)  # services work meanwhile
    return Entered(tuple(r.source for r in replays), frozenset(r.source.stream for r in replays if r.known))


def _context(context: Context, one: Replay, partitions: int, now: str) -> Entry:
    begin, source = one.original.begin, one.source
    from_ = max(0, (context.from_ or 0) - begin)
    ours = replace(
        context,
        id=record_id(context.service, context.root, source.stream, source.generation, context.index),
        stream=source.stream,
        generation=source.generation,
        revision=0,
        from_=from_,
        until_=None if context.until_ is None else context.until_ - begin,
    )
    return wire.encode(ours, partitions=partitions, time=now, sub=(f"{source.generation}.{from_}",))


class Saying:
    """Of one replay."""

    def __init__(self, one: Replay, progress: Progress, *, partitions: int, now: str) -> None:
        self.one, self.original, self.progress = one, one.original, progress
        self.partitions, self.now = partitions, now
        self.count = one.windows
        self._covers: dict[tuple[str, str], Cover] = {}

    def entries(self, said: Iterable[str]) -> Iterator[Entry]:
        """Records in the order of time; then coverage. Those that have been said are covered, and left out."""
        there, spoken = frozenset(said), [r for service in self.original.said for r in self._of(service)]
        for record in sorted(spoken, key=lambda r: (r.start_ms, r.ended, r.index)):
            if record.id not in there:
                yield wire.encode(record, partitions=self.partitions, time=self.now)
        for record_of in self._coverage(spoken):
            yield wire.encode(record_of, partitions=self.partitions, time=self.now, sub=sub_key(record_of))

    # records

    def _of(self, service: str) -> Iterator[Record]:
        """All numbers of a service, what is no longer there among them, and its ends."""
        by_root: dict[str, list[Any]] = {}
        for records in self.one.results.values():
            for record in records:
                if record.service == service:
                    by_root.setdefault(record.root, []).append(record)
        for root in sorted({*by_root, *self._roots(service)}):
            yield from self._sequence(service, root, by_root.get(root, []))

    def _roots(self, service: str) -> Iterable[str]:
        stage = service.partition(".")[0]
        if stage in ROOTS:
            return [service]
        if stage == "describe":
            return [root for root in self.original.ranges if root != DECODE]
        return [DECODE]

    def _sequence(self, service: str, root: str, records: Sequence[Record]) -> Iterator[Record]:
        lo, hi = self.original.ranges.get(root, (0, 0))
        at, at_ms = lo, self.one.revisions[0].grid.starts_ms(0)
        for record in sorted(records, key=lambda r: r.index):
            a, b = max(at, record.index), min(record.until, hi)
            if a >= b:
                continue
            if at < a:
                yield from self._lost(service, root, at, a, record.start_ms)
            yield self._ours(record, service, root, a - lo, b - lo)
            at, at_ms = b, record.end_ms
        if at < hi:
            yield from self._lost(service, root, at, hi, at_ms)
        closing = self.original.left if root == DEDUP else 0
        for number, left in enumerate(islice(chain(self.one.left, repeat(None)), closing), hi - lo):
            yield self._closing(service, root, number, left, records)
        yield self._ended(service, root, hi - lo + closing)

    def _closing(self, service: str, root: str, number: int, left: Left | None, records: Sequence[Record]) -> Record:
        """Of an event that is open where the range ends: its last step, or what was said of it once it was closed."""
        end_ms = self.original.end_ms
        if service == root:
            found: Record | None = left.last if left else None
        else:
            found = next((r for r in records if left and r.index == left.closed_at), None)
        if found is None:
            why = EXPIRED if left is None or left.closed_at is not None else NOT_CLOSED
            source = self._source(root, number, end_ms)
            return self._plain(service, root, source, number, number + 1, end_ms, end_ms, reason=why)
        ours = replace(self._ours(found, service, root, number, number + 1), start_ms=end_ms, end_ms=end_ms)
        if ours.utc is not None:
            ours = replace(ours, utc=self.original.utc(end_ms))
        if isinstance(ours, Event) and ours.event is not None:
            ours = replace(ours, event=replace(ours.event, state="close", revision=ours.event.revision + 1))
        return ours

    def _ours(self, record: Record, service: str, root: str, lo: int, hi: int) -> Record:
        source, grid_rooted = self._source(root, lo, record.start_ms), root == DECODE
        cut = grid_rooted and record.until_index is not None
        fields: dict[str, Any] = {
            "id": record_id(service, root, source.stream, source.generation, lo),
            "stream": source.stream,
            "generation": source.generation,
            "revision": source.revision,
            "index": lo,
            "until_index": hi if record.until_index is not None else None,
        }
        if cut:
            fields |= {"start_ms": source.grid.starts_ms(lo), "end_ms": source.grid.starts_ms(hi)}
        elif root.partition(".")[0] == LOCATE:  # of a stretch that may reach beyond the range
            begin_ms, end_ms = self.one.revisions[0].grid.starts_ms(0), self.original.end_ms
            start_ms = max(begin_ms, record.start_ms)
            fields |= {"start_ms": start_ms, "end_ms": min(end_ms, record.end_ms)}
            if record.utc is not None:
                fields["utc"] = self.original.utc(start_ms)
        if isinstance(record, Event) and record.event is not None:
            begin = self.original.begin
            fields["event"] = replace(
                record.event,
                id=f"{source.stream}/e{record.event.id.rpartition('/e')[2]}",
                votes=tuple(replace(v, index=v.index - begin) for v in record.event.votes if v.index >= begin),
            )
        return replace(record, **fields)

    def _lost(self, service: str, root: str, lo: int, hi: int, at_ms: int) -> Iterator[Record]:
        """[lo, hi) of the original is no longer there."""
        first = self.original.ranges[root][0]
        source = self._source(root, lo - first, at_ms)
        on_grid = root == DECODE
        start_ms = source.grid.starts_ms(lo - first) if on_grid else at_ms
        end_ms = source.grid.starts_ms(hi - first) if on_grid else at_ms
        yield self._plain(service, root, source, lo - first, hi - first, start_ms, end_ms, reason=EXPIRED)

    def _ended(self, service: str, root: str, count: int) -> Record:
        end_ms = self.original.end_ms
        source = self._source(root, count, end_ms)
        return self._plain(service, root, source, count, count + 1, end_ms, end_ms, count=count)

    def _plain(
        self,
        service: str,
        root: str,
        source: Source,
        lo: int,
        hi: int,
        start_ms: int,
        end_ms: int,
        *,
        reason: str | None = None,
        count: int | None = None,
    ) -> Record:
        kind = topic(PARTS[service.partition(".")[0]].kind.writes[0]).record
        assert kind is not None, "stages write records"
        made: Record = kind.of(  # type: ignore[union-attr]  # coverage is no stage's to write
            source,
            id=record_id(service, root, source.stream, source.generation, lo),
            service=service,
            root=root,
            index=lo,
            until_index=hi if hi > lo + 1 else None,
            start_ms=start_ms,
            end_ms=end_ms,
            outcome="skipped" if reason else "done",
            reason=reason,
            count=count,
        )
        return made

    def _source(self, root: str, index: int, at_ms: int) -> Source:
        """The revision of ours that a record is made under: by its number, or by its time where it has others."""
        found = self.one.revisions[0]
        for revision in self.one.revisions[1:]:
            begins = (
                index >= revision.from_index
                if root == DECODE
                else at_ms >= revision.grid.starts_ms(revision.from_index)
            )
            found = revision if begins else found
        return found

    # coverage

    def _coverage(self, spoken: Sequence[Record]) -> Iterator[Coverage]:
        for service in self.original.said:
            if service.partition(".")[0] in ROOTS:
                yield from self._as_then(service, self.progress.of(self._then(), service))
                continue
            for root in sorted({r.root for r in spoken if r.service == service}):
                cover = Cover(root, self.one.source.stream, self.one.source.generation)
                for record in spoken:
                    if (record.service, record.root) == (service, root):
                        cover.add(record, record.outcome, self._source(root, record.index, record.start_ms))
                yield from (cover.record(service, hour) for hour in sorted(cover.hours))

    def _then(self) -> Source:
        return replace(self.one.source, stream=self.original.stream, generation=self.original.generation)

    def _as_then(self, service: str, account: Account) -> Iterator[Coverage]:
        """Who numbers by itself accounts for windows: it did so then, and what it said of the range is still true."""
        source, count = self.one.source, self.count
        begin_ms = self.one.revisions[0].grid.starts_ms(0)
        taken: dict[int, Ranges] = {}
        for index in range(count + 1):
            at_ms = self._source(DECODE, index, 0).grid.starts_ms(index)
            taken.setdefault(at_ms // HOUR_MS, Ranges()).add(index, index + 1)
        for hour in range(begin_ms // HOUR_MS, max(*taken, (self.original.end_ms - 1) // HOUR_MS) + 1):
            lo, hi = max(begin_ms, hour * HOUR_MS), min(self.original.end_ms, (hour + 1) * HOUR_MS)

            def within(kind: str, lo: int = lo, hi: int = hi) -> tuple[tuple[int, int], ...]:
                return tuple((max(a, lo), min(b, hi)) for a, b in account.times(kind) if a < hi and b > lo)

            ended = taken.get(hour, Ranges()).has(count, count + 1)
            yield Coverage(
                id=f"{service}/{DECODE}/{source.stream}/{source.generation}/{hour}",
                stream=source.stream,
                service=service,
                root=DECODE,
                generation=source.generation,
                hour=hour,
                ended=ended,
                count=count if ended else None,
                done=within("done"),
                failed=within("failed"),
                skipped=within("skipped"),
                missing=within("missing"),
                taken=tuple(taken.get(hour, Ranges()).pairs()),
            )
