"""Kafka as a bus: what `bus/contract.py` promises, kept by transactions, a consumer group and compacted state topics."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

from aiokafka import errors

from streamproc.bus.contract import HAND_OVER_S, Span
from streamproc.bus.kafka import catalog
from streamproc.bus.kafka.insides import EARLIEST, LATEST, Client, TopicPartition, tune
from streamproc.bus.kafka.intake import MOST_BYTES, Feed
from streamproc.bus.kafka.mapping import at
from streamproc.bus.kafka.membership import KafkaMembership
from streamproc.bus.kafka.names import Names
from streamproc.bus.kafka.security import KafkaSecurity
from streamproc.bus.kafka.tables import KafkaTable, Tables
from streamproc.bus.kafka.transactions import Transactions
from streamproc.errors import Expired, Misconfigured, Rejected, Unreachable, UnseenEnd
from streamproc.topics import STATE, Topic, is_ours, state_topic, topic
from streamproc.wire import Entry, Stored

log = logging.getLogger(__name__)

REQUEST_S = 10.0
"""For any answer of a broker; those that are kept waiting on purpose come long before."""


class Kafka:
    def __init__(
        self,
        bootstrap: str,
        names: Names,
        security: KafkaSecurity,
        *,
        replication: int | None,
        session_s: float,
        landing_s: float,
    ) -> None:
        """Nothing is open yet: `await Kafka.open(…)`."""
        self.bootstrap, self.names = bootstrap, names
        self.partitions = 0
        self.session_s, self._landing_s = session_s, landing_s
        self._replication = replication
        self._options = security.options()
        self._name = f"streamproc-{socket.gethostname()}-{os.getpid()}"
        self.client = Client(bootstrap, self._options, name=self._name, request_s=REQUEST_S)
        self._tables = Tables(self.client)
        self._publishing = asyncio.Lock()
        self._publisher: Transactions | None = None
        self._there: set[str] = set()
        self._members: set[KafkaMembership] = set()

    @classmethod
    async def open(
        cls,
        bootstrap: str,
        *,
        prefix: str = "",
        security: KafkaSecurity | None = None,
        partitions: int | None = None,
        replication: int | None = None,
        session_s: float = 10.0,
        landing_s: float = 20.0,
    ) -> Self:
        """`partitions` None: as many as the deployment's topics have, 16 if there are none. `replication`: copies of topics made here; 3 where there are three brokers, else 1. `session_s`: how long a
        process may be silent before others take its partitions; brokers allow 6 to 1800 unless told. `landing_s`: for one
        transaction; later its end is unseen."""
        tune()
        bus = cls(
            bootstrap,
            Names(prefix),
            security or KafkaSecurity(),
            replication=replication,
            session_s=session_s,
            landing_s=landing_s,
        )
        try:
            with at(f"broker {bootstrap}"):
                await bus.client.open()
            there = await bus.topics()
            bus.partitions = catalog.agreed({name: there[name] for name in there if is_ours(name)}, partitions)
        except BaseException:
            await bus.client.close()
            raise
        return bus

    async def close(self) -> None:
        for member in list(self._members):  # a process that closes its bus works no more
            await member.exit()
        await self._tables.stop()
        if self._publisher is not None:
            await self._publisher.close()
            self._publisher = None
        await self.client.close()

    # topics

    async def create(self, topics: Sequence[Topic]) -> None:
        there = await self.topics()
        catalog.check(there, [t.name for t in topics], self.partitions)
        if missing := [t for t in topics if t.name not in there]:
            copies = self._replication or (3 if self.client.brokers() >= 3 else 1)
            await catalog.create(
                self.bootstrap, self._options, self.names, missing, partitions=self.partitions, replication=copies
            )
            for t in missing:
                await self._await(t.name)

    async def topics(self) -> dict[str, int]:
        with at(f"broker {self.bootstrap}"):
            found = await self.client.topics()
        return {name: count for full, count in found.items() if (name := self.names.ours(full)) is not None}

    async def require(self, name: str) -> None:
        """Unreachable, with what to do, where there is no such topic or it has another number of partitions."""
        if name in self._there:
            return
        with at(f"broker {self.bootstrap}"):
            count = await self.client.watch(self.names.topic(name))
        hop = f"topic {self.names.topic(name)}"
        if not count:
            raise Unreachable(hop, "there is no such topic", remedy="Run `streamproc topics create`.")
        if count != self.partitions:
            raise Unreachable(
                hop,
                f"it has {count} partitions, the deployment {self.partitions}",
                remedy="Set the number it has, or another topic prefix.",
            )
        self._there.add(name)

    async def _await(self, name: str) -> None:
        """A new topic is known to a broker a moment after it was made, and its leaders a moment later."""
        places = [self.names.at(name, p) for p in range(self.partitions)]
        with at(f"topic {name}"):
            async with asyncio.timeout(REQUEST_S):
                while True:
                    try:
                        await self.client.offsets(dict.fromkeys(places, LATEST))
                    except errors.UnknownTopicOrPartitionError:
                        await asyncio.sleep(0.02)
                    else:
                        return

    # writing

    def transactions(self, identity: str) -> Transactions:
        return Transactions(
            self.bootstrap,
            self._options,
            identity=identity,
            name=self._name,
            prefix=self.names.prefix,
            within_s=self._landing_s,
        )

    async def publish(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        for name in {entry.topic for entry in entries}:
            await self.require(name)
        async with self._publishing:
            publisher, self._publisher = self._publisher, None
            with at(f"broker {self.bootstrap}"):
                if publisher is None:
                    publisher = self.transactions(f"{self.names.prefix}publish.{uuid.uuid4()}")
                    try:
                        await publisher.open()
                    except BaseException:
                        await publisher.close()
                        raise
                try:
                    ends = await publisher.write(entries)
                except Rejected:
                    await publisher.close()
                    raise
                except Exception as e:
                    await publisher.close()
                    raise UnseenEnd(f"publishing: nobody saw whether it was written: {e}") from e
                except BaseException:
                    await publisher.close()
                    raise
            self._publisher = publisher
        await self._readable(ends)

    async def _readable(self, ends: Mapping[TopicPartition, int]) -> None:
        """A commit returns a moment before readers see it: whoever publishes and then reads should find it."""
        try:
            async with asyncio.timeout(REQUEST_S):
                while True:
                    readable = await self.client.offsets(dict.fromkeys(ends, LATEST))
                    if all(readable[place] > last for place, last in ends.items()):
                        return
                    await asyncio.sleep(0.002)
        except (errors.KafkaError, TimeoutError) as e:
            log.info("published, but not readable yet: %r", e)  # an older transaction is open, or a broker away

    # reading

    async def read(self, topic: str, partition: int, offset: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        await self.require(topic)
        place = self.names.at(topic, partition)
        feed = Feed(place, topic, offset, wake=_nothing, room=_nothing)
        with at(f"topic {place.topic}[{partition}]"):
            while True:
                found = await self.client.fetch_one(
                    place, feed.offset, size=min(max(max_bytes, 1), MOST_BYTES), lane="read"
                )
                if found.error is errors.OffsetOutOfRangeError:
                    span = await self.span(topic, partition)
                    if feed.offset < span.begin:
                        raise Expired(topic, partition, feed.offset, span.begin)
                    return []
                if found.records is None:
                    return []
                feed.add(found.records)
                if taken := feed.take(max_records=max_records, max_bytes=max_bytes):
                    return taken

    async def span(self, topic: str, partition: int) -> Span:
        await self.require(topic)
        place = self.names.at(topic, partition)
        with at(f"topic {place.topic}[{partition}]"):
            begin = (await self.client.offsets({place: EARLIEST}))[place]
            end = (await self.client.offsets({place: LATEST}))[place]
        return Span(begin, max(begin, end))

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        await self.require(topic)
        place = self.names.at(topic, partition)
        with at(f"topic {place.topic}[{partition}]"):
            found = (await self.client.offsets({place: max(0, time_ms)}))[place]
        end = (await self.span(topic, partition)).end
        return end if found < 0 else min(found, end)

    async def follow(self, topic: str, partition: int) -> KafkaTable:
        await self.require(topic)
        return await self._tables.follow(self.names.at(topic, partition), topic)

    def check_tables(self) -> None:
        """Raises what ended the following of any: work by what it said would be work by what was true once."""
        self._tables.check()

    # services

    @asynccontextmanager
    async def join(
        self,
        service: str,
        topics: Sequence[str],
        *,
        weights: Callable[[], Sequence[int]],
        hand_over_s: float = HAND_OVER_S,
    ) -> AsyncIterator[KafkaMembership]:
        for name in topics:
            await self.require(name)
        await self.create([state_topic(service), *(_dlq(name) for name in topics)])
        await self.require(state_topic(service).name)
        # A join waits for the others as long as a session lasts: its connection has to bear that.
        client = Client(self.bootstrap, self._options, name=self._name, request_s=self.session_s + REQUEST_S)
        member = KafkaMembership(self, service, tuple(topics), weights, client, hand_over_s=hand_over_s)
        self._members.add(member)
        try:
            await member.enter()
            yield member
        finally:
            await member.exit()
            self._members.discard(member)

    async def members(self, service: str) -> dict[str, list[int]]:
        group = self.names.group(service)
        with at(f"consumer group {group}"):
            found = await self.client.members(group)
        return {member: sorted({place.partition for place in places}) for member, places in found.items()}

    async def progress(self, service: str) -> dict[tuple[str, int], int]:
        group = self.names.group(service)
        with at(f"offsets of group {group}"):
            found = await self.client.committed(group, None)
        return {
            (name, place.partition): offset
            for place, offset in found.items()
            if (name := self.names.ours(place.topic)) is not None
        }

    async def services(self) -> list[str]:
        return sorted(name.removeprefix(STATE) for name in await self.topics() if name.startswith(STATE))

    async def forget(self, service: str) -> None:
        state = state_topic(service).name
        if working := await self.members(service):
            raise Misconfigured(f"{service} is at work ({', '.join(working)}): end it first")
        # Offsets first: with them and without state a service would know that it has lost its state, and refuse to work.
        group = self.names.group(service)
        with at(f"consumer group {group}"):
            await self.client.delete_group(group)
        self._there.discard(state)
        if state in await self.topics():
            await catalog.delete(self.bootstrap, self._options, self.names.topic(state))
            await self._gone(state)

    async def _gone(self, name: str) -> None:
        """Every broker hears of a deletion a moment later."""
        with at(f"topic {name}"):
            async with asyncio.timeout(REQUEST_S):
                while name in await self.topics():  # noqa: ASYNC110  # the broker is asked
                    await asyncio.sleep(0.02)

    async def trim(self) -> None:
        """A broker applies retention and compaction by itself."""


def _nothing() -> None:
    """Nobody waits for it."""


def _dlq(name: str) -> Topic:
    """Where a topic's failures go; also of one that only its owner knows (tests, bare bytes)."""
    if is_ours(name):
        return topic(name).dlq
    return Topic(name, "", None, "application/octet-stream", compacted=False, retention_hours=0, max_bytes=2**20).dlq
