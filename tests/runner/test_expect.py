"""What a record waits for and can do without: it comes, or it has been waited for long enough, by one for all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from streamproc import wire
from streamproc.messages import Caption, Context, Event, Life, Record, Source, Window, record_id
from streamproc.stage import Each, Fold, Look, Row
from tests.runner.rig import Rig, told


def known(look: Look, of: Any, within_s: float) -> str:
    found = look.expect("contexts", of.stream, f"{of.generation}.0", within_s=within_s)
    return found.fields["scene"] if found and found.fields else "nothing"


class Tell(Each):
    reads, writes, tables = ("windows",), ("captions",), ("contexts",)

    def __init__(self, within_s: float) -> None:
        self.within_s = within_s

    async def handle(self, record: Window, look: Look) -> Caption:
        return Caption.of(record, text=known(look, record, self.within_s))


class TellRows(Fold):
    reads, writes, tables = ("windows",), ("events",), ("contexts",)

    def joins(self, source: Source) -> tuple[str, ...]:
        return ("decode",)

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[Sequence[Record], Any]:
        if row.ended:
            return [], None
        life = Life(
            id=f"{row.stream}/e{row.index}", revision=0, state="open", label=known(look, row, 10), start_ms=0,
            end_ms=1, time_ms=0, votes=(),
        )  # fmt: skip
        return [Event.of(row, until_index=None, event=life)], None


def context(rig: Rig, source: Source, scene: str, *, generation: int = 0) -> None:
    place: dict[str, Any] = {
        "service": "context.m",
        "root": "context.m",
        "stream": source.stream,
        "generation": generation,
    }
    made = Context(
        id=record_id("context.m", "context.m", source.stream, generation, 0), **place, revision=0, index=0,
        start_ms=0, end_ms=4000, outcome="done", fields={"scene": scene}, from_=0,
    )  # fmt: skip
    rig.log.append([wire.encode(made, partitions=rig.log.partitions, time="", sub=(f"{generation}.0",))])


def texts(rig: Rig) -> dict[int, str]:
    return {r.index: r.text for r in rig.records("captions")}


@told
async def test_what_is_expected_is_waited_for() -> None:
    rig = Rig.of()
    source = rig.source("m", "caption.m", count=9)
    async with rig.running("caption.m", Tell(10)) as service:
        rig.windows(source, 0, 1)
        await rig.until(lambda: service.shared.counts.records_in == 2)
        context(rig, source, "night")
        await rig.until(lambda: len(texts(rig)) == 2)
    assert texts(rig) == {0: "night", 1: "night"}


@told
async def test_what_one_has_waited_for_in_vain_nobody_waits_for_until_it_is_heard_of() -> None:
    rig, loop = Rig.of(), asyncio.get_running_loop()
    source = rig.source("m", "caption.m", count=9)
    async with rig.running("caption.m", Tell(10)) as service:
        rig.windows(source, 0)
        await asyncio.sleep(9)
        rig.windows(source, 1, 2)
        await rig.until(lambda: len(texts(rig)) == 3)
        assert loop.time() < 11, "those that came later went on with the first"
        rig.windows(source, 3)
        await rig.until(lambda: len(texts(rig)) == 4)
        assert loop.time() < 11, "and who comes now waits for nothing"
        context(rig, source, "night")
        await asyncio.sleep(1)
        rig.windows(source, 4)
        await rig.until(lambda: len(texts(rig)) == 5)
        assert service.shared.counts.skipped == 0
    assert texts(rig) == {0: "nothing", 1: "nothing", 2: "nothing", 3: "nothing", 4: "night"}


@told
async def test_whoever_takes_over_waits_no_longer_than_the_first_would_have() -> None:
    rig, loop = Rig.of(), asyncio.get_running_loop()
    source = rig.source("m", "caption.m", count=9)
    async with rig.running("caption.m", Tell(10)) as service:
        rig.windows(source, 0)
        await rig.until(lambda: service.shared.counts.landings > 0)
        await asyncio.sleep(5)
    async with rig.running("caption.m", Tell(10)):
        await rig.until(lambda: len(texts(rig)) == 1)
    assert loop.time() < 12


@told
async def test_nothing_is_waited_for_where_there_is_no_time_to_wait() -> None:
    rig = Rig.of()
    source = rig.source("m", "caption.m", count=9)
    async with rig.running("caption.m", Tell(0)):
        rig.windows(source, 0, 1, 2)
        await rig.until(lambda: len(texts(rig)) == 3)
    assert set(texts(rig).values()) == {"nothing"}


@told
async def test_a_row_waits_too_and_goes_without() -> None:
    rig = Rig.of()
    source = rig.source("m", "context.m", count=3)
    async with rig.running("dedup", TellRows()):
        named = rig.source("n", "dedup", count=3)
        rig.windows(source, 0)
        rig.windows(named, 0, 1, 2, 3)
        await rig.until(lambda: any(r.ended for r in rig.records("events")))
    assert [r.event.label for r in rig.records("events") if r.event and r.stream == "n"] == ["nothing"] * 3


@told
async def test_a_record_of_another_life_of_the_stream_is_not_what_is_expected() -> None:
    rig = Rig.of()
    source = rig.source("m", "caption.m", count=9, generation=1)
    async with rig.running("caption.m", Tell(10)) as service:
        context(rig, source, "old")
        rig.windows(source, 0)
        await rig.until(lambda: service.shared.counts.records_in == 1)
        context(rig, source, "new", generation=1)
        await rig.until(lambda: len(texts(rig)) == 1)
    assert texts(rig) == {0: "new"}
