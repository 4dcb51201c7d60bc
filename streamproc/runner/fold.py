"""Fold: one row after the other per stream, in index order.

Every record is parked as it comes; what is in order leaves again, mostly before the landing that would have written it.
A row is what every joined service says of an index. Who says nothing is waited for, with two exceptions: a writer that
lands in order and is further already (its record has expired), and, for feeds, one that is `join_wait` of stream time late.

Which numbers this service owes rows for is a function of the table of sources where numbers lie on the grid. Elsewhere
(events are numbered 0, 1, 2, …) only the records say which revision they were made under: what a revision that does not
name the service has said is kept as taken by nobody, a sequence of its own, and lanes move past it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streamproc import messages
from streamproc.errors import Fatal, LeftOut, NotBegun, NotYet
from streamproc.messages import Outcome, Record, Source
from streamproc.runner.inputs import Input, Place
from streamproc.runner.lanes import Heads, Lane
from streamproc.runner.shared import kind_of
from streamproc.runner.slots import Slot
from streamproc.runner.speech import bare, parent_of
from streamproc.runner.state import NOTHING, Standing, raw
from streamproc.runner.tracing import Handling, Tracing
from streamproc.stage import Fold, Row
from streamproc.topics import topic
from streamproc.wire import Entry

if TYPE_CHECKING:
    from streamproc.runner.runner import Runner


class FoldWay:
    """The lanes of one lease."""

    def __init__(self, runner: Runner, stage: Fold) -> None:
        self.r, self.stage = runner, stage
        self._lanes: dict[tuple[str, int, str], Lane] = {}
        self._busy = self._calling = 0
        self._stopped = False

    @property
    def calling(self) -> bool:
        return self._calling > 0

    @property
    def idle(self) -> bool:
        return self._busy == 0

    @property
    def backlog(self) -> int:
        return 0  # parked records are bounded by pacing and join_wait; a cap here would deadlock a join

    def stop(self) -> None:
        self._stopped = True

    @property
    def behind_ms(self) -> int:
        starts = [
            lane.latest_ms - min(g.place.start_ms for line in lane.waiting.values() for g in line)
            for lane in self._lanes.values()
            if any(lane.waiting.values())
        ]
        return max(starts, default=0)

    def admit(self, given: Input) -> None:
        source = self.r.find_source(given)
        if source is None or not self._joined(given, source):
            self.r.pass_over(given)
            return
        lane = self._lane(given, source)
        if given.until <= lane.index:
            self.r.counts.late += 1  # its row went without it
            self.r.settle(given)
            self._rest(lane)
            return
        if given.at not in self.r.book.parked:
            self.r.parking.park(given, None)
        lane.add(given)
        heads = self._poke(lane)
        if heads is None or given not in heads.spoken.values():
            given.let_go()  # not its turn yet: large ones are read again when it is
        self.r.intake.let_go(given)

    def resume(self, given: Input) -> None:
        self.admit(given)

    def _joined(self, given: Input, source: Source) -> bool:
        speaker, root = given.sequence.service, given.sequence.root
        return speaker in self.stage.joins(source) and self.stage.counts(source, root)

    def passed_over(self, given: Input) -> None:
        source = self.r.find_source(given)
        if source is None or source.grid.root == given.place.root:
            return
        p = given.place
        nobody = messages.Sequence("", p.root, p.stream, p.generation)
        self.r.book.take(nobody, given.index, given.until)
        if lane := self._lanes.get((p.stream, p.generation, p.root)):
            self._poke(lane)

    def _lane(self, given: Input, source: Source) -> Lane:
        place = given.place
        key = (place.stream, place.generation, place.root)
        lane = self._lanes.get(key)
        if lane is None:
            standing = self.r.book.places.get(key)
            index = standing.index if standing else 0
            if not standing and source.grid.root == place.root:
                index = self.r.look.first_named(source, self.r.service)
                self.r.book.covers_from(given.place, index)
            lane = self._lanes[key] = Lane(*key, index)
        return lane

    def _poke(self, lane: Lane) -> Heads | None:
        """Begin to work on a lane that has a row; what is at hand for it is returned."""
        if lane.busy or lane.stopped or self._stopped or not (heads := self._heads(lane)):
            return None
        lane.busy = True
        self._busy += 1
        self.r.spawn(lambda: self._work(lane))
        return heads

    async def _work(self, lane: Lane) -> None:
        try:
            while not (self._told_to_stop() or lane.stopped) and (heads := self._heads(lane)):
                async with self.r.shared.slots.one(self.r.pauses, live=lane.live) as slot:
                    if not self._told_to_stop():  # while it stood in line
                        await self._row_in_turn(lane, heads, slot)
        finally:
            lane.busy = False
            self._busy -= 1
            self.r.eased.set()
        if not self._poke(lane):
            self._rest(lane)

    def _told_to_stop(self) -> bool:
        return self._stopped

    async def _row_in_turn(self, lane: Lane, heads: Heads, slot: Slot) -> None:
        self._calling += 1
        try:
            await self._fold(lane, heads, slot)
        except NotBegun:
            lane.stopped = True  # we are to stop: the next owner finds the row where it is
        finally:
            self._calling -= 1
            self.r.eased.set()

    def _rest(self, lane: Lane) -> None:
        """Where a lane stands is in the book: it is needed only while something waits or is at work."""
        if not lane.busy and not lane.stopped and not any(lane.waiting.values()):
            self._lanes.pop((lane.stream, lane.generation, lane.root), None)

    # rows

    def _heads(self, lane: Lane) -> Heads | None:
        """The next row, if everyone who is named has spoken, or is known never to."""
        while lane.beyond():
            spoken = lane.spoken()
            source = self._source(lane, spoken)
            if source is None:
                return None
            owed = lane.index if spoken else self._owed_from(lane, source)
            lane.live = source.live
            if owed == lane.index:
                return self._complete(lane, spoken, source)
            for given in lane.pass_to(owed):
                self.r.settle(given)
        return None

    def _source(self, lane: Lane, spoken: dict[str, Input]) -> Source | None:
        """The revision of the index in turn; off the grid, where nobody has spoken, of what stands behind it."""
        for given in spoken.values():
            return self.r.find_source(given)
        beyond = lane.beyond()
        behind = self.r.find_source(beyond[1]) if beyond else None
        if behind is not None and behind.grid.root != lane.root:
            return behind
        return self.r.look.in_force(lane.stream, lane.generation, lane.index)

    def _owed_from(self, lane: Lane, source: Source) -> int:
        """The first index, from the one in turn on, for which this service owes a row. Nobody has spoken here so far."""
        if source.grid.root != lane.root:
            return self.r.book.guards.base(lane.sequence(""), lane.index)
        if self.r.service in source.services:
            return lane.index
        named = [
            s.from_index
            for s in self.r.look.revisions(lane.stream, lane.generation)
            if s.from_index > lane.index and self.r.service in s.services
        ]
        beyond = lane.beyond()
        assert beyond is not None, "nobody asks of a lane where nothing waits"
        return min(named, default=beyond[0])

    def _alike_until(self, lane: Lane, source: Source, until: int) -> int:
        """How far what holds for the index in turn holds for those behind it: to the next revision, or what is not owed."""
        if source.grid.root != lane.root:
            owed = self.r.book.guards.untaken(lane.sequence(""), lane.index, until)
            return next((hi for lo, hi in owed if lo == lane.index), lane.index + 1)
        revisions = self.r.look.revisions(lane.stream, lane.generation)
        return min([until, *(s.from_index for s in revisions if s.from_index > lane.index)])

    def _complete(self, lane: Lane, spoken: dict[str, Input], source: Source) -> Heads | None:
        absent: dict[str, tuple[str, int]] = {}
        for service in self.stage.joins(source):
            if service not in spoken:
                found = self._absence(lane, service, spoken, source)
                if found is None:
                    return None
                absent[service] = found
        ends = [g.until for g in spoken.values()] + [until for _, until in absent.values()]
        return Heads(spoken, absent, min(ends)) if ends else None

    def _absence(self, lane: Lane, service: str, spoken: dict[str, Input], source: Source) -> tuple[str, int] | None:
        """Why nothing will come of a service for the index in turn, and up to where; None: wait."""
        further = lane.further(service)
        if service == lane.root and further is not None:
            return "expired", self._alike_until(lane, source, further)
        on_grid = source.grid.root == lane.root
        if source.live and source.join_wait_s is not None and (spoken or on_grid):
            here_ms = source.grid.starts_ms(lane.index) if on_grid else min(g.place.start_ms for g in spoken.values())
            if lane.latest_ms - here_ms >= source.join_wait_s * 1000:
                return "late", lane.index + 1
        return None

    def _row(self, lane: Lane, heads: Heads, source: Source) -> Row:
        narrow = min(heads.spoken.values(), key=lambda g: g.until - g.index, default=None)
        index, until = lane.index, heads.until
        p = narrow.place if narrow else self._where_nobody_spoke(lane, until, source)
        start_ms, end_ms = p.start_ms, p.end_ms
        if narrow is None or (narrow.index, narrow.until) != (index, until):
            grid = source.grid if source.grid.root == lane.root else None
            if grid:
                start_ms, end_ms = grid.starts_ms(index), grid.starts_ms(until)
        of: dict[str, Record] = {}
        for service in sorted([*heads.spoken, *heads.absent]):
            if given := heads.spoken.get(service):
                of[service] = self._record(given)
            else:
                reason = heads.absent[service][0]
                place = Place(lane.sequence(service), index, until, source.revision, start_ms, end_ms, p.utc)
                of[service] = Record.of(place, service=service, outcome="skipped", reason=reason)
        return Row(lane.root, lane.stream, lane.generation, source.revision, index, until, start_ms, end_ms, p.utc, of)

    def _where_nobody_spoke(self, lane: Lane, until: int, source: Source) -> Place:
        """At the time of what stands behind it, where no grid tells."""
        beyond = lane.beyond()
        at_ms = beyond[1].place.start_ms if beyond else 0
        return Place(lane.sequence(""), lane.index, until, source.revision, at_ms, at_ms)

    # folding

    async def _fold(self, lane: Lane, heads: Heads, slot: Slot) -> None:
        r = self.r
        since = r.waits.moment()
        for given in heads.spoken.values():
            await r.parking.load(given)
        source = self._source(lane, heads.spoken)
        assert source is not None, "heads were made with it"
        row = self._row(lane, heads, source)
        standing = r.book.places.get((lane.stream, lane.generation, lane.root)) or Standing(lane.index, 0, NOTHING)
        outcome: Outcome = "done" if row.ended else row.outcome
        try:
            records, state = await r.shared.attempts.run(
                lambda: self._handle(heads, row, standing), ready=lambda: r.ready(slot.rest), rest=slot.rest
            )
            self._emit(lane, heads, row, standing, records, state, outcome)
        except NotYet as e:
            self._not_yet(lane, heads, row, standing, e, since)
        except LeftOut as e:
            records, state = self._otherwise(row, standing, "skipped", e.reason)
            self._emit(lane, heads, row, standing, records, state, "skipped")
        except (Fatal, NotBegun):
            raise
        except Exception as e:  # noqa: BLE001  # the runner's one place for what a fold may raise: see Runner.rejection
            rejection = r.rejection(e)
            r.shared.tell(kind_of(rejection), rejection)
            reason = str(rejection)
            for given in heads.spoken.values():
                if given.place.outcome == "done":
                    r.bury(given, rejection)
            records, state = self._otherwise(row, standing, "failed", reason)
            self._emit(lane, heads, row, standing, records, state, "failed")

    async def _handle(self, heads: Heads, row: Row, standing: Standing) -> tuple[Sequence[Record], Any]:
        if self.r.shared.tracing:
            heads.handling = heads.handling or Handling([g.parent for g in heads.spoken.values()])
            heads.handling.begins(self.r.now)
        return await self.stage.fold(row, self._state(standing), self.r.look)

    def _state(self, standing: Standing) -> Any:
        """Decoded for each attempt: one that failed may have changed what it was given."""
        return msgspec.msgpack.decode(standing.state, type=self.stage.State)

    def _otherwise(self, row: Row, standing: Standing, outcome: Outcome, reason: str) -> tuple[Sequence[Record], Any]:
        try:
            return self.stage.otherwise(row, self._state(standing), outcome, reason)
        except Exception as e:  # noqa: BLE001  # the runner's one place for what a stage may raise: see Runner.rejection
            self.r.rejection(e)
            return [], self._state(standing)

    def _record(self, given: Input) -> Record:
        if isinstance(given.record, Record):
            return given.record
        p = given.place  # it only moves time: its bytes were let go of, or expired while it was parked
        return bare(given.at[0], p, service=given.sequence.service, outcome=p.outcome, reason=p.reason, count=p.count)

    def _not_yet(self, lane: Lane, heads: Heads, row: Row, standing: Standing, missing: NotYet, since: int) -> None:
        r = self.r
        deadline_ms = standing.deadline_ms or round((r.now() + missing.within_s) * 1000)
        if r.now() * 1000 >= deadline_ms:
            if missing.goes_without:
                r.look.give_up(missing)
                r.waits.given_up(missing)
                return  # the row is still in turn, and is folded again
            records, state = self._otherwise(row, standing, "skipped", missing.reason)
            self._emit(lane, heads, row, standing, records, state, "skipped")
            return
        if standing.deadline_ms is None:
            waiting = Standing(lane.index, standing.number, standing.state, deadline_ms)
            r.book.fold(lane.stream, lane.generation, lane.root, waiting)
        lane.stopped = True

        def again() -> None:
            lane.stopped = False
            self._poke(lane)

        r.waits.wait(missing, since=since, deadline_ms=deadline_ms, again=again)

    def _emit(
        self,
        lane: Lane,
        heads: Heads,
        row: Row,
        standing: Standing,
        records: Sequence[Record],
        state: Any,
        outcome: Outcome,
    ) -> None:
        r, number = self.r, standing.number
        parent = next((g.parent for g in heads.spoken.values()), None)
        writes = topic(self.stage.writes[0])
        said: list[tuple[Record, Entry]] = []
        for record in records:
            sub = (f"{row.generation}.{self.stage.sub(record, number)}",) if writes.compacted else ()
            entry = r.speech.say(record, root=r.service, index=number, until=number + 1, parent=parent, sub=sub)
            said.append((record, entry))
            number += 1
        if row.ended:
            assert writes.record is not None, "a fold writes records"
            ended = writes.record.of(row, count=number, until_index=None)  # type: ignore[union-attr]  # coverage is no stage's to write
            sub = (f"{row.generation}.ended",) if writes.compacted else ()
            entry = r.speech.say(ended, root=r.service, index=number, until=number + 1, parent=parent, sub=sub)
            said.append((ended, entry))
        packed = raw(state)
        # Nothing above may be undone, nothing below may fail: from here on the row has happened.
        for record, entry in said:
            r.book.emit(entry)
            if getattr(record, "outcome", None) == "failed":
                r.shared.tell_said(record)
        if r.shared.tracing:
            self._trace(r.shared.tracing, heads, row, outcome, standing.number, said)
        r.counts.records_out += len(said)
        for reason, until in heads.absent.values():
            if reason == "late":
                r.counts.late += 1
            else:
                r.counts.expired += until - row.index
        r.counts.failed += outcome == "failed"
        r.counts.skipped += outcome == "skipped"
        r.book.fold(lane.stream, lane.generation, lane.root, Standing(heads.until, number, packed, None, row.ended))
        r.book.cover(row, outcome, self._source(lane, heads.spoken))
        for given in lane.pass_to(heads.until):
            r.settle(given)

    def _trace(
        self,
        tracing: Tracing,
        heads: Heads,
        row: Row,
        outcome: Outcome,
        number: int,
        said: Sequence[tuple[Record, Entry]],
    ) -> None:
        """A span for each record of a row; one for the row itself where it has none."""
        handling = heads.handling or Handling([g.parent for g in heads.spoken.values()])
        for index, (record, entry) in enumerate(said, number):
            tracing.outcome(self.r.service, parent_of(entry), record, index=index, handling=handling)
        if not said:
            identity = messages.record_id(self.r.service, row.root, row.stream, row.generation, row.index)
            below = self.r.speech.below(next(iter(handling.parents), None), identity)
            tracing.outcome(self.r.service, below, Record.of(row, outcome=outcome), index=row.index, handling=handling)
