"""Rows of tables go with the streams of which nothing else is left, and with no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from streamproc.messages import Detection, Source, Window
from streamproc.runner.ends import LOOK_EVERY_S, TABLES_KEEP_H
from streamproc.stage import Look
from streamproc.topics import deployment, key_of
from tests.bus.memory import MemoryBus
from tests.runner.rig import Rig, told
from tests.runner.test_ends import Decode, See
from tests.runner.test_fold import Collect
from tests.sim import clock

LONG_S = TABLES_KEEP_H * 3600 + 7200
COUNT = 3
SERVICES = ("decode", "detect.a", "dedup")


async def deployed() -> Rig:
    rig = Rig.of(partitions=1)
    await MemoryBus(rig.log).create(deployment())
    return rig


def remove(rig: Rig, source: Source, *services: str) -> None:
    """As `streamproc sources remove` does."""
    later = {"generation": source.generation, "revision": source.revision + 1, "from_index": COUNT + 1}
    rig.source(source.stream, *services, count=COUNT, state="removed", **later)


def rows(rig: Rig, table: str, stream: str) -> list[str]:
    return [s.key.decode().partition("\0")[2] for s in rig.log.under(table, key_of(stream, ""))]


async def work(rig: Rig, *, ends: int) -> None:
    async with (
        rig.running("decode", Decode()),
        rig.running("detect.a", See()),
        rig.running("dedup", Collect("detect.a")),
    ):
        await rig.until(lambda: sum(e.ended for e in rig.records("events")) == ends)
        await asyncio.sleep(5)


async def decode_for_a_while(rig: Rig) -> None:
    async with rig.running("decode", Decode()):
        await asyncio.sleep(3 * LOOK_EVERY_S)


@told
async def test_of_a_stream_that_was_removed_one_row_stays_and_of_others_all() -> None:
    rig = await deployed()
    gone = rig.source("gone", *SERVICES, count=COUNT)
    rig.source("stays", *SERVICES, count=COUNT)
    rig.source("gone/not", *SERVICES, count=COUNT)
    await work(rig, ends=3)
    remove(rig, gone, *SERVICES)
    await decode_for_a_while(rig)
    before = {name: (rows(rig, "sources", name), rows(rig, "coverage", name)) for name in ("stays", "gone/not")}
    assert len(rows(rig, "coverage", "gone")) == len(SERVICES)
    await asyncio.sleep(LONG_S)
    rig.log.trim()
    await decode_for_a_while(rig)
    assert rows(rig, "coverage", "gone") == []
    assert rows(rig, "sources", "gone") == ["0.1"], "it tells which lives the name had"
    assert {name: (rows(rig, "sources", name), rows(rig, "coverage", name)) for name in before} == before
    ends = {name: rig.log.span(name, 0).end for name in ("sources", "coverage")}
    await decode_for_a_while(rig)
    assert {name: rig.log.span(name, 0).end for name in ends} == ends, "what has gone is not told again"
    assert rig.dead("sources") == [], "a row that goes is no record"
    rig.source("gone", *SERVICES, count=COUNT, generation=1)
    await work(rig, ends=1)  # the other ends have expired
    assert {(w.generation, w.index) for w in rig.records("windows")} == {(1, i) for i in range(COUNT + 1)}


@told
async def test_of_an_earlier_life_nothing_stays() -> None:
    rig = await deployed()
    first = rig.source("m", *SERVICES, count=COUNT)
    await work(rig, ends=1)
    remove(rig, first, *SERVICES)
    await decode_for_a_while(rig)
    rig.source("m", *SERVICES, count=COUNT, generation=1)
    await work(rig, ends=2)
    await asyncio.sleep(LONG_S)
    rig.log.trim()
    await decode_for_a_while(rig)
    assert rows(rig, "sources", "m") == ["1.0"]
    assert [key.split("\0")[2] for key in rows(rig, "coverage", "m")] == ["1"] * len(SERVICES)


async def _not_removed(rig: Rig) -> None:
    rig.source("m", *SERVICES, count=COUNT)
    await work(rig, ends=1)
    await asyncio.sleep(LONG_S)
    rig.log.trim()


async def _somebody_has_not_spoken(rig: Rig) -> None:
    named = (*SERVICES, "ensemble")
    source = rig.source("m", *named, count=COUNT)
    await work(rig, ends=1)
    remove(rig, source, *named)
    await decode_for_a_while(rig)
    await asyncio.sleep(LONG_S)
    rig.log.trim()


class Hangs(See):
    async def handle(self, record: Window, look: Look) -> Detection:
        if record.index == 1:
            await asyncio.sleep(1e9)
        return Detection.of(record, events=())


async def _somebody_is_not_through(rig: Rig) -> None:
    source = rig.source("m", "decode", "detect.a", count=COUNT)
    async with rig.running("decode", Decode()), rig.killed("detect.a", Hangs()):
        await rig.until(lambda: any(d.ended for d in rig.records("detections")))
        await asyncio.sleep(5)
    remove(rig, source, "decode", "detect.a")
    await decode_for_a_while(rig)
    await asyncio.sleep(LONG_S)
    rig.log.trim()


async def _something_is_left(rig: Rig) -> None:
    source = rig.source("m", *SERVICES, count=COUNT)
    await work(rig, ends=1)
    remove(rig, source, *SERVICES)
    await decode_for_a_while(rig)
    await asyncio.sleep(LONG_S)


@pytest.mark.parametrize(
    "story", [_not_removed, _somebody_has_not_spoken, _somebody_is_not_through, _something_is_left]
)
def test_rows_stay_that_somebody_may_ask_for(story: Callable[[Rig], object]) -> None:
    async def tell() -> None:
        rig = await deployed()
        await story(rig)  # type: ignore[misc]  # a coroutine function by the list above
        before = rows(rig, "sources", "m"), rows(rig, "coverage", "m")
        assert before[1]
        await decode_for_a_while(rig)
        assert (rows(rig, "sources", "m"), rows(rig, "coverage", "m")) == before

    clock.run(tell())
