"""Whether one service can do its work, and how far it is behind. The bus is asked, as a service without anything to do
hears nothing of one that is away.
"""

from __future__ import annotations

import asyncio
import logging

from streamproc.errors import Retryable
from streamproc.runner.service import Service

log = logging.getLogger(__name__)

ASKED = 0.5
"""Sessions between two questions."""
PATIENCE = 1.5
"""Sessions without an answer, or in one landing: two lost answers in turn. A broker that restarts is back sooner."""


class Health:
    """Of one service."""

    def __init__(self, service: Service, *, session_s: float) -> None:
        self.service = service
        self._asked_s, self._patience_s = ASKED * session_s, PATIENCE * session_s
        self._answered_s = _now_s()
        self._lag: int | None = None

    @property
    def known(self) -> bool:
        """Counts of what there is to do hold by now, and not only as of the last answer of a bus that is away."""
        return self.service.joined and self._silent_s <= self._patience_s

    @property
    def lag(self) -> int | None:
        """Records landed and not done, over the partitions held; None where it is unknown."""
        return self._lag if self.known else None

    @property
    def landing_s(self) -> float:
        """How long the oldest landing has been under way."""
        return max((r.landings.under_way_s for r in self.service.runners.values()), default=0.0)

    def why_not(self) -> str | None:
        """What keeps it from being ready; None where it is."""
        if not self.service.joined:
            return "is no member of its group"
        if not self.known:
            return f"the bus has not answered for {self._silent_s:.0f} s"
        if self.landing_s > self._patience_s:
            return f"a landing has been under way for {self.landing_s:.0f} s"
        if waiting := sorted(p for p, r in self.service.runners.items() if not r.working):
            return f"is not at work yet on partitions {', '.join(map(str, waiting))}"
        return None

    async def watch(self) -> None:
        while True:
            try:
                self._lag = await self._count()
            except Retryable as e:
                self._lag = None
                log.warning("%s: lag is unknown: %s", self.service.name, e)
            await asyncio.sleep(self._asked_s)

    async def _count(self) -> int | None:
        service = self.service
        if not service.joined:  # its topics may not be there yet, and nobody takes it for ready
            self._answered_s = _now_s()
            return None
        if not service.runners:
            await self._end(service.stage.reads[0], 0)
        total = 0
        for partition, runner in list(service.runners.items()):
            for name in service.stage.reads:
                begin, end = await self._end(name, partition)
                progress = runner.book.progress.get(name)
                total += max(0, end - (progress.base if progress else begin))
        return total

    async def _end(self, topic: str, partition: int) -> tuple[int, int]:
        span = await self.service.bus.span(topic, partition)
        self._answered_s = _now_s()
        return span

    @property
    def _silent_s(self) -> float:
        return _now_s() - self._answered_s


def _now_s() -> float:
    return asyncio.get_running_loop().time()
