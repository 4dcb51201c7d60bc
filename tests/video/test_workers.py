"""Worker processes: what they say reaches whoever asked, as what it was, and one that works is not taken for one that hangs."""

from __future__ import annotations

import asyncio
import io
import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from streamproc.errors import Misconfigured, Rejected, Unreachable
from streamproc.video import address
from streamproc.video.choice import Rate
from streamproc.video.container import opened
from streamproc.video.jobs import Glance
from streamproc.video.limits import Limits
from streamproc.video.worker import BEAT_S, HEAD, Voice
from streamproc.video.workers import Lost, Workers
from tests.video.files import SLOW, Kind

SMALL = Kind("for-workers", "mp4", f"{SLOW} -g 25", seconds=1)
SILENCE_S = 5.0


@dataclass(frozen=True)
class ReadOn:
    """A job that reads a file again and again, for longer than a worker may be silent."""

    path: Path
    seconds: float

    def run(self) -> Iterator[int]:
        begin, packets = time.monotonic(), 0
        with opened(address.parse(self.path), Limits()) as video:
            while time.monotonic() - begin < self.seconds:
                packets += sum(1 for _ in video.packets())
        yield packets


@dataclass(frozen=True)
class Wrong:
    """A job that says that it was asked for what cannot be."""

    def run(self) -> Iterator[Rate]:
        yield Rate(Fraction(0))


async def test_a_worker_that_reads_for_long_is_let_be(folder: Path) -> None:
    async with Workers(1, silence_s=SILENCE_S) as workers:
        assert await workers.one(ReadOn(SMALL.make(folder), SILENCE_S + 2 * BEAT_S)) > 25


def test_something_is_said_once_in_a_while_and_not_each_time() -> None:
    now, heard = 0.0, io.BytesIO()
    voice = Voice(heard, clock=lambda: now)
    for now in (0.2, BEAT_S, BEAT_S + 0.1, BEAT_S + 0.2, 2 * BEAT_S, 2 * BEAT_S + 0.3):  # noqa: B007  # the clock's
        voice.beat()
    heard.seek(0)
    said = []
    while head := heard.read(HEAD):
        said.append(pickle.loads(heard.read(int.from_bytes(head, "big"))))
    assert said == [("beat", None)] * 2


async def test_errors_arrive_as_what_they_were(tmp_path: Path) -> None:
    async with Workers(1) as workers:
        with pytest.raises(Unreachable) as unreachable:
            await workers.one(Glance(address.parse("http://127.0.0.1:9/match.mp4"), Limits()))
        assert unreachable.value.hop == "http://127.0.0.1:9/match.mp4"
        assert "server" in unreachable.value.remedy
        with pytest.raises(Rejected, match=r"none\.mp4"):
            await workers.one(Glance(address.parse(tmp_path / "none.mp4"), Limits()))
        with pytest.raises(Misconfigured, match="more than 0"):
            await workers.one(Wrong())


async def test_a_worker_that_cannot_work_is_lost_and_the_next_job_has_another(folder: Path) -> None:
    path = SMALL.make(folder)
    async with Workers(1) as workers:
        for _ in range(2):
            with pytest.raises(Lost, match="exit code 1"):
                await workers.one(ReadOn(path, "long"))  # type: ignore[arg-type]  # it dies of that
        assert (await workers.one(Glance(address.parse(path), Limits()))).width == 96


async def test_jobs_wait_for_a_free_worker(folder: Path) -> None:
    job = Glance(address.parse(SMALL.make(folder)), Limits())
    async with Workers(2) as workers:
        assert len(await asyncio.gather(*(workers.one(job) for _ in range(7)))) == 7
        assert len(workers.pids) == 2


@dataclass(frozen=True)
class Once:
    """A job that can be done once only."""

    path: Path

    def run(self) -> Iterator[str]:
        with self.path.open("x"):
            yield "done"


async def test_what_was_begun_ahead_is_not_done_again(tmp_path: Path) -> None:
    job = Once(tmp_path / "mark")
    async with Workers(1) as workers:
        workers.ahead(job)
        assert await workers.one(Once(tmp_path / "mark")) == "done"
        with pytest.raises(Lost):  # and only then
            await workers.one(job)


async def test_what_was_begun_ahead_leads_to_what_comes_behind_it(tmp_path: Path) -> None:
    first, second = Once(tmp_path / "first"), Once(tmp_path / "second")
    async with Workers(1) as workers:
        workers.ahead(first, lambda answer: second if answer == "done" else None)
        assert await workers.one(first) == "done"
        assert await workers.one(second) == "done"
        with pytest.raises(Lost):
            await workers.one(second)


async def test_what_was_begun_ahead_and_nobody_asked_for_ends_with_the_workers(tmp_path: Path) -> None:
    async with Workers(1) as workers:
        workers.ahead(Once(tmp_path / "none" / "mark"))
    assert workers.pids == []


async def test_those_that_are_woken_and_those_that_are_asked_meanwhile_are_no_more_than_there_may_be(
    folder: Path,
) -> None:
    job = Glance(address.parse(SMALL.make(folder)), Limits())
    async with Workers(3) as workers:
        await asyncio.gather(workers.wake(), *(workers.one(job) for _ in range(6)))
        assert len(workers.pids) <= 3


@pytest.mark.parametrize(("size", "woken"), [(1, 1), (2, 1), (3, 2)])
async def test_woken_they_leave_a_core_to_whoever_woke_them(size: int, woken: int) -> None:
    async with Workers(size) as workers:
        await workers.wake()
        there = workers.pids
        assert len(there) == woken
        await asyncio.gather(*(workers.ask(Wrong()).aclose() for _ in range(size)))
        await workers.wake()
        assert workers.pids == there


@dataclass(frozen=True)
class Parts:
    def run(self) -> Iterator[int]:
        yield from range(3)


async def test_who_takes_an_answer_as_he_has_room_keeps_nobody_else_waiting(folder: Path) -> None:
    async with Workers(1, silence_s=60) as workers:
        slowly = workers.ask(Parts(), long=True)
        assert await anext(slowly) == 0
        async with asyncio.timeout(20):
            glanced = await workers.one(Glance(address.parse(SMALL.make(folder)), Limits()))
        assert glanced.width
        assert [part async for part in slowly] == [1, 2]
        assert len(workers.pids) == 2
