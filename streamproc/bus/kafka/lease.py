"""One partition of a service, owned: fetch, land, renew, release. The order of steps in here is the promise.

Taking it: initialise the producer (this fences the owner before), then read state and progress, then read on from there.
Landing: one transaction of outputs, state and offsets. An end that nobody saw: be sure that the partition is still ours
(a zombie that initialises at once would fence the rightful owner), and take it again.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from streamproc.bus.contract import Landing
from streamproc.bus.kafka.insides import Client, TopicPartition
from streamproc.bus.kafka.intake import Feed, Intake
from streamproc.bus.kafka.mapping import at
from streamproc.bus.kafka.names import Names
from streamproc.bus.kafka.state import Last, changes, compare, load
from streamproc.bus.kafka.transactions import Transactions
from streamproc.bus.wanted import Wanted
from streamproc.errors import Fenced, Rejected, StreamprocError, UnseenEnd
from streamproc.topics import state_topic
from streamproc.wire import Stored

log = logging.getLogger(__name__)


class Owner(Protocol):
    """What a lease needs of the membership it comes from."""

    service: str
    topics: Sequence[str]
    names: Names
    client: Client
    intake: Intake

    def fresh(self) -> bool: ...

    async def settled(self) -> None:
        """Back once the group says, asked after this call, who owns what now."""

    async def given_back(self, lease: KafkaLease) -> None: ...

    def transactions(self, identity: str) -> Transactions: ...

    async def require(self, topic: str) -> None:
        """Unreachable where there is no such topic."""

    def check_tables(self) -> None:
        """Raises what ended the following of a table of this process."""


class KafkaLease:
    def __init__(self, owner: Owner, partition: int) -> None:
        self._owner = owner
        self.service, self.partition = owner.service, partition
        self.wanted, self.lost = Wanted(), asyncio.Event()
        self.state: Mapping[str, bytes] = {}
        self._last = Last()
        self._identity = uuid.uuid4().hex
        self._producer: Transactions | None = None
        self._landing = asyncio.Lock()
        self._unseen = False
        """Whether the last landing happened is not known: nothing lands before `renew`."""
        self._arrived = asyncio.Event()
        self._feeds: list[Feed] = []
        self._released = False

    @property
    def progress(self) -> Mapping[str, int]:
        return self._last.progress

    @property
    def serial(self) -> int:
        return self._last.serial

    def forget_state(self) -> None:
        self.state = {}

    def fresh(self) -> bool:
        return not self.lost.is_set() and not self._released and self._owner.fresh()

    def __repr__(self) -> str:
        return f"{self.service}[{self.partition}]"

    # taking

    async def take(self, waiting: Mapping[str, Feed]) -> None:
        """Fence, load, and read on from progress. `waiting`: feeds opened at 0 before, good where nothing has landed yet."""
        await self._take()
        for topic in self._owner.topics:
            offset = self.progress.get(topic, 0)
            feed = waiting.get(topic)
            if feed is None or offset:
                if feed is not None:
                    self._owner.intake.close(feed)
                feed = self._owner.intake.open(self._place(topic), topic, offset, self._arrived.set)
            feed.wake = self._arrived.set
            self._feeds.append(feed)

    async def _take(self) -> None:
        owner = self._owner
        producer = owner.transactions(owner.names.transactional_id(self.service, self.partition))
        try:
            with at(f"transactions of {self!r}"):
                await producer.open()  # the owner before is fenced from here on: only now its progress stands still
            loaded = await load(owner.client, owner.names.state(self.service, self.partition))
            group = owner.names.group(self.service)
            with at(f"offsets of group {group}"):
                found = await owner.client.committed(
                    group, {owner.names.topic(topic): [self.partition] for topic in owner.topics}
                )
            committed = {str(owner.names.ours(place.topic)): offset for place, offset in found.items()}
            compare(repr(self), loaded.last, committed, owner.topics)
        except BaseException:
            await producer.close()
            raise
        self._producer, self._unseen = producer, False
        self._last, self.state = loaded.last, loaded.state

    def _place(self, topic: str) -> TopicPartition:
        return self._owner.names.at(topic, self.partition)

    # reading

    async def fetch(self, *, max_records: int, max_bytes: int, wait_s: float) -> list[Stored]:
        await asyncio.sleep(0)  # whoever fetches and always finds something would keep all others waiting
        end = asyncio.get_running_loop().time() + wait_s
        while True:
            self._arrived.clear()
            if taken := self._take_in_turn(max_records, max_bytes):
                return taken
            try:
                async with asyncio.timeout_at(end):
                    await self._arrived.wait()
            except TimeoutError:
                return []

    def _take_in_turn(self, max_records: int, max_bytes: int) -> list[Stored]:
        """A fair part from each topic that has something; another topic begins each time."""
        self._owner.check_tables()  # before the first record that would be worked on by what they say
        for feed in self._feeds:
            feed.check()
        ready = [feed for feed in self._feeds if feed.ready]
        taken: list[Stored] = []
        size = 0
        for i, feed in enumerate(ready):
            part = -(-(max_records - len(taken)) // (len(ready) - i))
            some = feed.take(max_records=part, max_bytes=max_bytes - size, at_least_one=not taken)
            size += sum(stored.size for stored in some)
            taken += some
        self._feeds = self._feeds[1:] + self._feeds[:1]  # none are left once the lease is closed
        return taken

    # landing

    async def land(self, landing: Landing) -> None:
        owner = self._owner
        self._check()  # first of all: a lease that was lost holds the lock too, while it closes its producer
        if landing.serial != self.serial + 1:
            raise ValueError(f"{self!r}: serial {landing.serial} cannot land behind {self.serial}")
        if self._landing.locked():
            raise RuntimeError(f"{self!r}: one landing at a time")
        async with self._landing:
            self._check()
            if self._unseen or self._producer is None:
                raise UnseenEnd(f"{self!r}: renew it first")
            for topic in {entry.topic for entry in landing.outputs}:
                await owner.require(topic)
            last = Last(landing.serial, {**self.progress, **landing.progress}, self._identity)
            state = changes(state_topic(self.service).name, self.partition, landing.state, last)
            offsets = {self._place(topic): offset for topic, offset in landing.progress.items()}
            self._unseen = True  # from here to the end, however it ends: a cancelled landing may have happened too
            try:
                with at(f"landing of {self!r}"):
                    await self._producer.write(
                        [*landing.outputs, *state], offsets=offsets, group=owner.names.group(self.service)
                    )
            except Rejected:  # nothing of it was written, but the producer has a gap in its numbers
                await self._renew()
                raise
            except Exception as e:
                await self._stop()
                if isinstance(e, Fenced):  # by another owner, or by the broker for taking too long: the group knows
                    await self._unless_lost()
                self._check()
                raise UnseenEnd(f"landing {landing.serial} of {self!r}: {e}") from e
            self._last, self._unseen = last, False

    async def renew(self) -> None:
        async with self._landing:
            await self._renew()

    async def _renew(self) -> None:
        self._check()
        await self._stop()
        await self._owner.settled()
        self._check()
        before = self._last
        await self._take()
        if self._last != before and self._last.owner != self._identity:
            self.lost.set()  # another has had it in between: what we hold of it is old, though it is ours again
        self._check()

    async def _unless_lost(self) -> None:
        try:
            await self._owner.settled()
        except StreamprocError as e:
            log.info("%r: nobody says whose it is: %s", self, e)

    def _check(self) -> None:
        if self.lost.is_set() or self._released:
            raise Fenced(f"{self!r} is no longer ours")

    # the end

    async def release(self) -> None:
        if self._released:
            return
        self._released = True
        await self._leave_off()
        await self._owner.given_back(self)

    def lose(self, closing: Callable[[asyncio.Task[None]], None]) -> None:
        """Another owns it. `closing` keeps the task that cleans up."""
        self.lost.set()
        closing(asyncio.create_task(self._leave_off(), name=f"close {self!r}"))

    async def _leave_off(self) -> None:
        for feed in self._feeds:
            self._owner.intake.close(feed)
        self._feeds = []
        async with self._landing:
            await self._stop()

    async def _stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close()
