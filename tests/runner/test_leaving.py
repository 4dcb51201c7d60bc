"""A lease that is drained, wanted by another, or lost: what is under way ends, and nothing new is begun or waited for."""

from __future__ import annotations

import asyncio
from typing import Any

from streamproc.errors import NotYet, Unreachable
from streamproc.messages import Detection, Frame, Window
from streamproc.runner import Bounds
from streamproc.runner.inputs import INLINE_BYTES
from streamproc.stage import Each, Look
from streamproc.topics import partition_of
from streamproc.wire import Stored
from tests.bus.memory import MemoryBus, MemoryLog, MemoryTable
from tests.runner.rig import Rig, told
from tests.runner.test_expect import context
from tests.runner.test_rounds import Story, rounds


class Ask(Each):
    """A call of `call_s`; `began` has all that were begun, and when."""

    reads, writes = ("windows",), ("detections",)

    def __init__(self, call_s: float) -> None:
        self.call_s = call_s
        self.began: list[tuple[str, int, float]] = []

    async def handle(self, record: Window, look: Look) -> Detection:
        self.began.append((record.stream, record.index, asyncio.get_running_loop().time()))
        await asyncio.sleep(self.call_s)
        return Detection.of(record, events=())


def stream_in(partition: int, of: int = 2) -> str:
    return next(name for i in range(100) if partition_of(name := f"m{i}", of) == partition)


@told
async def test_a_table_that_speaks_while_a_lost_lease_is_cleaned_up_begins_nothing_and_harms_nobody() -> None:
    """Who waits for its row would begin a task where none may be begun, in the middle of the table's own work."""
    cleaning = asyncio.Event()

    class Waits(Each):
        reads, writes, tables = ("windows",), ("detections",), ("contexts",)

        async def handle(self, record: Window, look: Look) -> Detection:
            if record.index:
                raise NotYet("no-context", topic="contexts", key=f"{record.stream}\x000.0", within_s=3600)
            try:
                await asyncio.sleep(1e6)
            finally:
                cleaning.set()
                await asyncio.sleep(5)
            raise AssertionError("it was cancelled")

    rig = Rig.of(partitions=1)
    source = rig.source("m", "context", "detect.a")
    rig.windows(source, *range(5))
    bus = MemoryBus(rig.log)
    service = rig.service("detect.a", Waits(), bus=bus)
    at_work = asyncio.create_task(service.run())
    await rig.until(lambda: 0 in service.runners and len(service.runners[0].waits) == 4)
    service.runners[0].lease.lost.set()
    await cleaning.wait()
    table = await bus.follow("contexts", 0)
    heard: list[Stored] = []
    table.on_change(heard.append)
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, failure: failed.append(failure))
    context(rig, source, "night")
    await rig.until(lambda: bool(heard or failed))
    assert not failed
    at_work.cancel()
    await asyncio.wait([at_work])


@told
async def test_a_hand_over_waits_for_no_call_that_only_stands_in_line() -> None:
    rig, stage = Rig.of(partitions=16), Ask(call_s=1000.0)
    for partition in range(16):
        rig.windows(rig.source(stream_in(partition, 16), "detect.a", count=100), *range(8))
    bounds = Bounds(calls=2, batch=16, drain_s=1.0)
    async with rig.running("detect.a", stage, bounds=bounds) as first:
        await rig.until(lambda: len(first.runners) == 16 and len(stage.began) == 2)
        async with rig.running("detect.a", stage, bounds=bounds) as second:
            await rig.until(lambda: len(second.runners) >= 6, within_s=10)
            assert first.shared.counts.cut == 0


@told
async def test_no_call_is_begun_while_the_landing_of_its_partition_fails_though_it_stood_in_line_before() -> None:
    rig, stage = Rig.of(partitions=2), Ask(call_s=5.0)
    here, there = stream_in(0), stream_in(1)
    rig.windows(rig.source(here, "detect.a", count=100), 0, 1)
    async with rig.running("detect.a", stage, bounds=Bounds(calls=2, batch=16)) as service:
        await rig.until(lambda: len(stage.began) == 2)
        source = rig.source(there, "detect.a", count=100)
        rig.windows(source, 0, 1)
        await rig.until(lambda: service.shared.slots.contended)
        rig.log.disk_full = True
        rig.log.append([rig.window(source, 2, outcome="skipped", reason="still")])  # needs no call, and cannot land
        await asyncio.sleep(60)
        assert not [began for began in stage.began if began[0] == there]
        rig.log.disk_full = False
        await rig.until(lambda: len(rig.said("detections")) == 5)
    assert len(stage.began) == 4


class HalfAway(MemoryBus):
    """One partition's tables and records cannot be reached while `away`."""

    def __init__(self, log: MemoryLog, partition: int) -> None:
        super().__init__(log)
        self.partition, self.gone = partition, True

    def _look(self, partition: int) -> None:
        if self.gone and partition == self.partition:
            raise Unreachable("broker", "is away", remedy="Wait")

    async def follow(self, topic: str, partition: int) -> MemoryTable:
        self._look(partition)
        return await super().follow(topic, partition)

    async def read(self, topic: str, partition: int, *span: Any, **bounds: Any) -> list[Stored]:
        self._look(partition)
        return await super().read(topic, partition, *span, **bounds)


@told
async def test_a_drain_cuts_no_call_because_another_partition_has_not_begun() -> None:
    rig, stage = Rig.of(partitions=2), Ask(call_s=3.0)
    for partition in (0, 1):
        rig.windows(rig.source(stream_in(partition), "detect.a", count=100), 0, 1)
    async with rig.running("detect.a", stage, bus=HalfAway(rig.log, 1)) as service:
        await rig.until(lambda: len(stage.began) == 2)
    assert len(rig.said("detections")) == 2
    assert service.shared.counts.cut == 0


@told
async def test_a_drain_does_not_wait_for_what_is_parked_and_cannot_be_read() -> None:
    class Waits(Each):
        reads, writes, tables = ("windows",), ("detections",), ("contexts",)

        async def handle(self, record: Window, look: Look) -> Detection:
            raise NotYet("no-context", topic="contexts", key="m\x000.0", within_s=3600)

    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", count=10)
    rig.log.append([rig.window(source, 0, frames=(Frame(t_ms=0, jpeg=bytes(2 * INLINE_BYTES)),))])
    async with rig.running("detect.a", Waits()):
        await rig.until(lambda: bool(rig.log.state_keys("park")))

    class Unread(HalfAway):
        async def follow(self, topic: str, partition: int) -> MemoryTable:
            return await MemoryBus.follow(self, topic, partition)

    loop = asyncio.get_running_loop()
    async with rig.running("detect.a", Waits(), bus=Unread(rig.log, 0)) as service:
        await rig.until(lambda: bool(service.runners))
        await asyncio.sleep(30)
        began_s = loop.time()
    assert loop.time() - began_s < 10
    assert len(rig.log.state_keys("park")) == 1, "the next owner finds it where it was"


class Long(Story):
    async def round(self, record: Window, so_far: Any, look: Look) -> Any:
        answer = await super().round(record, so_far, look)
        await asyncio.sleep(15)
        return answer


@told
async def test_of_several_rounds_a_drain_ends_the_one_under_way_and_the_next_owner_makes_the_next() -> None:
    rig, asked = Rig.of(partitions=1), list[tuple[int, int]]()
    rig.windows(rig.source("m", "caption.a"), 0)
    for made in ([0], [0, 1]):
        async with rig.running("caption.a", Long(asked)):
            await rig.until(lambda made=made: rounds(asked) == made)  # type: ignore[misc]  # mypy knows no default of a lambda
        assert rounds(asked) == made
    async with rig.running("caption.a", Long(asked)):
        await rig.until(lambda: len(rig.said("captions")) == 1)
    assert rounds(asked) == [0, 1, 2]


@told
async def test_a_hand_over_begins_no_round_that_its_deadline_would_cut() -> None:
    rig, asked = Rig.of(partitions=1), list[tuple[int, int]]()
    rig.windows(rig.source("m", "caption.a"), 0)
    async with rig.running("caption.a", Long(asked), bounds=Bounds(hand_over_s=20)) as service:
        await rig.until(lambda: rounds(asked) == [0])
        await asyncio.sleep(10)
        service.runners[0].lease.wanted.set()
        await rig.until(lambda: len(rig.said("captions")) == 1)
    assert service.shared.counts.cut == 0
    assert rounds(asked) == [0, 1, 2]
