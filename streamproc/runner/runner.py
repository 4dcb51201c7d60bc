"""One lease at work: intake, dispatch by kind of stage, landing; until it is drained, wanted by another, lost or fenced.

A drain and a hand-over are one thing with two deadlines: nothing more is taken in, what is under way ends, it lands, and
only then the lease is released. So neither costs a call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from streamproc.bus.contract import Lease
from streamproc.errors import Fatal, Fenced, NotBegun, Rejected, Retryable
from streamproc.messages import Outcome, Record, Sequence, Source
from streamproc.runner.attempts import Rest
from streamproc.runner.book import Book
from streamproc.runner.each import EachWay
from streamproc.runner.ends import LOOK_EVERY_S, keep_s
from streamproc.runner.fold import FoldWay
from streamproc.runner.follow import FollowWay
from streamproc.runner.gone import Gone
from streamproc.runner.inputs import Input
from streamproc.runner.intake import Intake
from streamproc.runner.landing import Landings
from streamproc.runner.look import Look, Tables
from streamproc.runner.pace import Paced
from streamproc.runner.parking import Parking
from streamproc.runner.shared import Shared
from streamproc.runner.slots import Pauses
from streamproc.runner.speech import Speech, bare, parent_of
from streamproc.runner.tail import Tail
from streamproc.runner.tracing import Handling
from streamproc.runner.waits import Waits
from streamproc.stage import Each, Fold, Follow
from streamproc.wire import Entry, Stored

if TYPE_CHECKING:
    from streamproc.bus.claims import Claims

log = logging.getLogger(__name__)


REASON_CHARS = 1000


def _tame(text: str) -> str:
    """Fit for a record: bounded, and nothing in it that cannot be UTF-8."""
    return text[:REASON_CHARS].encode(errors="replace").decode()


class Way(Protocol):
    """How a kind of stage deals with its inputs."""

    @property
    def calling(self) -> bool:
        """Something is under way that a drain should wait for."""

    @property
    def idle(self) -> bool:
        """Nothing is under way, or stands in line to be."""

    @property
    def backlog(self) -> int:
        """Inputs admitted and not begun."""

    def admit(self, given: Input) -> None:
        """Take over an input that is new and ours."""

    def resume(self, given: Input) -> None:
        """Take over an input that was parked."""

    def passed_over(self, given: Input) -> None:
        """An input has been settled that was made under a revision that does not name the service."""

    @property
    def behind_ms(self) -> int:
        """Stream time read and not accounted for, of what it keeps to itself."""

    def stop(self) -> None:
        """Begin nothing any more."""


class Runner:
    """See the head of this file."""

    def __init__(self, shared: Shared, lease: Lease, *, claims: Claims | None = None) -> None:
        self.shared, self.lease, self.claims = shared, lease, claims
        self.service, self.stage = shared.service, shared.stage
        self.counts, self.now = shared.counts, shared.now
        self.speech = Speech(
            self.service,
            partitions=shared.bus.partitions,
            now=shared.now,
            rng=shared.rng,
            oversized=claims is not None and claims.takes_any_size,
        )
        self.book = Book(
            self.service, version=self.stage.version, lease=lease, speak=self.speech.coverage, now=shared.now
        )
        self.waits = Waits(now=shared.now)
        self.in_hand: dict[tuple[Sequence, int], int] = {}
        """(sequence, index) handed out and without outcome → start_ms."""
        self.working = False
        self.eased = asyncio.Event()
        """Something got out of the way of intake."""
        self.draining = asyncio.Event()
        self._finish_s = shared.bounds.drain_s
        """What calls in flight get once it is draining."""
        self.pauses = Pauses()
        self.landings = Landings(self)
        self.parking = Parking(self)
        self.intake = Intake(self)
        self.tasks: asyncio.TaskGroup
        self._spawned: set[asyncio.Task[Any]] = set()
        self.look: Look
        self.way: Way

    async def run(self) -> None:
        """Until drained. Raises Fenced (in a group) when the lease is lost."""
        try:
            await self._at_work(await self._opened())
        except NotBegun as e:
            log.info("%s[%d]: %s", self.service, self.lease.partition, e)
        await self.lease.release()

    async def _at_work(self, tables: Tables) -> None:
        quiet = self.shared.load.listen(self.eased.set)
        self.look = self._look(tables)
        try:
            if isinstance(self.look, Paced):
                await Tail(self, self.look).adopt()
            async with asyncio.TaskGroup() as self.tasks:
                self.way = self._way()
                try:
                    await self._until_drained()
                except BaseException:
                    self.way.stop()  # see `_or_the_last`
                    raise
        finally:
            self.working = False
            quiet()
            tables.close()
            self.waits.close()
            self.shared.load.sub(self.intake.held_bytes)

    async def _until_drained(self) -> None:
        for job in (self.landings.run, self._until_lost, self._until_wanted, self._forget):
            self.spawn(job)
        try:
            await self.parking.resume()
        except NotBegun as e:
            log.info("%s[%d]: %s; it stays parked", self.service, self.lease.partition, e)
        else:
            self.working = True
            intake = self.spawn(self.intake.run)
            await self.draining.wait()
            intake.cancel()
        await self._finish()
        await self._flush()
        for task in self._spawned:
            task.cancel()

    def drain(self) -> None:
        """Stop intake, finish or give up within the deadline, land, release."""
        self.draining.set()
        self.eased.set()

    async def _opened(self) -> Tables:
        """A bus that is away is waited for: raised, it would end the calls of all our partitions for one that begins."""
        while True:
            try:
                return await Tables.open(self.shared.bus, self._tables(), self.lease.partition, self._heard)
            except Retryable as e:
                self.go_on_or_leave(e)
                log.warning("%s[%d]: %s", self.service, self.lease.partition, e)
                await self.pause()

    def go_on_or_leave(self, because: Retryable) -> None:
        """Raises NotBegun where a bus that is away is waited for no more, as we are to stop."""
        if self.draining.is_set():
            raise NotBegun(f"left before it could begin: {because}") from because

    def _tables(self) -> tuple[str, ...]:
        names = ["sources", *self.stage.tables]
        if isinstance(self.stage, Follow):
            names.append("coverage")
        return tuple(dict.fromkeys(names))

    def _look(self, tables: Tables) -> Look:
        if isinstance(self.stage, Follow):
            return Paced(tables, self.service, writes=self.stage.writes[0], roster=self.shared.roster)
        return Look(tables, self.service)

    def _heard(self, stored: Stored) -> None:
        self.waits.heard(stored)
        if look := getattr(self, "look", None):  # a table may speak while the others are still being opened
            look.heard(stored)

    def _way(self) -> Way:
        stage, look = self.stage, self.look
        if isinstance(stage, Each):
            return EachWay(self, stage)
        if isinstance(stage, Fold):
            return FoldWay(self, stage)
        if isinstance(stage, Follow) and isinstance(look, Paced):
            return FollowWay(self, stage, look)
        raise Fatal(f"{self.service}: {type(self.stage).__name__} is none of Each, Fold, Follow")

    async def _until_wanted(self) -> None:
        await self.lease.wanted.wait()
        log.debug("%s[%d]: another should have it; finishing what is under way", self.service, self.lease.partition)
        if not self.draining.is_set():
            self._finish_s = self.shared.bounds.hand_over_s
            self.counts.handed_over += 1
            self.drain()

    async def _until_lost(self) -> None:
        await self.lease.lost.wait()
        raise Fenced(f"{self.service}[{self.lease.partition}]: the lease is lost")

    async def _finish(self) -> None:
        """What is under way gets its time; what is only queued is left for the next owner."""
        self.way.stop()
        self.pauses.end()
        try:
            async with asyncio.timeout(self._finish_s):
                while self.way.calling:
                    self.eased.clear()
                    await self.eased.wait()
        except TimeoutError:
            self.counts.cut += 1
            log.warning(
                "%s[%d]: not all calls ended within %g s; the next owner makes them again",
                self.service,
                self.lease.partition,
                self._finish_s,
            )

    @property
    def quiet(self) -> bool:
        """Of what it has read nothing is under way, waits to land, or will be tried again by itself. What is parked for
        want of others may stay."""
        return (
            self.working
            and self.way.idle
            and not (self.way.backlog or self.book.dirty.is_set() or self.waits)
            and self.landings.under_way is None
            and all(run.over for run in self.book.runs.values())
        )

    @property
    def behind_ms(self) -> int:
        """Stream time between what was read and what has no outcome, of the stream where it is longest."""
        latest = self.intake.latest_ms
        waits = [latest.get((s.stream, s.generation), ms) - ms for (s, _), ms in self.in_hand.items()]
        return max([0, self.way.behind_ms if self.working else 0, *waits])

    async def _flush(self) -> None:
        """What is done lands; a bus that does not take it must not keep a process for ever that was told to go."""
        try:
            async with asyncio.timeout(self.shared.bounds.drain_s):
                while self.book.dirty.is_set() or self.landings.under_way:  # what ends meanwhile lands too
                    await self.landings.flush()
        except TimeoutError:
            log.error("%s[%d]: %d changes could not land", self.service, self.lease.partition, self.book.size)  # noqa: TRY400  # the count says it all

    async def ready(self, rest: Rest) -> None:
        """Back when a call may start: what it brings can land, and nobody can have taken the lease yet. Others, who may be
        able to land, use the slot meanwhile."""
        while self.landings.stuck or not self.lease.fresh():
            if self.lease.lost.is_set():
                raise Fenced(f"{self.service}[{self.lease.partition}]: the lease is lost")
            await rest(self.landings.next_end() if self.landings.stuck else asyncio.sleep(0.05))

    async def _or_the_last(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """An error is the end of the lease. Nothing is begun any more, not even in the moment before the others hear of it:
        a table may speak, and whoever waits for it would."""
        try:
            await work()
        except Exception:
            self.way.stop()
            raise

    # what is over

    async def _forget(self) -> None:
        """What has been over for long, here and there: see `ends`."""
        keep = keep_s(self.stage.reads)
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if forgotten := self.book.forget(keep):
                self.intake.forget(forgotten)
                self.look.forget({stream for (stream, *_), _ in forgotten})
            if isinstance(self.stage, Follow):
                await Gone(self).clear()

    # outcomes

    def find_source(self, given: Input) -> Source | None:
        if given.source is None:
            p = given.place
            given.source = self.look.find(p.stream, p.generation, p.revision)
        return given.source

    def hand_out(self, given: Input) -> None:
        self.in_hand[given.sequence, given.index] = given.place.start_ms
        self.intake.hold(given)

    def answer(self, given: Input, record: Any, outcome: Outcome) -> None:
        """The one outcome of an input, under its own number, in this service's name."""
        book, tracing = self.book, self.shared.tracing
        if isinstance(record, Entry):  # bare bytes
            book.emit(self.speech.check(record))
        else:
            owed = book.guards.untaken(given.sequence, given.index, given.until)
            if given.at in book.parked:  # its number was taken when it was parked
                owed = [(given.index, given.until)]
            for lo, hi in owed:
                entry = self.speech.say(record, root=given.place.root, index=lo, until=hi, parent=given.parent)
                book.emit(entry)
                if tracing:
                    handling = given.handling or Handling((given.parent,))
                    tracing.outcome(self.service, parent_of(entry), record, index=lo, handling=handling)
            book.cover(record, outcome, self.find_source(given))
            if outcome == "failed":
                self.shared.tell_said(record)
        self._count(outcome)
        self.settle(given)

    def _count(self, outcome: Outcome) -> None:
        self.counts.records_out += 1
        if outcome == "failed":
            self.counts.failed += 1
        elif outcome == "skipped":
            self.counts.skipped += 1

    def settle(self, given: Input) -> None:
        """Its number is taken and nothing is left to do for its offset."""
        if not self.book.guards.taken(given.sequence, given.index, given.until):
            self.book.take(given.sequence, given.index, given.until)
        self.book.done(given.at)
        self.book.unpark(given.at, given.sequence.stream)
        if given.place.count is not None and given.sequence.stream:
            s = given.sequence
            self.book.end((s.stream, s.generation, s.root), {s.service: given.place.count})
        self.in_hand.pop((given.sequence, given.index), None)
        self.intake.let_go(given)

    def pass_over(self, given: Input) -> None:
        self.counts.passed_over += 1
        if given.sequence.stream and not isinstance(given.record, Source):
            self.book.covers_from(given.place, given.until)
        self.settle(given)

    def without(self, given: Input, outcome: Outcome, reason: str, record: Record | None = None) -> None:
        """An outcome with nothing but its reason; `count` of `ended` is passed on."""
        if not given.sequence.stream:  # bare bytes, or what has no number: nothing follows from it
            self._count(outcome)
            self.settle(given)
            return
        if record is None:
            record = bare(
                self.stage.writes[0], given.place, outcome=outcome, reason=reason or None, count=given.place.count
            )
        self.answer(given, record, outcome)

    def bury(self, given: Input, error: Exception) -> None:
        """A dead letter for what failed for good; its outcome is another matter."""
        self.counts.dead += 1
        if given.stored is not None:
            self.book.emit(self.speech.dead(given.stored, error))

    def rejection(self, error: Exception) -> Rejected:
        """What no stage raises on purpose is a bug: told with its trace, and its input rejected, so that others go on."""
        if isinstance(error, Rejected):
            text = str(error)
            return error if text == _tame(text) else Rejected(_tame(text))
        self.counts.bugs += 1
        log.error("%s: %s is no error of ours", self.service, type(error).__name__, exc_info=error)
        return Rejected(_tame(f"{type(error).__name__}: {error}"))

    async def pause(self) -> None:
        """Before something of the bus or the store is tried again."""
        await asyncio.sleep(self.shared.circuit.backoff.wait_s(3, self.shared.rng))

    def spawn(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        task = self.tasks.create_task(self._or_the_last(work))
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        return task
