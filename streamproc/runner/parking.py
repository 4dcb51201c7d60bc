"""Parking: records that wait in the state, let go of their bytes, and are taken up again, here or by the next owner.

What is parked counts as read: one that waits for an hour keeps no partition waiting.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from streamproc import wire
from streamproc.errors import Expired, Fatal, Retryable
from streamproc.messages import Outcome
from streamproc.runner.inputs import Input, Place
from streamproc.runner.state import At, Parked, kept
from streamproc.wire import Entry, Stored

if TYPE_CHECKING:
    from streamproc.runner.runner import Runner

log = logging.getLogger(__name__)


class Parking:
    """Of one lease."""

    def __init__(self, runner: Runner) -> None:
        self.r = runner

    # going

    def park(self, given: Input, deadline_ms: int | None) -> None:
        """It waits in the state from now on and counts as read."""
        given.deadline_ms = deadline_ms
        parked = self.r.book.parked.get(given.at)
        if parked is None or (parked.deadline_ms != deadline_ms and given.stored is not None):
            self._enter(given)

    def keep(self, given: Input, so_far: Any) -> None:
        """What is known after one of several calls: it lands, and whoever is next begins there."""
        given.so_far = kept(so_far)
        self._enter(given)

    def _enter(self, given: Input) -> None:
        book = self.r.book
        book.park(given.at, given.sequence.stream, given.parked())
        if not book.guards.taken(given.sequence, given.index, given.until):
            book.take(given.sequence, given.index, given.until)
            book.done(given.at)

    def let_go(self, given: Input) -> None:
        """Its turn is not now: free the bytes."""
        given.let_go()
        self.r.intake.let_go(given)

    # coming back

    async def resume(self) -> None:
        """What the owner before has parked. NotBegun where it cannot be had before we are to stop: then all stays parked."""
        waiting = [await self._unparked(at, parked) for at, parked in self.r.book]
        for given in waiting:  # all at once: what a way does with one may depend on which others wait
            self.r.hand_out(given)
        for given in waiting:
            self.r.intake.resume(given)

    async def load(self, given: Input) -> None:
        """The record in hand again where it was let go of. What cannot be had any more becomes what it is."""
        r = self.r
        if given.record is not None or given.moves_only_time:
            return
        stored = given.stored or await self._reread(given.at)
        if stored is None:
            r.counts.expired += 1
            _becomes(given, "skipped", "expired")
            return
        again, error = await r.intake.parse(stored)
        if error is not None:
            log.error("%s: %s[%d]@%d: %s", r.service, stored.topic, stored.partition, stored.offset, error)
            r.bury(again, error)
            _becomes(given, "failed", again.place.reason or "unparseable")
            return
        given.stored, given.record = again.stored, again.record

    async def _unparked(self, at: At, parked: Parked) -> Input:
        if parked.value is None:
            stored = await self._reread(at)
        else:
            name, offset = at
            partition, time_ms = self.r.lease.partition, parked.time_ms
            stored = Stored(name, partition, parked.key, parked.value, parked.headers, offset=offset, time_ms=time_ms)
        if stored is None:
            return self._gone(at, parked)
        given, _ = await self.r.intake.parse(stored)
        given.deadline_ms, given.so_far = parked.deadline_ms, parked.so_far
        given.let_go()
        return given

    def _gone(self, at: At, parked: Parked) -> Input:
        """It waited longer than its topic keeps records: its number is all that is left."""
        r, (name, offset) = self.r, at
        r.counts.expired += 1
        whose = wire.identify(Entry(name, r.lease.partition, parked.key, None, parked.headers))
        if whose is None:
            raise Fatal(f"{name}[{r.lease.partition}]@{offset}: parked without an id")
        sequence, index = whose
        place = Place(sequence, index, index + 1, *r.look.where(sequence, index), None, "skipped", "expired")
        return Input(at, sequence, index, index + 1, None, None, place)

    async def _reread(self, at: At) -> Stored | None:
        """A record's bytes once more, as they lie there; None where they have expired. A bus that is away is waited for,
        until we are to stop: NotBegun then."""
        r, (name, offset) = self.r, at
        while True:
            try:
                found = await r.shared.bus.read(name, r.lease.partition, offset, max_records=1, max_bytes=1)
            except Expired:
                return None
            except Retryable as e:
                r.go_on_or_leave(e)
                log.warning("%s: %s", r.service, e)
                await r.pause()
            else:
                return found[0] if found and found[0].offset == offset else None


def _becomes(given: Input, outcome: Outcome, reason: str) -> None:
    p = given.place
    given.place = Place(
        given.sequence, given.index, given.until, p.revision, p.start_ms, p.end_ms, p.utc, outcome, reason
    )
