"""What a file is said to be, against how it was made; and whatever its bytes are, an answer or an error that names it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from streamproc.errors import Rejected
from streamproc.video import address
from streamproc.video.container import opened
from streamproc.video.limits import Limits
from streamproc.video.probe import Examine, Probe, probe
from streamproc.video.workers import Workers
from tests.video.files import KINDS, SLOW, Kind, ffmpeg
from tests.video.hostile import bases, damaged
from tests.video.judge import judge


def probed(path: Path) -> Probe:
    with opened(address.parse(path), Limits()) as video:
        return probe(video)


def kind(name: str) -> Kind:
    return next(k for k in KINDS if k.name == name)


def test_a_file_is_what_it_was_made_to_be(folder: Path) -> None:
    found = probed(kind("h264-ntsc").make(folder))
    assert (found.codec, found.pixel_format) == ("h264", "yuv420p")
    assert (found.width, found.height, found.coded_width, found.coded_height) == (96, 64, 96, 64)
    assert (found.rotation, found.mirrored) == (0, False)
    assert found.aspect == 1
    assert found.rate == Fraction(30000, 1001)
    assert found.frames == 150
    assert found.duration_s == Fraction(150 * 1001, 30000)
    assert found.audio == ()
    assert found.gops
    assert (found.gops.count, found.gops.longest, found.gops.open) == (5, 30, False)
    assert (found.whole, found.damage) == (None, None)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_turned_file_is_as_large_as_it_is_shown(turn: int, folder: Path) -> None:
    turned = Kind(
        f"probe-{turn}",
        "mp4",
        f"{SLOW} -g 25 -aspect 3:1",
        seconds=1,
        before=f"-i {{}} -c copy -metadata:s:v rotate={turn}",
        middle="mp4",
    )
    found = probed(turned.make(folder))
    assert (found.rotation, found.mirrored) == (-turn % 360, False), "ffmpeg's own option turns against the clock"
    assert (found.coded_width, found.coded_height) == (96, 64)
    assert found.aspect == 2
    assert (found.width, found.height) == ((64, 192) if turn % 180 else (192, 64))


@pytest.mark.parametrize(
    ("name", "is_open"), [("h264", False), ("h264-open", True), ("hevc", False), ("hevc-open", True), ("vp9", False)]
)
def test_open_gops_are_told_from_closed_ones(name: str, is_open: bool, folder: Path) -> None:
    gops = probed(kind(name).make(folder)).gops
    assert gops
    assert gops.open == is_open


@pytest.mark.parametrize("name", ["h264-editlist", "h264-ts-cut", "hevc-cut", "h264-vfr", "webm-stream", "av1-alt"])
def test_frames_and_time_are_those_of_a_full_decode(name: str, folder: Path) -> None:
    path = kind(name).make(folder)
    shown, found = judge(path), probed(path)
    assert found.frames == len(shown.frames)
    assert found.duration_s
    seen_s = (shown.frames[-1][0] - shown.frames[0][0]) * shown.time_base
    assert 0 <= found.duration_s - seen_s <= Fraction(1, 12), "the last frame is shown for a while"


def test_where_only_decoding_can_tell_nothing_is_guessed(folder: Path) -> None:
    found = probed(kind("h264-raw").make(folder))
    assert (found.frames, found.duration_s, found.gops) == (None, None, None)
    assert found.whole


@pytest.mark.parametrize("container", ["mkv", "ts", "mp4"])
def test_a_file_whose_first_picture_is_late_is_as_long_as_its_pictures_last(container: str, tmp_path: Path) -> None:
    path = tmp_path / f"film.{container}"
    ffmpeg(f"-f lavfi -i testsrc=s=64x64:r=5:d=4,format=yuv420p {SLOW} -output_ts_offset 90000", path)
    with opened(address.parse(path), Limits(duration_s=60)) as video:
        assert video.declared_s == 4


def test_sound_is_named(folder: Path) -> None:
    path = folder / "sounding.mp4"
    ffmpeg(f"-i {kind('h264').make(folder)} -f lavfi -i sine=d=5 -c:v copy -c:a aac -shortest", path)
    assert probed(path).audio == ("aac",)


def test_a_file_cut_off_says_where_it_is_damaged(folder: Path) -> None:
    whole = Kind("probe-whole", "mp4", f"{SLOW} -g 25 -movflags faststart", seconds=4).make(folder)
    path = folder / "probe-cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    found = probed(path)
    assert (found.frames, found.width) == (None, 96)
    assert found.whole
    assert "damaged" in found.whole


async def test_whatever_its_bytes_are_a_file_is_probed_or_refused_by_name(folder: Path, tmp_path: Path) -> None:
    names, fates = bases(folder), list[str]()
    async with Workers(1, silence_s=60) as workers:
        for number in range(60):
            path = tmp_path / f"odd-{number}.bin"
            path.write_bytes(damaged(names, Random(number)))
            fates.append(await fate(workers, path))
    assert {"probed", "refused"} == set(fates)


async def fate(workers: Workers, path: Path) -> str:
    try:
        found: Probe = await workers.one(Examine(address.parse(path), Limits()))
    except Rejected as e:
        return "refused" if path.name in str(e) else f"refused without its name: {e}"
    sound = min(found.width, found.height) >= 1 and found.rotation in {0, 90, 180, 270}
    return "probed" if sound else f"wrong: {found}"
