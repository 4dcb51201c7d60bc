"""What is over is forgotten in the end, in memory and in the state; what may come again is not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from streamproc.errors import NotYet
from streamproc.messages import Detection, Source, Window
from streamproc.runner import Service
from streamproc.runner import book as book_module
from streamproc.runner import runner as runner_module
from streamproc.runner.book import Book
from streamproc.runner.ends import LOOK_EVERY_S, TABLES_KEEP_H, Ends, Life, keep_s
from streamproc.runner.runner import Runner
from streamproc.runner.waits import REMEMBERED, Waits
from streamproc.stage import Each, Follow, Look, Pace
from streamproc.wire import Stored
from tests.runner.rig import Rig, told
from tests.runner.test_fold import Collect, detections, rows
from tests.runner.test_named import EVENTS
from tests.sim import toys
from tests.sim.test_simulation import SMALL, seeds
from tests.sim.world import Weather

KEEP_S = keep_s(("windows",))


class Clock:
    """A wall clock that can be set without living through it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead_s


class See(Each):
    reads, writes = ("windows",), ("detections",)

    async def handle(self, record: Window, look: Look) -> Detection:
        await asyncio.sleep(0.01)
        return Detection.of(record, events=())


class Decode(Follow):
    """Paced by what reads windows; pauses where its source says so."""

    reads, writes = ("sources",), ("windows",)
    Cursor = int

    def __init__(self) -> None:
        self.began: list[tuple[str, int, int | None]] = []

    async def run(self, source: Source, cursor: int | None, look: Pace) -> AsyncIterator[tuple[list[Window], int]]:
        self.began.append((source.stream, source.revision, cursor))
        for index in range(cursor or 0, source.task["count"] + 1):
            if source.state == "paused" and index == 2:
                return
            await look.room(source, index, ahead=3)
            yield [toys.window(source, index, index + 1, source.task["count"])], index + 1


def state(rig: Rig, service: str) -> list[str]:
    return [key for p in range(rig.log.partitions) for key in rig.log.ledgers[service, p].state if "format" not in key]


def kept(runner: Runner) -> dict[str, int]:
    """How much of streams a lease still has in memory, by where."""
    book, intake, look, way = runner.book, runner.intake, runner.look, runner.way
    places = {
        "guards": book.guards, "lives": book.guards.lives, "covers": book.covers, "places": book.places,
        "runs": book.runs, "waiting": book._waiting, "ends": book.ends, "expected": intake.holes._expected,
        "latest": intake.latest_ms, "found": look._found, "parsed": [*chain(*look.tables._parsed.values())],
        "lanes": getattr(way, "_lanes", ()), "tasks": getattr(way, "_tasks", ()),
        "accounted": getattr(look, "_accounted", ()), "moved": getattr(look, "_moved", ()), "in hand": runner.in_hand,
    }  # fmt: skip
    return {name: len(place) for name, place in places.items() if len(place)}


def all_kept(service: Service) -> dict[str, int]:
    return {name: n for runner in service.runners.values() for name, n in kept(runner).items()}


async def forgotten(service: Service, clock: Clock, ahead_s: float) -> None:
    clock.ahead_s += ahead_s
    await asyncio.sleep(2 * LOOK_EVERY_S)


def test_a_clock_that_once_was_wrong_holds_up_no_others() -> None:
    now_s = 1e9

    ends = Ends(lambda: now_s)
    ends.heard(("of the future", 0, "decode"), {})
    now_s = 0.0
    ends.heard(("m", 0, "decode"), {})
    now_s = KEEP_S + 1
    assert list(ends.old(KEEP_S, {})) == [("m", 0, "decode")]


@told
async def test_neither_memory_nor_state_grows_with_the_streams_that_have_ended() -> None:
    rig, clock = Rig.of(), Clock()
    stages = {"decode": Decode(), "detect.a": See(), "dedup": Collect("detect.a"), "ensemble": EVENTS}
    for name in (f"game {i}" for i in range(60)):
        rig.source(name, *stages, count=3)
    for name in ("nobody's", "nobody's either"):  # streams that no service but decode is named for
        rig.source(name, "decode", count=3)
    async with (
        rig.running("decode", stages["decode"], now=clock) as decode,
        rig.running("detect.a", stages["detect.a"], now=clock) as detect,
        rig.running("dedup", stages["dedup"], now=clock) as dedup,
        rig.running("ensemble", stages["ensemble"], now=clock) as ensemble,
    ):
        services = (decode, detect, dedup, ensemble)
        await rig.until(lambda: sum(v.ended for v in rig.records("verdicts")) == 60)
        await asyncio.sleep(5)
        for service in services:
            assert all_kept(service)["ends"] > 0
        before = {s.name: len(state(rig, s.name)) for s in services}
        await forgotten(detect, clock, KEEP_S - 3600)
        assert {s.name: len(state(rig, s.name)) for s in services} == before, "an hour early"
        await forgotten(detect, clock, TABLES_KEEP_H * 3600)
        assert {s.name: state(rig, s.name) for s in services} == {s.name: [] for s in services}
        assert {s.name: all_kept(s) for s in services} == {s.name: {} for s in services}


@told
async def test_what_came_over_lives_of_processes_is_forgotten_at_the_time_it_ended_and_not_at_the_last_restart() -> (
    None
):
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", count=3)
    rig.windows(source, 0, 1, 2, 3)
    async with rig.running("detect.a", See()):
        await rig.until(lambda: len(rig.said("detections")) == 4)
    assert len(state(rig, "detect.a")) == 3
    for _ in range(3):
        await asyncio.sleep(KEEP_S / 3)
        async with rig.killed("detect.a", See()):
            await asyncio.sleep(3 * LOOK_EVERY_S)
    assert state(rig, "detect.a") == []


@told
async def test_a_number_that_comes_again_is_dropped_and_its_stream_is_remembered_as_long_again() -> None:
    rig, clock = Rig.of(partitions=1), Clock()
    source = rig.source("m", "detect.a", count=2)
    rig.windows(source, 0, 1, 2)
    async with rig.running("detect.a", See(), now=clock) as service:
        await rig.until(lambda: len(rig.said("detections")) == 3)
        for _ in range(4):
            await forgotten(service, clock, KEEP_S - 3600)
            rig.windows(source, 1)
        await forgotten(service, clock, KEEP_S - 3600)
        assert service.shared.counts.duplicate == 4
    assert len(rig.records("detections")) == 3


@told
async def test_nothing_is_forgotten_while_a_takeover_would_read_it_again() -> None:
    class Hangs(See):
        async def handle(self, record: Window, look: Look) -> Detection:
            if record.stream == "stuck":
                await asyncio.sleep(1e9)
            return Detection.of(record, events=())

    rig, clock = Rig.of(partitions=1), Clock()
    rig.windows(rig.source("stuck", "detect.a"), 0)
    rig.windows(rig.source("m", "detect.a", count=2), 0, 1, 2)
    async with rig.killed("detect.a", Hangs(), now=clock) as service:
        await rig.until(lambda: len(rig.said("detections")) == 3)
        await forgotten(service, clock, 10 * KEEP_S)
        assert any(key.startswith("m\0guard") for key in state(rig, "detect.a"))
    async with rig.running("detect.a", See()) as service:
        await rig.until(lambda: len(rig.said("detections")) == 4)
        assert service.shared.counts.duplicate == 3


@told
async def test_what_waits_or_has_not_ended_is_kept_however_long_it_takes() -> None:
    class Patient(See):
        async def handle(self, record: Window, look: Look) -> Detection:
            if record.stream == "waits" and record.index == 1:
                raise NotYet("no context", topic="sources", key="none", within_s=1e9)
            return Detection.of(record, events=())

    rig, clock = Rig.of(partitions=1), Clock()
    rig.windows(rig.source("silent", "detect.a", count=9), 0, 1)
    rig.windows(rig.source("waits", "detect.a", count=2), 0, 1, 2)
    rig.windows(rig.source("over", "detect.a", count=2), 0, 1, 2)
    async with rig.running("detect.a", Patient(), now=clock) as service:
        await rig.until(lambda: service.shared.counts.landed >= 7)
        await forgotten(service, clock, 10 * KEEP_S)
    streams = {key.partition("\0")[0] for key in state(rig, "detect.a")}
    assert {"silent", "waits"} <= streams
    assert "over" not in streams


@told
async def test_a_fold_that_waits_for_a_service_is_kept_and_one_whose_last_row_is_folded_is_not() -> None:
    rig, clock = Rig.of(partitions=1), Clock()
    waits = rig.source("waits", "detect.a", "detect.b", "dedup", count=2)
    over = rig.source("over", "detect.a", "dedup", count=2)
    for source in (waits, over):
        detections(rig, source, "detect.a", 0, 1, 2)
    keep = keep_s(("detections",))
    async with rig.running("dedup", Collect("detect.a", "detect.b"), now=clock) as service:
        await rig.until(lambda: len(rows(rig)) == 2)
        await forgotten(service, clock, 2 * keep)
        detections(rig, waits, "detect.b", 0, 1, 2)
        await rig.until(lambda: len(rows(rig)) == 4)
        assert {key.partition("\0")[0] for key in state(rig, "dedup")} == {"waits"}
        await forgotten(service, clock, 2 * keep)
    assert state(rig, "dedup") == []
    assert sum(r.ended for r in rig.records("events")) == 2


@told
async def test_a_paused_stream_goes_on_and_a_finished_one_stays_finished_however_late_it_is_changed() -> None:
    rig, clock = Rig.of(partitions=1), Clock()
    rig.source("paused", "decode", count=5, state="paused")
    rig.source("done", "decode", count=5)
    async with rig.running("decode", stage := Decode(), now=clock) as service:
        await rig.until(lambda: len(rig.records("windows")) == 8)
        await forgotten(service, clock, 2 * TABLES_KEEP_H * 3600)
        assert {key.partition("\0")[0] for key in state(rig, "decode")} == {"paused"}
        rig.source("paused", "decode", count=5, revision=1, from_index=2)
        rig.source("done", "decode", count=5, revision=1, from_index=9)
        rig.source("done", "decode", count=5)  # told once more, word for word
        await rig.until(lambda: sum(w.ended for w in rig.records("windows")) == 2)
        rig.source("done", "decode", count=5, generation=1)
        await rig.until(lambda: sum(w.ended for w in rig.records("windows")) == 3)
        await forgotten(service, clock, 2 * TABLES_KEEP_H * 3600)
    assert stage.began == [("paused", 0, None), ("done", 0, None), ("paused", 1, 2), ("done", 0, None)]
    numbers = sorted((w.stream, w.generation, w.index) for w in rig.records("windows"))
    assert numbers == [(s, g, i) for s, g in (("done", 0), ("done", 1), ("paused", 0)) for i in range(6)]
    assert state(rig, "decode") == []


def at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runner_module, "keep_s", lambda reads: 0.0)
    patch.setattr(runner_module, "LOOK_EVERY_S", 0.3)


def test_where_no_writer_tells_anything_twice_even_forgetting_at_once_repeats_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_once(monkeypatch)
    seeds(range(25), SMALL)
    seeds(range(25), replace(SMALL, zombies=0.6, unseen=0.1))


class WhateverIsReadAgain(Ends):
    def old(self, keep_s: float, bases: Mapping[str, int]) -> Iterator[Life]:
        return super().old(keep_s, dict.fromkeys(bases, sys.maxsize))


class WhateverIsMissing(Book):
    def _closed(self, life: Life) -> bool:
        return True


@pytest.mark.parametrize(("name", "planted"), [("Ends", WhateverIsReadAgain), ("Book", WhateverIsMissing)])
def test_forgetting_what_may_come_again_is_caught(
    name: str, planted: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    monkeypatch.setattr(book_module if name == "Ends" else runner_module, name, planted)
    with pytest.raises(AssertionError):
        seeds(range(100), Weather(streams=4, windows=8, kills=8, zombies=0.0))


@told
async def test_an_attempt_during_which_more_keys_were_heard_of_than_are_remembered_is_made_again() -> None:
    waits, again = Waits(now=lambda: 0.0), asyncio.Event()
    missing = NotYet("no context", topic="contexts", key="m\0" + "0", within_s=100)
    since = waits.moment()
    for i in range(2 * REMEMBERED):
        waits.heard(Stored("contexts", 0, f"s{i}".encode(), b"", offset=i, time_ms=0))
    waits.wait(missing, since=since, deadline_ms=100_000, again=again.set)
    await asyncio.sleep(0)
    assert again.is_set()
    again.clear()
    waits.wait(missing, since=waits.moment(), deadline_ms=100_000, again=again.set)
    await asyncio.sleep(1)
    assert not again.is_set(), "nothing was heard of since"
    waits.heard(Stored("contexts", 0, b"m\0" + b"0", b"", offset=0, time_ms=0))
    assert again.is_set()
    assert len(waits._heard_at) == REMEMBERED
    for i in range(1000):
        waits.wait(missing, since=waits.moment(), deadline_ms=10**9 + i, again=again.set)
        waits.heard(Stored("contexts", 0, b"m\0" + b"0", b"", offset=0, time_ms=0))
    assert len(waits._deadlines) < 100, "who waits no longer has no deadline"
    assert len(waits) == 0
    waits.close()
