"""Follow: one run per stream of the newest version of its source.

The cursor belongs to stream and generation and outlives its run: a version that comes later goes on from it, also from
the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from streamproc.errors import Fatal, NotYet, Retryable, TooLarge
from streamproc.messages import Record, Source
from streamproc.runner.inputs import Input
from streamproc.runner.look import PATIENCE_S, source_key
from streamproc.runner.pace import Paced
from streamproc.runner.speech import bare, parent_of
from streamproc.runner.state import NOTHING, Run, raw
from streamproc.runner.tail import owed
from streamproc.runner.tracing import Handling
from streamproc.stage import Follow
from streamproc.wire import Entry, topic_of

if TYPE_CHECKING:
    from streamproc.runner.runner import Runner

log = logging.getLogger(__name__)


class FollowWay:
    """The runs of one lease."""

    def __init__(self, runner: Runner, stage: Follow, look: Paced) -> None:
        self.r, self.stage, self.look = runner, stage, look
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._alone: dict[str, asyncio.Lock] = {}
        """Two runs of one stream would both move its cursor."""
        self._after: dict[str, list[Input]] = {}
        """Another life of a stream waits until the one before, which was removed, has said its last. Not settled so far."""
        self._stopped = False
        for stream, run in self.r.book.runs.items():
            if not run.over:
                self._start(stream)

    @property
    def calling(self) -> bool:
        return False  # a run may be cut anywhere: what it has yielded lands, the rest is made again

    @property
    def idle(self) -> bool:
        return True

    @property
    def backlog(self) -> int:
        return 0

    def stop(self) -> None:
        self._stopped = True
        for task in self._tasks.values():
            task.cancel()

    @property
    def behind_ms(self) -> int:
        return 0  # it reads versions, not time

    def admit(self, given: Input) -> None:
        r, book = self.r, self.r.book
        assert isinstance(given.record, Source), "a Follow reads a table of sources"
        newest = given.record
        run = book.runs.get(newest.stream)
        if run and run.generation < newest.generation and self._is_ending(newest.stream, run):
            r.hand_out(given)
            self._after.setdefault(newest.stream, []).append(given)
            return
        r.settle(given)
        if run is None and self.look.over(newest.stream, newest.generation):
            book.end((newest.stream, newest.generation, r.service))  # forgotten, and to be forgotten once more
            return
        if run and (newest.generation, newest.revision) <= (run.generation, run.revision):
            return  # an older version, read again
        same = run is not None and run.generation == newest.generation
        cursor = run.cursor if run and same else NOTHING
        book.run(newest.stream, Run(newest.generation, newest.revision, cursor, over=False))
        self._start(newest.stream)

    def _is_ending(self, stream: str, run: Run) -> bool:
        source = self.r.look.find(stream, run.generation, run.revision)
        return not run.over and (source is None or source.state == "removed")  # None: read before the table heard of it

    def passed_over(self, given: Input) -> None:
        """Nothing waits for it."""

    def resume(self, given: Input) -> None:
        self.admit(given)

    def _start(self, stream: str) -> None:
        if self._stopped:
            return
        before = self._tasks.get(stream)
        if before is not None:
            before.cancel()
        self._tasks[stream] = self.r.spawn(lambda: self._run(stream))

    async def _run(self, stream: str) -> None:
        try:
            async with self._alone.setdefault(stream, asyncio.Lock()):
                await self._to_its_end(stream)
        finally:
            if self._tasks.get(stream) is asyncio.current_task():
                del self._tasks[stream], self._alone[stream]
                self.look.rest(stream)
        for given in self._after.pop(stream, ()):
            self.admit(given)

    async def _to_its_end(self, stream: str) -> None:
        failures = 0
        while not self.r.book.runs[stream].over:
            began = self.r.book.runs[stream]
            try:
                await self._once(stream, began)
            except Retryable as e:
                moved = self.r.book.runs[stream] is not began
                failures = 1 if moved else failures + 1
                log.warning("%s: %s: %s; going on from its cursor", self.r.service, stream, e)
                await asyncio.sleep(self.r.shared.circuit.backoff.wait_s(failures, self.r.shared.rng))
            except NotYet as e:
                await self._key(e)
            except Fatal:
                raise
            except Exception as e:  # noqa: BLE001  # the runner's one place for what a run may raise: see Runner.rejection
                self._give_up(stream, e)

    async def _once(self, stream: str, began: Run) -> None:
        r = self.r
        source = r.look.find(stream, began.generation, began.revision)
        if source is None:
            key = source_key(stream, began.generation, began.revision)
            raise NotYet("source-unknown", topic="sources", key=key, within_s=PATIENCE_S)
        cursor = self._cursor(began)
        async with aclosing(self.stage.run(source, cursor, self.look)) as steps:  # type: ignore[type-var]  # an async generator by contract
            began_s = r.now()
            async for records, cursor in steps:
                self._yielded(source, records, cursor, over=False, began_s=began_s)
                await self._landable()
                began_s = r.now()
        self._yielded(source, (), cursor, over=True)

    def _cursor(self, run: Run) -> Any:
        return None if run.cursor == NOTHING else msgspec.msgpack.decode(run.cursor, type=self.stage.Cursor)

    def _owed(self, source: Source, records: Sequence[Record]) -> list[Record]:
        """Of its own numbers, those that have no outcome yet: see `tail`. What it tells others of stays as it is."""
        own, others = list[Record](), list[Record]()
        for record in records:
            (own if topic_of(type(record)).name == self.stage.writes[0] else others).append(record)
        cover = self.r.book.covers.get((self.r.service, source.stream, source.generation))
        return [*others, *owed(cover, source, own)]

    def _said(self, record: Record) -> Entry:
        sub = (f"{record.generation}.{record.revision}",) if isinstance(record, Source) else ()
        return self.r.speech.say(
            record, root=self.r.service, index=record.index, until=record.until, parent=None, sub=sub
        )

    def _yielded(
        self, source: Source, records: Sequence[Record], cursor: Any, *, over: bool, began_s: float | None = None
    ) -> None:
        r = self.r
        entries = []
        records = self._owed(source, records)
        for i, record in enumerate(records):
            try:
                entries.append(self._said(record))
            except TooLarge as e:  # one record of many: its number fails, and the run goes on
                log.error("%s: %s: number %d fails: %s", r.service, source.stream, record.index, e)  # noqa: TRY400  # the cause says it all
                records[i] = bare(self.stage.writes[0], record, outcome="failed", reason="too-large")
                entries.append(self._said(records[i]))
        packed = raw(cursor)
        # Nothing above may be undone, nothing below may fail: from here on the step has happened.
        for entry, record in zip(entries, records, strict=True):
            r.book.emit(entry)
            if tracing := r.shared.tracing:
                tracing.outcome(
                    r.service, parent_of(entry), record, index=record.index, handling=Handling((), began_s, 1)
                )
            if topic_of(type(record)).name == self.stage.writes[0]:
                own = r.look.find(source.stream, source.generation, record.revision)  # a replay goes through many
                r.book.cover(msgspec.structs.replace(record, root=r.service), record.outcome, own or source)
        r.counts.records_out += len(entries)
        r.book.run(source.stream, Run(source.generation, source.revision, packed, over))

    async def _landable(self) -> None:
        """Back when what has been yielded and not landed is within bounds."""
        r, bounds = self.r, self.r.shared.bounds
        while r.book.size >= bounds.unlanded or r.book.output_bytes >= bounds.in_flight_bytes // 4:
            await r.landings.next_end()

    async def _key(self, missing: NotYet) -> None:
        came = asyncio.Event()
        r = self.r
        deadline_ms = round((r.now() + missing.within_s) * 1000)
        r.waits.wait(missing, since=r.waits.moment(), deadline_ms=deadline_ms, again=came.set)
        await came.wait()

    def _give_up(self, stream: str, error: Exception) -> None:
        r, run = self.r, self.r.book.runs[stream]
        rejection = r.rejection(error)
        reason = str(rejection)
        source = r.look.find(stream, run.generation, run.revision)
        stored = r.look.tables.stored("sources", source_key(stream, run.generation, run.revision))
        assert source is not None, "a run begins with its source"
        assert stored is not None, "and so with its bytes"
        log.error("%s: %s: %s", r.service, stream, reason)
        r.counts.dead += 1
        r.book.emit(r.speech.dead(stored, rejection))
        try:
            records, cursor = self.stage.otherwise(source, self._cursor(run), reason)
            self._yielded(source, records, cursor, over=True)
        except Exception as e:  # noqa: BLE001  # the runner's one place for what a stage may raise: see Runner.rejection
            r.rejection(e)
            r.book.run(stream, Run(run.generation, run.revision, run.cursor, over=True))
