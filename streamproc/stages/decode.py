"""Decode: every source as windows, numbered on its grid. Whatever happens to a file or a feed, each number leaves as a
window or within a counted gap, and `ended` follows the last one.

What a number is made under is a function of the table of sources: a run begins with the revision in force at its cursor
and changes over where another's numbers begin, grid and all. How pictures come out of files and feeds is `video`'s; how
far this may run ahead, `look`'s; what lands, the runner's.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, ClassVar
from zlib import crc32

import msgspec
from msgspec import Struct

from streamproc.errors import Misconfigured, Rejected, Retryable
from streamproc.messages import Grid, Source, Window
from streamproc.stage import Follow, Pace
from streamproc.stages.pacing import portions, room, room_behind
from streamproc.stages.revisions import holds_until
from streamproc.video import address
from streamproc.video.address import Address
from streamproc.video.choice import Every
from streamproc.video.decode import ATTEMPTS, decode
from streamproc.video.follow import Feed
from streamproc.video.jobs import SLICE_S, Glance
from streamproc.video.keep import Keep
from streamproc.video.lag import BLOCK, Lag, left_out
from streamproc.video.limits import Limits
from streamproc.video.recipe import grid_of, sampling_of
from streamproc.video.sources import Found
from streamproc.video.watched import SETTLED_S, Watched
from streamproc.video.windows import UNREADABLE, Cut, gap
from streamproc.video.workers import Workers

log = logging.getLogger(__name__)

PAUSED = "paused"
MARK = 8
"""Bytes by which a file is known again; a folder of a hundred thousand makes a cursor of a megabyte."""
LOOK_EVERY_S = 2.0
"""At a folder that is watched."""
UNREADABLE_S = 300.0
"""Since anybody has written to it, until a file of which nothing can be read is taken for what it is."""


class Cursor(Struct, frozen=True, array_like=True):
    """How far a stream has come."""

    index: int
    """The next number."""
    began_ms: int | None = None
    """Of a feed: when its stream time was 0, by the wall clock."""
    ended: bool = False
    taken: bytes = b""
    """Of a folder that is watched: marks of the videos that have become streams."""


Step = tuple[Sequence[Window | Source], Cursor]


class Decode(Follow):
    """`workers` decode files; each feed has one of its own, so that nobody waits for another."""

    reads, writes = ("sources",), ("windows",)
    Cursor: ClassVar[Any] = Cursor

    def __init__(
        self,
        workers: Workers,
        *,
        limits: Limits | None = None,
        slice_s: float = SLICE_S,
        secrets: Mapping[str, str] | None = None,
        settled_s: float = SETTLED_S,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        """`secrets` instead of the environment; `settled_s` of files in watched folders."""
        self._workers, self._limits, self._slice_s = workers, limits or Limits(), slice_s
        self._secrets, self._settled_s = secrets, settled_s
        self._now, self._monotonic, self._random = now, monotonic, random or Random()
        self._feeds: dict[str, Feed] = {}
        """Those that are followed now."""

    async def run(self, source: Source, cursor: Cursor | None, look: Pace) -> AsyncGenerator[Step]:
        at = cursor or Cursor(0)
        if at.ended or source.state == "paused":
            return
        if source.state == "removed":
            yield [_ended(source, at.index)], msgspec.structs.replace(at, ended=True)
            return
        while not at.ended:
            here = look.in_force(source.stream, source.generation, at.index) or source
            until = None  # the newest that is known holds for ever
            if here.revision < source.revision:
                until = holds_until(source, look, at.index, source.from_index)
            if until is None and here.state != "active":
                return  # the table is ahead of us; what it says begins a run of its own
            async with aclosing(self._stretch(here, at, until, look)) as steps:
                async for records, at in steps:
                    yield records, at

    def otherwise(self, source: Source, cursor: Cursor | None, reason: str) -> tuple[Sequence[Window], Cursor]:  # noqa: ARG002  # the reason is told by the dead letter
        """A file that cannot be read ends with a failed window, so that nobody takes it for complete. A feed has no end:
        it goes on when a revision says what it should have said."""
        at = cursor or Cursor(0)
        if source.live or at.ended:
            return [], at
        start_ms, end_ms = source.grid.starts_ms(at.index), source.grid.starts_ms(at.index + 1)
        lost = Window.of(source, index=at.index, start_ms=start_ms, end_ms=end_ms, outcome="failed", reason=UNREADABLE)
        return [lost, _ended(source, at.index + 1)], Cursor(at.index + 1, ended=True)

    def silent_s(self) -> Mapping[str, float]:
        return {stream: feed.silent_s for stream, feed in self._feeds.items()}

    async def _stretch(self, here: Source, at: Cursor, until: int | None, look: Pace) -> AsyncGenerator[Step]:
        """Windows of one revision: [at, until)."""
        try:
            cut = Cut.on(here.grid, sampling_of(here.task.get("sampling") or {}, here.grid))
            place = address.parse(here.uri, secrets=self._secrets)
            keep = Keep.parse(here.footage).of(here) if here.live and here.footage else None
            Lag.parse(here.lag)
        except Misconfigured as e:  # of one stream; the process has others
            raise Rejected(f"{here.stream}: {e}") from e
        if here.live and isinstance(cut.sampling.rule, Every):
            raise Rejected(
                f"{here.stream}: a feed has no first frame to count from: say sampling.fps, not sampling.every"
            )
        if place.is_file and await asyncio.to_thread(Path(place.target).is_dir):
            steps = self._folder(here, Path(place.target), at)
        elif here.live:
            steps = self._feed(here, cut, place, keep, at, until, look)
        else:
            steps = self._file(here, cut, place, at, until, look)
        async with aclosing(steps):
            async for step in steps:
                yield step

    def _file(
        self, here: Source, cut: Cut, place: Address, at: Cursor, until: int | None, look: Pace
    ) -> AsyncGenerator[Step]:
        steps = decode(self._workers, here, place, cut, cursor=at.index, limits=self._limits, slice_s=self._slice_s)
        return _paced(_before(until, here, cut, steps), here, look)

    async def _feed(
        self, here: Source, cut: Cut, place: Address, keep: Keep | None, at: Cursor, until: int | None, look: Pace
    ) -> AsyncGenerator[Step]:
        began_ms = self._begins_ms(here, cut) if at.began_ms is None else at.began_ms
        cut = replace(cut, began=datetime.fromtimestamp(began_ms / 1000, UTC))
        if here.state == PAUSED and until is not None:
            yield [gap(cut, here, at.index, until, PAUSED)], Cursor(until, began_ms)
            return
        since_s = self._now() - began_ms / 1000
        async with Workers(1) as worker:
            feed = Feed(
                worker,
                place,
                cut,
                zero_s=self._monotonic() - since_s,  # a wall clock that is set anew moves no feed that is being read
                clock=self._monotonic,
                keep=keep,
                limits=self._limits,
                random=self._random,
            )
            self._feeds[here.stream] = feed
            try:
                async with aclosing(_before(until, here, cut, feed.windows(here, cursor=at.index))) as steps:
                    async for records, index in steps:
                        yield [await _kept(r, here, look) for r in records], Cursor(index, began_ms)
            finally:
                if self._feeds.get(here.stream) is feed:  # a lease that came back may follow it again by now
                    del self._feeds[here.stream]

    async def _folder(self, here: Source, folder: Path, at: Cursor) -> AsyncGenerator[Step]:
        """No windows of its own: each video that has stopped growing there is a stream, under the task as it stands then.
        What has become one once does not again, whatever becomes of the file."""
        watched = Watched(folder, settled_s=self._settled_s, clock=self._monotonic)
        known = await asyncio.to_thread(_marks, at.taken)
        while True:
            try:
                found = await asyncio.to_thread(_unknown, watched, known)
            except Misconfigured as e:
                raise Rejected(f"{here.stream}: {e}") from e
            for one, mark in found:
                if not await self._whole(one):
                    watched.again(one)
                    continue
                known.add(mark)
                at = msgspec.structs.replace(at, taken=at.taken + mark)
                yield [await self._child(here, one)], at
            await asyncio.sleep(LOOK_EVERY_S)

    async def _whole(self, one: Found) -> bool:
        """Something of it can be read, or nobody has written to it for long. A copy may stall for longer than a file takes to
        settle, and the index of an MP4 comes last."""
        with suppress(OSError):  # gone meanwhile: decoding says so
            if self._now() - (await asyncio.to_thread(Path(one.uri).stat)).st_mtime > UNREADABLE_S:
                return True
        try:
            await self._workers.one(Glance(address.parse(one.uri), self._limits))
        except Rejected as e:
            log.warning("%s; looked at again, until nobody has written to it for %g s", e, UNREADABLE_S)
            return False
        except Retryable as e:
            log.warning("%s: %s", one.name, e)
        return True

    async def _child(self, folder: Source, one: Found) -> Source:
        grid = folder.grid
        sampling = folder.task.get("sampling") or {}
        if sampling.get("every") is not None:
            grid = await self._grid(sampling, one) or grid
        return msgspec.structs.replace(
            folder,
            stream=f"{folder.stream}/{one.name}",
            revision=0,
            index=0,
            uri=one.uri,
            live=False,
            from_index=0,
            grid=msgspec.structs.replace(grid, origin="0", first=0),
        )

    async def _grid(self, sampling: Mapping[str, Any], one: Found) -> Grid | None:
        """At the file's own rate; None where nobody can tell it. Decoding finds out what there is to read, and says so."""
        for _ in range(ATTEMPTS):
            try:
                return grid_of(sampling, await self._workers.one(Glance(address.parse(one.uri), self._limits)))
            except Rejected as e:
                log.warning("%s: %s", one.name, e)
                break
            except (
                Retryable
            ) as e:  # a decoder that dies of it each time must not keep the folder's other videos from us
                log.warning("%s: %s", one.name, e)
        return None

    def _begins_ms(self, source: Source, cut: Cut) -> int:
        """Of a new feed: now, and a part of a step that is the stream's own, so that feeds do not all burst together."""
        share = Fraction(crc32(source.stream.encode()), 2**32)
        return round(1000 * (Fraction(self._now()) + share * cut.sampling.step_s))


def _mark(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=MARK).digest()


def _marks(taken: bytes) -> set[bytes]:
    return {taken[i : i + MARK] for i in range(0, len(taken), MARK)}


def _unknown(watched: Watched, known: set[bytes]) -> list[tuple[Found, bytes]]:
    """New videos and their marks. Each run finds all of them again, a hundred thousand maybe, so this is no work for the loop."""
    marked = ((one, _mark(one.name)) for one in watched.look())
    return [(one, mark) for one, mark in marked if mark not in known]


async def _kept(window: Window, here: Source, look: Pace) -> Window:
    """A window of a feed; without its pictures where those who look at them are too far behind for its lag policy."""
    if here.lag == BLOCK or not window.frames:
        return window
    behind, step_s = await look.behind(here, window.index), float(Fraction(here.grid.step))
    return window if Lag.parse(here.lag).keeps(window.index, behind=behind, step_s=step_s) else left_out(window)


async def _before(
    until: int | None, here: Source, cut: Cut, steps: AsyncGenerator[tuple[list[Window], int]]
) -> AsyncGenerator[tuple[list[Window], int]]:
    """Steps as far as one revision goes; a gap that reaches beyond is cut there."""
    async with aclosing(steps):
        async for records, index in steps:
            if until is None or index < until:
                yield records, index
                continue
            yield [_cut_short(r, until, here, cut) for r in records if r.index < until], until
            return


def _cut_short(record: Window, until: int, here: Source, cut: Cut) -> Window:
    if record.until <= until or record.reason is None:
        return record
    return gap(cut, here, record.index, until, record.reason, record.outcome)


async def _paced(steps: AsyncGenerator[tuple[list[Window], int]], here: Source, look: Pace) -> AsyncGenerator[Step]:
    async with aclosing(steps):
        async for records, index in steps:
            for part in portions(here, records):
                await room(look, here, part)
                yield part, Cursor(index if part[-1] is records[-1] else part[-1].until, ended=part[-1].ended)
            if not any(record.ended for record in records):  # what is decoded before there is room is held until then
                await room_behind(look, here, index)


def _ended(source: Source, count: int) -> Window:
    """The record behind the last number, where no file says how far it goes."""
    at_ms = source.grid.starts_ms(count)
    return Window.of(source, index=count, start_ms=at_ms, end_ms=at_ms, count=count)
