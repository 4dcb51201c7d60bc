"""How far partitions reach as last seen, and who waits for more. On the loop; the looking is done by the reading thread.

Level-triggered: a wait compares offsets, so it does not matter which wake-up brought the news, or whether one was lost.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from streamproc.bus.embedded.reader import Reader
from streamproc.errors import Retryable

_LOOK = "SELECT (SELECT roster FROM bus), (SELECT json_group_array(json_array(tp, head)) FROM part WHERE tp IN (SELECT value FROM json_each(?)))"
_pairs = msgspec.json.Decoder(list[tuple[int, int]])


class News(NamedTuple):
    version: int
    roster: int
    heads: list[tuple[int, int]]


class Heads:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._version = -1
        self._unread = False
        """More is watched than was read at that version."""
        self._watched: Counter[int] = Counter()
        self._heads: dict[int, int] = {}
        self._waits: dict[int, set[asyncio.Event]] = {}
        self._roster = -1
        self._roster_heard: set[Callable[[], None]] = set()
        self._looking = self._again = False
        self._failure: BaseException | None = None

    # for those who read ---------------------------------------------------------------------------------------------

    def watch(self, tps: Iterable[int]) -> None:
        self._watched.update(tps)
        self._unread = True
        self.stir()

    def unwatch(self, tps: Iterable[int]) -> None:
        for tp in tps:
            self._tell(self._waits.get(tp, ()))  # who waits there for a lease now lost hears of that at once
            self._watched[tp] -= 1
            if not self._watched[tp]:
                del self._watched[tp]
                self._heads.pop(tp, None)

    def ahead(self, at: Mapping[int, int]) -> list[int]:
        """Those that reach beyond the offset given."""
        self.check()
        return [tp for tp, offset in at.items() if self._heads.get(tp, 0) > offset]

    async def beyond(self, at: Mapping[int, int], *, wait_s: float) -> None:
        """Back once one of them reaches beyond the offset given, or after wait_s."""
        if self.ahead(at):
            return
        event = asyncio.Event()
        for tp in at:
            self._waits.setdefault(tp, set()).add(event)
        try:
            async with asyncio.timeout(wait_s):
                await event.wait()
        except TimeoutError:
            return
        finally:
            for tp in at:
                self._waits[tp].discard(event)

    def on_roster(self, heard: Callable[[], None]) -> Callable[[], None]:
        self._roster_heard.add(heard)
        return lambda: self._roster_heard.discard(heard)

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # for those who know that there may be news ----------------------------------------------------------------------

    def stir(self) -> None:
        if self._failure is not None:
            return
        if self._looking:
            self._again = True
            return
        self._looking, self._again = True, False
        self._look().add_done_callback(self._seen)

    async def look(self) -> None:
        """Back once all that had landed when this was called is known."""
        try:
            self._take(await self._look())
        except Retryable:
            self._unread = True
            raise

    def _look(self) -> asyncio.Future[News | None]:
        version, watched = -1 if self._unread else self._version, "[" + ",".join(map(str, self._watched)) + "]"
        self._unread = False
        return self._reader.call(lambda db: _look(db, version, watched))

    def fail(self, failure: BaseException) -> None:
        """Nothing will come any more; whoever waits hears why."""
        self._failure = self._failure or failure
        self._tell([event for events in self._waits.values() for event in events])

    def _seen(self, future: asyncio.Future[News | None]) -> None:
        self._looking = False
        if future.cancelled():
            return
        failure = future.exception()
        if isinstance(failure, Retryable):  # the next poll looks again
            self._unread = True
            return
        if failure is not None:
            self.fail(failure)
            return
        self._take(future.result())
        if self._again:
            self.stir()

    def _take(self, news: News | None) -> None:
        if news is None:
            return
        self._version, roster, heads = news
        for tp, head in heads:
            if self._heads.get(tp) != head:
                self._heads[tp] = head
                self._tell(self._waits.get(tp, ()))
        if roster != self._roster:
            self._roster = roster
            for heard in list(self._roster_heard):
                heard()

    @staticmethod
    def _tell(events: Iterable[asyncio.Event]) -> None:
        for event in events:
            event.set()


def _look(db: sqlite3.Connection, version: int, watched: str) -> News | None:
    """None where nothing has changed. The version is read before the rows: the other way round a landing between is lost."""
    [[now]] = db.execute("PRAGMA data_version").fetchall()
    if now == version:
        return None
    [[roster, heads]] = db.execute(_LOOK, (watched,)).fetchall()
    return News(now, roster, _pairs.decode(heads))
