"""Compacted topics, followed: one reader a partition for the whole process."""

from __future__ import annotations

import asyncio
import logging

from streamproc.bus.kafka.insides import EARLIEST, LATEST, READ_UNCOMMITTED, Client, TopicPartition
from streamproc.bus.kafka.intake import Feed, Intake
from streamproc.bus.kafka.mapping import at
from streamproc.bus.table import Newest
from streamproc.errors import Expired

log = logging.getLogger(__name__)

STEP = 1000
"""Records taken before others have their turn."""


class KafkaTable(Newest):
    """One partition. Its task is owned by `Tables`."""

    def __init__(self, client: Client, place: TopicPartition) -> None:
        super().__init__()
        self._client, self._place = client, place
        self._progress = asyncio.Condition()
        self._position = 0
        self._failed: BaseException | None = None

    async def caught_up(self) -> None:
        with at(f"table {self._place.topic}[{self._place.partition}]"):
            # Of everything, committed or not: what landed a moment ago is readable a moment later, and then it is in.
            wanted = {self._place: LATEST}
            end = (await self._client.offsets(wanted, isolation=READ_UNCOMMITTED))[self._place]
        async with self._progress:
            await self._progress.wait_for(lambda: self._position >= end or self._failed is not None)
        self.check()

    def check(self) -> None:
        """Raises what ended the following: what is said here is old from then on, and nobody would be told."""
        if self._failed is not None:
            raise self._failed

    async def run(self, intake: Intake, name: str) -> None:
        """Follow until cancelled. What goes wrong is raised to whoever asks."""
        came = asyncio.Event()
        feed: Feed | None = None
        try:
            with at(f"table {self._place.topic}[{self._place.partition}]"):
                begin = (await self._client.offsets({self._place: EARLIEST}))[self._place]
            feed = intake.open(self._place, name, begin, came.set)
            while True:
                came.clear()
                for stored in feed.take(max_records=STEP, max_bytes=2**24):
                    self.take(stored)
                try:
                    feed.check()
                except Expired as e:
                    log.warning("%s; the table goes on behind them", e)
                async with self._progress:
                    self._position = feed.position
                    self._progress.notify_all()
                if feed.ready:
                    await asyncio.sleep(0)
                else:
                    await came.wait()
        except Exception as e:  # noqa: BLE001  # handed on, to whoever asks
            log.error("%s[%d] is followed no more: %s", *self._place, e)  # noqa: TRY400  # said in our words
            async with self._progress:
                self._failed = e
                self._progress.notify_all()
        finally:
            if feed is not None:
                intake.close(feed)


class Tables:
    """All tables that this process follows."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._intake: Intake | None = None
        self._followed: dict[TopicPartition, tuple[KafkaTable, asyncio.Task[None]]] = {}
        self._given: set[KafkaTable] = set()
        """Those that somebody reads."""

    async def follow(self, place: TopicPartition, name: str) -> KafkaTable:
        if place not in self._followed:
            if self._intake is None:
                self._intake = Intake(self._client, lane="tables")
            table = KafkaTable(self._client, place)
            task = asyncio.create_task(table.run(self._intake, name), name=f"follow {place.topic}[{place.partition}]")
            self._followed[place] = table, task
        table, _ = self._followed[place]
        try:
            await table.caught_up()
        except BaseException:
            if self._followed[place][1].done():  # it has failed: the next who asks gets another try
                del self._followed[place]
            raise
        self._given.add(table)
        return table

    def check(self) -> None:
        for table in self._given:
            table.check()

    async def stop(self) -> None:
        tasks = [task for _, task in self._followed.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._intake is not None:
            await self._intake.stop()
