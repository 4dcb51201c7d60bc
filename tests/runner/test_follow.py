"""Runs of a table's newest version: what they yield lands with the cursor behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from streamproc.errors import Unreachable
from streamproc.messages import Frame, Record, Source, Window
from streamproc.runner.pace import Roster
from streamproc.runner.state import MOST_BYTES
from streamproc.stage import Follow, Pace
from streamproc.topics import topic
from tests.bus.memory import MemoryBus, MemoryLog
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


@told
async def test_of_three_versions_heard_at_once_no_two_run_at_the_same_time() -> None:
    """The one in the middle is over before it has begun; the last waits for the first all the same."""
    told_of: list[str] = []

    class Slow(Follow):
        reads, writes = ("sources",), ("windows",)
        Cursor = int

        async def run(
            self, source: Source, cursor: int | None, look: Pace
        ) -> AsyncIterator[tuple[Sequence[Record], Any]]:
            told_of.append(f"begins {source.revision}")
            try:
                await asyncio.sleep(1e6)
                yield [], cursor
            finally:
                await asyncio.sleep(5)
                told_of.append(f"ends {source.revision}")

    rig = Rig.of(partitions=1)
    rig.source("m", "decode", count=9)
    async with rig.running("decode", Slow()):
        await rig.until(lambda: told_of == ["begins 0"])
        for revision in (1, 2):
            rig.source("m", "decode", count=9, revision=revision, from_index=0)
        await rig.until(lambda: "begins 2" in told_of)
    assert told_of[:3] == ["begins 0", "ends 0", "begins 2"]


class Failing(Follow):
    """One stream of several fails, in its run and once more where that is made good."""

    reads, writes = ("sources",), ("windows",)
    Cursor = int

    async def run(self, source: Source, cursor: int | None, look: Pace) -> AsyncIterator[tuple[Sequence[Record], Any]]:
        if source.stream == "bad":
            raise KeyError("run")
        yield [toys.window(source, i, i + 1, 3) for i in range(4)], 4

    def otherwise(self, source: Source, cursor: int | None, reason: str) -> tuple[Sequence[Record], Any]:
        raise KeyError("otherwise")


@told
async def test_a_stage_that_cannot_even_say_that_it_failed_ends_one_stream_and_no_other() -> None:
    rig = Rig.of(partitions=1)
    rig.source("bad", "decode", count=3)
    async with rig.running("decode", Failing()) as service:
        await rig.until(lambda: len(rig.dead("sources")) == 1)
        rig.source("good", "decode", count=3)
        await rig.until(lambda: len(rig.said("windows")) == 4)
        assert service.shared.counts.bugs == 2
    async with rig.running("decode", Failing()) as service:
        await asyncio.sleep(60)
        assert service.shared.counts.bugs == 0, "it is over for the next owner too"


class Hoard(Follow):
    """Keeps more than a state may hold."""

    reads, writes = ("sources",), ("windows",)
    Cursor = bytes

    async def run(
        self, source: Source, cursor: bytes | None, look: Pace
    ) -> AsyncIterator[tuple[Sequence[Record], Any]]:
        yield [toys.window(source, 0, 1, 3)], bytes(MOST_BYTES)

    def otherwise(self, source: Source, cursor: bytes | None, reason: str) -> tuple[Sequence[Record], Any]:
        return [toys.window(source, 3, 4, 3)], b""


@told
async def test_a_cursor_too_large_to_land_is_its_streams_failure_and_nobody_elses() -> None:
    rig = Rig.of(partitions=1)
    rig.source("m", "decode", count=3)
    async with rig.running("decode", Hoard()):
        await rig.until(lambda: ("m", 3) in rig.said("windows"))
    assert set(rig.said("windows")) == {("m", 3)}
    assert len(rig.dead("sources")) == 1


class Asked(MemoryBus):
    """Answers who is at work after a while; the first time not at all."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.times = 0

    async def members(self, service: str) -> dict[str, list[int]]:
        self.times += 1
        await asyncio.sleep(5)
        if self.times == 1:
            raise Unreachable("broker", "is away", remedy="Wait")
        return {"somebody": [0]}


@told
async def test_nobody_runs_ahead_because_it_is_not_known_so_far_who_is_at_work() -> None:
    roster = Roster(bus := Asked(Rig.of().log))
    answers = await asyncio.gather(*(roster.running("detect.a") for _ in range(10)), return_exceptions=True)
    assert [type(a) for a in answers] == [Unreachable] + [bool] * 9
    assert all(answers)
    assert bus.times == 2
