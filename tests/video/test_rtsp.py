"""A camera over RTSP, in real time: its password, its clock, and all that a camera does to whoever watches it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from streamproc.messages import Window
from streamproc.video import address
from streamproc.video.choice import Rate
from streamproc.video.follow import Backoff, Feed
from streamproc.video.limits import Limits
from streamproc.video.look import Look
from streamproc.video.streamtime import LEAD_S, StreamTime
from streamproc.video.windows import Cut, Sampling
from streamproc.video.workers import Workers
from tests.video.files import SLOW, Kind
from tests.video.rtsp import Camera
from tests.video.test_decode import source

SEEN = Kind("camera", "ts", f"{SLOW} -g 10 -bf 0 -x264-params repeat-headers=1", seconds=6)
CUT = Cut(
    Sampling(Rate(Fraction(10)), Fraction(1, 2), Fraction(1, 2), look=Look(longest=64)),
    began=datetime(2026, 3, 1, 20, 45, tzinfo=UTC),
)
SECRET = "hunter2 & co"


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(1) as found:
        yield found


def feed(workers: Workers, uri: str, *, secrets: dict[str, str] | None = None, read_s: float = 20) -> Feed:
    return Feed(
        workers,
        address.parse(uri, secrets=secrets or {}),
        CUT,
        zero_s=time.monotonic(),
        limits=Limits(read_s=read_s),
        backoff=Backoff(first_s=0.05, most_s=0.2),
        random=Random(7),
    )


async def watched(found: Feed, enough: Callable[[list[Window]], bool]) -> list[Window]:
    records: list[Window] = []
    async with asyncio.timeout(60), aclosing(found.windows(source("1"))) as steps:
        async for step, _ in steps:
            records += step
            if enough(records):
                break
    at = 0
    for record in records:
        assert record.index == at, "every index leaves as a window or within a gap"
        at = record.until
    return records


def whole(records: list[Window]) -> list[Window]:
    return [record for record in records if len(record.frames) == 5]


async def test_a_camera_is_watched_though_its_timestamps_wrap(workers: Workers, folder: Path) -> None:
    async with Camera(SEEN.make(folder)) as camera:
        found = feed(workers, camera.url)
        records = await watched(found, lambda records: len(whole(records)) == 8)
    assert found.connections == 1
    first = records.index(whole(records)[0])
    assert whole(records[first:]) == records[first:], "once it is there it is there"
    assert all(abs(r.start_ms - f.t_ms) < 600 for r in whole(records) for f in r.frames)


async def test_a_camera_whose_clock_jumps_is_watched_on(workers: Workers, folder: Path) -> None:
    async with Camera(SEEN.make(folder)) as camera:
        jumps = iter((3600.0, -7200.0))

        def enough(records: list[Window]) -> bool:
            done = len(whole(records))
            if done in (3, 6) and (jump := next(jumps, None)):
                camera.jump_s = jump
            return done == 9

        found = feed(workers, camera.url)
        records = await watched(found, enough)
    assert found.connections == 1
    first = records.index(whole(records)[0])
    assert sum(record.outcome != "done" for record in records[first:]) <= 2, "a jump costs a window at most"


async def test_a_camera_that_pauses_leaves_a_gap_a_step_and_time_goes_on(workers: Workers, folder: Path) -> None:
    async with Camera(SEEN.make(folder)) as camera:
        gaps: list[Window] = []
        paused = False

        def enough(records: list[Window]) -> bool:
            nonlocal gaps, paused
            if len(whole(records)) == 3 and not paused:
                camera.silent = paused = True
            if not paused:
                return False
            gaps = [record for record in records[records.index(whole(records)[2]) :] if not record.frames]
            if len(gaps) == 4:
                camera.silent = False
            return not camera.silent and whole(records)[-1].index > gaps[-1].index

        await watched(feed(workers, camera.url), enough)
    assert {(gap.outcome, gap.reason) for gap in gaps} == {("skipped", "missing")}
    assert [gap.until - gap.index for gap in gaps[:4]] == [1] * 4, "then all that was open when it came back, at once"


async def test_a_camera_switched_off_and_on_is_watched_again(workers: Workers, folder: Path) -> None:
    async with Camera(SEEN.make(folder)) as camera:
        switching: list[asyncio.Task[None]] = []

        async def off_and_on() -> None:
            await camera.switch_off()
            while found.connections < 4:  # noqa: ASYNC110  # nobody is told of attempts that fail
                await asyncio.sleep(0.01)
            await camera.switch_on()

        def enough(records: list[Window]) -> bool:
            if len(whole(records)) == 3 and not switching:
                switching.append(asyncio.ensure_future(off_and_on()))
            return len(whole(records)) == 6

        found = feed(workers, camera.url)
        records = await watched(found, enough)
        await asyncio.gather(*switching)
    assert camera.connections == 2
    assert found.connections >= 4
    assert all(a.start_ms < b.start_ms for a, b in pairwise(records))


async def test_a_worker_that_dies_of_a_feed_costs_a_reconnection(workers: Workers, folder: Path) -> None:
    async with Camera(SEEN.make(folder)) as camera:

        def enough(records: list[Window]) -> bool:
            if len(whole(records)) == 2 and found.connections == 1:
                os.kill(workers.pids[0], signal.SIGKILL)
            return len(whole(records)) == 5

        found = feed(workers, camera.url)
        await watched(found, enough)
    assert found.connections == camera.connections == 2


@pytest.mark.parametrize("password", [SECRET, "wrong"])
async def test_a_password_comes_from_the_environment_and_stands_in_no_line(
    password: str, workers: Workers, folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Camera(SEEN.make(folder), user="eva", password=password) as camera:
        uri = f"rtsp://eva:${{CAMERA_PASSWORD}}@127.0.0.1:{camera.port}/live"
        found = feed(workers, uri, secrets={"CAMERA_PASSWORD": SECRET.replace(" ", "%20")})
        if password == SECRET:
            records = await watched(found, lambda records: len(whole(records)) == 2)
            await camera.switch_off()
        else:
            records = await watched(found, lambda _: found.connections >= 3)
    lines = caplog.text + "".join(capfd.readouterr()) + repr(records)
    assert "hunter2" not in lines
    if password == "wrong":
        assert "${CAMERA_PASSWORD}" in lines
        assert "401" in lines or "Unauthorized" in lines


def test_a_clock_that_runs_fast_is_held_back() -> None:
    times, last = StreamTime(), Fraction(-1)
    for n in range(100_000):  # a tenth of a percent, for some hours
        now = Fraction(n)
        found = times.at(now * Fraction(1005, 1000), now)
        assert found > last
        assert found - now <= LEAD_S + 2
        last = found
    assert times.jumps == 0
