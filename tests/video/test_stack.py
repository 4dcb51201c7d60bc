"""Pairs: one video above the other, judged by ffmpeg's own stack of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import example, given
from hypothesis import strategies as st

from streamproc.errors import Rejected
from streamproc.messages import Window
from streamproc.video import address
from streamproc.video.choice import Rate
from streamproc.video.decode import decode
from streamproc.video.look import Look
from streamproc.video.stack import stacked
from streamproc.video.windows import Cut, Sampling
from streamproc.video.workers import Workers
from tests.video.cuts import dashcam
from tests.video.files import SLOW, Kind, ffmpeg
from tests.video.test_decode import source
from tests.video.test_picture import Image, psnr

HEAT = Kind("heat", "mp4", f"{SLOW} -g 25", size="128x72", seconds=5.2)
CAR = Kind("car", "mp4", f"{SLOW} -g 12 -bf 3", size="96x64", seconds=4)
ODD = Kind("odd-half", "mkv", f"{SLOW.replace('yuv420p', 'yuv444p')} -g 25", size="95x63", seconds=4)
TURNED = Kind("turned-half", "mp4", f"{SLOW} -g 25", before="-i {} -c copy -metadata:s:v rotate=90", middle="mp4")
UNCUT = Kind("uncut-half", "avi", f"{SLOW} -g 25", size="96x64", seconds=4)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(1) as found:
        yield found


async def made(workers: Workers, top: Path, bottom: Path, cut: Cut, cursor: int | None = None) -> list[Window]:
    records: list[Window] = []
    pair = address.parse(f"stack:{top}+{bottom}")
    async with aclosing(decode(workers, source(), pair, cut, cursor=cursor)) as steps:
        async for step, _ in steps:
            records += step
    return records


def luma(window: Window) -> Image:
    image: Image = simplejpeg.decode_jpeg(window.frames[0].jpeg, colorspace="GRAY")
    return image[:, :, 0]


async def test_the_narrower_gives_the_width_and_the_shorter_the_end(workers: Workers, folder: Path) -> None:
    *found, last = await made(workers, HEAT.make(folder), CAR.make(folder), Cut(dashcam(Fraction(25))))
    assert [[f.frame for f in w.frames] for w in found] == [[n] for n in range(1, 101, 10)]
    assert last.count == 10
    assert {(w.width, w.height) for w in found} == {(96, 54 + 64)}


async def test_pictures_are_those_that_ffmpeg_stacks(workers: Workers, folder: Path) -> None:
    top, bottom = HEAT.make(folder), CAR.make(folder)
    *found, _ = await made(workers, top, bottom, Cut(dashcam(Fraction(25), every=30)))
    chain = "[0]scale=96:54:flags=area[a];[a][1]vstack=shortest=1,select='not(mod(n,30))',format=gray"
    raw = ffmpeg(f'-i {top} -i {bottom} -filter_complex "{chain}" -fps_mode passthrough -f rawvideo -')
    theirs = np.frombuffer(raw, np.uint8).reshape(-1, 118, 96)
    assert len(found) == len(theirs) == 4
    for window, picture in zip(found, theirs, strict=True):
        assert psnr(luma(window), picture) > 35


async def test_sides_are_even_and_turned_videos_stand_upright(workers: Workers, folder: Path) -> None:
    cut = Cut(Sampling(Rate(Fraction(1)), Fraction(2), Fraction(2)))
    window = (await made(workers, ODD.make(folder), TURNED.make(folder), cut))[0]
    assert (window.width, window.height) == (64, 42 + 96)
    raw = ffmpeg(f"-i {TURNED.make(folder)} -frames:v 1 -vf format=gray -f rawvideo -")
    assert psnr(luma(window)[42:], np.frombuffer(raw, np.uint8).reshape(96, 64)) > 35


async def test_a_pair_is_no_longer_than_asked(workers: Workers, folder: Path) -> None:
    cut = Cut(Sampling(Rate(Fraction(1)), Fraction(2), Fraction(2), look=Look(longest=60)))
    window = (await made(workers, HEAT.make(folder), CAR.make(folder), cut))[0]
    assert (window.width, window.height) == (48, 26 + 32)


async def test_a_half_that_only_decoding_can_measure_ends_the_pair_as_well(workers: Workers, folder: Path) -> None:
    cut = Cut(Sampling(Rate(Fraction(5)), Fraction(1), Fraction(2)))
    for top, bottom in ((HEAT, UNCUT), (UNCUT, HEAT)):
        whole = await made(workers, top.make(folder), bottom.make(folder), cut)
        assert whole[-1].count == 4
        assert whole[-1].start_ms == 4000
        assert await made(workers, top.make(folder), bottom.make(folder), cut, cursor=2) == whole[2:]


async def test_a_half_that_is_no_video_is_named(workers: Workers, folder: Path) -> None:
    text = folder / "half.mp4"
    text.write_text("no video")
    with pytest.raises(Rejected, match=r"half\.mp4"):
        await made(workers, HEAT.make(folder), text, Cut(dashcam(Fraction(25))))


side = st.integers(2, 5000)


@given(side, side, side, side, st.none() | st.integers(16, 4000))
@example(2, 2, 2, 32, 17)
@example(2, 32, 2, 2, 17)
def test_sizes_are_even_alike_in_width_and_no_larger_than_asked(
    a: int, b: int, c: int, d: int, longest: int | None
) -> None:
    (wide, high), (also, low) = stacked((a, b), (c, d), longest)
    assert wide == also
    assert not any(side % 2 or side < 2 for side in (wide, high, low))
    assert wide <= max(2, min(a, c))
    assert longest is None or max(wide, high + low) <= max(4, longest)
