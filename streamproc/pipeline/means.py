"""What the stages of one process draw on: models behind endpoints, worker processes for pictures, footage.

openai's client is half a second of imports: it is loaded beside the loop, when the first model is added, and not at all
where there is none.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from streamproc.errors import Misconfigured, StreamprocError, Unreachable
from streamproc.models.budget import Budgets
from streamproc.models.desk import Record
from streamproc.models.pool import Pool
from streamproc.pipeline.replay_archive import Archive
from streamproc.pipeline.replay_footage import AnyFootage
from streamproc.video.workers import Workers

if TYPE_CHECKING:
    from streamproc.models.card import Served
    from streamproc.models.transport import AiohttpTransport


class Means:
    """Made by `means`."""

    def __init__(self, models: Pool, workers: Workers, stack: AsyncExitStack, *, environ: Mapping[str, str]) -> None:
        self.models, self.workers, self.footage = models, workers, AnyFootage(workers)
        self.archive: Archive
        """There once a process knows its bus."""
        self._stack, self._environ = stack, environ
        self._transport: AiohttpTransport | None = None
        self._observer = ""

    async def add(self, served: Sequence[Served]) -> None:
        """Models that stages may ask from now on. One without a URL is the observer, which is served here then."""
        if not served:
            return
        await _client_loaded()
        from streamproc.models.opening import model_of
        from streamproc.models.transport import AiohttpTransport

        if self._transport is None:
            self._transport = AiohttpTransport()
            await self._stack.enter_async_context(self._transport)
        transport = self._transport
        placed = [one if one.urls else replace(one, urls=(await self._built_in(),)) for one in served]
        self.models.add(*(model_of(one, environ=self._environ, transport=transport) for one in placed))

    async def _built_in(self) -> str:
        if not self._observer:
            from streamproc.models.observer import running  # a server's framework, which few runs need

            self._observer, _ = await self._stack.enter_async_context(running())
        return self._observer


@asynccontextmanager
async def means(
    served: Sequence[Served] = (),
    *,
    workers: Workers,
    environ: Mapping[str, str] = os.environ,
    record: Callable[[Record], None] = lambda _record: None,
    budgets: Budgets | None = None,
) -> AsyncIterator[Means]:
    """Open for as long as the context lasts; `workers` are the caller's. Who has something to do meanwhile adds the models
    by `Means.add`."""
    async with AsyncExitStack() as stack:
        pool = Pool([], record=record, budgets=budgets)
        stack.callback(pool.close)
        has = Means(pool, workers, stack, environ=environ)
        await has.add(served)
        yield has


async def _client_loaded() -> None:
    await asyncio.to_thread(import_module, "streamproc.models.opening")


async def reach(served: Sequence[Served], *, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Warnings about endpoints that are there in part; Unreachable where a model has none that answers."""
    if not served:
        return []
    await _client_loaded()
    from streamproc.models.endpoint import UNNAMED, ambiguous, endpoints
    from streamproc.models.transport import AiohttpTransport

    said: list[str] = []
    async with AiohttpTransport() as transport:
        for one in served:
            replicas = endpoints(one, environ=environ, transport=transport)
            found = await asyncio.gather(*(r.serves() for r in replicas), return_exceptions=True)
            for url, listed in zip(one.urls, found, strict=True):
                if one.model == UNNAMED and not isinstance(listed, BaseException) and (why := ambiguous(url, listed)):
                    raise Misconfigured(why)
            failures = [f for f in found if isinstance(f, BaseException)]
            for failure in failures:
                if not isinstance(failure, StreamprocError):
                    raise failure
            if failures and len(failures) == len(replicas):
                first = failures[0]
                if isinstance(first, Unreachable | Misconfigured):
                    raise first
                raise Unreachable(f"model '{one.name}'", str(first), remedy="Look at the log of its server") from first
            said += [f"one of {len(replicas)} replicas of {one.name} is away: {f}" for f in failures]
    return said
