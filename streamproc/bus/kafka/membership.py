"""One process's part in a service: in the consumer group, with the leases that come of it, and go to others when wanted.

A lease is taken when its partition has something to read, or something landed: one that never had anything costs
nothing, not even a producer. Until then its topics are watched by the same reading-ahead that would feed it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from aiokafka import errors

from streamproc.bus.kafka.group import Assignor, Claim, Listener
from streamproc.bus.kafka.insides import LATEST, Client, Group, now_s
from streamproc.bus.kafka.intake import Feed, Intake
from streamproc.bus.kafka.lease import KafkaLease
from streamproc.bus.kafka.mapping import at, mapped
from streamproc.errors import Fatal, Fenced, Retryable, Unreachable

if TYPE_CHECKING:
    from streamproc.bus.kafka.bus import Kafka

log = logging.getLogger(__name__)

RETRY_S = 0.5


class KafkaMembership:
    def __init__(
        self,
        bus: Kafka,
        service: str,
        topics: Sequence[str],
        weights: Callable[[], Sequence[int]],
        client: Client,
        *,
        hand_over_s: float,
    ) -> None:
        self.service, self.topics = service, topics
        self.names, self.client = bus.names, bus.client
        self.require, self.transactions, self.check_tables = bus.require, bus.transactions, bus.check_tables
        self._weights, self._group_client = weights, client
        self._session_s, self._hand_over_s = bus.session_s, hand_over_s
        self.intake = Intake(bus.client, lane=f"{service} {id(self)}")
        self._leases: dict[int, KafkaLease] = {}
        self._taking: dict[int, asyncio.Task[None]] = {}
        self._given: set[int] = set()
        self._wanted: set[int] = set()
        """Of what was given, what another member should have: it is let go of as soon as nothing is under way there."""
        self._since, self._member = 0, ""
        """The group's generation that gave them, and our name in it."""
        self._leaving = self._over = False
        self._unsaid = False
        """Something was let go of since the group last heard from us what we hold."""
        self._queue: asyncio.Queue[KafkaLease | BaseException | None] = asyncio.Queue()
        """Bounded by the partitions there are."""
        self._watching: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        """The watching, and the ends of leases that were lost."""
        self._assignor = Assignor(bus.partitions, claim=self._claim, weights=weights)
        self._group: Group | None = None

    # coming and going

    async def enter(self) -> None:
        """Back with partitions given, or none; raises what turns us away."""
        hop = f"consumer group {self.names.group(self.service)}"
        with at(hop):
            await self._group_client.open()
        self._group = Group(
            self._group_client,
            [self.names.topic(t) for t in self.topics],
            Listener(self._assigned, self._failed),
            group=self.names.group(self.service),
            assignor=self._assignor,
            session_s=self._session_s,
        )
        with at(hop):
            # Somebody who died keeps the others waiting until his session is over.
            async with asyncio.timeout(2 * self._session_s + 5):
                await self._group.assigned()
        self._watching = asyncio.create_task(self._watch(self._group), name=f"watch {self.service}")
        self._keep(self._watching)

    async def exit(self) -> None:
        """Leaves at once: producers first, then the group, so that nobody is given what still has a writer."""
        if self._over:
            return
        self._over = True
        self._end()
        for lease in self._leases.values():
            lease.lost.set()
        for task in (*self._taking.values(), *((self._watching,) if self._watching else ())):
            task.cancel()
        await asyncio.gather(*self._taking.values(), *self._tasks, return_exceptions=True)
        try:
            await asyncio.gather(*(lease.release() for lease in list(self._leases.values())))
        finally:
            await self.intake.stop()
            if self._group is not None:
                await self._group.depart(within_s=self._session_s)
            await self._group_client.close()

    async def leases(self) -> AsyncIterator[KafkaLease]:
        while (given := await self._queue.get()) is not None:
            if isinstance(given, BaseException):
                raise given
            if not given.lost.is_set():
                yield given
        self._queue.put_nowait(None)  # whoever asks again hears the same

    async def leave(self) -> None:
        self._end()
        self._let_go()  # others get at once what is not held here

    def _end(self) -> None:
        if not self._leaving:
            self._leaving = True
            for task in self._taking.values():
                task.cancel()
            self._queue.put_nowait(None)

    # as the group sees it

    def fresh(self) -> bool:
        return self._group is not None and now_s() - self._group.beat_s < self._session_s

    async def settled(self) -> None:
        """The broker's word, given after this call, that nothing is being handed around; in two sessions, or Unreachable."""
        assert self._group is not None
        try:
            async with asyncio.timeout(2 * self._session_s):
                while not await self._group.settled() or self._since != self._group.generation:  # noqa: ASYNC110  # the broker is asked
                    await asyncio.sleep(min(0.1, self._session_s / 10))
        except (TimeoutError, errors.KafkaError) as e:
            hop = f"consumer group {self.names.group(self.service)}"
            raise Unreachable(hop, "does not say who owns what", remedy="Are the brokers up?") from e

    def _claim(self) -> Claim:
        weights = list(self._weights())
        held = self._leases.keys() if self._leaving else self._given
        self._unsaid = False
        return Claim(sorted(held), self._since, weights, self._leaving, sorted(self._wanted.intersection(held)))

    def _assigned(self, given: set[int]) -> None:
        """Called by the coordinator. Kept: nothing, or wanted. Gone: lost. New: taken, when there is something to do."""
        assert self._group is not None
        # A member that was put out comes back under another name. Whatever it gets now, others may have had in between.
        stayed = self._group.member_id == self._member
        self._given, self._since, self._member = given, self._group.generation, self._group.member_id
        for p in self._leases.keys() - given if stayed else list(self._leases):
            self._leases.pop(p).lose(self._keep)
        for p in self._taking.keys() - given if stayed else list(self._taking):
            self._taking[p].cancel()
        self._wanted = self._assignor.wanted & given
        for p, lease in self._leases.items():
            (lease.wanted.set if p in self._wanted else lease.wanted.clear)()
        for p in self._wanted - self._leases.keys():
            if p in self._taking:
                self._taking[p].cancel()
            else:  # released since we claimed it
                self._given.discard(p)
                self._unsaid = True
        for p in given - self._wanted - self._leases.keys() - self._taking.keys():
            self._start_taking(p)
        if self._unsaid:
            self._let_go()

    def _start_taking(self, partition: int) -> None:
        if self._leaving:
            return
        self._taking[partition] = task = asyncio.create_task(
            self._take(partition), name=f"take {self.service}[{partition}]"
        )
        task.add_done_callback(lambda _: self._taken(partition))

    def _taken(self, partition: int) -> None:
        """The end of a taking. If it was cancelled: the partition is wanted, or came back meanwhile; else it is a lease."""
        self._taking.pop(partition, None)
        if partition not in self._given or partition in self._leases:
            return
        if partition in self._wanted:
            self._give(partition)
        else:
            self._start_taking(partition)

    async def given_back(self, lease: KafkaLease) -> None:
        if self._leases.get(lease.partition) is lease:
            self._give(lease.partition)

    def _give(self, partition: int) -> None:
        self._leases.pop(partition, None)
        self._given.discard(partition)
        self._let_go()

    def _give_overdue(self) -> None:
        """What was wanted, and whose holder did not hear or could not end: cut off, as by a fence."""
        for lease in [one for one in self._leases.values() if one.wanted.longer_than(self._hand_over_s)]:
            log.warning("%r: not released %g s after another was to have it", lease, self._hand_over_s)
            lease.lose(self._keep)
            self._give(lease.partition)

    def _let_go(self) -> None:
        """Let the group hear it. If it is just being spread by what we said before, it hears it again afterwards."""
        if self._group is not None and not self._over:
            self._unsaid = True
            self._group.request_rejoin()

    async def _watch(self, group: Group) -> None:
        """What the coordinator cannot tell by itself: errors, hand-overs that do not end, shares that have become uneven."""
        while True:
            await asyncio.sleep(max(RETRY_S, self._session_s / 4))
            self._give_overdue()
            try:
                group.check_errors()
            except errors.KafkaError as e:
                log.error("consumer group %s: %s", group.group_id, mapped(e, "the group"))  # noqa: TRY400  # said in our words
                if group.over():
                    self._failed(mapped(e, f"consumer group {group.group_id}"))
                    return
            if group.leads:
                if self._assignor.lopsided():
                    log.info("%s: streams have become uneven, spreading them anew", self.service)
                    group.request_rejoin()
            else:
                self._assignor.lead_no_more()

    def _failed(self, error: BaseException) -> None:
        self._queue.put_nowait(error)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._kept)

    def _kept(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    # taking

    async def _take(self, partition: int) -> None:
        """Wait for something to do, then take the lease; again and again while the brokers are away."""
        waiting: dict[str, Feed] = {}
        try:
            while True:
                try:
                    if not waiting:
                        waiting = await self._something_to_do(partition)
                    if not self.fresh():  # who slept since it was given may not fence whoever has it by now
                        await self.settled()
                    lease = KafkaLease(self, partition)
                    await lease.take(waiting)
                except (Retryable, Fenced) as e:  # fenced: somebody took it a moment ago, and the group says it is ours
                    log.warning("%s[%d]: %s; trying again", self.service, partition, e)
                    await asyncio.sleep(RETRY_S)
                except Fatal as e:
                    self._given.discard(partition)  # this process can do nothing with it: not again, not here
                    self._failed(e)
                    return
                else:
                    waiting = {}
                    self._leases[partition] = lease
                    self._queue.put_nowait(lease)
                    return
        except Exception as e:  # noqa: BLE001  # handed on, to whoever waits for leases
            self._given.discard(partition)
            self._failed(e)
        finally:
            for feed in waiting.values():
                self.intake.close(feed)

    async def _something_to_do(self, partition: int) -> dict[str, Feed]:
        """Back when the partition has state or records: with feeds from 0, if there never was anything before."""
        places = {topic: self.names.at(topic, partition) for topic in self.topics}
        state = self.names.state(self.service, partition)
        with at(f"partition {partition} of what {self.service} reads"):
            ends = await self.client.offsets(dict.fromkeys([*places.values(), state], LATEST))
        if any(ends.values()):
            return {}
        came = asyncio.Event()
        feeds = {topic: self.intake.open(place, topic, 0, came.set) for topic, place in places.items()}
        try:
            await came.wait()
        except asyncio.CancelledError:
            for feed in feeds.values():
                self.intake.close(feed)
            raise
        return feeds
