"""Single pictures out of a file, by number: those around a moment that somebody wants to see again.

Workers decode exactly the frames wanted (`picking`). What cannot be had is tried again until a deadline, since a file may be
on a share that comes back; then it is `footage-unreachable`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from streamproc.errors import Rejected, Retryable
from streamproc.messages import Frame, Source
from streamproc.video import address
from streamproc.video.address import Address
from streamproc.video.jobs import Measure, Pick, Reach
from streamproc.video.keep import UNREACHABLE
from streamproc.video.limits import Limits
from streamproc.video.look import Look
from streamproc.video.workers import Workers

log = logging.getLogger(__name__)

KEPT: Final = 1024
"""Files whose reach is remembered."""

T = TypeVar("T")


class Files:
    """Footage of streams that are files: each is its own."""

    def __init__(
        self,
        workers: Workers,
        *,
        limits: Limits | None = None,
        secrets: Mapping[str, str] | None = None,
        within_s: float = 30.0,
        again_s: float = 1.0,
    ) -> None:
        self._workers, self._limits, self._secrets = workers, limits or Limits(), secrets
        self._within_s, self._again_s = within_s, again_s
        self._known: OrderedDict[tuple[str, int, str], Reach] = OrderedDict()

    async def reach(self, source: Source) -> Reach:
        key = (source.stream, source.generation, source.uri)
        if (known := self._known.get(key)) is None:
            job = Measure(self._address(source), self._limits)
            known = self._known[key] = await self._had(source, lambda: self._workers.one(job))
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return known

    async def numbered(self, source: Source, numbers: Sequence[int], *, longest: int | None) -> Sequence[Frame]:
        job = Pick(self._address(source), self._limits, frozenset(numbers), Look(longest))
        found: list[Frame] = await self._had(source, lambda: self._workers.one(job))
        return found

    async def timed(self, source: Source, times_s: Sequence[float], *, longest: int | None) -> Sequence[Frame]:
        """By the file's mean rate; who wants a frame exactly knows its number."""
        reach = await self.reach(source)
        numbers = [min(1 + round(t * reach.rate), reach.frames or 1) for t in times_s]
        return await self.numbered(source, numbers, longest=longest)

    def _address(self, source: Source) -> Address:
        if source.live:
            raise Rejected(UNREACHABLE)  # nobody recorded it
        return address.parse(source.uri, secrets=self._secrets)

    async def _had(self, source: Source, fetch: Callable[[], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._within_s
        while True:
            try:
                return await fetch()
            except (Rejected, Retryable) as e:
                if loop.time() + self._again_s > deadline:
                    log.warning("%s: its footage is out of reach: %s", source.stream, e)
                    raise Rejected(UNREACHABLE) from e
            await asyncio.sleep(self._again_s)
