"""Clips: what is copied is bit for bit what it was; what must be coded anew is the first pictures only, and looks the same."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from streamproc.errors import Misconfigured, Rejected
from streamproc.video import address, sampling
from streamproc.video.choice import Every
from streamproc.video.container import opened
from streamproc.video.jobs import Clip, Clipped
from streamproc.video.limits import Limits
from streamproc.video.picture import digest
from tests.video.files import SLOW, X265, X265P, Kind, ffmpeg
from tests.video.test_picture import psnr

KINDS = (
    Kind("clip-mp4", "mp4", f"{SLOW} -g 25 -bf 3", seconds=6),
    Kind("clip-ts", "ts", f"{SLOW} -g 25 -bf 3", seconds=6),
    Kind("clip-open", "mkv", f"{SLOW} -g 25 -bf 3 -x264-params open-gop=1", seconds=6),
    Kind("clip-hevc", "mp4", f"{X265} -x265-params {X265P}:keyint=25:min-keyint=25:bframes=3:open-gop=0", seconds=6),
    Kind("clip-hevc-ts", "ts", f"{X265} -x265-params {X265P}:keyint=25:min-keyint=25:bframes=3:open-gop=1", seconds=6),
    Kind("clip-10bit", "mkv", f"{SLOW.replace('yuv420p', 'yuv420p10le')} -g 25 -bf 2", seconds=6),
)
each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))


def clip(path: Path | str, begin: str, until: str, to: Path) -> Clipped:
    [clipped] = Clip(address.parse(path), Limits(), Fraction(begin), Fraction(until), to).run()
    return clipped


def pictures(path: Path) -> list[tuple[Fraction, str]]:
    with opened(address.parse(path), Limits()) as video:
        return [(c.time_s, digest(frame)) for c, frame in sampling.samples(video, Every(1))]


def luma(path: Path, until: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    raw = ffmpeg(f"-i {path} -frames:v {until} -vf format=gray -fps_mode passthrough -f rawvideo -")
    return list(np.frombuffer(raw, np.uint8).reshape(-1, 64, 96))


@each
def test_a_clip_that_begins_where_decoding_may_is_a_copy(kind: Kind, folder: Path, tmp_path: Path) -> None:
    whole = pictures(kind.make(folder))
    found = clip(kind.make(folder), "2", "4", tmp_path / "clip.mp4")
    assert (found.begin_s, found.frames, found.coded) == (Fraction(2), 50, 0)
    mine = pictures(tmp_path / "clip.mp4")
    assert [md5 for _, md5 in mine[:48]] == [md5 for _, md5 in whole[50:98]]
    assert [t for t, _ in mine[:48]] == pytest.approx([t - 2 for t, _ in whole[50:98]], abs=0.001)
    assert len(mine) <= 54
    assert not list(tmp_path.glob("*.part"))


@each
def test_only_the_first_pictures_of_another_clip_are_coded_anew(kind: Kind, folder: Path, tmp_path: Path) -> None:
    path = kind.make(folder)
    found = clip(path, "1.6", "4", tmp_path / "clip.mp4")
    assert (found.begin_s, found.frames) == (Fraction(8, 5), 60)
    whole, mine = pictures(path), pictures(tmp_path / "clip.mp4")
    if kind.name != "clip-open":  # its other key pictures count on from those before
        assert found.coded == 10
        assert [md5 for _, md5 in mine[10:58]] == [md5 for _, md5 in whole[50:98]]
    assert [t for t, _ in mine[:58]] == pytest.approx([t - Fraction(8, 5) for t, _ in whole[40:98]], abs=0.001)
    theirs, ours = (
        luma(path, 100),
        luma(tmp_path / "clip.mp4", 60),
    )  # another decoder's view of what stands where both meet
    assert len(ours) == 60
    for one, other in zip(theirs[40:98], ours, strict=False):
        assert np.array_equal(one, other) or psnr(one, other) > 38


@each
def test_a_clip_within_a_group_of_pictures_is_coded_anew_whole(kind: Kind, folder: Path, tmp_path: Path) -> None:
    found = clip(kind.make(folder), "1.2", "1.8", tmp_path / "clip.mp4")
    assert (found.frames, found.coded) == (15, 15)
    assert len(pictures(tmp_path / "clip.mp4")) == 15


def test_a_clip_to_the_end_and_from_before_the_beginning_is_the_whole(folder: Path, tmp_path: Path) -> None:
    path = KINDS[0].make(folder)
    assert clip(path, "-5", "100", tmp_path / "clip.mp4").coded == 0
    assert [md5 for _, md5 in pictures(tmp_path / "clip.mp4")] == [md5 for _, md5 in pictures(path)]


def test_a_clip_that_holds_nothing_is_refused_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="holds nothing"):
        clip(KINDS[0].make(folder), "3", "3", tmp_path / "clip.mp4")
    with pytest.raises(Rejected, match="no frame from 50 s"):
        clip(KINDS[0].make(folder), "50", "60", tmp_path / "clip.mp4")
    assert not list(tmp_path.iterdir())


def test_a_clip_of_a_pair_is_refused_and_its_lower_half_not_left_out(folder: Path, tmp_path: Path) -> None:
    path = KINDS[0].make(folder)
    with pytest.raises(Rejected, match="each half"):
        clip(f"stack:{path}+{path}", "2", "4", tmp_path / "clip.mp4")
