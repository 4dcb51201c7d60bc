"""Files that are broken, or made to break: an error that names them, or an outcome for every window."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import pytest

from streamproc.errors import Rejected
from streamproc.video import address, sampling
from streamproc.video.choice import Every, Rate
from streamproc.video.container import opened
from streamproc.video.limits import Limits
from streamproc.video.workers import Workers
from tests.video.files import SLOW, Kind, ffmpeg
from tests.video.hostile import bases, fate, fates

SMALL = Kind("small", "mp4", f"{SLOW} -g 25", seconds=1)


def refused(path: Path, limits: Limits | None = None) -> str:
    with pytest.raises(Rejected) as told, opened(address.parse(path), limits or Limits()) as video:
        list(sampling.samples(video, Every(1)))
    assert str(path) in str(told.value)
    return str(told.value)


async def test_a_hundred_damaged_files_are_rejected_by_name_or_accounted_for(folder: Path, tmp_path: Path) -> None:
    found = await fates(tmp_path, bases(folder), 100, seed=20)
    assert not [what for what in found if what.startswith("WRONG")]
    assert found.total() == 100
    assert len(found) >= 2, "some are too damaged to be read, and some are not"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert "empty" in refused(tmp_path / "empty.mp4")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.mp4")


@contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything, so root is somebody else meanwhile."""
    was = os.geteuid()
    os.seteuid(65534 if was == 0 else was)
    try:
        yield
    finally:
        os.seteuid(was)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.touch(mode=0)
    with nobody():
        assert "Permission denied" in refused(path)


def test_a_path_that_looks_like_an_address_is_a_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("concat:a.mp4", "c:odd.mp4", "-i.mp4", "100%d.mp4"):
        Path(name).write_bytes(SMALL.make(folder).read_bytes())
        with opened(address.parse(name), Limits()) as video:
            assert len(list(sampling.samples(video, Every(5)))) == 5


def test_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("<html>" * 1000)
    assert "not a video" in refused(path)


def test_sound_alone_is_refused(folder: Path) -> None:
    path = folder / "sound.mp4"
    ffmpeg("-f lavfi -i sine=d=1 -c:a aac", path)
    assert "no video stream" in refused(path)


def test_a_file_without_its_index_is_refused(folder: Path) -> None:
    path = folder / "no-moov.mp4"
    whole = SMALL.make(folder).read_bytes()
    path.write_bytes(whole[: whole.index(b"moov") - 4])
    refused(path)


def test_a_picture_larger_than_allowed_is_refused_before_it_is_decoded(folder: Path) -> None:
    path = SMALL.make(folder)
    assert "video.max_pixels allows 6000" in refused(path, Limits(pixels=6000))
    header = bytearray(SMALL.make(folder).read_bytes())
    png = folder / "huge.png"
    ffmpeg("-f lavfi -i color=s=64x64:d=0.04 -frames:v 1", png)
    header = bytearray(png.read_bytes())
    header[16:24] = (100_000).to_bytes(4, "big") * 2
    png.write_bytes(header)
    refused(png)


def test_a_file_longer_or_larger_than_allowed_is_refused(folder: Path) -> None:
    path = SMALL.make(folder)
    assert "video.max_duration_s allows" in refused(path, Limits(duration_s=0.5))
    assert "video.max_bytes allows" in refused(path, Limits(size_bytes=100))


def test_a_stream_that_does_not_say_how_large_it_is_is_refused_where_it_grows_too_large(folder: Path) -> None:
    path = SMALL.make(folder)
    with opened(address.parse(path), Limits()) as video:
        video.limits = Limits(size_bytes=5000)  # as of an address: only a file's size is known beforehand
        with pytest.raises(Rejected, match=r"small\.mp4: more than the 5000 bytes"):
            list(sampling.samples(video, Every(1)))


async def test_a_timestamp_out_of_this_world_costs_a_frame_and_not_a_year_of_gaps(folder: Path) -> None:
    jump = "setts=pts=if(eq(N\\,30)\\,PTS+1e9\\,PTS)"
    path = Kind("jump", "mkv", f"{SLOW} -g 1", seconds=5, before=f"-i {{}} -c copy -live 1 -bsf:v '{jump}'").make(
        folder
    )
    with opened(address.parse(path), Limits()) as video:
        shown = [chosen.number for chosen, _ in sampling.samples(video, Every(1))]
        assert len(shown) == 124
        assert video.damage
        assert "video.max_duration_s" in video.damage
    async with Workers(1) as workers:
        assert await fate(workers, path) == "read"


def test_two_recordings_in_one_file_are_told_of_where_the_second_begins_anew(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames are chosen by their time, as ever; that half of the file was over by then must not go unsaid."""
    one = Kind("hostile-first", "ts", f"{SLOW} -g 25", seconds=3).make(folder)
    other = Kind("hostile-second", "ts", f"{SLOW} -g 25", size="64x48", seconds=3).make(folder)
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + other.read_bytes())
    with opened(address.parse(both), Limits()) as video:
        found = [chosen.time_s for chosen, _ in sampling.samples(video, Rate(Fraction(1)))]
    assert found == [0, 1, 2]
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert (
        line == f"{both}: its time jumps back by 3.0 s at 3.0 s: pictures of a time that has passed are not looked at"
    )


def test_nothing_a_decoder_prints_reaches_the_terminal(folder: Path) -> None:
    path = folder / "flipped.mkv"
    data = bytearray(Kind("flip", "mkv", f"{SLOW} -g 25", seconds=1).make(folder).read_bytes())
    for at in range(3000, len(data), 997):
        data[at] ^= 255
    path.write_bytes(data)
    told = subprocess.run(
        [sys.executable, "-m", "streamproc", "frames", str(path), "--every", "1", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "h264 @" not in told.stderr
    assert told.stdout.count("\n") > 5, "what can be read is shown"
