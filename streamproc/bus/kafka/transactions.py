"""A transactional producer: everything given to it in one go is written, or nothing is. No retry, no decisions.

Opening one fences whoever went by the same id before. After any error it is of no more use: close it, open another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aiokafka import AIOKafkaProducer, errors

from streamproc.bus.kafka.connections import (
    CLOSE_S,
    Door,
    end,
    heard,
    quiet,
    unasked,
    undisturbed,
    unhurried,
)
from streamproc.bus.kafka.insides import TopicPartition
from streamproc.bus.kafka.mapping import mapped
from streamproc.errors import TooLarge
from streamproc.wire import Entry

log = logging.getLogger(__name__)

BATCH_BYTES = 2**19
"""Below any topic's limit, which is for whole batches; a record that is larger has a batch of its own."""

REQUEST_BYTES = 20 * 2**20


class Transactions:
    """One producer. `prefix` stands before each topic's name; `within_s` bounds opening, and each transaction."""

    def __init__(
        self, bootstrap: str, options: Mapping[str, Any], *, identity: str, name: str, prefix: str, within_s: float
    ) -> None:
        self._prefix, self._within_s = prefix, within_s
        self._opening: asyncio.Task[None] | None = None
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            client_id=name,
            transactional_id=identity,
            # An open transaction holds up readers of all its partitions: abandoned ones end soon, live ones sooner.
            transaction_timeout_ms=round(within_s * 1500),
            request_timeout_ms=round(within_s * 1000),
            max_batch_size=BATCH_BYTES,
            max_request_size=REQUEST_BYTES,
            retry_backoff_ms=5,
            **options,
        )
        self._door = Door(self._producer.client)
        quiet(self._producer)

    async def open(self) -> None:
        self._opening = unhurried(self._producer.start())
        async with asyncio.timeout(self._within_s):
            await asyncio.shield(self._opening)

    async def write(
        self, entries: Iterable[Entry], *, offsets: Mapping[TopicPartition, int] | None = None, group: str = ""
    ) -> dict[TopicPartition, int]:
        """All of it; where each partition's last batch begins. TooLarge: nothing of it, for sure. Any other error leaves open
        whether it was written."""
        async with asyncio.timeout(self._within_s):
            await self._producer.begin_transaction()
            unasked(self._producer)
            under_way = await self._send(entries)
            if offsets:
                under_way.append(self._producer.send_offsets_to_transaction(dict(offsets), group))
            # Every one is awaited: a batch that is refused fails its own future only, and a commit would go through.
            ends: list[Any] = await asyncio.gather(*under_way, return_exceptions=True)
            failed = [end for end in ends if isinstance(end, BaseException)]
            if not failed:
                await self._producer.commit_transaction()
                return {TopicPartition(end.topic, end.partition): end.offset for end in ends if end is not None}
            refused = next((r for e in failed if isinstance(r := mapped(e, "the broker"), TooLarge)), None)
            if refused is None:
                raise failed[0] if isinstance(failed[0], Exception) else errors.ProducerClosed()
            await self._producer.abort_transaction()
            raise refused

    async def close(self) -> None:
        """Its end, in bounded time; a transaction under way is left to whoever opens the next."""
        await undisturbed(self._close())

    async def _close(self) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening], timeout=CLOSE_S)
        await end(self._producer, self._door, self._opening)

    async def _send(self, entries: Iterable[Entry]) -> list[Any]:
        by_place: dict[tuple[str, int], list[Entry]] = defaultdict(list)
        for entry in entries:
            by_place[entry.topic, entry.partition].append(entry)
        sent: list[Any] = []
        for (topic, partition), there in by_place.items():
            for batch in self._batches(there):
                sent.append(await self._producer.send_batch(batch, self._prefix + topic, partition=partition))
                heard(sent[-1])
        return sent

    def _batches(self, entries: Iterable[Entry]) -> Iterator[Any]:
        batch = self._producer.create_batch()
        for entry in entries:
            if not _append(batch, entry):
                yield batch
                batch = self._producer.create_batch()
                _append(batch, entry)
        yield batch


def _append(batch: Any, entry: Entry) -> bool:
    """False where it does not fit any more; a batch that is empty takes any."""
    return batch.append(timestamp=None, key=entry.key, value=entry.value, headers=list(entry.headers)) is not None
