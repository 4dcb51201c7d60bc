"""Holes: numbers that were never read because their records have expired. Owed ones become `skipped: expired`.

They are found in two ways. A writer that numbers its own sequence lands it in order: a record that is further than the
one before shows what is missing between. All others land out of order, and nothing that is read tells what is not: there
reading is let run to the end, and then everything that the writer's coverage accounts for, and that nobody here has, is
gone. That is done after a jump only: where retention has taken offsets away before they were read.
What nothing tells are numbers of a service's own that it makes of others (of events) where all behind them expired, too:
its coverage is by what it reads, so they are found once something follows.

What fills a hole is the record that the writer itself would have written for it, so whatever deals with gaps deals with
it, and it can wait in the state like any other.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec.structs import replace

from streamproc import wire
from streamproc.errors import Expired, Retryable, Unparseable
from streamproc.messages import Coverage, Outcome, Record, Sequence, Source, record_id
from streamproc.ranges import Ranges
from streamproc.runner.cover import HOUR_MS
from streamproc.runner.inputs import Input, Place
from streamproc.runner.speech import bare
from streamproc.stage import Each, Fold, Follow
from streamproc.topics import SEPARATOR, Topic, topic
from streamproc.wire import Entry, Stored

if TYPE_CHECKING:
    from streamproc.runner.runner import Runner

log = logging.getLogger(__name__)

SETTLE_S = 60.0
"""A landing's coverage may be readable before its outcomes are; by then those are, too."""
LOOK_EVERY_S = 1.0


class Holes:
    """Of one lease."""

    def __init__(self, runner: Runner) -> None:
        self.r = runner
        self._expected: dict[Sequence, int] = {}
        """The next number of each writer that lands in order."""
        read = () if isinstance(runner.stage, Follow) else map(topic, runner.stage.reads)
        self._topics = [t for t in read if t.record is not None and not t.compacted]
        self._looking: asyncio.Task[None] | None = None

    def forget(self, sequence: Sequence) -> None:
        """Nothing more will come of it."""
        self._expected.pop(sequence, None)

    # writers that land in order

    def before(self, given: Input, behind: Source) -> None:
        """Look for what is missing in front of a record that has been read. `behind`: its own revision."""
        r, sequence = self.r, given.sequence
        if sequence.service != sequence.root or not isinstance(r.stage, Each) or topic(given.at[0]).compacted:
            return  # its writer lands out of order; or a fold, which sees holes in its rows
        expected = self._expected.get(sequence)
        if expected is None:
            expected = r.book.guards.base(sequence)
        self._expected[sequence] = max(expected, given.until)
        for lo, hi in r.book.guards.untaken(sequence, expected, given.index) if given.index > expected else ():
            self._fill(given.at[0], sequence, lo, hi, behind, at_ms=given.place.start_ms)

    # all others: after a jump

    async def begin(self) -> None:
        """Before anything is read: look where the owner before has left a jump, or where the first records have expired."""
        r = self.r
        for t in self._topics:
            if t.name not in r.book.progress and (await r.shared.bus.span(t.name, r.lease.partition)).begin > 0:
                self.jumped()
        if r.book.jumped and self._looking is None:
            self._look()

    def jumped(self) -> None:
        """Offsets have expired unread. Noted in the state, before anything behind them is, until it has been looked into."""
        if self._topics:
            self.r.book.jump()
            self._look()

    def _look(self) -> None:
        if self._looking is not None:
            self._looking.cancel()  # it would look at what stood there before
        self._looking = self.r.spawn(self._find)

    async def _find(self) -> None:
        r = self.r
        while True:
            try:
                accounted = await self._accounted()
                await asyncio.sleep(SETTLE_S)
                for t in self._topics:
                    await self._read_up_to(t.name, (await r.shared.bus.span(t.name, r.lease.partition)).end)
            except Retryable as e:
                log.warning("%s[%d]: looking for what has expired: %s", r.service, r.lease.partition, e)
                await r.pause()
            else:
                break
        # From here on nothing is awaited: what fills the holes lands with the note that they have been looked for.
        for sequence, hours in accounted.items():
            self._missed(sequence, hours, accounted.get(sequence._replace(service=r.service), []))
        r.book.looked()

    async def _accounted(self) -> dict[Sequence, list[Stored]]:
        """All coverage of this partition that has landed by now, by sequence."""
        r = self.r
        table = await r.shared.bus.follow("coverage", r.lease.partition)
        await table.caught_up()
        found: dict[Sequence, list[Stored]] = {}
        for stored in table.under(b""):
            match stored.key.decode(errors="replace").split(SEPARATOR):
                case [stream, service, root, generation, _] if generation.isdecimal():
                    found.setdefault(Sequence(service, root, stream, int(generation)), []).append(stored)
        return found

    async def _read_up_to(self, name: str, end: int) -> None:
        """Back when every record below `end` has been read here. Not every offset has one, so the log is asked."""
        r, stood = self.r, -1
        while True:
            progress = r.book.progress.get(name)
            position = progress.next if progress else 0
            if position >= end or (position == stood and not await self._any_between(name, position, end)):
                return
            stood = position
            await asyncio.sleep(LOOK_EVERY_S)

    async def _any_between(self, name: str, position: int, end: int) -> bool:
        bus, partition = self.r.shared.bus, self.r.lease.partition
        while True:
            try:
                found = await bus.read(name, partition, position, max_records=1, max_bytes=1)
            except Expired as e:
                position = e.begin
            else:
                return bool(found) and found[0].offset < end

    def _missed(self, sequence: Sequence, stored: list[Stored], ours: list[Stored]) -> None:
        """Fill what a writer has accounted for and nobody here has. `ours`: what this service has, as the table says."""
        r = self.r
        hours = sorted(filter(None, map(_coverage, stored)), key=lambda c: c.hour)
        revisions = r.look.revisions(sequence.stream, sequence.generation)
        if not hours or not self._writes_here(sequence, revisions):
            return
        named = [s for s in revisions if r.service in s.services]
        if r.book.guards.get(sequence) is None and (not named or any(c.ended for c in map(_coverage, ours) if c)):
            return  # none of our business; or it was over here long ago, and the book has forgotten it
        in_hand = Ranges((index, index + 1) for of, index in r.in_hand if of == sequence)
        end_ms = max((end for c in hours for _, end in (*c.done, *c.failed, *c.skipped)), default=0)
        name = (self._written_by(sequence.service) or self._topics[0]).name
        for hour in hours:
            missing = [
                m for pair in hour.taken for p in r.book.guards.untaken(sequence, *pair) for m in in_hand.missing(*p)
            ]
            for lo, hi in missing:
                until = hi if hour.count is None else min(hi, hour.count)
                self._fill(name, sequence, lo, until, (named or revisions)[-1], at_ms=hour.hour * HOUR_MS)
                if hour.count is not None and lo <= hour.count < hi:
                    last = r.look.in_force(sequence.stream, sequence.generation, hour.count) or revisions[-1]
                    place = Place(sequence, hour.count, hi, last.revision, end_ms, end_ms, count=hour.count)
                    self._dispatch(name, place, last)

    def _writes_here(self, sequence: Sequence, revisions: list[Source]) -> bool:
        """A service's coverage is by the numbers it reads: it has written these, too, where it keeps them, or reads none.
        Who has been read under a root has done so; of all others their topic tells."""
        stage, (service, root) = self.r.stage, sequence[:2]
        if not revisions or sequence[:2] in self.r.book.guards.writers:
            return bool(revisions)
        written = self._written_by(service)
        if written is None or (written.own_numbers and service != root):
            return False
        return not isinstance(stage, Fold) or any(
            service in stage.joins(s) and stage.counts(s, root) for s in revisions
        )

    def _written_by(self, service: str) -> Topic | None:
        """Where a service writes its outcomes, of what is read here."""
        kind = service.partition(".")[0]
        return next((t for t in self._topics if kind in t.writers), None)

    # filling

    def _fill(self, name: str, sequence: Sequence, lo: int, hi: int, behind: Source, *, at_ms: int) -> None:
        """[lo, hi) has expired. Where no grid says when that was, it was about `at_ms`."""
        for a, b, source in self._by_revision(sequence, lo, hi, behind):
            if self.r.service in source.services:
                self.r.counts.expired += b - a
            grid = source.grid if source.grid.root == sequence.root else None
            start, end = (grid.starts_ms(a), grid.starts_ms(b)) if grid else (at_ms, at_ms)
            self._dispatch(name, Place(sequence, a, b, source.revision, start, end, None, "skipped", "expired"), source)

    def _dispatch(self, name: str, place: Place, source: Source) -> None:
        r, s = self.r, place.sequence
        outcome: Outcome = place.outcome
        record: Record = replace(
            bare(name, place, outcome=outcome, reason=place.reason, count=place.count),
            id=record_id(*s, place.index),
            service=s.service,
        )
        stored = _stored(wire.encode(record, partitions=r.shared.bus.partitions, time=r.speech.time()), r.book.aside())
        r.intake.dispatch(Input.of(stored, record), source)

    def _by_revision(self, sequence: Sequence, lo: int, hi: int, behind: Source) -> list[tuple[int, int, Source]]:
        """[lo, hi) cut where revisions begin, each part with the source in force there.

        Of numbers that lie on no grid only their records would tell; they get the revision of what came behind them.
        """
        if lo >= hi:
            return []
        if behind.grid.root != sequence.root:
            return [(lo, hi, behind)]
        revisions = self.r.look.revisions(sequence.stream, sequence.generation)
        cuts = sorted({lo, hi, *(s.from_index for s in revisions if lo < s.from_index < hi)})
        parts = []
        for a, b in pairwise(cuts):
            source = self.r.look.in_force(sequence.stream, sequence.generation, a)
            if source is not None:
                parts.append((a, b, source))
        return parts


def _coverage(stored: Stored) -> Coverage | None:
    try:
        found: Coverage = wire.decode(topic("coverage"), stored)
    except Unparseable as e:
        log.error("coverage[%d]@%d: %s; what it accounts for is not looked for", stored.partition, stored.offset, e)  # noqa: TRY400  # the cause says it all
        return None
    return found


def _stored(entry: Entry, offset: int) -> Stored:
    """As if it had been read; at an offset that the topic has not."""
    return Stored(entry.topic, entry.partition, entry.key, entry.value, entry.headers, offset=offset, time_ms=0)
