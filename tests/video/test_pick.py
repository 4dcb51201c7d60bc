"""Single pictures by number are those of a full decode, and what is out of reach says so, past its deadline."""

from __future__ import annotations

import asyncio
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from streamproc.errors import Rejected
from streamproc.messages import Frame
from streamproc.video import address, sampling
from streamproc.video.choice import Every
from streamproc.video.container import opened
from streamproc.video.jobs import DecodeStack, Job, Measure, Pick, Reach
from streamproc.video.keep import UNREACHABLE
from streamproc.video.limits import Limits
from streamproc.video.look import Look
from streamproc.video.pick import Files
from streamproc.video.picture import Painter
from streamproc.video.windows import Cut, Sampling
from streamproc.video.workers import Workers
from tests.stages.rig import source
from tests.video.files import KINDS

NUMBERS = (1, 2, 13, 14, 60, 61, 62, 124, 125, 9999)


def kind(name: str, folder: Path) -> Path:
    return next(k for k in KINDS if k.name == name).make(folder)


def decoded(path: Path) -> dict[int, Frame]:
    """Every frame of a file, by its number."""
    with opened(address.parse(path), Limits()) as video:
        painter = Painter(Look(), video.stream.sample_aspect_ratio)
        return {
            c.number: Frame(t_ms=round(1000 * c.time_s), frame=c.number, jpeg=painter.jpeg(frame).data)
            for c, frame in sampling.sequential(video, Every(1))
        }


@pytest.mark.parametrize(
    "name", ["h264", "h264-long", "h264-pyramid", "h264-open", "hevc-open", "h264-editlist", "mpeg4-avi", "vp9-alt"]
)
def test_frames_by_number_are_those_of_a_full_decode(name: str, folder: Path) -> None:
    path = kind(name, folder)
    every = decoded(path)
    (found,) = Pick(address.parse(path), Limits(), frozenset(NUMBERS), Look()).run()
    assert found == [every[n] for n in NUMBERS if n in every]
    (reach,) = Measure(address.parse(path), Limits()).run()
    assert reach.frames == len(every)
    assert reach.rate == pytest.approx(len(every) / (reach.end_s - reach.begin_s))


def test_a_file_that_was_looked_at_before_gives_the_same_and_one_that_changed_gives_its_own(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "video.mp4"
    for name in ("h264", "h264-open", "h264"):
        shutil.copy(kind(name, folder), path)
        every = decoded(path)
        for numbers in ((60, 61), (14, 124)):
            (found,) = Pick(address.parse(path), Limits(), frozenset(numbers), Look()).run()
            assert found == [every[n] for n in numbers]


def test_of_a_pair_both_are_shown_one_above_the_other_as_far_as_both_go(folder: Path) -> None:
    top, bottom = kind("h264", folder), kind("h264-long", folder)
    pair = address.parse(f"stack:{top}+{bottom}")
    (found,) = Pick(pair, Limits(), frozenset((5, 30, 125, 126)), Look()).run()
    assert [f.frame for f in found] == [5, 30, 125]
    cut = Cut(Sampling(Every(1), Fraction(1, 25), Fraction(1, 25)))
    pictures = [p for part in DecodeStack(pair, Limits(), cut, 0).run() if isinstance(part, list) for p in part]
    assert [f.jpeg for f in found] == [p.jpeg.data for p in pictures if p.chosen.number in (5, 30, 125)]
    (reach,) = Measure(pair, Limits()).run()
    assert reach.frames == len(pictures) == 125


def test_no_number_at_all_is_no_picture(folder: Path) -> None:
    assert list(Pick(address.parse(kind("h264", folder)), Limits(), frozenset(), Look()).run()) == [[]]


async def test_a_file_is_its_own_footage_by_number_and_by_time(folder: Path) -> None:
    path = kind("h264", folder)
    every = decoded(path)
    async with Workers(1) as workers:
        files, of = Files(workers), source(path)
        assert await files.reach(of) == Reach(0.0, 5.0, 25.0, 125)
        assert list(await files.numbered(of, [5, 3], longest=None)) == [every[3], every[5]]
        assert [f.frame for f in await files.timed(of, [0.0, 1.0, 99.0], longest=32)] == [1, 26, 125]


class Failing(Workers):
    """Says when it has failed once."""

    def __init__(self) -> None:
        super().__init__(1)
        self.failed = asyncio.Event()

    async def one(self, job: Job) -> Any:
        try:
            return await super().one(job)
        except Rejected:
            self.failed.set()
            raise


async def test_a_file_that_comes_back_in_time_is_reached(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "later.mp4"
    async with Failing() as workers:
        waiting = asyncio.create_task(Files(workers, within_s=60, again_s=0.01).reach(source(path)))
        await workers.failed.wait()
        shutil.copy(kind("h264", folder), tmp_path / "half.mp4")
        (tmp_path / "half.mp4").rename(path)
        assert (await waiting).frames == 125


@pytest.mark.parametrize("options", [{"uri": "/nowhere/gone.mp4"}, {"uri": "rtsp://127.0.0.1:9/cam", "live": True}])
async def test_what_is_out_of_reach_is_rejected_by_that_name(options: dict[str, Any]) -> None:
    async with Workers(1) as workers:
        with pytest.raises(Rejected, match=f"^{UNREACHABLE}$"):
            await Files(workers, within_s=0).reach(source(options.pop("uri"), **options))


async def test_what_is_no_video_is_out_of_reach_too(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    async with Workers(1) as workers:
        with pytest.raises(Rejected, match=UNREACHABLE):
            await Files(workers, within_s=0).numbered(source(tmp_path / "text.mp4"), [1], longest=None)
