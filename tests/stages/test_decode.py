"""Decode on the real runner: files and revisions, pacing, decoders that die, and a process that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from streamproc.messages import Grid, Source, Window
from streamproc.pipeline.replay_archive import Archive
from streamproc.pipeline.replay_footage import AnyFootage
from streamproc.runner import Service
from streamproc.runner.observe import Services
from streamproc.stages.decode import Decode
from streamproc.stages.replay import Replay
from streamproc.video import address
from streamproc.video.decode import decode
from streamproc.video.footage import Footage
from streamproc.video.recipe import sampling_of
from streamproc.video.windows import Cut
from streamproc.video.workers import Workers
from tests.stages.rig import READER, SAMPLING, SLICE_S, Reader, Rig, ended, in_order
from tests.video.files import SLOW, Kind, ffmpeg
from tests.video.rtsp import Camera

MATCH = Kind("stage-match", "mp4", f"{SLOW} -g 25", seconds=20.2)
COUNT = 21
STEP_2 = Grid(root="decode", origin="8", step="2", first=8)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(2, silence_s=60) as found:
        yield found


async def straight(workers: Workers, source: Source) -> list[Window]:
    """What a decode in one go says, as it lies in the topic."""
    cut = Cut.on(source.grid, sampling_of(source.task["sampling"], source.grid))
    records: list[Window] = []
    async with aclosing(decode(workers, source, address.parse(source.uri), cut)) as steps:
        async for step, _ in steps:
            records += step
    where = {"service": "decode", "root": "decode"}
    return [replace(r, id=f"decode/decode/{r.stream}/{r.generation}/{r.index}", **where) for r in records]


async def test_a_file_lands_as_windows_and_its_end(workers: Workers, folder: Path, tmp_path: Path) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig:
        source = await rig.source(MATCH.make(folder))
        async with rig.running("decode", Decode(workers, slice_s=SLICE_S)):
            found = in_order(await rig.until(ended))
        assert found == await straight(workers, source)
        assert len(found) == COUNT + 1
        coverage = (await rig.until(lambda said: bool(said) and said[-1].ended, "coverage"))[-1]
        assert (coverage.count, len(coverage.done), coverage.failed, coverage.missing) == (COUNT, 1, (), ())


@asynccontextmanager
async def process(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.stages.rig", str(path))
    try:
        yield child
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
        assert await child.wait() in (0, -signal.SIGKILL)


async def test_a_process_killed_goes_on_elsewhere_and_lands_the_same_windows(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bus.db"
    async with Rig.on(path) as rig:
        readers = {"windows": (READER,)}
        source = await rig.source(MATCH.make(folder), services=("decode", READER), readers=readers, task={"ahead": 8})
        reader = Reader()
        async with rig.running(READER, reader):
            async with process(path) as first:
                landed = await rig.until(lambda records: len(records) == 8)  # as far as it may run ahead
                first.kill()
            assert not ended(landed)
            async with process(path):
                reader.go.set()
                found = in_order(await rig.until(ended))
    assert found == await straight(workers, source)


@pytest.mark.parametrize(
    ("blow", "told", "silence_s"), [(signal.SIGKILL, "decoder died", 60), (signal.SIGSTOP, "decoder silent", 8)]
)
async def test_a_decoder_that_crashes_or_hangs_costs_an_attempt_and_no_window(
    blow: signal.Signals,
    told: str,
    silence_s: float,
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig, Workers(2, silence_s=silence_s) as workers:
        reader = Reader()
        source = await rig.source(
            MATCH.make(folder), services=("decode", READER), readers={"windows": (READER,)}, task={"ahead": 4}
        )
        async with rig.running(READER, reader), rig.running("decode", Decode(workers, slice_s=0.5)):
            await rig.until(lambda records: len(records) == 4)  # decoders wait for the reader
            for pid in workers.pids:
                os.kill(pid, blow)
            reader.go.set()
            found = in_order(await rig.until(ended))
        assert found == await straight(workers, source)
        assert told in caplog.text


async def test_decoding_runs_no_further_ahead_than_the_slowest_reader_that_runs(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig:
        reader = Reader()
        async with rig.running(READER, reader), rig.running("decode", Decode(workers, slice_s=SLICE_S)):
            await rig.source(
                MATCH.make(folder),
                services=("decode", READER, "detect.absent"),
                readers={"windows": (READER, "detect.absent")},
                task={"ahead": 6},
            )
            await rig.source(MATCH.make(folder), stream="other")  # by its end, the first has had time to run away
            await rig.until(ended)
            found = [record for record in await rig.records() if record.stream == "m"]
            assert len(found) <= 6
            reader.go.set()
            await rig.until(lambda records: sum(r.ended for r in records) == 2)


async def test_what_a_file_has_lost_may_be_longer_than_decoding_runs_ahead(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    """Readers come no nearer to the end of a gap before it has landed."""
    whole = tmp_path / "whole.mkv"
    ffmpeg(f"-f lavfi -i testsrc=s=64x64:r=2:d=60,format=yuv420p {SLOW} -g 10", whole)
    half = tmp_path / "half.mkv"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    async with Rig.on(tmp_path / "bus.db") as rig:
        reader = Reader()
        reader.go.set()
        async with rig.running(READER, reader), rig.running("decode", Decode(workers, slice_s=SLICE_S)):
            await rig.source(half, services=("decode", READER), readers={"windows": (READER,)}, task={"ahead": 8})
            found = in_order(await rig.until(ended))
    lost = [record for record in found if record.outcome == "failed"]
    assert [(r.until, r.reason) for r in lost] == [(60, "unreadable")]
    assert lost[0].until - lost[0].index > 8
    assert found[-1].count == 60


async def test_a_file_that_cannot_be_opened_ends_with_a_failed_window_and_a_dead_letter_that_names_it(
    workers: Workers, tmp_path: Path
) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig:
        path = tmp_path / "page.mp4"
        path.write_text("<html>" * 100)
        await rig.source(path)
        async with rig.running("decode", Decode(workers)):
            lost, last = in_order(await rig.until(ended))
            coverage = (await rig.until(lambda said: bool(said) and said[-1].ended, "coverage"))[-1]
        assert (lost.outcome, lost.reason, last.count) == ("failed", "unreadable", 1)
        [letter] = await rig.stored("sources.dlq")
        assert str(path).encode() in (letter.header("error") or b"")
        assert (coverage.done, coverage.failed, coverage.ended) == ((), ((0, 1000),), True)


async def test_one_bad_source_is_rejected_and_the_others_go_on(workers: Workers, folder: Path, tmp_path: Path) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig, rig.running("decode", Decode(workers)):
        bad: dict[str, dict[str, Any]] = {
            "no-variable": {"uri": "rtsp://eva:${NOT_SET_ANYWHERE}@127.0.0.1/"},
            "no-kind": {"uri": "gopher://127.0.0.1/"},
            "no-rule": {"uri": "x.mp4", "sampling": {"fps": None}},
            "no-number": {"uri": "x.mp4", "sampling": {"fps": "fast"}},
            "no-step": {"uri": "x.mp4", "sampling": {"step_s": "3"}},
        }
        feeds: dict[str, dict[str, Any]] = {
            "no-count": {"uri": "rtsp://127.0.0.1:9/", "sampling": {"fps": None, "every": 10}},
            "no-folder": {"uri": "rtsp://127.0.0.1:9/", "footage": "ftp://host/x"},
        }
        for stream, options in bad.items():
            await rig.source(**options, stream=stream)
        for stream, options in feeds.items():
            await rig.source(**options, stream=stream, live=True)
        await rig.source(MATCH.make(folder), stream="good")
        found = await rig.until(lambda records: sum(record.ended for record in records) == 1 + len(bad))
        assert sum(r.outcome == "done" and not r.ended for r in found if r.stream == "good") == COUNT
        letters = await rig.stored("sources.dlq")
        assert len(letters) == len(bad) + len(feeds)
        assert not {r.stream for r in found} & set(feeds), (
            "a feed does not end by a mistake: the next revision mends it"
        )
        told = b" ".join(letter.header("error") or b"" for letter in letters).decode()
        for word in ("NOT_SET_ANYWHERE", "gopher", "fps", "fast", "grid steps by 1 s", "to count from", "footage"):
            assert word in told


# revisions ----------------------------------------------------------------------------------------------------------


async def test_a_revision_with_another_step_takes_effect_where_its_numbers_begin(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig:
        path = MATCH.make(folder)
        await rig.source(path)
        await rig.source(path, revision=1, from_index=8, grid=STEP_2, sampling={"step_s": "2", "window_s": "4"})
        async with rig.running("decode", Decode(workers, slice_s=5)):
            found = in_order(await rig.until(ended))
    assert [(w.index, w.revision, w.start_ms, w.end_ms) for w in found[6:10]] == [
        (6, 0, 6000, 8000),
        (7, 0, 7000, 9000),
        (8, 1, 8000, 12000),
        (9, 1, 10000, 14000),
    ]
    assert (found[-1].count, found[-1].start_ms) == (15, 20_200)


async def test_a_revision_heard_of_later_gives_the_same_numbers_to_the_same_revisions(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig:
        path, reader = MATCH.make(folder), Reader()
        paced = {"services": ("decode", READER), "readers": {"windows": (READER,)}, "task": {"ahead": 4}}
        await rig.source(path, **paced)
        async with rig.running(READER, reader), rig.running("decode", Decode(workers, slice_s=SLICE_S)):
            await rig.until(lambda records: len(records) == 4)
            await rig.source(path, revision=1, from_index=10, **paced)
            await rig.source(path, revision=2, from_index=15, **paced)
            reader.go.set()
            found = in_order(await rig.until(ended))
    assert [w.revision for w in found] == [0] * 10 + [1] * 5 + [2] * 7


async def test_a_stream_that_is_paused_goes_on_at_its_cursor_and_one_removed_ends_there(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig:
        path, reader = MATCH.make(folder), Reader()
        paced = {"services": ("decode", READER), "readers": {"windows": (READER,)}, "task": {"ahead": 4}}
        await rig.source(path, **paced)
        async with (
            rig.running(READER, reader),
            rig.running("decode", Decode(workers, slice_s=SLICE_S)) as decoding,
            asyncio.timeout(60),
        ):
            await rig.until(lambda records: len(records) == 4)
            await rig.source(path, revision=1, state="paused", from_index=4, **paced)
            while not any(r.look.find("m", 0, 1) for r in decoding.runners.values()):  # noqa: ASYNC110  # else it goes on
                await asyncio.sleep(0.01)
            reader.go.set()
            await rig.source(path, stream="other")  # by its end the paused one has had time to go on
            await rig.until(ended)
            still = [r for r in await rig.records() if r.stream == "m"]
            reader.go.clear()
            await rig.source(path, revision=2, from_index=4, **paced)
            await rig.until(lambda records: sum(r.stream == "m" for r in records) > len(still))
            await rig.source(path, revision=3, state="removed", from_index=9, **paced)
            found = await rig.until(lambda records: sum(r.ended for r in records) == 2)
            reader.go.set()
    assert 4 <= len(still) <= 5
    mine = in_order([record for record in found if record.stream == "m"])
    assert mine[-1].count == len(mine) - 1 < COUNT


async def test_what_has_ended_says_nothing_more_whatever_revision_follows(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig, rig.running("decode", Decode(workers)):
        path = MATCH.make(folder)
        await rig.source(path)
        first = await rig.until(ended)
        await rig.source(path, revision=1, state="removed", from_index=COUNT)
        await rig.source(path, stream="other")
        found = await rig.until(lambda records: sum(r.ended for r in records) == 2)
    assert [r for r in found if r.stream == "m"] == first


# feeds --------------------------------------------------------------------------------------------------------------

CAMERA = Kind("stage-camera", "ts", f"{SLOW} -g 10 -bf 0 -x264-params repeat-headers=1", seconds=6)


def seen(records: list[Window]) -> list[Window]:
    return [record for record in records if record.frames]


async def test_a_feed_goes_on_in_its_own_time_after_a_restart_and_ends_when_it_is_removed(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig, Camera(CAMERA.make(folder)) as camera:
        feed: dict[str, Any] = {"uri": camera.url, "live": True, "stream": "door"}
        await rig.source(**feed)
        async with rig.running("decode", Decode(workers)):
            before = await rig.until(lambda records: len(seen(records)) >= 2)
        async with rig.running("decode", Decode(workers)):
            await rig.until(lambda records: len(seen(records)) >= len(seen(before)) + 2)
            await rig.source(**feed, revision=1, state="removed", from_index=10**6)
            found = in_order(await rig.until(ended))
    began = {datetime.fromisoformat(r.utc) - timedelta(milliseconds=r.start_ms) for r in found if r.utc}
    assert len(began) == 1
    assert all(record.reason == "missing" for record in found[:-1] if not record.frames)
    assert found[-1].count == found[-1].index
    times = [frame.t_ms for record in seen(found) for frame in record.frames]
    assert len(times) >= 20


async def test_how_long_a_feed_is_silent_is_seen_for_as_long_as_it_is_followed(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    async def came_true(what: Callable[[], bool]) -> None:
        while not what():  # noqa: ASYNC110  # it is looked at as from outside
            await asyncio.sleep(0.05)

    def silent_s(service: Service) -> dict[str, float]:
        families = Services([service]).collect()
        family = next(f for f in families if f.name == "streamproc_feed_last_frame_seconds")
        return {sample.labels["stream"]: sample.value for sample in family.samples}

    async with Rig.on(tmp_path / "bus.db") as rig, Camera(CAMERA.make(folder)) as camera:
        feed: dict[str, Any] = {"uri": camera.url, "live": True, "stream": "door"}
        await rig.source(**feed)
        await rig.source(MATCH.make(folder), stream="match")
        stage = Replay(Decode(workers), Archive(rig.bus), AnyFootage(workers))
        async with rig.running("decode", stage) as service, asyncio.timeout(60):
            assert silent_s(service) == {}
            await rig.until(lambda records: len(seen([r for r in records if r.stream == "door"])) >= 2)
            on_s = silent_s(service)
            assert on_s.keys() == {"door"}
            await camera.switch_off()
            await came_true(lambda: silent_s(service)["door"] > on_s["door"] + 2)
            await camera.switch_on()
            await came_true(lambda: silent_s(service)["door"] < 1)
            await rig.source(**feed, revision=1, state="removed", from_index=0)
            await came_true(lambda: not silent_s(service))


async def test_a_feed_that_is_paused_goes_on_in_the_present(workers: Workers, folder: Path, tmp_path: Path) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig, Camera(CAMERA.make(folder)) as camera:
        feed: dict[str, Any] = {"uri": camera.url, "live": True, "stream": "door"}
        await rig.source(**feed)
        async with rig.running("decode", Decode(workers)):
            before = in_order(await rig.until(lambda records: len(seen(records)) >= 2))
            at = before[-1].until
            await rig.source(**feed, revision=1, state="paused", from_index=at)
            await rig.source(**feed, revision=2, from_index=at + 2)
            found = in_order(await rig.until(lambda records: any(r.frames and r.revision == 2 for r in records)))
    pause = next(record for record in found if record.revision == 1)
    assert (pause.outcome, pause.reason, pause.until) == ("skipped", "paused", at + 2)


async def test_two_feeds_that_are_added_at_once_do_not_burst_together(folder: Path, tmp_path: Path) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig, Camera(CAMERA.make(folder)) as camera, Workers(1) as workers:
        for stream in ("front", "back"):
            await rig.source(camera.url, live=True, stream=stream)
        async with rig.running("decode", Decode(workers, now=lambda: 1000.0)):
            found = await rig.until(lambda records: len({r.stream for r in records}) == 2)
    begins = {r.stream: datetime.fromisoformat(r.utc or "") - timedelta(milliseconds=r.start_ms) for r in found}
    front, back = (begins[stream].timestamp() - 1000 for stream in ("front", "back"))
    assert 0 <= min(front, back) < max(front, back) < 1


async def test_a_feed_that_is_recorded_gives_the_pictures_of_its_windows_again(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    async with Rig.on(tmp_path / "bus.db") as rig, Camera(CAMERA.make(folder)) as camera:
        source = await rig.source(camera.url, live=True, stream="door/1", footage=f"{tmp_path}/footage?hours=1")
        async with rig.running("decode", Decode(workers)):
            found = await rig.until(lambda records: sum(len(r.frames) == 10 for r in records) >= 3)
    frames = {frame.t_ms: frame.jpeg for record in found if len(record.frames) == 10 for frame in record.frames}
    footage = Footage(workers)
    begin_s = (await footage.reach(source)).begin_s  # a camera's first packet may have no time yet, and is not recorded
    times_s = [t_ms / 1000 for t_ms in frames if t_ms / 1000 >= begin_s]
    again = await footage.timed(source, times_s, longest=SAMPLING["longest"])
    assert len(again) >= 10  # the last second may not be on disk yet when the feed is let go
    assert all(abs(frame.t_ms - min(frames, key=lambda t: abs(t - frame.t_ms))) <= 1 for frame in again)
    assert {frame.jpeg for frame in again} <= set(frames.values())
