"""Orders of events that once went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from streamproc.errors import Rejected, Retryable
from streamproc.messages import Detection, Event, Life, Record, Source, Window
from streamproc.runner import Bounds
from streamproc.stage import Each, Fold, Look, Row
from streamproc.topics import partition_of
from tests.bus.memory import MemoryBus
from tests.runner.rig import Rig, told
from tests.runner.test_fold import detections, rows


class Slow(Each):
    reads, writes = ("windows",), ("detections",)

    async def handle(self, record: Window, look: Look) -> Detection:
        await asyncio.sleep(1)
        return Detection.of(record, events=())


@told
async def test_a_burst_after_a_lull_is_worked_on_by_as_many_as_there_are_slots() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", count=500)
    async with rig.running("detect.a", Slow(), bounds=Bounds(calls=8, batch=100)):
        rig.windows(source, 0)
        await rig.until(lambda: len(rig.said("detections")) == 1)
        began = asyncio.get_running_loop().time()
        rig.windows(source, *range(1, 41))
        await rig.until(lambda: len(rig.said("detections")) == 41)
    assert asyncio.get_running_loop().time() - began < 10, "40 calls of a second on 8 slots"


@told
async def test_a_feed_waits_for_no_file_in_its_own_partition_nor_in_another() -> None:
    rig = Rig.of(partitions=2)
    files = [name for p in range(2) for name in named(p, 2)[:1]]
    feed = named(0, 2)[1]
    async with rig.running("detect.a", Slow(), bounds=Bounds(calls=4, batch=100)):
        for name in files:
            rig.windows(rig.source(name, "detect.a", count=500), *range(50))
        await rig.until(lambda: len(rig.said("detections")) >= 8)
        began = asyncio.get_running_loop().time()
        rig.windows(rig.source(feed, "detect.a", count=500, live=True), *range(8))
        await rig.until(lambda: sum(stream == feed for stream, _ in rig.said("detections")) == 8)
        assert asyncio.get_running_loop().time() - began < 4, (
            "8 calls of a second on 4 slots, behind one that is under way"
        )
        await rig.until(lambda: len(rig.said("detections")) == 108)


def named(partition: int, partitions: int) -> list[str]:
    return [name for n in range(200) if partition_of(name := f"s{n}", partitions) == partition]


@told
async def test_a_gap_over_a_number_that_is_in_a_call_doubles_nothing_and_holds_nothing_up() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", count=500)
    async with rig.running("detect.a", Slow()) as service:
        rig.windows(source, 6)
        await rig.until(lambda: service.shared.slots.used == 1)
        rig.log.append([rig.window(source, 5, 8)])
        await rig.until(lambda: service.shared.slots.used == 0)
        await asyncio.sleep(1)
        progress = service.runners[0].book.progress["windows"]
        assert progress.base == rig.log.span("windows", 0).end
    covered = [i for r in rig.records("detections") for i in range(r.index, r.until)]
    assert sorted(covered) == sorted(set(covered))
    assert {5, 6, 7} <= set(covered)


class Box(Struct):
    rows: int = 0


class Careless(Fold):
    """Changes its state before it fails."""

    reads, writes = ("detections",), ("events",)
    State = Box | None

    def __init__(self) -> None:
        self.failures = 3

    def joins(self, source: Source) -> tuple[str, ...]:
        return ("detect.a",)

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[Sequence[Record], Any]:
        state = state or Box()
        state.rows += 1
        if self.failures and row.index == 1:
            self.failures -= 1
            raise Retryable("not now")
        life = Life(
            id="m/e0", revision=0, state="open", label="row", start_ms=0, end_ms=0, time_ms=0, votes=(), details=str(state.rows)
        )  # fmt: skip
        return [Event.of(row, until_index=None, event=life)], state


@told
async def test_a_fold_that_is_tried_again_gets_the_state_as_it_was() -> None:
    rig = Rig.of()
    detections(rig, rig.source("m", "detect.a", "dedup", count=9), "detect.a", 0, 1, 2)
    async with rig.running("dedup", Careless()):
        await rig.until(lambda: len(rows(rig)) == 3)
    assert rows(rig) == ["1", "2", "3"]


@told
async def test_no_reason_however_long_or_odd_ends_a_service() -> None:
    class Odd(Each):
        reads, writes = ("windows",), ("detections",)

        async def handle(self, record: Window, look: Look) -> Detection:
            raise Rejected("x" * 2_000_000 if record.index else "lone \ud800 surrogate")

        def otherwise(self, record: Any, outcome: Any, reason: str) -> Record | None:
            raise ValueError("and this one is a bug") from None  # what it tells could not leave a parallel worker

    rig = Rig.of()
    rig.windows(rig.source("m", "detect.a"), 0, 1)
    async with rig.running("detect.a", Odd()):
        await rig.until(lambda: len(rig.said("detections")) == 2)
    reasons = [r.reason or "" for r in rig.said("detections").values()]
    assert sorted(map(len, reasons)) == [16, 1000]


@told
async def test_a_newer_revision_begins_a_run_again_that_was_over() -> None:
    from tests.runner.test_state import Count

    rig = Rig.of()
    rig.source("m", "decode", count=3)
    async with rig.running("decode", stage := Count()):
        await rig.until(lambda: any(r.ended for r in rig.records("windows")))
        rig.source("m", "decode", count=3, revision=1, from_index=4)
        await rig.until(lambda: len(stage.began) == 2)
    assert len(rig.records("windows")) == 4, "it goes on from its cursor: there was nothing left"


class Asked(Each):
    """A second a call, and a list of what was asked for."""

    reads, writes = ("windows",), ("detections",)

    def __init__(self, *, seconds: float = 1.0) -> None:
        self.asked: list[tuple[str, int]] = []
        self.seconds = seconds

    async def handle(self, record: Window, look: Look) -> Detection:
        self.asked.append((record.stream, record.index))
        await asyncio.sleep(self.seconds)
        return Detection.of(record, events=())


@told
async def test_while_nothing_can_land_no_call_is_begun() -> None:
    """What is answered meanwhile would be asked for again, should the process end."""
    rig = Rig.of(partitions=1)
    rig.windows(rig.source("m", "detect.a", count=500), *range(100))
    async with rig.running("detect.a", stage := Asked(), bounds=Bounds(calls=8, batch=100)):
        await rig.until(lambda: len(rig.said("detections")) >= 8)
        rig.log.disk_full = True
        await asyncio.sleep(3)
        begun = len(stage.asked)
        assert begun - len(rig.said("detections")) <= 2 * 8, (
            "those under way, and those begun until one had failed to land"
        )
        await asyncio.sleep(60)
        assert len(stage.asked) == begun
        rig.log.disk_full = False
        await rig.until(lambda: len(rig.said("detections")) == 100)
    assert len(stage.asked) == 100


def spread_out(rig: Rig, streams: int, windows: int) -> None:
    """Work for both partitions."""
    for i in range(streams):
        rig.windows(rig.source(f"m{i}", "detect.a", count=500), *range(windows))


@told
async def test_a_join_and_a_leave_repeat_no_call_and_the_other_partition_works_on() -> None:
    rig = Rig.of()
    spread_out(rig, 8, 20)
    first, second = Asked(), Asked()
    async with rig.running("detect.a", first, bounds=Bounds(calls=8, batch=100)) as one:
        await rig.until(lambda: len(one.runners) == 2 and len(first.asked) >= 16)
        kept = dict(one.runners)
        async with rig.running("detect.a", second, bounds=Bounds(calls=8, batch=100)) as other:
            await rig.until(lambda: bool(second.asked), within_s=5)
            assert len(one.runners) == len(other.runners) == 1
            assert next(iter(one.runners.items())) in kept.items(), "what stays is not touched"
            assert (one.shared.counts.handed_over, one.shared.counts.cut, one.shared.counts.fenced) == (1, 0, 0)
            await rig.until(lambda: len(second.asked) > 16)
        await rig.until(lambda: len(rig.said("detections")) == 160)
    asked = first.asked + second.asked
    assert len(asked) == len(set(asked)) == 160


@told
async def test_calls_that_take_longer_than_a_hand_over_may_are_cut_and_made_again_by_the_next_owner() -> None:
    rig = Rig.of()
    spread_out(rig, 8, 1)
    first, second = Asked(seconds=1e6), Asked()
    task = asyncio.create_task(
        (one := rig.service("detect.a", first, bounds=Bounds(calls=16, hand_over_s=5.0, drain_s=5.0))).run()
    )
    await rig.until(lambda: len(first.asked) == 8)
    async with rig.running("detect.a", second) as other:
        await asyncio.sleep(4)
        assert not other.runners
        await rig.until(lambda: bool(second.asked), within_s=3)
        assert (one.shared.counts.handed_over, one.shared.counts.cut, one.shared.counts.fenced) == (1, 1, 0)
        (mine,) = other.runners
        assert {partition_of(stream, 2) for stream, _ in second.asked} == {mine}
        await one.drain()
        await task
        await rig.until(lambda: len(rig.said("detections")) == 8)


@told
async def test_what_was_handed_over_to_one_who_dies_comes_back_without_a_call_repeated() -> None:
    rig = Rig.of()
    spread_out(rig, 8, 20)
    first, bus = Asked(), MemoryBus(rig.log)
    async with rig.running("detect.a", first, bounds=Bounds(calls=8, batch=100)) as one:
        await rig.until(lambda: len(first.asked) >= 16)
        joiner = asyncio.create_task(rig.service("detect.a", Asked(), bus=bus).run())
        await rig.until(lambda: any(runner.draining.is_set() for runner in one.runners.values()))
        rig.log.kill(bus)
        joiner.cancel()
        await asyncio.wait([joiner])
        await rig.until(lambda: len(rig.said("detections")) == 160)
    assert len(first.asked) == len(set(first.asked)) == 160


class Quick(Each):
    reads, writes = ("windows",), ("detections",)

    async def handle(self, record: Window, look: Look) -> Detection:
        await asyncio.sleep(0.003 * (record.index % 7))
        return Detection.of(record, events=())


@told
async def test_who_waits_until_what_is_there_has_landed_does_not_wait_for_what_comes_after() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", count=5000)
    rig.windows(source, *range(2000))
    async with rig.running("detect.a", Quick()) as service:
        await rig.until(lambda: service.shared.counts.landed > 0)
        runner = service.runners[0]
        there = len(runner.book.outputs) + service.shared.counts.landed
        await runner.landings.flush()
        assert there <= service.shared.counts.landed < 2000
