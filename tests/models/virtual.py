"""A server that lives in virtual time, as models do: slots, a line, and a knee beyond which everyone gets slower."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.sim.clock import run

T = TypeVar("T")


def virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs it to its end in no time."""
    return run(main())


class Server:
    """K slots; calls beyond wait in line. Beyond a knee each call takes longer the more are served with it."""

    def __init__(self, *, slots: int, knee: int, seconds: float, slope: float = 0.5, seed: int = 1) -> None:
        self.slots, self.knee, self.seconds, self.slope = slots, knee, seconds, slope
        self.random = random.Random(seed)
        self.served = 0
        self.line: list[asyncio.Future[None]] = []

    async def serve(self) -> None:
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
