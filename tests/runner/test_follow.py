"""Runs of a table's newest version: what they yield lands with the cursor behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from streamproc.messages import Frame, Record, Source, Window
from streamproc.stage import Follow, Pace
from streamproc.topics import topic
from tests.runner.rig import Rig, told
from tests.sim import toys

LIMIT = topic("windows").max_bytes


class Big(Follow):
    """Three windows and an end; the one in the middle is larger than its topic allows."""

    reads, writes = ("sources",), ("windows",)
    Cursor = int

    async def run(self, source: Source, cursor: int | None, look: Pace) -> AsyncIterator[tuple[Sequence[Record], Any]]:
        made: list[Record] = [toys.window(source, i, i + 1, 3) for i in range(4)]
        jpeg = bytes(LIMIT)
        made[1] = Window.of(made[1], frames=(Frame(t_ms=0, jpeg=jpeg),))
        yield made, 4


@told
async def test_a_window_that_is_too_large_fails_by_itself_and_its_stream_goes_on() -> None:
    rig = Rig.of()
    rig.source("m", "decode", count=3)
    async with rig.running("decode", Big()):
        await rig.until(lambda: len(rig.said("windows")) == 4)
    said = rig.said("windows")
    assert [said["m", i].outcome for i in range(4)] == ["done", "failed", "done", "done"]
    assert said["m", 1].reason == "too-large"
    assert said["m", 3].count == 3


@told
async def test_another_life_waits_for_the_end_of_the_one_before_though_the_table_has_not_heard_of_it() -> None:
    rig = Rig.of(partitions=1)
    rig.source("m", "decode", count=9)
    async with rig.running("decode", toys.Decode(lambda: asyncio.sleep(1))):
        await rig.until(lambda: len(rig.records("windows")) == 3)
        rig.log.table_lag_s = 60
        rig.source("m", "decode", count=9, revision=1, state="removed", from_index=3)
        rig.source("m", "decode", count=2, generation=1)
        await rig.until(lambda: any(w.ended and w.generation for w in rig.records("windows")), within_s=300)
    first = [w for w in rig.records("windows") if not w.generation]
    assert first[-1].ended
    assert [w.index for w in first] == list(range(len(first)))
    assert [w.index for w in rig.records("windows") if w.generation] == [0, 1, 2]
