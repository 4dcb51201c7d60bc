"""Each: every record by itself, many at once, in any order; those of feeds before those of files and replays."""

from __future__ import annotations

import asyncio
from inspect import iscoroutinefunction
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

from streamproc.errors import Fatal, LeftOut, NotBegun, NotYet, Retryable
from streamproc.messages import Record
from streamproc.runner.inputs import Input
from streamproc.runner.shared import kind_of
from streamproc.runner.slots import Slot
from streamproc.runner.tracing import Handling
from streamproc.stage import Each, Rounds
from streamproc.topics import topic
from streamproc.wire import Entry, Stored

if TYPE_CHECKING:
    from streamproc.runner.runner import Runner


Turn = tuple[bool, int, Input]
"""Whether it may wait for others, and its number among those that came."""


class EachWay:
    """Workers of one lease, as many as there is work for, up to the service's slots."""

    def __init__(self, runner: Runner, stage: Each) -> None:
        self.r, self.stage = runner, stage
        self._queue: asyncio.PriorityQueue[Turn] = asyncio.PriorityQueue()
        """Feeds first, then as they came. Bounded by intake: it asks for `backlog` before it reads."""
        self._number = count()
        self._workers = self._resting = self._calling = 0
        self._stopped = False
        self._plain = not iscoroutinefunction(stage.handle)

    @property
    def calling(self) -> bool:
        return self._calling > 0

    @property
    def idle(self) -> bool:
        return self._resting == self._workers

    @property
    def backlog(self) -> int:
        return self._queue.qsize()

    @property
    def behind_ms(self) -> int:
        return 0  # everything it has is in hand

    def admit(self, given: Input) -> None:
        if given.moves_only_time and given.sequence.stream:
            self.r.without(given, given.place.outcome, given.place.reason or "")
        else:
            if self._plain:
                self._at_once(given)
            else:
                self.r.hand_out(given)
                self._begin(given)

    def _at_once(self, given: Input) -> None:
        """Nothing to wait for: no slot, no worker. What turns out to be worth another try goes the long way."""
        since = self.r.waits.moment()
        self._begins(given)
        try:
            answer = self.stage.handle(given.record, self.r.look)
            self.r.answer(given, answer, "done" if isinstance(answer, Entry) else answer.outcome)
        except Retryable:
            self.r.hand_out(given)
            self._begin(given)
        except NotYet as e:
            self.r.hand_out(given)
            self._wait(given, e, since)
        except Fatal:
            raise
        except Exception as e:  # noqa: BLE001  # the runner's one place for what a handler may raise: see Runner.rejection
            self._give_up(given, e)

    @property
    def passes_bytes_through(self) -> bool:
        """Nothing is ever out: bare bytes, and a handler that does not wait."""
        return self._plain and all(topic(name).record is None for name in self.stage.reads)

    def pass_through(self, batch: list[Stored]) -> list[Stored]:
        """Bare bytes in the order of the log, without a guard: output and progress land together, so nothing is between.

        Returns those that must go the long way: from the first on that is to be tried again, or while one is out.
        """
        r, book, handle, look = self.r, self.r.book, self.stage.handle, self.r.look
        answers: list[Entry] = []
        through, limit = 0, r.speech.limit(self.stage.writes[0])
        for stored in batch if not book.anything_out else ():
            if not book.guards.taken_bare(
                stored.topic, stored.offset
            ):  # else by an earlier version of the stage, which did wait
                try:
                    answer = handle(stored, look)
                    if answer.size > limit:
                        r.speech.check(answer)
                    answers.append(answer)
                except (Retryable, NotYet):
                    break
                except Fatal:
                    raise
                except Exception as e:  # noqa: BLE001  # the runner's one place for what a handler may raise: see Runner.rejection
                    r.counts.dead += 1
                    answers.append(r.speech.dead(stored, r.rejection(e)))
            through += 1
        book.emit_all(answers)
        book.passed(batch[:through])
        r.counts.records_in += through
        r.counts.records_out += len(answers)
        return batch[through:]

    def passed_over(self, given: Input) -> None:
        """Nothing waits for it."""

    def resume(self, given: Input) -> None:
        if given.moves_only_time:
            self.r.without(given, given.place.outcome, given.place.reason or "")
        else:
            self._begin(given)

    def stop(self) -> None:
        self._stopped = True

    def _told_to_stop(self) -> bool:
        return self._stopped

    def _begin(self, given: Input) -> None:
        if self._stopped:
            return  # the next owner finds it where it is
        source = self.r.find_source(given) if given.sequence.stream else None
        self._queue.put_nowait((source is None or not source.live, next(self._number), given))
        if self._queue.qsize() > self._resting and self._workers < self.r.shared.bounds.calls:
            self._workers += 1
            self.r.spawn(self._work)
        elif self._queue.qsize() > self._resting:
            given.shelve()  # nobody has time for it so far

    async def _work(self) -> None:
        queue, slots = self._queue, self.r.shared.slots
        for turn in count(1):
            if self._told_to_stop():
                self._workers -= 1
                self.r.eased.set()
                return
            if queue.empty():
                self._resting += 1
                self.r.eased.set()
                may_wait, _, given = await queue.get()
                self._resting -= 1
            else:
                may_wait, _, given = queue.get_nowait()
            async with slots.one(self.r.pauses, live=not may_wait) as slot:
                if self._told_to_stop():  # while it stood in line: the next owner finds the input where it is
                    continue
                self._calling += 1
                try:
                    await self._one(given, slot)
                except asyncio.CancelledError:  # it waited to be tried again, and we are to stop
                    self._workers -= 1
                    raise
                finally:
                    self._calling -= 1
                    self.r.eased.set()
            if turn % 32 == 0:
                await asyncio.sleep(0)  # a handler that never waits must not keep the loop to itself

    async def _one(self, given: Input, slot: Slot) -> None:
        r = self.r
        since = r.waits.moment()
        try:
            await r.parking.load(given)
            if given.moves_only_time:  # expired while it waited
                r.without(given, given.place.outcome, given.place.reason or "")
                return
            answer = await r.shared.attempts.run(
                lambda: self._handle(given, slot), ready=lambda: r.ready(slot.rest), rest=slot.rest
            )
            r.answer(given, answer, "done" if isinstance(answer, Entry) else answer.outcome)
        except NotYet as e:
            self._wait(given, e, since)
        except NotBegun:
            return  # we are to stop: the next owner finds the input where it is
        except Fatal:
            raise
        except Exception as e:  # noqa: BLE001  # the runner's one place for what a handler may raise: see Runner.rejection
            self._give_up(given, e)

    def _begins(self, given: Input) -> None:
        if self.r.shared.tracing:
            given.handling = given.handling or Handling((given.parent,))
            given.handling.begins(self.r.now)

    async def _handle(self, given: Input, slot: Slot) -> Any:
        self._begins(given)
        if isinstance(self.stage, Rounds):
            return await self._rounds(given, self.stage, slot)
        answer = self.stage.handle(given.record, self.r.look)
        return answer if self._plain else await answer

    async def _rounds(self, given: Input, stage: Rounds, slot: Slot) -> Any:
        """From the round on that nobody has had an answer for."""
        while True:
            so_far = None if given.so_far is None else msgspec.msgpack.decode(given.so_far, type=stage.SoFar)
            answer = await stage.round(given.record, so_far, self.r.look)
            if isinstance(answer, Record):
                return answer
            self.r.parking.keep(given, answer)
            if self._told_to_stop():
                raise NotBegun(f"{self.r.service}: its next round is the next owner's")
            await self.r.ready(slot.rest)

    def _wait(self, given: Input, missing: NotYet, since: int) -> None:
        r = self.r
        deadline_ms = given.deadline_ms or round((r.now() + missing.within_s) * 1000)
        if r.now() * 1000 >= deadline_ms:
            if missing.goes_without:
                r.look.give_up(missing)
                r.waits.given_up(missing)
                self._begin(given)
                return
            r.without(given, "skipped", missing.reason, self._otherwise(given, "skipped", missing.reason))
            return
        r.parking.park(given, deadline_ms)
        r.parking.let_go(given)
        r.waits.wait(missing, since=since, deadline_ms=deadline_ms, again=lambda: self._begin(given))

    def _give_up(self, given: Input, error: Exception) -> None:
        r = self.r
        if isinstance(error, LeftOut):
            r.without(given, "skipped", error.reason, self._otherwise(given, "skipped", error.reason))
            return
        rejection = r.rejection(error)
        reason = str(rejection)
        r.shared.tell(kind_of(rejection), rejection)
        r.bury(given, rejection)
        r.without(given, "failed", reason, self._otherwise(given, "failed", reason))

    def _otherwise(self, given: Input, outcome: Any, reason: str) -> Record | None:
        if not given.sequence.stream or given.record is None:
            return None
        try:
            return self.stage.otherwise(given.record, outcome, reason)
        except Exception as e:  # noqa: BLE001  # the runner's one place for what a stage may raise: see Runner.rejection
            self.r.rejection(e)
            return None
