"""How aiokafka's clients end: no connection outlives them, whatever the brokers do. No requests, no decisions.

aiokafka closes what is open at that moment, gently, for as long as that takes. Three things stay behind: a connection
that a request still under way opens a moment later, one that the broker has closed and that is replaced before our end
of it was, and one whose last bytes nobody takes. With `insides.py` this is all that reaches into aiokafka.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from aiokafka import errors

CLOSE_S = 2.0

log = logging.getLogger(__name__)


class Door:
    """Stands between a client and its connections; put there before the client opens any."""

    def __init__(self, client: Any) -> None:
        self._client, self._open = client, client._get_conn
        self._ends: dict[asyncio.Future[None], asyncio.WriteTransport] = {}
        """Of what was opened here and is not closed so far. Whoever gave up waiting for an end has cancelled it."""
        self.closed = False
        client._get_conn = self._get_conn

    async def _get_conn(self, node: Any, **how: Any) -> Any:
        """A connection, old or new; None where none can be had. Behind a closed door none is opened."""
        self._check()
        known = self._client._conns.get((node, how.get("group", 0)))
        if known is not None and not known.connected():
            known.close()  # the broker has closed it: now it would be replaced, and our end of it forgotten
        found = await self._open(node, **how)
        if found is not None and found is not known and found.connected():
            self._ends = {end: self._ends[end] for end in self._ends if not end.done() or end.cancelled()}
            self._ends[found._closed_fut] = found._writer.transport
            if self.closed:
                found.close()
        self._check()
        return found

    def _check(self) -> None:
        if self.closed:
            raise errors.KafkaError("the client is closed")

    async def close(self) -> None:
        """Close the client. Again does no harm."""
        self.closed = True
        self._client.force_metadata_update = self._no_news
        if (waited_for := self._client._md_update_fut) is not None and not waited_for.done():
            waited_for.set_result(False)
        syncing = self._client._sync_task
        self.slam()
        if syncing is not None:
            await asyncio.gather(syncing, return_exceptions=True)
        await self._closed(self._ends)

    def slam(self) -> None:
        """Close what there is by now and wait for nothing: behind a client that was closed while it still opened."""
        if self._client._sync_task is not None:
            self._client._sync_task.cancel()
        for conn in self._client._conns.values():
            conn.close()

    async def leave(self, lane: str) -> None:
        """Close the connections of a lane that nobody uses any more."""
        left = [self._client._conns.pop(at).close() for at in list(self._client._conns) if at[1] == lane]
        await self._closed({end: transport for end, transport in self._ends.items() if end in left})

    async def _closed(self, ends: dict[asyncio.Future[None], asyncio.WriteTransport]) -> None:
        if ends:
            _, open_ = await asyncio.wait(ends, timeout=CLOSE_S)
            for end in {*open_, *(end for end in ends if end.cancelled())}:
                log.info("a broker takes nothing any more: its connection is cut off")
                ends[end].abort()
        for _ in range(2):  # closing takes the loop another turn, and a caller's loop may end with this
            await asyncio.sleep(0)

    def _no_news(self) -> asyncio.Future[bool]:
        """For whoever asks for metadata: the task that would bring them has ended."""
        news: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        news.set_result(False)
        return news


def unhurried(opening: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task to be shielded: aiokafka, cancelled while it opens, leaves a connection open. Close when it has ended."""
    task = asyncio.create_task(opening)
    heard(task)  # whoever waits is told
    return task


async def undisturbed(closing: Coroutine[Any, Any, None]) -> None:
    """To its end, which is near, however often whoever waits for it is cancelled meanwhile: half closed, a connection would
    stay open for good."""
    task, cancelled = asyncio.create_task(closing), None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as e:
            cancelled = e
    if cancelled is not None:
        raise cancelled
    task.result()


async def ended(connection: Any) -> None:
    """Close a connection and see it closed: with TLS, goodbyes take their time, also from a broker that turned us away."""
    end = connection.close()
    if connection._protocol is not None:  # else it never came about
        await asyncio.wait([end], timeout=CLOSE_S)


def heard(future: asyncio.Future[Any]) -> None:
    """Its error is told elsewhere, or to nobody: without this the loop would log a traceback for it."""
    future.add_done_callback(lambda f: None if f.cancelled() else f.exception() and None)


class _Pending(set[Any]):
    """Batches under way. One that is put back after an error, and fails then, is taken out twice."""

    remove = set.discard

    def add(self, batch: Any) -> None:
        super().add(batch)
        heard(batch.future)


def quiet(producer: Any) -> None:
    """Its errors reach whoever writes with it, and not the loop's log too; before its first transaction."""
    producer._message_accumulator._pending_batches = _Pending()


def unasked(producer: Any) -> None:
    """The same for how a transaction ends, and batches that were never sent: whoever gives it up does not ask."""
    if (ending := producer._txn_manager.wait_for_transaction_end()) is not None:
        heard(ending)
    for batches in producer._message_accumulator._batches.values():
        for batch in batches:
            heard(batch.future)
            heard(batch._drain_waiter)


async def end(producer: Any, door: Door, opening: asyncio.Task[None] | None) -> None:
    """A producer's end, whether it has opened, is idle or hangs; in bounded time. Nothing is flushed: whoever ends one has
    seen all its transactions end, or leaves the last one to be aborted by the next of its name."""
    producer._closed = True
    unasked(producer)  # an error makes another future of it
    if opening is not None and not opening.done():
        opening.add_done_callback(lambda _: door.slam())
    sending = producer._sender.sender_task
    if sending is not None:
        sending.remove_done_callback(producer._sender._fail_all)  # nobody waits for its batches any more
        sending.cancel()
    await door.close()
    if sending is not None:  # it waits for requests under way: they end with their connections, and open no others
        await asyncio.wait([asyncio.gather(sending, return_exceptions=True)], timeout=CLOSE_S)
