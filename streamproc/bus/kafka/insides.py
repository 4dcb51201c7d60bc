"""What we use of aiokafka's insides, all of it. A contract test holds these names and shapes; nothing else may reach in.

Why at all: the public consumer reads one partition's backlog while others wait, throws read-ahead away at every
rebalance, jumps over expired offsets in silence, and drops the error of an offset fetch. So here are raw requests over
aiokafka's client (leaders, connections and retries are its own), its decoder of record batches, and its group
coordinator without the consumer around it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from aiokafka import errors
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.producer import sender
from aiokafka.protocol.admin import DeleteGroupsRequest, DescribeGroupsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from streamproc.bus.kafka.connections import Door, ended, unhurried
from streamproc.wire import Stored

__all__ = ["READ_UNCOMMITTED", "ConsumerProtocolMemberAssignment", "ConsumerProtocolMemberMetadata", "TopicPartition"]

LATEST, EARLIEST = -1, -2
RETRY_S = 0.05
T = TypeVar("T")

log = logging.getLogger(__name__)


def tune() -> None:
    """aiokafka waits 20 ms where the last transaction's markers are not written yet; they are, after 2. And it warns of
    every such thing: what matters is said in our words, so it is quiet unless somebody set its level."""
    sender.BACKOFF_OVERRIDE = 0.002
    logger = logging.getLogger("aiokafka")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)


def now_s() -> float:
    """Seconds that go on while the machine sleeps, so that a heartbeat from before is known to be old."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Fetched(NamedTuple):
    """What a broker says of one partition."""

    at: TopicPartition
    error: type[errors.BrokerResponseError]
    begin: int
    records: Batches | None
    """None where nothing came."""


class Batches(PartitionRecords):  # type: ignore[misc]  # aiokafka is not typed
    """Committed records of a stretch of one partition, decoded as they are taken. `end`: where the next fetch begins."""

    def __init__(self, at: TopicPartition, raw: bytes, aborted: list[tuple[int, int]] | None, offset: int) -> None:
        self.name = at.topic
        self.size = len(raw)
        self.end = offset
        look = MemoryRecords(raw)
        while look.has_next():
            self.end = max(self.end, look.next_batch().next_offset)
        super().__init__(at, MemoryRecords(raw), aborted, offset, None, None, True, READ_COMMITTED)

    def named(self, name: str) -> Batches:
        """The same, its records under this name of the topic."""
        self.name = name
        return self

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Stored:
        return Stored(
            topic=self.name,
            partition=tp.partition,
            key=record.key or b"",
            value=record.value,
            headers=tuple(record.headers),
            offset=record.offset,
            time_ms=record.timestamp,
        )

    def __iter__(self) -> Iterator[Stored]:
        return self


class Client:
    """Raw requests. All of them are retried while the cause may pass, within `within_s`; then aiokafka's error is raised."""

    def __init__(self, bootstrap: str, options: Mapping[str, Any], *, name: str, request_s: float) -> None:
        self._options = {**options, "client_id": name, "request_timeout_ms": round(request_s * 1000)}
        self.inner = AIOKafkaClient(bootstrap_servers=bootstrap, retry_backoff_ms=50, **self._options)
        self._door = Door(self.inner)
        self.leave = self._door.leave
        self._within_s = request_s
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._opening = unhurried(self.inner.bootstrap())
        try:
            await asyncio.shield(self._opening)
        except errors.KafkaConnectionError:
            await self._say_why()
            raise

    async def close(self) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening])
        await self._door.close()

    async def _say_why(self) -> None:
        """aiokafka logs why a bootstrap failed and raises something else: ask again, and let the cause out."""
        host, port, _ = self.inner.hosts[0]
        ours = {k: v for k, v in self._options.items() if k not in ("retry_backoff_ms",)}
        connection = AIOKafkaConnection(host, port, **ours)
        try:
            await connection.connect()
        finally:
            await ended(connection)

    async def persist(self, once: Callable[[], Awaitable[T]]) -> T:
        deadline = time.monotonic() + self._within_s
        while True:
            try:
                return await once()
            except errors.KafkaError as e:
                if not e.retriable or time.monotonic() > deadline:
                    raise
            await self.inner.force_metadata_update()
            await asyncio.sleep(RETRY_S)

    # topics

    async def topics(self) -> dict[str, int]:
        cluster = await self.inner.fetch_all_metadata()
        return {t: len(cluster.partitions_for_topic(t) or ()) for t in cluster.topics()}

    def brokers(self) -> int:
        return len(self.inner.cluster.brokers())

    async def watch(self, topic: str) -> int:
        """Keep metadata of the topic up to date from now on; its number of partitions, 0 where there is no such topic."""
        for pause_s in (0.0, 0.05, 0.2, 0.5):
            if (partitions := self.inner.cluster.partitions_for_topic(topic)) is not None:
                return len(partitions)
            # An update that was under way before the topic was added does not bring it; nor does a broker that has
            # not heard so far of what another process made a moment ago.
            await asyncio.sleep(pause_s)
            self.inner.add_topic(topic)
            await self.inner.force_metadata_update()
        return len(self.inner.cluster.partitions_for_topic(topic) or ())

    def leader(self, at: TopicPartition) -> int | None:
        """The broker to ask, as far as is known."""
        leader = self.inner.cluster.leader_for_partition(at)
        return None if leader in (None, -1) else int(leader)

    def refresh(self) -> Awaitable[bool]:
        """Ask who leads what."""
        return self.inner.force_metadata_update()  # type: ignore[no-any-return]

    async def _leaders(self, ats: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        by_node = defaultdict(list)
        for at in ats:
            if await self.watch(at.topic) <= at.partition:
                raise errors.UnknownTopicOrPartitionError(f"{at.topic}[{at.partition}]")
            if (node := self.leader(at)) is None:
                raise errors.LeaderNotAvailableError(f"{at.topic}[{at.partition}]")
            by_node[node].append(at)
        return by_node

    # partitions

    async def fetch(
        self,
        node: int,
        wanted: Mapping[TopicPartition, int],
        *,
        lane: str,
        bytes_each: int,
        bytes_all: int,
        wait_s: float,
    ) -> list[Fetched]:
        """One request to one broker: records from the offsets wanted on, in that order up to `bytes_all`, or none after
        `wait_s`.

        A broker answers one request of a connection at a time, so whoever waits for records has a connection of its own: a lane.
        """
        topics = [  # in the order asked for, a topic again and again where that is the order
            (topic, [(at.partition, wanted[at], bytes_each) for at in ats])
            for topic, ats in groupby(wanted, key=attrgetter("topic"))
        ]
        request = FetchRequest(round(wait_s * 1000), 1, bytes_all, READ_COMMITTED, topics)
        response = await self.inner.send(node, request, group=lane)
        if response.API_VERSION < 11:
            raise errors.IncompatibleBrokerVersion(f"fetch version {response.API_VERSION}")
        found = []
        for topic, partitions in response.topics:
            for partition, code, _, _, begin, aborted, _, raw in partitions:
                at = TopicPartition(topic, partition)
                records = Batches(at, raw, aborted, wanted[at]) if raw else None
                found.append(Fetched(at, errors.for_code(code), begin, records))
        return found

    async def fetch_one(self, at: TopicPartition, offset: int, *, size: int, lane: str, wait_s: float = 0) -> Fetched:
        async def once() -> Fetched:
            (node,) = await self._leaders([at])
            (found,) = await self.fetch(node, {at: offset}, lane=lane, bytes_each=size, bytes_all=size, wait_s=wait_s)
            if found.error not in (errors.NoError, errors.OffsetOutOfRangeError):
                raise found.error(f"{at.topic}[{at.partition}]")
            return found

        return await self.persist(once)

    async def offsets(
        self, wanted: Mapping[TopicPartition, int], *, isolation: int = READ_COMMITTED
    ) -> dict[TopicPartition, int]:
        """The first offset at or after a time in ms, -1 if there is none; or EARLIEST, or LATEST: the end of what is
        committed, or of everything, by the isolation."""

        async def once() -> dict[TopicPartition, int]:
            found = {}
            for node, ats in (await self._leaders(wanted)).items():
                topics = defaultdict(list)
                for at in ats:
                    topics[at.topic].append((at.partition, wanted[at]))
                response = await self.inner.send(node, OffsetRequest(-1, isolation, list(topics.items())))
                for topic, partitions in response.topics:
                    for partition, code, _, offset in partitions:
                        if (error := errors.for_code(code)) is not errors.NoError:
                            raise error(f"{topic}[{partition}]")
                        found[TopicPartition(topic, partition)] = offset
            return found

        return await self.persist(once)

    # groups

    async def committed(self, group: str, wanted: Mapping[str, Collection[int]] | None) -> dict[TopicPartition, int]:
        """Offsets committed by a group. One that is absent was never committed: errors, also that of the whole, are
        raised. `wanted` None: of everything that the group has."""

        async def once() -> dict[TopicPartition, int]:
            node = await self.inner.coordinator_lookup(CoordinationType.GROUP, group)
            topics = None if wanted is None else [(topic, list(ps)) for topic, ps in wanted.items()]
            request = OffsetFetchRequest(group, topics)
            response = await self.inner.send(node, request)
            if (error := errors.for_code(response.error_code)) is not errors.NoError:
                raise error(group)
            found = {}
            for topic, partitions in response.topics:
                for partition, offset, _, code in partitions:
                    if (error := errors.for_code(code)) is not errors.NoError:
                        raise error(f"{group}: {topic}[{partition}]")
                    if offset >= 0:
                        found[TopicPartition(topic, partition)] = offset
            return found

        return await self.persist(once)

    async def members(self, group: str) -> dict[str, list[TopicPartition]]:
        """Who is in a group, and what each was given; a group that is not there has nobody."""

        async def once() -> dict[str, list[TopicPartition]]:
            node = await self.inner.coordinator_lookup(CoordinationType.GROUP, group)
            response = await self.inner.send(node, DescribeGroupsRequest([group]))
            ((code, _, _, _, _, members, *_),) = response.groups
            if (error := errors.for_code(code)) is not errors.NoError:
                raise error(group)
            return {
                member: ConsumerProtocolMemberAssignment.decode(given).partitions() if given else []
                for member, _, _, _, given in members
            }

        return await self.persist(once)

    async def delete_group(self, group: str) -> None:
        """Its committed offsets go. NonEmptyGroup while somebody is in it; one that is not there is as good as deleted."""

        async def once() -> None:
            node = await self.inner.coordinator_lookup(CoordinationType.GROUP, group)
            response = await self.inner.send(node, DeleteGroupsRequest([group]))
            ((_, code),) = response.results
            if (error := errors.for_code(code)) not in (errors.NoError, errors.GroupIdNotFound):
                raise error(group)

        await self.persist(once)


class Group(GroupCoordinator):  # type: ignore[misc]  # aiokafka is not typed
    """aiokafka's group coordinator, which joins, heartbeats and hears who gets what; with a memory of its last heartbeat."""

    def __init__(
        self,
        client: Client,
        topics: Collection[str],
        listener: ConsumerRebalanceListener,
        *,
        group: str,
        assignor: Any,
        session_s: float,
    ) -> None:
        self.beat_s = float("-inf")
        """When the last heartbeat that was answered has been sent: the broker's session began no earlier."""
        self.state = SubscriptionState()
        self.state.register_fetch_waiters(set())
        self.state.subscribe(set(topics), listener)
        super().__init__(
            client.inner,
            self.state,
            group_id=group,
            session_timeout_ms=round(session_s * 1000),
            heartbeat_interval_ms=round(session_s * 100),
            rebalance_timeout_ms=round(session_s * 1000),
            retry_backoff_ms=50,
            enable_auto_commit=False,
            assignors=(assignor,),
            max_poll_interval_ms=2**31 - 1,  # nobody polls here: without this the group is left for idleness
        )

    async def assigned(self) -> None:
        """Back after the next assignment; raises what turns us away."""
        await self.state.wait_for_assignment()

    async def depart(self, *, within_s: float) -> None:
        """Leave the group, so that others need not wait; without a word where nobody listens: then the session ends."""
        try:
            async with asyncio.timeout(within_s):
                await self.close()
        except (TimeoutError, errors.KafkaError) as e:
            log.info("left group %s without its knowledge: %r", self.group_id, e)
            tasks = [self._coordination_task, self._heartbeat_task, self._commit_refresh_task]
            under_way = [task for task in tasks if task is not None]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    @property
    def leads(self) -> bool:
        """Whether this member spread the partitions last."""
        return self._group_subscription is not None

    def over(self) -> bool:
        """It has failed in a way that aiokafka did not foresee, and does nothing more."""
        return bool(self._coordination_task.done())

    async def settled(self) -> bool:
        """Whether the broker says, asked now, that our generation is the current one and nothing is being handed around."""
        generation = self.generation
        return (
            self.coordinator_id is not None
            and generation > 0
            and not self.state.reassignment_in_progress
            and await self._do_heartbeat()
            and not self._rejoin_needed_fut.done()
            and not self.state.reassignment_in_progress
            and self.generation == generation
        )

    async def _do_heartbeat(self) -> bool:
        sent_s = now_s()
        answered: bool = await super()._do_heartbeat()
        if answered:
            self.beat_s = max(self.beat_s, sent_s)
        return answered

    async def _do_rejoin_group(self, subscription: Any) -> bool:
        sent_s = now_s()
        joined: bool = await super()._do_rejoin_group(subscription)
        if joined:
            self.beat_s = max(self.beat_s, sent_s)
        return joined
