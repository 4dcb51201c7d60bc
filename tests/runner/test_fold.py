"""Rows: who is waited for, who is not, and in what order they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from streamproc.errors import NotBegun
from streamproc.messages import Detection, Event, Life, Record, Source
from streamproc.runner.state import MOST_BYTES
from streamproc.stage import Fold, Look, Row
from tests.runner.rig import Rig, told


class Collect(Fold):
    """Tells every row as it came."""

    reads, writes = ("detections",), ("events",)

    def __init__(self, *models: str) -> None:
        self.models = models

    def joins(self, source: Source) -> tuple[str, ...]:
        return tuple(m for m in self.models if m in source.services)

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[Sequence[Record], Any]:
        if row.ended:
            return [], None
        said = ",".join(f"{s}={r.outcome if r.outcome == 'done' else r.reason or r.outcome}" for s, r in row.of.items())
        life = Life(
            id=f"{row.stream}/e{row.index}", revision=0, state="open", label="row", start_ms=row.start_ms,
            end_ms=row.end_ms, time_ms=0, votes=(), details=f"{row.index}:{said.replace('unparseable', 'failed')}",
        )  # fmt: skip
        return [Event.of(row, until_index=None, event=life)], None


def detections(rig: Rig, source: Source, service: str, *indexes: int, **fields: Any) -> None:
    from streamproc import wire

    for index in indexes:
        ended = index == source.task["count"]
        made = Detection.of(
            _place(source, index),
            id=f"{service}/decode/{source.stream}/{source.generation}/{index}",
            service=service,
            root="decode",
            count=index if ended else None,
            events=() if not ended else None,
            **fields,
        )
        rig.log.append([wire.encode(made, partitions=rig.log.partitions, time="")])


def _place(source: Source, index: int) -> Any:
    from tests.sim import toys

    return toys.window(source, index, index + 1, source.task["count"])


def rows(rig: Rig) -> list[str]:
    return [r.event.details for r in sorted(rig.records("events"), key=lambda r: r.index) if r.event]


@told
async def test_rows_come_in_index_order_however_their_records_came() -> None:
    rig = Rig.of()
    source = rig.source("m", "detect.a", "detect.b", "dedup", count=4)
    detections(rig, source, "detect.a", 3, 1, 0)
    detections(rig, source, "detect.b", 2, 0, 3, 4)
    async with rig.running("dedup", Collect("detect.a", "detect.b")):
        await rig.until(lambda: len(rows(rig)) == 1)
        detections(rig, source, "detect.b", 1)
        await rig.until(lambda: len(rows(rig)) == 2)
        detections(rig, source, "detect.a", 2, 4)
        await rig.until(lambda: any(r.ended for r in rig.records("events")))
    assert rows(rig) == [f"{i}:detect.a=done,detect.b=done" for i in range(4)]
    (ended,) = [r for r in rig.records("events") if r.ended]
    assert (ended.index, ended.count) == (4, 4)


@told
async def test_a_file_waits_for_an_absent_service_for_ever() -> None:
    rig = Rig.of()
    source = rig.source("m", "detect.a", "detect.b", "dedup", count=4)
    detections(rig, source, "detect.a", 0, 1, 2, 3, 4)
    async with rig.running("dedup", Collect("detect.a", "detect.b")) as service:
        await rig.until(lambda: service.shared.counts.records_in == 5)
    async with rig.running("dedup", Collect("detect.a", "detect.b")):
        detections(rig, source, "detect.b", 0, 1, 2, 3, 4)
        await rig.until(lambda: any(r.ended for r in rig.records("events")))
    assert len(rows(rig)) == 4


@told
async def test_a_feed_goes_on_without_a_service_that_is_late_in_stream_time() -> None:
    rig = Rig.of()
    source = rig.source("cam", "detect.a", "detect.b", "dedup", count=1000, live=True, join_wait_s=10.0)
    detections(rig, source, "detect.b", 0)
    detections(rig, source, "detect.a", *range(12))
    async with rig.running("dedup", Collect("detect.a", "detect.b")) as service:
        await rig.until(lambda: len(rows(rig)) == 7)
        detections(rig, source, "detect.b", 1, 7)
        await rig.until(lambda: len(rows(rig)) == 8)
        assert service.shared.counts.late > 0
    assert rows(rig)[0] == "0:detect.a=done,detect.b=done"
    assert rows(rig)[1:7] == [f"{i}:detect.a=done,detect.b=late" for i in range(1, 7)]
    assert rows(rig)[7] == "7:detect.a=done,detect.b=done"


@told
async def test_another_life_of_a_stream_begins_at_its_beginning() -> None:
    rig = Rig.of()
    for generation in (0, 1):
        source = rig.source("m", "detect.a", "dedup", count=2, generation=generation)
        detections(rig, source, "detect.a", 0, 1, 2)
    async with rig.running("dedup", Collect("detect.a")):
        await rig.until(lambda: sum(r.ended for r in rig.records("events")) == 2)
    assert sorted((r.generation, r.index) for r in rig.records("events")) == [(g, i) for g in (0, 1) for i in range(3)]


@told
async def test_a_service_that_is_named_later_begins_where_it_is_named() -> None:
    rig = Rig.of()
    first = rig.source("m", "detect.a", count=6)
    second = rig.source("m", "detect.a", "dedup", count=6, revision=1, from_index=3)
    detections(rig, first, "detect.a", 0, 1, 2)
    detections(rig, second, "detect.a", 3, 4, 5, 6)
    async with rig.running("dedup", Collect("detect.a")):
        await rig.until(lambda: any(r.ended for r in rig.records("events")))
    assert rows(rig) == [f"{i}:detect.a=done" for i in (3, 4, 5)]
    assert [r.index for r in sorted(rig.records("events"), key=lambda r: r.index)] == [0, 1, 2, 3]


@told
async def test_a_service_that_is_not_named_for_a_while_skips_that_while() -> None:
    rig = Rig.of()
    services = [("detect.a", "dedup"), ("detect.a",), ("detect.a", "dedup")]
    sources = [rig.source("m", *names, count=6, revision=r, from_index=2 * r) for r, names in enumerate(services)]
    for r, source in reversed(list(enumerate(sources))):
        detections(rig, source, "detect.a", 2 * r, 2 * r + 1, *([6] if r == 2 else []))
    async with rig.running("dedup", Collect("detect.a")):
        await rig.until(lambda: any(r.ended for r in rig.records("events")))
    assert rows(rig) == [f"{i}:detect.a=done" for i in (0, 1, 4, 5)]


@told
async def test_a_row_whose_call_was_not_begun_before_a_drain_is_folded_by_the_next_owner() -> None:
    class Asks(Collect):
        stops = True

        async def fold(self, row: Row, state: Any, look: Look) -> tuple[Sequence[Record], Any]:
            if row.index == 1 and self.stops:
                raise NotBegun("we are to stop")
            return await super().fold(row, state, look)

    rig, stage = Rig.of(), Asks("detect.a")
    source = rig.source("m", "detect.a", "dedup", count=3)
    detections(rig, source, "detect.a", 0, 1, 2, 3)
    async with rig.running("dedup", stage):
        await rig.until(lambda: len(rows(rig)) == 1)
    stage.stops = False
    async with rig.running("dedup", stage):
        await rig.until(lambda: len(rows(rig)) == 3)
    assert rows(rig) == [f"{i}:detect.a=done" for i in range(3)]
    assert not rig.dead("detections")


@told
async def test_what_a_fold_keeps_may_not_outgrow_a_landing_and_only_its_row_fails() -> None:
    class Hoard(Collect):
        State: ClassVar[Any] = bytes | None

        async def fold(self, row: Row, state: Any, look: Look) -> tuple[Sequence[Record], Any]:
            records, _ = await super().fold(row, state, look)
            return records, bytes(MOST_BYTES) if row.index == 1 else b"small"

    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", "dedup", count=3)
    detections(rig, source, "detect.a", 0, 1, 2, 3)
    async with rig.running("dedup", Hoard("detect.a")):
        await rig.until(lambda: any(r.ended for r in rig.records("events")))
    assert [row.split(":")[0] for row in rows(rig)] == ["0", "2"]
    assert len(rig.dead("detections")) == 1
