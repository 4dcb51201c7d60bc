"""Calls in flight, over all leases of a service: at most so many, handed out in the order they were asked for, feeds first.

One line in front of all leases is what keeps partitions fair: a lease asks for one slot per call and stands at the end
again for the next, so that none waits longer than one call of each other's. Files and replays have a line of their own, and
get what feeds leave.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Slots:
    """A semaphore that is cheap while there is room, hands over in order, and knows who waits."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.free = count
        self._feeds: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    @property
    def used(self) -> int:
        return self.count - self.free

    @property
    def contended(self) -> bool:
        return bool(self._feeds or self._others)

    def take_now(self) -> bool:
        """A slot, if there is one that nobody waits for."""
        if self.free and not self.contended:
            self.free -= 1
            return True
        return False

    async def take(self, *, live: bool) -> None:
        if self.take_now():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._feeds if live else self._others).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # handed over in the moment we were cancelled: pass it on
            raise

    def give(self) -> None:
        while line := self._feeds or self._others:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def one(self, pauses: Pauses, *, live: bool) -> Slot:
        return Slot(self, pauses, live=live)


class Pauses:
    """Who waits between two attempts, or for a slot to make the next, of one lease. Nothing of theirs is under way, so whoever stops sends them away and
    waits for none: in an outage all would be waited for in vain."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "this is called by a coroutine"
        self._tasks.add(task)
        if self._over:
            task.cancel()

    def __exit__(self, *_: object) -> None:
        if (task := asyncio.current_task()) is not None:
            self._tasks.discard(task)

    def end(self) -> None:
        """Whoever waits is cancelled, and whoever comes to wait."""
        self._over = True
        for task in self._tasks:
            task.cancel()


class Slot:
    """One slot, held between `async with` and its end, but for rests."""

    __slots__ = ("_held", "_live", "_pauses", "_slots")

    def __init__(self, slots: Slots, pauses: Pauses, *, live: bool) -> None:
        self._slots, self._pauses, self._live, self._held = slots, pauses, live, False

    async def __aenter__(self) -> Self:
        await self._slots.take(live=self._live)
        self._held = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give()

    async def rest(self, awaitable: Awaitable[T]) -> T:
        """Await something that is no call; others may use the slot meanwhile."""
        self._give()
        with self._pauses:
            answer = await awaitable
            await self._slots.take(live=self._live)
        self._held = True
        return answer

    def _give(self) -> None:
        if self._held:
            self._held = False
            self._slots.give()
