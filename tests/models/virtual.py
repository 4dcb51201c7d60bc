"""Time that passes only when nothing else is left to do, and a server that lives in it."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Instead of sleeping it turns the clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everyone waits, and nothing will ever happen")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs it to its end in no time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


class Server:
    """K slots; calls beyond wait in line. Beyond a knee each call takes longer the more are served with it."""

    def __init__(self, *, slots: int, knee: int, seconds: float, slope: float = 0.5, seed: int = 1) -> None:
        self.slots, self.knee, self.seconds, self.slope = slots, knee, seconds, slope
        self.random = random.Random(seed)
        self.served = self.waiting = 0
        self.gate = asyncio.Condition()
        self.line: list[asyncio.Future[None]] = []
        self.calls = 0

    async def serve(self) -> None:
        self.calls += 1
        if self.served >= self.slots:
            turn = asyncio.get_running_loop().create_future()
            self.line.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn in self.line:
                    self.line.remove(turn)
                elif turn.done() and not turn.cancelled():
                    self._leave()
                raise
        else:
            self.served += 1
        try:
            crowd = 1 + self.slope * max(0.0, self.served / self.knee - 1)
            await asyncio.sleep(self.seconds * crowd * self.random.lognormvariate(0, 0.25))
        finally:
            self._leave()

    def _leave(self) -> None:
        self.served -= 1
        while self.line and self.served < self.slots:
            turn = self.line.pop(0)
            if not turn.done():
                self.served += 1
                turn.set_result(None)
