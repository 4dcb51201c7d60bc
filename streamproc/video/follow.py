"""A feed as windows: it is read for ever, reconnected whenever it breaks, and what was missed is a counted gap.

Stream time is time since the feed was first followed, by the wall clock. It moves on while the feed is down: then each
step becomes a gap of its own, so that nobody behind us needs a timer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from fractions import Fraction
from random import Random

from streamproc.errors import Rejected, Retryable
from streamproc.messages import Source
from streamproc.video.address import Address
from streamproc.video.decode import Step, made, whole
from streamproc.video.jobs import Dropped, ReadFeed
from streamproc.video.keep import Keep
from streamproc.video.limits import Limits
from streamproc.video.tasks import ending_together
from streamproc.video.windows import Cut, Picture
from streamproc.video.workers import Workers

log = logging.getLogger(__name__)

PATIENCE_S = Fraction(5)
"""A window that has got no picture so long after its end is missing."""
QUEUE = 64
"""Pictures waiting for whoever takes windows. When it is full the worker waits, and the network's buffers fill."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next connection: doubling, with jitter, so that feeds do not come back at once."""

    first_s: float = 0.5
    most_s: float = 30

    def wait_s(self, failures: int, random: Random) -> float:
        return min(self.most_s, self.first_s * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1)


@dataclass(slots=True)
class Feed:
    """One feed that is followed, and what happened to it so far."""

    workers: Workers
    address: Address
    cut: Cut
    zero_s: float
    """When stream time was 0, by `clock`; `cut.began` is the same by the wall clock."""
    clock: Callable[[], float] = time.monotonic
    keep: Keep | None = None
    """Where it is recorded."""
    limits: Limits = field(default_factory=Limits)
    backoff: Backoff = field(default_factory=Backoff)
    random: Random = field(default_factory=Random)
    connections: int = 0
    jumps: int = 0
    _next_k: int = 0
    _last_s: float = field(init=False)
    """When a picture came last, or following began."""

    def __post_init__(self) -> None:
        self._last_s = self.clock()

    @property
    def silent_s(self) -> float:
        """How long no picture has come."""
        return self.clock() - self._last_s

    async def windows(self, source: Source, *, cursor: int | None = None) -> AsyncGenerator[Step]:
        """Windows and gaps from the cursor on, without end."""
        cut = self.cut
        begin = cut.first if cursor is None else cursor
        self._next_k = cut.samples(begin, begin + 1)[0]
        held: dict[int, Picture] = {}
        came: asyncio.Queue[Picture] = asyncio.Queue(QUEUE)
        async with ending_together() as tasks:
            reading = tasks.start(self._read(came))
            while not reading.done():  # it only ends by a mistake of ours, which must not look like a silent feed
                picture = await self._next(came, begin)
                if picture is None:
                    until = self._overdue(begin)
                else:
                    held[picture.chosen.k] = picture
                    until = whole(cut, picture.chosen.k)
                if until <= begin:
                    continue
                step = made(source, cut, begin, until, held.values(), None)
                begin = until
                oldest, _ = cut.samples(begin, begin + 1)
                held = {k: p for k, p in held.items() if k >= oldest}
                yield step
            reading.result()

    async def _next(self, came: asyncio.Queue[Picture], begin: int) -> Picture | None:
        """None when the window that is next has waited for long enough."""
        due_s = self.cut.start_s(begin) + self.cut.sampling.length_s + PATIENCE_S
        try:
            async with asyncio.timeout(max(0.0, float(due_s) - self._now_s)):
                return await came.get()
        except TimeoutError:
            return None

    def _overdue(self, begin: int) -> int:
        """The window behind the last that nothing will come for. One step, but where nobody followed for a while."""
        late_s = Fraction(self._now_s) - self.cut.sampling.length_s - PATIENCE_S
        return max(begin, self.cut.at(late_s)) + 1

    @property
    def _now_s(self) -> float:
        return self.clock() - self.zero_s

    async def _read(self, came: asyncio.Queue[Picture]) -> None:
        """Connections, one after the other."""
        failures = 0
        while True:
            self.connections += 1
            try:
                if await self._connection(came):
                    failures = 0
            except (Rejected, Retryable) as e:  # also what looks hopeless: a camera that reboots answers nonsense first
                log.warning("%s", e)
            await asyncio.sleep(self.backoff.wait_s(failures, self.random))
            failures += 1

    async def _connection(self, came: asyncio.Queue[Picture]) -> bool:
        """Until it drops; whether it brought anything."""
        brought = False
        job = ReadFeed(self.address, self.limits, self.cut, self.zero_s, self._next_k, self.keep)
        async with aclosing(self.workers.ask(job)) as parts:
            async for part in parts:
                if isinstance(part, Dropped):
                    self.jumps += part.jumps
                    log.warning("%s: %s", self.address.shown, part.why)
                    continue
                for picture in part:
                    brought, self._last_s = True, self.clock()
                    self._next_k = picture.chosen.k + 1
                    await came.put(picture)
        return brought
