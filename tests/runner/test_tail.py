"""What an owner has said last in a landing that was torn stands, and whoever comes next goes on behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streamproc.messages import Record, Window
from streamproc.runner import tail
from streamproc.runner.cover import Accounted, Cover
from streamproc.runner.tail import APART_MS, Tail, owed
from streamproc.stage import Follow
from streamproc.wire import Stored
from tests.bus.memory import MemoryBus
from tests.runner.rig import Rig, told
from tests.sim import toys
from tests.sim.toys import GRID

SOURCE = toys.source("m", services=("decode",), count=20)


def slow() -> Follow:
    return toys.Decode(lambda: asyncio.sleep(1))


def windows(rig: Rig) -> list[tuple[int, int]]:
    """As they lie there."""
    return [(w.index, w.until) for w in rig.records("windows")]


def end(rig: Rig) -> int | None:
    return next((w.count for w in rig.records("windows") if w.ended), None)


def accounted(rig: Rig) -> Accounted:
    whole, rows = Accounted(), {f"{c.stream}/{c.hour}": c for c in rig.records("coverage")}
    for row in rows.values():
        whole.hear(row)
    return whole


async def whole(rig: Rig) -> int:
    """The stream has ended, with each number once, and coverage says so. How many numbers it has."""
    await rig.until(lambda: end(rig) is not None and accounted(rig).complete)
    count = end(rig)
    assert count is not None
    assert windows(rig) == [(i, i + 1) for i in range(count + 1)]
    assert accounted(rig).taken.pairs() == [(0, count + 1)]
    return count


@asynccontextmanager
async def decoding(rig: Rig, most: int) -> AsyncIterator[None]:
    """An owner who dies once there are so many windows."""
    async with rig.killed("decode", slow()):
        yield
        await rig.until(lambda: len(windows(rig)) >= most)


@told
async def test_a_stream_that_is_removed_after_a_torn_landing_ends_behind_the_last_window_that_stands() -> None:
    rig = Rig.of(partitions=1)
    rig.source("m", "decode", count=20)
    async with decoding(rig, 3):
        pass
    rig.log.torn = 1.0
    async with decoding(rig, 4):
        pass
    rig.log.torn, torn = 0.0, len(windows(rig))
    rig.source("m", "decode", count=20, revision=1, state="removed", from_index=3)
    async with rig.running("decode", slow()):
        assert await whole(rig) == torn


@told
async def test_what_stands_is_found_where_not_even_its_coverage_has_landed() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "decode", count=20)
    async with decoding(rig, 3):
        pass
    n = len(windows(rig))
    rig.windows(source, n, n + 1)
    rig.source("m", "decode", count=20, revision=1, state="removed", from_index=n)
    async with rig.running("decode", slow()):
        assert await whole(rig) == n + 2


@told
async def test_it_is_found_where_nothing_has_ever_landed_whole() -> None:
    rig = Rig.of(partitions=1)
    rig.windows(rig.source("m", "decode", count=20), 0, 1, 2)
    rig.source("m", "decode", count=20, revision=1, state="removed", from_index=0)
    async with rig.running("decode", slow()):
        assert await whole(rig) == 3


@told
async def test_it_is_known_to_the_owner_after_the_next_though_that_one_has_not_come_as_far_again() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "decode", count=20)
    async with decoding(rig, 3):
        pass
    n = len(windows(rig))
    rig.windows(source, n, n + 1, n + 2)
    async with rig.killed("decode", slow()):
        await rig.until(lambda: accounted(rig).taken.end == n + 3)
        await asyncio.sleep(0.5)
    await asyncio.sleep(60)  # whoever comes now finds the end of the topic whole
    rig.source("m", "decode", count=20, revision=1, state="removed", from_index=n)
    async with rig.running("decode", slow()):
        assert await whole(rig) == n + 3


@told
async def test_a_stream_that_goes_on_says_nothing_twice() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "decode", count=9)
    async with decoding(rig, 3):
        pass
    n = len(windows(rig))
    rig.windows(source, n, n + 1, n + 2)
    async with rig.running("decode", slow()):
        assert await whole(rig) == 9


@told
async def test_an_end_that_stands_is_not_said_again_by_whoever_is_told_to_end_the_stream() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "decode", count=5)
    async with decoding(rig, 3):
        pass
    rig.windows(source, *range(len(windows(rig)), 6))
    rig.source("m", "decode", count=5, revision=1, state="removed", from_index=3)
    async with rig.running("decode", slow()) as decode:
        assert await whole(rig) == 5
        assert all(run.over for runner in decode.runners.values() for run in runner.book.runs.values())


@told
async def test_windows_of_others_and_of_streams_that_are_gone_are_none_of_ours() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "decode", count=20)
    unknown = toys.source("unknown", services=("decode",), count=20)
    other = rig.source("other", "elsewhere", count=20)
    rig.log.append([rig.window(source, 0, service="elsewhere"), rig.window(unknown, 0), rig.window(other, 0)])
    async with rig.running("decode", slow()):
        await rig.until(lambda: len(windows(rig)) > 5)
    assert {row.stream for row in rig.records("coverage")} == {"m"}


class Watched(MemoryBus):
    """Remembers what was read beside what a lease fetches."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.log)
        self.found: list[Stored] = []

    async def read(self, *place: Any, **options: Any) -> list[Stored]:
        found = await super().read(*place, **options)
        self.found += found
        return found


@told
async def test_after_a_whole_landing_no_more_is_read_than_clocks_may_differ_and_while_it_works_nothing() -> None:
    rig = Rig.of(partitions=1)
    rig.source("m", "decode", count=500, pace=1000)
    async with rig.killed("decode", slow()):
        await rig.until(lambda: len(windows(rig)) > 200, within_s=500)
    n, died_ms, bus = len(windows(rig)), asyncio.get_running_loop().time() * 1000, Watched(rig)
    async with rig.running("decode", slow(), bus=bus):
        await rig.until(lambda: len(windows(rig)) > n + 100, within_s=500)
    assert bus.found
    assert all(died_ms - APART_MS - 2000 <= stored.time_ms <= died_ms for stored in bus.found)


@told
async def test_who_has_just_been_named_for_the_first_time_reads_nothing_of_what_others_wrote_for_days() -> None:
    rig = Rig.of(partitions=1)
    other = rig.source("other", "elsewhere", count=500)
    rig.windows(other, *range(100))
    await asyncio.sleep(86_400)
    bus = Watched(rig)
    async with rig.running("decode", slow(), bus=bus):
        await asyncio.sleep(60)
        assert not bus.found
        rig.source("m", "decode", count=5)
        await rig.until(lambda: end(rig) is not None)
    again = Watched(rig)
    async with rig.running("decode", slow(), bus=again):
        await asyncio.sleep(60)
    assert {stored.key for stored in again.found} == {b"m"}


@told
async def test_a_bus_that_is_away_is_waited_for() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "decode", count=5)
    async with decoding(rig, 3):
        pass
    rig.windows(source, len(windows(rig)))
    rig.log.away = 0.5
    async with rig.running("decode", slow()):
        await rig.until(lambda: end(rig) is not None, within_s=3000)
        rig.log.away = 0.0
        assert await whole(rig) == 5


def test_without_a_look_at_the_tail_the_stories_above_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    async def blind(self: Tail) -> None:
        pass

    monkeypatch.setattr(tail.Tail, "adopt", blind)
    for story in (
        test_a_stream_that_is_removed_after_a_torn_landing_ends_behind_the_last_window_that_stands,
        test_what_stands_is_found_where_not_even_its_coverage_has_landed,
        test_it_is_found_where_nothing_has_ever_landed_whole,
        test_a_stream_that_goes_on_says_nothing_twice,
    ):
        with pytest.raises(AssertionError):
            story()


# what is owed ---------------------------------------------------------------------------------------------------------


def standing(until: int) -> Cover:
    """Numbers below `until` have an outcome."""
    cover = Cover("decode", "m", 0)
    for i in range(until):
        cover.add(toys.window(SOURCE, i, i + 1, 20), "done", SOURCE)
    return cover


def places(records: list[Record]) -> list[tuple[int, int, str, int | None]]:
    return [(r.index, r.until, r.outcome, r.count) for r in records]


def test_of_a_gap_that_reaches_beyond_what_stands_the_rest_is_owed_with_its_own_times() -> None:
    gap = Window.of(
        toys.window(SOURCE, 5, 20, 20), outcome="skipped", reason="gap", utc="2026-01-01T00:00:10.000+00:00"
    )
    (rest,) = owed(standing(10), SOURCE, [gap])
    assert (rest.index, rest.until, rest.outcome, rest.reason) == (10, 20, "skipped", "gap")
    assert (rest.start_ms, rest.end_ms) == (GRID.starts_ms(10), gap.end_ms)
    assert rest.utc == "2026-01-01T00:00:20.000+00:00"
    (last,) = owed(standing(19), SOURCE, [gap])
    assert (last.index, last.until_index) == (19, None)


def test_what_could_not_be_read_fails_behind_what_stands_and_the_end_follows_it() -> None:
    lost = Window.of(toys.window(SOURCE, 5, 6, 20), outcome="failed", reason="unreadable")
    told = owed(standing(10), SOURCE, [lost, toys.window(SOURCE, 6, 7, 6)])
    assert places(told) == [(10, 11, "failed", None), (11, 12, "done", 11)]
    assert told[0].start_ms == GRID.starts_ms(10)
    assert told[1].start_ms - GRID.starts_ms(11) == toys.window(SOURCE, 6, 7, 6).start_ms - GRID.starts_ms(6)


def test_an_end_at_its_place_stays_there_and_what_stands_before_it_is_not_said_again() -> None:
    told = owed(standing(10), SOURCE, [toys.window(SOURCE, i, i + 1, 11) for i in range(8, 12)])
    assert places(told) == [(10, 11, "done", None), (11, 12, "done", 11)]


def test_hours_that_are_settled_count_as_said() -> None:
    cover = standing(4)
    cover.settled = 10
    assert owed(cover, SOURCE, [toys.window(SOURCE, 9, 10, 20)]) == []
    assert places(owed(cover, SOURCE, [toys.window(SOURCE, 4, 5, 4)])) == [(10, 11, "done", 10)]
