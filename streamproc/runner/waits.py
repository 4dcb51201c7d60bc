"""Who waits for which key of which table, and until when by the wall clock."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from streamproc.errors import NotYet
from streamproc.wire import Stored

Key = tuple[str, str]

REMEMBERED = 4096
"""Keys last heard of. An attempt that began before all of these is made again, to be sure."""


class Waits:
    """Of one lease. `again` is called once: when the key is heard of, or when the deadline has come."""

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._now = now
        self._heard = 0
        self._heard_at: dict[Key, int] = {}
        """The last heard of last."""
        self._forgotten = 0
        """Up to when keys that were heard of are no longer remembered."""
        self._by_key: dict[Key, dict[int, Callable[[], None]]] = {}
        self._deadlines: list[tuple[int, int, Key]] = []
        self._ticket = self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._waiting

    def moment(self) -> int:
        """Taken before an attempt: what is heard of from here on may change its answer."""
        return self._heard

    def wait(self, missing: NotYet, *, since: int, deadline_ms: int, again: Callable[[], None]) -> None:
        key = (missing.topic, missing.key)
        if self._heard_at.get(key, 0) > since or self._forgotten > since:
            # It came while the attempt was under way, or may have.
            asyncio.get_running_loop().call_soon(again)
            return
        self._ticket += 1
        self._waiting += 1
        self._by_key.setdefault(key, {})[self._ticket] = again
        if len(self._deadlines) > 64 and len(self._deadlines) > 2 * len(self):  # most of them waited for what has come
            self._deadlines = [d for d in self._deadlines if d[1] in self._by_key.get(d[2], ())]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline_ms, self._ticket, key))
        if self._deadlines[0][1] == self._ticket:
            self._set_timer()

    def given_up(self, missing: NotYet) -> None:
        """One has waited in vain, and goes without; so do all who wait for the same."""
        self._go_on((missing.topic, missing.key))

    def heard(self, stored: Stored) -> None:
        self._heard += 1
        key = (stored.topic, stored.key.decode(errors="replace"))
        self._heard_at.pop(key, None)
        self._heard_at[key] = self._heard
        if len(self._heard_at) > REMEMBERED:
            self._forgotten = self._heard_at.pop(next(iter(self._heard_at)))
        self._go_on(key)

    def _go_on(self, key: Key) -> None:
        waiting = self._by_key.pop(key, {})
        self._waiting -= len(waiting)
        for again in waiting.values():
            again()

    def close(self) -> None:
        self._by_key.clear()
        if self._timer:
            self._timer.cancel()

    def _set_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        wait_s = self._deadlines[0][0] / 1000 - self._now()
        # Bounded, so that a wall clock that is set back or forth is noticed within the minute.
        self._timer = asyncio.get_running_loop().call_later(min(max(wait_s, 0.0), 60.0), self._expire)

    def _expire(self) -> None:
        self._timer = None
        now_ms = self._now() * 1000
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            _, ticket, key = heapq.heappop(self._deadlines)
            waiting = self._by_key.get(key, {})
            if again := waiting.pop(ticket, None):
                self._waiting -= 1
                again()
            if not waiting:
                self._by_key.pop(key, None)
        if self._deadlines:
            self._set_timer()
