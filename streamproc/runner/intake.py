"""Reading: fetch, parse, drop what has been taken, pass over what is not ours, hand the rest to its way.

Intake is what back-pressure holds up. It stops at any bound and goes on when something eases; it drops nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from streamproc import wire
from streamproc.errors import Expired, NotYet, Rejected, Retryable, Unparseable
from streamproc.messages import Record, Sequence, Source
from streamproc.runner.each import EachWay
from streamproc.runner.ends import Life
from streamproc.runner.holes import Holes
from streamproc.runner.inputs import Input, Place
from streamproc.runner.look import PATIENCE_S, source_key
from streamproc.runner.speech import bare
from streamproc.topics import topic
from streamproc.wire import Stored

if TYPE_CHECKING:
    from streamproc.runner.runner import Runner

log = logging.getLogger(__name__)

FETCH_WAIT_S = 0.5


class Intake:
    """Of one lease."""

    def __init__(self, runner: Runner) -> None:
        self.r = runner
        self.held_bytes = 0
        self._held: dict[int, int] = {}
        self.holes = Holes(runner)
        self.latest_ms: dict[tuple[str, int], int] = {}
        """Stream, generation → how far its time has been read."""

    async def run(self) -> None:
        bounds, way = self.r.shared.bounds, self.r.way
        await self._begin()
        through = way.pass_through if isinstance(way, EachWay) and way.passes_bytes_through else None
        while True:
            await self._room()
            try:
                batch = await self.r.lease.fetch(
                    max_records=bounds.batch, max_bytes=self.r.shared.load.share, wait_s=FETCH_WAIT_S
                )
            except Expired as e:
                self.r.counts.expired += e.begin - e.wanted
                self.holes.jumped()
                log.error("%s: %s; reading goes on at %d", self.r.service, e, e.begin)  # noqa: TRY400  # the cause says it all
                continue
            except Retryable as e:
                log.warning("%s[%d]: %s", self.r.service, self.r.lease.partition, e)
                await self.r.pause()
                continue
            if through is not None:
                batch = through(batch)
                await asyncio.sleep(0)  # nothing in it waits: others have their turn
            for stored in batch:
                await self._admit(stored)

    async def _begin(self) -> None:
        while True:
            try:
                await self.holes.begin()
            except Retryable as e:
                log.warning("%s[%d]: %s", self.r.service, self.r.lease.partition, e)
                await self.r.pause()
            else:
                return

    async def _room(self) -> None:
        """Back when all bounds allow another fetch."""
        r, bounds = self.r, self.r.shared.bounds
        while True:
            r.eased.clear()
            if not r.shared.circuit.takes_in:
                await r.shared.circuit.changed()
                continue
            ahead = max((p.next - p.base for p in r.book.progress.values()), default=0)
            if (
                r.way.backlog < max(bounds.batch, bounds.calls)
                and ahead < bounds.window
                and r.book.size < bounds.unlanded
                and not (r.shared.load.full and self.held_bytes)
            ):
                return
            await r.eased.wait()

    # one record

    async def _admit(self, stored: Stored) -> None:
        r = self.r
        r.counts.records_in += 1
        r.book.read(stored.topic, stored.offset)
        if stored.value is None and topic(stored.topic).compacted:  # a row of a table that has gone: see `gone`
            r.book.done((stored.topic, stored.offset))
            return
        given, error = await self.parse(stored)
        if self._again(given):
            r.counts.duplicate += 1
            r.book.done(given.at)
            r.book.again(given.sequence)
            return
        if error is not None:
            log.error("%s: %s[%d]@%d: %s", r.service, stored.topic, stored.partition, stored.offset, error)
            r.bury(given, error)
        life = (given.place.stream, given.place.generation)
        self.latest_ms[life] = max(self.latest_ms.get(life, 0), given.place.start_ms)
        if not given.sequence.stream:
            if error is None:
                r.way.admit(given)
            else:
                r.settle(given)  # nothing in it says whose number it is: the dead letter is all there can be
        elif isinstance(given.record, Source):
            given.source = given.record
            self.dispatch(given, given.record)
        elif (source := r.find_source(given)) is None:
            self.await_source(given)
        else:
            self.holes.before(given, source)
            self.dispatch(given, source)

    def _again(self, given: Input) -> bool:
        """Its number has been taken, or is in somebody's hands: a torn upstream, or read again after a takeover."""
        return (given.sequence, given.index) in self.r.in_hand or self.r.book.guards.taken(
            given.sequence, given.index, given.until
        )

    def dispatch(self, given: Input, source: Source) -> None:
        if self.r.service in source.services:
            self.r.way.admit(given)
        else:
            self._pass_over(given)

    def resume(self, given: Input) -> None:
        """What was parked, in this life or the one before: under its source by now, or waiting for it still."""
        source = given.record if isinstance(given.record, Source) else self.r.find_source(given)
        if source is None:
            self.await_source(given)
        elif isinstance(given.record, Source) or self.r.service in source.services:
            self.r.way.resume(given)
        else:
            self._pass_over(given)

    def _pass_over(self, given: Input) -> None:
        self.r.pass_over(given)
        self.r.way.passed_over(given)

    async def parse(self, stored: Stored) -> tuple[Input, Rejected | None]:
        """The input, and why it could not be parsed: then it is a failed one, or, if nothing tells its number, a bare one."""
        kind = topic(stored.topic)
        try:
            if self.r.claims and stored.header("claim"):
                stored = await self._checked_out(stored)
            return (Input.bare(stored) if kind.record is None else Input.of(stored, wire.decode(kind, stored))), None
        except Rejected as e:
            return self._unparseable(stored, e), e

    async def _checked_out(self, stored: Stored) -> Stored:
        """The payload behind a claim check; a store that is out of reach is waited for, nothing else can go on anyway."""
        assert self.r.claims is not None
        while True:
            try:
                return await self.r.claims.check_out(stored)
            except Retryable as e:
                log.warning("%s: %s", self.r.service, e)
                await self.r.pause()

    def _unparseable(self, stored: Stored, error: Rejected) -> Input:
        if topic(stored.topic).record is Source:
            return Input.bare(stored)  # the one before stays in force
        reason = "unparseable" if isinstance(error, Unparseable) else str(error)
        place: Record | Place | None = wire.envelope(topic(stored.topic), stored)
        if place is None and (whose := wire.identify(stored)):
            sequence, index = whose
            place = Place(sequence, index, index + 1, *self.r.look.where(sequence, index))
        if place is None:
            return Input.bare(stored)
        record = bare(
            stored.topic, place, service=place.sequence.service, outcome="failed", reason=reason, count=place.count
        )
        at = (stored.topic, stored.offset)
        return Input(at, record.sequence, record.index, record.until, stored, record, record, stored.size)

    def await_source(self, given: Input) -> None:
        """Not yet: this process has not heard of the revision it was made under."""
        r, p = self.r, given.place
        if given.deadline_ms is None:
            given.deadline_ms = round((r.now() + PATIENCE_S) * 1000)
        r.hand_out(given)
        if given.at not in r.book.parked:
            r.parking.park(given, given.deadline_ms)
        r.parking.let_go(given)
        key = source_key(p.stream, p.generation, p.revision)
        missing = NotYet("source-unknown", topic="sources", key=key, within_s=PATIENCE_S)

        def again() -> None:
            source = r.find_source(given)
            if source is not None:
                given.deadline_ms = None  # that was for the source; a handler's own patience begins now
                self.holes.before(given, source)
                self.resume(given)
            else:
                r.bury(given, missing)
                r.without(given, "failed", missing.reason)

        r.waits.wait(missing, since=r.waits.moment(), deadline_ms=given.deadline_ms, again=again)

    def forget(self, over: Iterable[tuple[Life, list[Sequence]]]) -> None:
        """Nothing more will come of these."""
        for (stream, generation, _), sequences in over:
            self.latest_ms.pop((stream, generation), None)
            for sequence in sequences:
                self.holes.forget(sequence)

    # bytes in hand

    def hold(self, given: Input) -> None:
        if id(given) in self._held:
            return
        self._held[id(given)] = given.size
        self.held_bytes += given.size
        self.r.shared.load.add(given.size)

    def let_go(self, given: Input) -> None:
        """Its bytes are no longer held."""
        size = self._held.pop(id(given), None)
        if size is not None:
            self.held_bytes -= size
            self.r.shared.load.sub(size)
        self.r.eased.set()
