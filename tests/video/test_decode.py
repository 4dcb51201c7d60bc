"""Files as windows: on the grid, slice by slice, whatever the workers go through meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from streamproc.errors import Misconfigured, Rejected
from streamproc.messages import Grid, Source, Window
from streamproc.video import address, jobs
from streamproc.video.choice import Rate
from streamproc.video.decode import begin_with, decode
from streamproc.video.limits import Limits
from streamproc.video.look import Look
from streamproc.video.windows import Cut, Sampling
from streamproc.video.workers import Lost, Workers
from tests.video.cuts import dashcam, soccer, soccer_dense
from tests.video.files import KINDS, SLOW, Kind, ffmpeg


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(2, silence_s=60) as found:
        yield found


def source(step: str = "2") -> Source:
    return Source(
        id="",
        service="",
        root="",
        stream="match/1",
        generation=1,
        revision=2,
        index=2,
        start_ms=0,
        end_ms=0,
        outcome="done",
        uri="",
        live=False,
        state="active",
        from_index=0,
        grid=Grid(root="decode", origin="0", step=step, first=0),
        task={},
        services=(),
        readers={},
        lag="block",
    )


async def made(workers: Workers, path: Path, cut: Cut, cursor: int | None = None, slice_s: float = 60) -> list[Window]:
    records = []
    async with aclosing(decode(workers, source(), address.parse(path), cut, cursor=cursor, slice_s=slice_s)) as steps:
        async for step, cursor in steps:  # noqa: B007
            records += step
    return records


def kind(name: str) -> Kind:
    return next(k for k in KINDS if k.name == name)


MATCH = Kind("match", "mp4", f"{SLOW} -g 25", seconds=10.2)
REGULAR_AND_NOT = pytest.mark.parametrize("ending", ["mp4", "avi"])


@REGULAR_AND_NOT
async def test_windows_overlap_share_clips_and_the_last_is_cut_short(
    workers: Workers, folder: Path, ending: str
) -> None:
    path = Kind("match", ending, f"{SLOW} -g 25", seconds=10.2).make(folder)
    *found, last = await made(workers, path, Cut(soccer()))
    assert [(w.index, w.start_ms, w.end_ms, len(w.frames)) for w in found] == [
        (0, 0, 4000, 4),
        (1, 2000, 6000, 4),
        (2, 4000, 8000, 4),
        (3, 6000, 10000, 4),
        (4, 8000, 10200, 3),
        (5, 10000, 10200, 1),
    ]
    assert [w.clips for w in found] == [((0, 1), (2, 3))] * 4 + [((0, 1), (2, 2)), ((0, 0),)]
    assert [[f.t_ms for f in w.frames] for w in found[:2]] == [[0, 1000, 2000, 3000], [2000, 3000, 4000, 5000]]
    assert [f.frame for f in found[0].frames] == [1, 26, 51, 76]
    for one, next_ in pairwise(found):
        assert one.frames[2:] == next_.frames[: len(one.frames[2:])], "the same bytes, made once"
    assert (last.index, last.count, last.ended) == (6, 6, True)


async def test_dense_windows_have_all_their_samples(workers: Workers, folder: Path) -> None:
    *found, _ = await made(workers, MATCH.make(folder), Cut(soccer_dense()))
    assert [len(w.frames) for w in found] == [15, 15, 15, 15, 11, 1]
    assert found[0].clips == ((0, 9), (10, 14))


async def test_a_dashcam_window_is_one_numbered_frame(workers: Workers, folder: Path) -> None:
    cut = Cut(dashcam(Fraction(25)))
    *found, last = await made(workers, MATCH.make(folder), cut)
    assert [[f.frame for f in w.frames] for w in found] == [[n] for n in range(1, 256, 10)]
    assert last.count == 26


@pytest.mark.parametrize("name", ["h264-vfr", "h264-ts-cut", "mjpeg", "mpeg4-packed"])
async def test_slices_make_the_windows_that_one_pass_makes(name: str, workers: Workers, folder: Path) -> None:
    path, cut = kind(name).make(folder), Cut(Sampling(Rate(Fraction(5)), Fraction(1, 2), Fraction(5, 4)))
    whole = await made(workers, path, cut)
    assert len(whole) >= 6
    for cursor, slice_s in ((0, 0.5), (0, 2.5), (3, 1), (len(whole) - 3, 1), (len(whole) - 2, 1), (len(whole) - 1, 1)):
        assert await made(workers, path, cut, cursor, slice_s) == whole[cursor:]


async def test_what_is_begun_early_is_what_is_decoded_then_and_not_decoded_again(folder: Path) -> None:
    path, cut = MATCH.make(folder), Cut(soccer())
    async with Workers(1) as workers:
        whole = await made(workers, path, cut)
        asked, send = list[jobs.Job](), workers._send

        def noted(worker: asyncio.subprocess.Process, job: jobs.Job) -> None:
            asked.append(job)
            send(worker, job)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workers, "_send", noted)
            begin_with(workers, address.parse(path), cut)
            assert await made(workers, path, cut) == whole
    assert [type(job) for job in asked[:2]] == [jobs.Survey, jobs.DecodeSlice]
    assert len(asked) == len(set(map(repr, asked)))  # each of them once


def test_of_large_pictures_a_slice_has_few_so_that_its_answer_fits_a_worker(tmp_path: Path) -> None:
    ffmpeg(
        "-f lavfi -i color=s=3840x2160:r=25:d=4 -c:v libx264 -preset ultrafast -g 25 -pix_fmt yuv420p",
        tmp_path / "4k.mp4",
    )
    for longest, slices in ((None, 2), (384, 1)):
        cut = Cut(Sampling(Rate(Fraction(25)), Fraction(1), Fraction(1), look=Look(longest=longest)))
        [found] = jobs.Survey(address.parse(tmp_path / "4k.mp4"), Limits(), cut, 0).run()
        assert [len(part.chosen) for part in found.slices] == [100 // slices] * slices


async def test_a_worker_killed_in_mid_job_costs_an_attempt_and_no_window(workers: Workers, folder: Path) -> None:
    path, cut = MATCH.make(folder), Cut(soccer())
    whole = await made(workers, path, cut)
    found: list[Window] = []
    async with aclosing(decode(workers, source(), address.parse(path), cut)) as steps:
        task = asyncio.ensure_future(anext(steps))
        while not workers.pids:  # noqa: ASYNC110  # nothing tells of a process that starts
            await asyncio.sleep(0.001)
        os.kill(workers.pids[0], signal.SIGKILL)
        found += (await task)[0]
        async for step, _ in steps:
            found += step
    assert found == whole


async def test_a_worker_that_hangs_is_killed_at_its_deadline(folder: Path) -> None:
    path = MATCH.make(folder)
    async with Workers(1, silence_s=0.5) as workers:
        job = jobs.Survey(address.parse(path), Limits(), Cut(soccer()), 0)
        await_start = asyncio.ensure_future(workers.one(job))
        while not workers.pids:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.001)
        os.kill(workers.pids[0], signal.SIGSTOP)
        with pytest.raises(Lost, match="silent"):
            await await_start
        assert not workers.pids


async def test_a_file_cut_off_keeps_what_can_be_read_and_counts_the_rest(workers: Workers, folder: Path) -> None:
    whole = Kind("faststart", "mp4", f"{SLOW} -g 25 -movflags faststart", seconds=20).make(folder)
    path = folder / "cut-off.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    *found, lost, last = await made(workers, path, Cut(soccer()))
    assert found[0].outcome == "done"
    assert (lost.index, lost.until_index, lost.outcome, lost.reason) == (len(found), 10, "failed", "unreadable")
    assert last.count == 10


async def test_a_file_that_is_no_video_is_rejected_by_name(workers: Workers, folder: Path) -> None:
    path = folder / "text.mp4"
    path.write_text("not a video " * 100)
    with pytest.raises(Rejected, match=r"text\.mp4"):
        await made(workers, path, Cut(soccer()))


async def test_pictures_are_no_longer_than_asked(workers: Workers, folder: Path) -> None:
    cut = Cut(Sampling(Rate(Fraction(1)), Fraction(2), Fraction(2), look=Look(longest=48)))
    window = (await made(workers, MATCH.make(folder), cut))[0]
    assert (window.width, window.height) == (48, 32)
    assert np.asarray(simplejpeg.decode_jpeg(window.frames[0].jpeg)).shape == (32, 48, 3)


def test_a_grid_of_another_step_than_the_task_is_refused() -> None:
    with pytest.raises(Misconfigured, match="grid"):
        Cut.on(source("3").grid, soccer())


class Counting(Workers):
    slices = 0

    async def one(self, job: object) -> object:
        self.slices += isinstance(job, jobs.DecodeSlice)
        return await super().one(job)  # type: ignore[arg-type]  # a job


async def test_of_many_files_together_little_is_decoded_before_anybody_has_room_for_it(folder: Path) -> None:
    path = Kind("spare", "mp4", f"{SLOW} -g 25", seconds=12).make(folder)
    cut = Cut(Sampling(Rate(Fraction(1)), Fraction(1), Fraction(1), frames=1, look=Look(longest=32)))
    async with Counting(2, silence_s=60) as workers:
        whole = await made(workers, path, cut, slice_s=1)
        assert workers.slices == 12
        workers.slices = 0
        files = [decode(workers, source(), address.parse(path), cut, slice_s=1) for _ in range(10)]
        found = [[*(await anext(steps))[0]] for steps in files]
        await asyncio.sleep(0.2)
        assert 10 < workers.slices <= 10 + 2 * workers.size, "each has what it was asked for, and all together few more"
        await files.pop().aclose()
        for steps, records in zip(files, found, strict=False):
            async for step, _ in steps:
                records.extend(step)
            assert records == whole
        assert workers.spare.free == 2 * workers.size
