"""Partitions are spread over processes by the streams they hold, as the table of sources says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from streamproc.bus.embedded import Embedded
from streamproc.messages import Grid, Source
from streamproc.pipeline import streams
from streamproc.pipeline.loads import loads
from streamproc.pipeline.means import means
from streamproc.pipeline.parts import plan_of
from streamproc.pipeline.process import working
from streamproc.pipeline.streams import Wanted
from streamproc.task import Task
from streamproc.topics import deployment, key_of, partition_of
from streamproc.video.workers import Workers
from streamproc.wire import Entry

PARTITIONS = 4
TASK = Task.model_validate({"name": "t", "sampling": {"fps": "1"}, "detect": {"models": ["m"]}, "dedup": {}})
GRID = Grid(root="decode", origin="0", step="1", first=0)
SETTLES_S = 30


def names(partition: int) -> Iterator[str]:
    """Streams of one partition."""
    return (name for n in count() if partition_of(name := f"camera-{n}", PARTITIONS) == partition)


def made(partition: int, many: int, *, live: bool = True) -> list[Source]:
    uri = "rtsp://127.0.0.1/x" if live else "x.mp4"
    return [
        streams.first(Wanted(name=name, uri=uri, live=live, grid=GRID, task=TASK))
        for name, _ in zip(names(partition), range(many), strict=False)
    ]


async def test_feeds_count_while_they_are_active_and_files_where_there_is_no_feed(tmp_path: Path) -> None:
    bus = await Embedded.open(tmp_path / "bus.db", partitions=PARTITIONS)
    try:
        await bus.create(deployment())
        async with loads(bus) as found:
            assert found.of("dedup") == [0, 0, 0, 0]
            await streams.publish(bus, made(1, 3, live=False))
            await follow(bus)
            assert found.of("dedup") == [0, 3, 0, 0]
            feeds = made(0, 5) + made(2, 2)
            await streams.publish(bus, feeds)
            await follow(bus)
            assert found.of("dedup") == found.of("detect.m") == [5, 0, 2, 0]
            assert found.of("caption.m") == [0, 0, 0, 0]
            paused, other = (
                streams.changed(feed, state=s) for feed, s in zip(feeds, ("paused", "active"), strict=False)
            )
            await streams.publish(bus, [paused, other])
            await follow(bus)
            assert found.of("dedup") == [4, 0, 2, 0]
            key = key_of(feeds[1].stream, "0.2")
            await bus.publish([Entry("sources", 0, key, b"no row", ())])
            await follow(bus)
            assert found.of("dedup") == [4, 0, 2, 0]
    finally:
        await bus.close()


async def follow(bus: Embedded) -> None:
    for p in range(PARTITIONS):
        await (await bus.follow("sources", p)).caught_up()


async def test_two_processes_have_as_many_streams_not_as_many_partitions(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    buses = [await Embedded.open(path, partitions=PARTITIONS) for _ in range(2)]
    try:
        await buses[0].create(deployment())
        held = {0: 12, 1: 4, 2: 4, 3: 4}
        await streams.publish(buses[0], [source for p, many in held.items() for source in made(p, many)])
        async with Workers(1) as workers, means(workers=workers) as has:
            plans = [plan_of("dedup")]
            async with working(buses[0], has, plans), working(buses[1], has, plans), asyncio.timeout(SETTLES_S):
                shares: list[int] = []
                while sorted(shares) != [12, 12]:
                    await asyncio.sleep(0.05)
                    shares = [sum(held[p] for p in ps) for ps in (await buses[0].members("dedup")).values()]
    finally:
        for bus in buses:
            await bus.close()
