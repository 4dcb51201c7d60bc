"""Reading ahead: many partitions at once, one request a broker, and a bounded buffer for each partition.

A request asks for every partition whose buffer has room, so a partition with a backlog never holds up one without, and
what was read ahead outlives a rebalance. Who takes from a feed takes what is there: nothing here waits for a taker.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable

from aiokafka import errors

from streamproc.bus.kafka.insides import EARLIEST, LATEST, Batches, Client, Fetched, TopicPartition
from streamproc.bus.kafka.mapping import mapped
from streamproc.errors import Corrupt, Expired
from streamproc.wire import Stored

log = logging.getLogger(__name__)

WAIT_S = 0.1
"""How long a broker keeps an empty answer. A feed that gets room meanwhile waits so long for its turn, at the most."""

AHEAD_BYTES = 64 * 2**20
"""Of all feeds together, buffered or asked for; one record more where a single one is larger than a feed's part."""

LEAST_BYTES, MOST_BYTES = 2**18, 2**20
"""Of one answer for one feed."""

PAUSE_S = 0.1


class Feed:
    """One partition, read from an offset on. `problem`: why it stands still."""

    def __init__(
        self, at: TopicPartition, name: str, offset: int, *, wake: Callable[[], None], room: Callable[[], None]
    ) -> None:
        """`name`: the topic's without the prefix; `wake` is called when something came, `room` when some of it has gone."""
        self.at, self.name, self.wake, self._room = at, name, wake, room
        self.offset = offset
        """Where the next fetch begins."""
        self.position = offset
        """Where the next take begins: everything before has been taken, or was no record."""
        self.size = 0
        self.problem: BaseException | None = None
        self.closed = False
        self._stretches: deque[Batches] = deque()
        self._ahead: Stored | None = None

    @property
    def ready(self) -> bool:
        return self._ahead is not None or bool(self._stretches)

    def add(self, records: Batches) -> None:
        self._stretches.append(records.named(self.name))
        self.size += records.size
        self.offset = records.end
        self.wake()

    def stop(self, problem: BaseException) -> None:
        self.problem = problem
        self.wake()

    def check(self) -> None:
        """Raise what stands in the way, once everything before it has been taken; a hole once, and go on behind it."""
        if self.problem is None or self.ready:
            return
        problem = self.problem
        if isinstance(problem, Expired):
            self.problem = None
            self._room()
        raise problem

    def take(self, *, max_records: int, max_bytes: int, at_least_one: bool = True) -> list[Stored]:
        """The next records, within bounds; one all the same where it alone is larger and `at_least_one` is asked for."""
        taken: list[Stored] = []
        size = 0
        while len(taken) < max_records and (stored := self._next()) is not None:
            size += stored.size
            if size > max_bytes and (taken or not at_least_one):
                self._ahead = stored
                self.position = stored.offset
                break
            taken.append(stored)
        return taken

    def _next(self) -> Stored | None:
        stored, self._ahead = self._ahead, None
        while stored is None and self._stretches:
            stretch = self._stretches[0]
            stored = next(stretch, None)
            if stored is None:  # markers, or aborted records, to its end
                self._stretches.popleft()
                self.size -= stretch.size
                self.position = stretch.end
                self._room()
        if stored is not None:
            self.position = stored.offset + 1
        return stored


class Intake:
    """Feeds, and the task that fills them."""

    def __init__(self, client: Client, *, lane: str, ahead_bytes: int = AHEAD_BYTES) -> None:
        self._client, self._lane, self._ahead_bytes = client, lane, ahead_bytes
        self._feeds: dict[Feed, None] = {}
        """In the order in which they are asked for: a broker fills its answer in that order, up to the bound, and gives
        a batch larger than its part only to the first. So what was filled goes to the end; else those behind the bound
        would wait for as long as those before it have a backlog."""
        self._asked: dict[int, asyncio.Task[None]] = {}
        """One request under way a broker; it tells of its end by `_changed`, like everything else."""
        self._away: set[int] = set()
        """Brokers that do not answer: said once, not ten times a second."""
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"intake {lane}")

    def open(self, at: TopicPartition, name: str, offset: int, wake: Callable[[], None]) -> Feed:
        feed = Feed(at, name, offset, wake=wake, room=self._changed.set)
        self._feeds[feed] = None
        self._changed.set()
        return feed

    def close(self, feed: Feed) -> None:
        feed.closed = True
        self._feeds.pop(feed, None)

    async def stop(self) -> None:
        tasks = [self._task, *self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.leave(self._lane)

    @property
    def _each_bytes(self) -> int:
        """A feed holds one answer and waits for one more."""
        return min(MOST_BYTES, max(LEAST_BYTES, self._ahead_bytes // 2 // max(1, len(self._feeds))))

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            hungry: dict[int, list[Feed]] = defaultdict(list)
            homeless = False
            for feed in self._feeds:
                if feed.problem is not None or feed.size > self._each_bytes:
                    continue
                if (leader := self._client.leader(feed.at)) is None:
                    homeless = True
                else:
                    hungry[leader].append(feed)
            for node, feeds in hungry.items():
                if node not in self._asked:
                    self._asked[node] = task = asyncio.create_task(self._ask(node, feeds))
                    task.add_done_callback(lambda t, node=node: self._answered(node, t))  # type: ignore[misc]
            if homeless:
                await self._client.refresh()
                await asyncio.sleep(PAUSE_S)
            else:
                await self._changed.wait()

    def _answered(self, node: int, task: asyncio.Task[None]) -> None:
        del self._asked[node]
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:  # a mistake of ours: let the takers see it
            for feed in self._feeds:
                feed.stop(error)

    async def _ask(self, node: int, feeds: list[Feed]) -> None:
        by_place = {feed.at: feed for feed in feeds}
        wanted = {feed.at: feed.offset for feed in feeds}
        try:
            answer = await self._client.fetch(
                node,
                wanted,
                lane=self._lane,
                bytes_each=self._each_bytes,
                bytes_all=self._ahead_bytes // 4,
                wait_s=WAIT_S,
            )
        except errors.KafkaError as e:
            if node not in self._away:
                self._away.add(node)
                log.warning("reading waits for broker %d: %s", node, mapped(e, f"broker {node}"))
            await asyncio.sleep(PAUSE_S)
            await self._client.refresh()
            return
        if node in self._away:
            self._away.remove(node)
            log.warning("broker %d answers again", node)
        stale = False
        for found in answer:
            feed = by_place[found.at]
            if feed.closed:
                continue
            if found.error is errors.OffsetOutOfRangeError:
                await self._out_of_range(feed)
            elif found.error is not errors.NoError:
                stale = True
                log.debug("%s[%d]: %s", *found.at, found.error.__name__)
            else:
                self._fill(feed, found)
        if stale:
            await asyncio.sleep(PAUSE_S)
            await self._client.refresh()

    def _fill(self, feed: Feed, found: Fetched) -> None:
        if found.records is None:
            return
        if found.records.end == feed.offset:  # not one whole batch: the broker gives the first one whole, so never
            feed.stop(Corrupt(f"{feed.at.topic}[{feed.at.partition}]: no whole batch at offset {feed.offset}"))
        else:
            feed.add(found.records)
            self._feeds[feed] = self._feeds.pop(feed)

    async def _out_of_range(self, feed: Feed) -> None:
        try:
            begin = (await self._client.offsets({feed.at: EARLIEST}))[feed.at]
            end = (await self._client.offsets({feed.at: LATEST}))[feed.at]
        except errors.KafkaError as e:
            log.warning("%s[%d]: %s; trying again", *feed.at, mapped(e, feed.at.topic))
            return
        if feed.offset < begin:
            hole = Expired(feed.name, feed.at.partition, feed.offset, begin)
            feed.offset = begin
            feed.stop(hole)
        elif feed.offset > end:
            feed.stop(
                Corrupt(
                    f"{feed.at.topic}[{feed.at.partition}]: reading stands at {feed.offset}, but the log ends at {end}: the "
                    "topic was made anew, or the brokers lost what they had acknowledged. What is there can still be read; "
                    "to go on, start under a new topic prefix, or reset the group's offsets and its state topic"
                )
            )
