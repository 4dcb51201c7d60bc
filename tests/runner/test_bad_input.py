"""Records and stages that are not as they should be: told, buried, counted, and the partition goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from streamproc import wire
from streamproc.bus.claims import Claims, open_store
from streamproc.errors import LeftOut, NotYet, Rejected
from streamproc.messages import Detection, Event, Outcome, Record, Sighting, Window
from streamproc.stage import Each, Look, Row
from streamproc.wire import Entry
from tests.runner.rig import Rig, told
from tests.runner.test_fold import Collect, detections, rows
from tests.sim import clock, toys


class See(Each):
    """Sees its index; on some it does what a test wants."""

    reads, writes = ("windows",), ("detections",)

    def __init__(self, on: dict[int, Callable[[], None]] | None = None) -> None:
        self.on = on or {}

    async def handle(self, record: Window, look: Look) -> Detection:
        if record.index in self.on:
            self.on[record.index]()
        return Detection.of(record, events=(Sighting(label=str(record.index)),))


def without(entry: Entry, header: str) -> Entry:
    return replace(entry, headers=tuple(h for h in entry.headers if h[0] != header))


def typed(entry: Entry, kind: bytes) -> Entry:
    return replace(entry, headers=tuple((k, kind if k == "ce_type" else v) for k, v in entry.headers))


SPOILED = {
    "a body that is garbage": lambda e: replace(e, value=b"\xc1garbage"),
    "a body that is cut": lambda e: replace(e, value=e.value[:-3]),
    "no body at all": lambda e: replace(e, value=None),
    "an unknown version": lambda e: typed(e, b"streamproc.windows.v2"),
    "another topic's type": lambda e: typed(e, b"streamproc.captions.v1"),
    "a missing type": lambda e: without(e, "ce_type"),
    "a missing id": lambda e: without(e, "ce_id"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_record_is_buried_and_fails_and_the_others_go_on(spoil: Callable[[Entry], Entry]) -> None:
    async def story() -> None:
        rig = Rig.of()
        source = rig.source("m", "detect.a")
        rig.log.append([rig.window(source, 0), spoil(rig.window(source, 1)), rig.window(source, 2)])
        async with rig.running("detect.a", See()):
            await rig.until(lambda: ("m", 2) in rig.said("detections"))
        said = rig.said("detections")
        (letter,) = rig.dead("windows")
        assert letter.header("error-class") == b"Unparseable"
        assert letter.header("source-topic") == b"windows"
        assert letter.header("source-offset") == b"1"
        assert letter.header("service") == b"detect.a"
        assert said["m", 0].outcome == said["m", 2].outcome == "done"
        assert (said["m", 1].outcome, said["m", 1].reason) == ("failed", "unparseable")

    clock.run(story())


@told
async def test_a_record_without_a_header_fails_under_its_number_and_an_end_stays_an_end() -> None:
    from tests.runner.test_fold import Collect

    rig = Rig.of()
    source = rig.source("m", "detect.a", "dedup", count=2)
    rig.windows(source, 0, 1, 2)
    async with rig.running("detect.a", See()):
        await rig.until(lambda: ("m", 2) in rig.said("detections"))
    stored = sorted((s for p in range(2) for s in rig.log.all("detections", p)), key=lambda s: s.header("ce_id") or b"")
    other = Rig.of()
    other.source("m", "detect.a", "dedup", count=2)
    entries = [Entry(s.topic, s.partition, s.key, s.value, s.headers) for s in stored]
    other.log.append([without(entries[0], "ce_id"), entries[1], without(entries[2], "ce_type")])
    async with other.running("dedup", Collect("detect.a")):
        await other.until(lambda: any(r.ended for r in other.records("events")))
    rows = [r.event.details for r in other.records("events") if r.event]
    assert rows == ["0:detect.a=failed", "1:detect.a=done"]


@told
async def test_a_rejected_record_is_buried_with_its_cause_and_fails_with_it() -> None:
    def reject() -> None:
        raise Rejected("400: too many images")

    rig = Rig.of()
    rig.windows(rig.source("m", "detect.a"), 0, 1, 2)
    async with rig.running("detect.a", See({1: reject})):
        await rig.until(lambda: len(rig.said("detections")) == 3)
    failed = rig.said("detections")["m", 1]
    assert (failed.outcome, failed.reason) == ("failed", "400: too many images")
    assert [letter.header("error") for letter in rig.dead("windows")] == [b"400: too many images"]


@told
async def test_what_is_left_out_on_purpose_is_skipped_with_the_reason_and_no_dead_letter() -> None:
    def leave_out() -> None:
        raise LeftOut("the budget of 'task:soccer' is spent", reason="budget")

    rig = Rig.of()
    rig.windows(rig.source("m", "detect.a"), 0, 1, 2)
    async with rig.running("detect.a", See({1: leave_out})) as service:
        await rig.until(lambda: len(rig.said("detections")) == 3)
    left_out = rig.said("detections")["m", 1]
    assert (left_out.outcome, left_out.reason) == ("skipped", "budget")
    assert rig.dead("windows") == []
    assert (service.shared.counts.skipped, service.shared.counts.dead, service.shared.counts.bugs) == (1, 0, 0)


@told
async def test_a_row_that_is_left_out_is_skipped_and_those_behind_it_are_folded() -> None:
    from tests.runner.test_fold import Collect, detections, rows

    class Thrifty(Collect):
        async def fold(self, row: Row, state: Any, look: Look) -> tuple[Sequence[Record], Any]:
            if row.index == 1:
                raise LeftOut("the budget of 'task:soccer' is spent", reason="budget")
            return await super().fold(row, state, look)

        def otherwise(self, row: Row, state: Any, outcome: Outcome, reason: str) -> tuple[Sequence[Record], Any]:
            return [Event.of(row, until_index=None, outcome=outcome, reason=reason)], state

    rig = Rig.of()
    detections(rig, rig.source("m", "detect.a", "dedup", count=3), "detect.a", 0, 1, 2, 3)
    async with rig.running("dedup", Thrifty("detect.a")):
        await rig.until(lambda: any(r.ended for r in rig.records("events")))
    assert rows(rig) == ["0:detect.a=done", "2:detect.a=done"]
    assert [(r.index, r.outcome) for r in rig.records("events") if r.reason == "budget"] == [(1, "skipped")]
    assert rig.dead("detections") == []


@told
async def test_a_bug_in_a_stage_fails_its_input_by_name_and_nothing_else() -> None:
    rig = Rig.of()
    rig.windows(rig.source("m", "detect.a"), 0, 1, 2)
    async with rig.running("detect.a", See({1: lambda: dict[str, None]()["nothing"]})) as service:
        await rig.until(lambda: len(rig.said("detections")) == 3)
    assert rig.said("detections")["m", 1].reason == "KeyError: 'nothing'"
    assert service.shared.counts.bugs == 1


@told
async def test_an_answer_larger_than_its_topic_allows_is_a_failure_of_its_input() -> None:
    class Shout(Each):
        reads, writes = ("windows",), ("detections",)

        async def handle(self, record: Window, look: Look) -> Detection:
            return Detection.of(record, events=(), raw="x" * (2**20 if record.index == 1 else 1))

    rig = Rig.of()
    rig.windows(rig.source("m", "detect.a"), 0, 1, 2)
    async with rig.running("detect.a", Shout(), claims=Claims(None)):  # as settings without a store give them
        await rig.until(lambda: len(rig.said("detections")) == 3)
    failed = rig.said("detections")["m", 1]
    assert failed.outcome == "failed"
    assert failed.reason is not None
    assert "larger than the 1048576 bytes" in failed.reason


def test_a_record_whose_payload_goes_while_it_waits_for_its_row_is_buried_and_the_row_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        claims = Claims(open_store(str(tmp_path)))
        rig = Rig.of()
        source = rig.source("m", "detect.a", "detect.b", "dedup", count=2)
        large = Detection.of(
            toys.window(source, 0, 1, 2),
            id="detect.a/decode/m/0/0",
            service="detect.a",
            root="decode",
            events=(Sighting(label="x" * 10_000),),
        )
        claim = await claims.check_in(wire.encode(large, partitions=rig.log.partitions, time=""), 5000)
        rig.log.append([claim])
        async with rig.running("dedup", Collect("detect.a", "detect.b"), claims=claims) as service:
            await rig.until(lambda: bool(rig.log.state_keys("park")))
            assert await claims.sweep(older_than_s=-1) == 1
            detections(rig, source, "detect.b", 0, 1, 2)
            detections(rig, source, "detect.a", 1, 2)
            await rig.until(lambda: any(r.ended for r in rig.records("events")), within_s=10)
            assert service.shared.counts.dead == 1
        first, second = rows(rig)
        assert first.startswith("0:detect.a=claim to ")
        assert second == "1:detect.a=done,detect.b=done"
        assert [e.header("claim") for e in rig.dead("detections")] == [claim.header("claim")]

    asyncio.run(story())


@told
async def test_what_comes_twice_is_dropped_and_counted() -> None:
    rig = Rig.of()
    source = rig.source("m", "detect.a")
    rig.windows(source, 0, 1, 0, 1, 2)
    async with rig.running("detect.a", See()) as service:
        await rig.until(lambda: ("m", 2) in rig.said("detections"))
        rig.windows(source, 0, 1, 2, 3)
        await rig.until(lambda: ("m", 3) in rig.said("detections"))
    assert service.shared.counts.duplicate == 5
    assert len(rig.records("detections")) == 4


@told
async def test_streams_that_do_not_name_the_service_are_passed_over() -> None:
    rig = Rig.of()
    rig.windows(rig.source("other", "detect.b"), 0, 1)
    rig.windows(rig.source("m", "detect.a"), 0)
    async with rig.running("detect.a", See()) as service:
        await rig.until(lambda: ("m", 0) in rig.said("detections") and service.shared.counts.passed_over == 2)
    assert set(rig.said("detections")) == {("m", 0)}


@told
async def test_a_record_whose_source_nobody_has_heard_of_waits_and_then_fails() -> None:
    rig = Rig.of()
    stranger = rig.source("m", "detect.a")
    lost = replace(stranger, revision=7, index=7)
    rig.log.append([rig.window(lost, 0), rig.window(stranger, 1)])
    async with rig.running("detect.a", See()):
        await rig.until(lambda: ("m", 1) in rig.said("detections"))
        assert ("m", 0) not in rig.said("detections")
        await rig.until(lambda: ("m", 0) in rig.said("detections"), within_s=1000)
    assert rig.said("detections")["m", 0].reason == "source-unknown"


@told
async def test_numbers_that_expired_unread_are_skipped_with_the_reason() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a")
    rig.windows(source, 0, 1, 2, 3, 4, 5)
    async with rig.running("detect.a", See(), bounds=None or _slow()):
        await rig.until(lambda: ("m", 0) in rig.said("detections"))
    rig.windows(source, 6, 7)
    end = rig.log.span("windows", 0).end
    rig.windows(source, 8)
    rig.log.expire("windows", 0, before=end)
    async with rig.running("detect.a", See()) as service:
        await rig.until(lambda: ("m", 8) in rig.said("detections"))
    told_ = {r.index: r for r in rig.records("detections")}
    expired = [r for r in told_.values() if r.reason == "expired"]
    covered = {i for r in rig.records("detections") for i in range(r.index, r.until)}
    assert covered == set(range(9))
    assert expired
    assert service.shared.counts.expired > 0


def _slow() -> object:
    from streamproc.runner import Bounds

    return Bounds(calls=8, batch=16)


@told
async def test_not_yet_waits_for_the_key_and_gives_up_at_its_deadline_also_over_a_restart() -> None:
    class Wait(Each):
        reads, writes, tables = ("windows",), ("detections",), ("contexts",)

        async def handle(self, record: Window, look: Look) -> Detection:
            if look.get("contexts", record.stream, "0") is None:
                raise NotYet("no context", topic="contexts", key=f"{record.stream}\0" + "0", within_s=600)
            return Detection.of(record, events=())

    rig = Rig.of()
    rig.windows(rig.source("late", "detect.a"), 0)
    rig.windows(rig.source("never", "detect.a"), 0)
    async with rig.running("detect.a", Wait()):
        await rig.until(lambda: len(rig.log.state_keys("park")) == 2)
    async with rig.running("detect.a", Wait()):
        from streamproc.messages import Context

        context = Context.of(
            rig.source("late", "detect.a"), id="context/context/late/0/0", service="context", root="context", from_=0
        )
        rig.log.put(context, sub=("0",))
        await rig.until(lambda: ("late", 0) in rig.said("detections"))
        assert ("never", 0) not in rig.said("detections")
        await rig.until(lambda: ("never", 0) in rig.said("detections"), within_s=700)
    assert rig.said("detections")["late", 0].outcome == "done"
    assert (rig.said("detections")["never", 0].outcome, rig.said("detections")["never", 0].reason) == (
        "skipped",
        "no context",
    )
    assert not rig.log.state_keys("park")
