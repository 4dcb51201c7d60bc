"""State over lives of processes: versions, cursors, claim checks, traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from streamproc.bus.claims import Claims, open_store
from streamproc.errors import NewerState, Rejected, Retryable
from streamproc.messages import Detection, Record, Source, Window
from streamproc.stage import Each, Follow, Look, Pace
from streamproc.wire import Entry, Stored
from tests.runner.rig import Rig, told
from tests.runner.test_fold import Collect, rows
from tests.sim import clock, toys


class Count(Follow):
    """Windows from the cursor to the task's count; where it was asked to break, it breaks once."""

    reads, writes = ("sources",), ("windows",)
    Cursor = int

    def __init__(self, *, breaks: dict[int, Exception] | None = None) -> None:
        self.breaks = breaks or {}
        self.began: list[tuple[int, int, int | None]] = []

    async def run(self, source: Source, cursor: int | None, look: Pace) -> AsyncIterator[tuple[list[Record], int]]:
        self.began.append((source.generation, source.revision, cursor))
        for index in range(cursor or 0, source.task["count"] + 1):
            if error := self.breaks.pop(index, None):
                raise error
            await asyncio.sleep(0.1)
            yield [toys.window(source, index, index + 1, source.task["count"])], index + 1

    def otherwise(self, source: Source, cursor: int | None, reason: str) -> tuple[Sequence[Record], Any]:
        index = cursor or 0
        return [replace(toys.window(source, index, index + 1, index), count=index)], index + 1


def ended(rig: Rig, name: str = "windows") -> list[Any]:
    return [r for r in rig.records(name) if r.ended]


@told
async def test_a_run_goes_on_from_its_cursor_after_a_restart_and_is_over_once() -> None:
    rig = Rig.of()
    rig.source("m", "decode", count=20)
    stages = []
    for _ in range(4):
        stages.append(Count())
        async with rig.running("decode", stages[-1]):
            await asyncio.sleep(0.75)
    async with rig.running("decode", Count()):
        await rig.until(lambda: len(ended(rig)) == 1)
    async with rig.running("decode", last := Count()):
        await asyncio.sleep(2)
    assert last.began == [], "it is over"
    assert sorted(r.index for r in rig.records("windows")) == list(range(21))
    cursors = [cursor for stage in stages for *_, cursor in stage.began]
    assert cursors[0] is None
    later = [cursor for cursor in cursors[1:] if cursor is not None]
    assert len(later) == len(cursors) - 1
    assert later == sorted(later)


@told
async def test_a_newer_revision_goes_on_and_a_new_generation_begins_anew() -> None:
    rig = Rig.of()
    rig.source("m", "decode", count=30)
    async with rig.running("decode", stage := Count()):
        await asyncio.sleep(1)
        rig.source("m", "decode", count=30, revision=1, from_index=20)
        await rig.until(lambda: len(ended(rig)) == 1)
        rig.source("m", "decode", count=5, generation=1)
        await rig.until(lambda: len(ended(rig)) == 2)
    assert [(g, r) for g, r, _ in stage.began] == [(0, 0), (0, 1), (1, 0)]
    assert stage.began[1][2] is not None
    assert stage.began[1][2] > 0
    assert stage.began[2][2] is None
    numbers = sorted((r.generation, r.index) for r in rig.records("windows"))
    assert numbers == [(0, i) for i in range(31)] + [(1, i) for i in range(6)]


class Removable(Count):
    """Ends where it is once its source is removed."""

    async def run(self, source: Source, cursor: int | None, look: Pace) -> AsyncIterator[tuple[list[Record], int]]:
        if source.state == "removed":
            await asyncio.sleep(1)
            index = cursor or 0
            yield [toys.window(source, index, index + 1, index)], index + 1
            return
        async for step in super().run(source, cursor, look):
            yield step


@told
async def test_a_removed_stream_says_its_last_before_another_of_its_name_begins() -> None:
    rig = Rig.of()
    rig.source("m", "decode", count=1000)
    async with rig.running("decode", Removable()):
        await rig.until(lambda: len(rig.records("windows")) >= 5)
    rig.source("m", "decode", count=1000, revision=1, state="removed", from_index=9)
    rig.source("m", "decode", count=3, generation=1)
    rig.source("m", "decode", count=3, generation=1, revision=1, from_index=2)
    async with rig.killed("decode", Removable()):
        await asyncio.sleep(0.5)
    async with rig.running("decode", Removable()):
        await rig.until(lambda: len(ended(rig)) == 2)
    by_life = {g: [w for w in rig.records("windows") if w.generation == g] for g in (0, 1)}
    for windows in by_life.values():
        assert [w.index for w in windows] == list(range(len(windows)))
        assert windows[-1].count == len(windows) - 1
    assert len(by_life[1]) == 4


@told
async def test_a_run_that_fails_for_a_while_goes_on_and_one_that_is_rejected_ends_with_what_its_stage_says() -> None:
    rig = Rig.of()
    rig.source("shaky", "decode", count=6)
    stage = Count(breaks={3: Retryable("connection reset")})
    async with rig.running("decode", stage) as service:
        await rig.until(lambda: len(ended(rig)) == 1)
        stage.breaks = {2: Rejected("no video stream")}
        rig.source("hopeless", "decode", count=6)
        await rig.until(lambda: len(ended(rig)) == 2)
    (end,) = [r for r in ended(rig) if r.stream == "hopeless"]
    assert (end.index, end.count) == (2, 2)
    assert [letter.header("error") for letter in rig.dead("sources")] == [b"no video stream"]
    assert service.shared.counts.dead == 1


class Echo(Each):
    reads, writes = ("windows",), ("detections",)

    async def handle(self, record: Window, look: Look) -> Detection:
        return Detection.of(record, events=(), raw="x" * (2_000_000 if record.index == 1 else 10))


def test_state_of_a_newer_version_is_refused_and_left_alone() -> None:
    async def story() -> None:
        rig = Rig.of(partitions=1)
        rig.windows(rig.source("m", "detect.a"), 0)

        class Newer(Echo):
            version = 3

        async with rig.running("detect.a", Newer()):
            await rig.until(lambda: len(rig.said("detections")) == 1)
        before = dict(rig.log.ledgers["detect.a", 0].state)
        with pytest.raises(ExceptionGroup) as refused:
            await rig.service("detect.a", Echo()).run()
        assert refused.group_contains(NewerState, match="written by version 2.3, this is 2.1")
        assert rig.log.ledgers["detect.a", 0].state == before

    clock.run(story())


def test_an_answer_too_large_for_its_topic_travels_by_claim_check(tmp_path: Path) -> None:
    async def story() -> None:
        claims = Claims(open_store(str(tmp_path)))
        rig = Rig.of()
        source = rig.source("m", "detect.a", "dedup", count=3)
        rig.windows(source, 0, 1, 2, 3)
        async with rig.running("detect.a", Echo(), claims=claims):
            await rig.until(lambda: len(rig.records_at("detections")) == 4)
        (claimed,) = [s for s in rig.records_at("detections") if s.header("claim")]
        assert claimed.size < 2000
        async with rig.running("dedup", Collect("detect.a"), claims=claims):
            await rig.until(lambda: bool(ended(rig, "events")))
        assert rows(rig) == [f"{i}:detect.a=done" for i in range(3)]

    asyncio.run(story())


@told
async def test_a_trace_runs_from_the_first_record_to_the_last() -> None:
    rig = Rig.of()
    rig.source("m", "decode", "detect.a", "dedup", count=3)
    async with (
        rig.running("decode", Count()),
        rig.running("detect.a", Echo2()),
        rig.running("dedup", Collect("detect.a")),
    ):
        await rig.until(lambda: bool(ended(rig, "events")))
    traces: dict[bytes, list[str]] = {}
    for name in ("windows", "detections", "events"):
        for stored in rig.records_at(name):
            version, trace, span, flags = (stored.header("traceparent") or b"").split(b"-")
            assert (version, len(trace), len(span), flags) == (b"00", 32, 16, b"01")
            traces.setdefault(trace, []).append(name)
    assert sorted(traces.values()) == [["windows", "detections", "events"]] * 4


class Echo2(Each):
    reads, writes = ("windows",), ("detections",)

    async def handle(self, record: Window, look: Look) -> Detection:
        return Detection.of(record, events=())


@told
async def test_a_plain_handler_answers_at_once_and_what_it_cannot_answer_goes_the_long_way() -> None:
    class Plain(Each):
        reads, writes = ("windows",), ("detections",)
        tries = 0

        def handle(self, record: Window, look: Look) -> Detection:
            if record.index == 1 and self.tries < 2:
                self.tries += 1
                raise Retryable("not now")
            if record.index == 2:
                raise Rejected("never")
            return Detection.of(record, events=())

    rig = Rig.of()
    rig.windows(rig.source("m", "detect.a"), 0, 1, 2, 3)
    async with rig.running("detect.a", Plain()):
        await rig.until(lambda: len(rig.said("detections")) == 4)
    assert {i: r.outcome for (_, i), r in rig.said("detections").items()} == {
        0: "done",
        1: "done",
        2: "failed",
        3: "done",
    }


@told
async def test_bare_bytes_pass_once_each_over_restarts_and_failures() -> None:
    class Upper(Each):
        reads, writes = ("bytes.in",), ("bytes.out",)

        def __init__(self) -> None:
            self.refused = False

        def handle(self, record: Stored, look: Look) -> Entry:
            if record.value == b"r57" and not self.refused:
                self.refused = True
                raise Retryable("once")
            if record.value == b"r60":
                raise Rejected("never")
            return Entry("bytes.out", record.partition, record.key, (record.value or b"").upper())

    rig = Rig.of(partitions=1)
    rig.log.append([Entry("bytes.in", 0, b"k", b"r%d" % i) for i in range(300)])
    for pause_s in (0.05, 0.1):
        async with rig.running("upper", Upper()):
            await asyncio.sleep(pause_s)
    async with rig.running("upper", Upper()):
        await rig.until(lambda: len(rig.records_at("bytes.out")) == 299)
    assert sorted(s.value or b"" for s in rig.records_at("bytes.out")) == sorted(
        b"R%d" % i for i in range(300) if i != 60
    )
    assert [letter.value for letter in rig.dead("bytes.in")] == [b"r60"]
