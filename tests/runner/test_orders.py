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
            raise ValueError("and this one is a bug")

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
