"""What of a feed is decoded: less than all of it, and no picture comes out another for that."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest

from streamproc.video import address
from streamproc.video.choice import Rate
from streamproc.video.container import opened
from streamproc.video.decoding import decode_all
from streamproc.video.feed import chosen_of
from streamproc.video.limits import Limits
from streamproc.video.picture import digest
from streamproc.video.streamtime import StreamTime
from tests.video.files import SLOW, X265, X265P, Kind

CAMERA = Kind("needed-camera", "ts", f"{SLOW} -g 50 -bf 0 -x264-params repeat-headers=1", seconds=12)
KINDS = (
    CAMERA,
    Kind("needed-short", "ts", f"{SLOW} -g 12 -bf 0", seconds=8),
    Kind("needed-b", "ts", f"{SLOW} -g 25 -bf 3", seconds=12),
    Kind("needed-pyramid", "mkv", f"{SLOW} -g 40 -bf 7 -x264-params b-pyramid=normal:ref=5", seconds=12),
    Kind("needed-open", "ts", f"{SLOW} -g 20 -bf 3 -x264-params open-gop=1:ref=4:b-pyramid=normal", seconds=12),
    Kind("needed-odd", "ts", f"{SLOW} -g 250 -bf 2 -force_key_frames 2,4,6,6.4,9,9.2", seconds=12),
    Kind("needed-refresh", "ts", f"{SLOW} -g 12 -bf 0 -x264-params intra-refresh=1", seconds=6),
    Kind("needed-hevc", "ts", f"{X265} -x265-params {X265P}:keyint=25:min-keyint=25:open-gop=0:bframes=4", seconds=8),
    Kind("needed-hevc-open", "ts", f"{X265} -x265-params {X265P}:keyint=20:open-gop=1:bframes=4:b-adapt=0", seconds=8),
    Kind("needed-vp9", "webm", "-c:v libvpx-vp9 -deadline good -cpu-used 5 -g 30 -auto-alt-ref 1 -lag-in-frames 16"),
    Kind("needed-mpeg2", "ts", "-c:v mpeg2video -g 12 -bf 2", seconds=8),
    Kind("needed-mjpeg", "avi", "-c:v mjpeg -q:v 3", seconds=8),
)
SAMPLED = (("0", "1"), ("0.3", "5"), ("0.52", "1"), ("0.9", "1"), ("0.9", "1/4"), ("0.3", "7/3"))
"""(stream time of the first frame, samples a second)"""

Shown = list[tuple[Fraction, str]]
"""(time by the file's clock, MD5), in shown order."""


def shown(path: Path) -> Shown:
    with opened(address.parse(path), Limits()) as video:
        return [(pts * video.time_base, digest(frame)) for pts, frame in decode_all(video)]


def chosen(frames: Shown, per_s: Fraction, phase_s: Fraction) -> Shown:
    """By the rule: of each sample the first frame at or after it. The first frame of all is shown at `phase_s`."""
    found, wanted_s = [], ceil(phase_s * per_s) / per_s
    for at_s, md5 in frames:
        time_s = at_s - frames[0][0] + phase_s
        if time_s >= wanted_s:
            found.append((time_s, md5))
            wanted_s = (time_s * per_s // 1 + 1) / per_s
    return found


def watched(path: Path, first_s: Fraction, per_s: Fraction, phase_s: Fraction) -> tuple[Shown, int]:
    """What is chosen of a feed whose packets come when they are due; and how many of its pictures were decoded."""
    decoded = 0
    with opened(address.parse(path), Limits()) as video:
        times = StreamTime(offset_s=phase_s - first_s, wanted_s=ceil(phase_s * per_s) / per_s)

        def now_s() -> float:
            nonlocal decoded
            decoded += 1
            return float(times.last_s)

        found = chosen_of(video, video.packets_on(), times, Rate(per_s), now_s)
        pictures = [(one.time_s, digest(frame)) for one, frame in found]
    assert times.jumps == 0, "what is not looked at is no pause"
    return pictures, decoded


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))
def test_pictures_of_a_feed_are_those_of_a_full_decode(kind: Kind, folder: Path) -> None:
    path = kind.make(folder)
    frames = shown(path)
    for phase, rate in SAMPLED:
        phase_s, per_s = Fraction(phase), Fraction(rate)
        found, _ = watched(path, frames[0][0], per_s, phase_s)
        wanted = chosen(frames, per_s, phase_s)
        assert len(found) >= len(wanted) - 1, "the last may still wait within the decoder"
        assert found == wanted[: len(found)]


@pytest.mark.parametrize(("phase", "rate", "needed"), [("0.52", "1", 38), ("0.9", "1", 29), ("0.5", "1/4", 26)])
def test_behind_the_last_sample_of_a_gop_nothing_is_decoded(phase: str, rate: str, needed: float, folder: Path) -> None:
    """A GOP has fifty pictures; two go by before that is known."""
    path = CAMERA.make(folder)
    frames = shown(path)
    _, decoded = watched(path, frames[0][0], Fraction(rate), Fraction(phase))
    assert decoded <= 100 + needed * (len(frames) // 50 - 2)


def test_what_is_left_out_for_long_is_no_jump() -> None:
    times = StreamTime(wanted_s=Fraction(20))
    times.at(Fraction(100), Fraction(0))
    for n in range(500):
        at_s = 100 + Fraction(n, 25)
        assert times.until_wanted(at_s) == 120 - at_s
        times.left_out(at_s)
    assert times.at(Fraction(120), Fraction(20)) == 20
    assert times.jumps == 0


@pytest.mark.parametrize("by", [-3600, 3600])
def test_behind_a_jump_nobody_knows_when_a_sample_is_wanted_until_a_frame_has_come(by: int) -> None:
    """Or a camera whose pictures are all whole, and whose clock was set back, would not be looked at for an hour."""
    times = StreamTime(wanted_s=Fraction(10))
    times.at(Fraction(100), Fraction(0))
    times.left_out(Fraction(101))
    assert times.until_wanted(Fraction(102 + by)) is None
    assert times.at(Fraction(102 + by), Fraction(2)) == 2
    assert times.jumps == 1
    assert times.until_wanted(Fraction(103 + by)) == 7
