"""Recordings of feeds: the same pictures, fetched again; cut off, thinned out, and never in the way of the feed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from streamproc.errors import Misconfigured, Rejected
from streamproc.messages import Source
from streamproc.video import address, sampling
from streamproc.video.choice import Every
from streamproc.video.container import opened
from streamproc.video.footage import Footage
from streamproc.video.keep import Keep, Segment, segments
from streamproc.video.limits import Limits
from streamproc.video.look import Look
from streamproc.video.picture import Painter, digest
from streamproc.video.recorder import Recorder
from streamproc.video.workers import Workers
from tests.video.files import SLOW, X265, X265P, Kind
from tests.video.test_decode import source

BEGINS = Fraction(1000)
"""Stream time of the first frame."""
H264 = Kind("footage", "ts", f"{SLOW} -g 25 -bf 3", seconds=10)
HEVC = Kind(
    "footage-hevc", "ts", f"{X265} -x265-params {X265P}:keyint=25:min-keyint=25:bframes=3:open-gop=0", seconds=6
)
MPEG4 = Kind("footage-mpeg4", "ts", "-c:v mpeg4 -g 25", seconds=6)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(1) as found:
        yield found


def test_a_segment_that_has_been_sent_while_room_was_made_is_nobodys_failure(folder: Path, tmp_path: Path) -> None:
    with opened(address.parse(H264.make(folder)), Limits()) as video:
        recorder = Recorder(Keep(tmp_path, hours=1), video.stream)
        gone = Segment(tmp_path / "0000000001000000.mp4", Fraction(1))
        recorder._trim([gone])
        assert not recorder._failed
        recorder.close()


def record(path: Path, keep: Keep, *, segment_s: float = 2, jump: int | None = None) -> None:
    """As a feed is: packets one by one, at times of another clock; after `jump` packets that clock is set anew."""
    with opened(address.parse(path), Limits()) as video:
        recorder = Recorder(keep, video.stream, segment_s=segment_s)
        first: Fraction | None = None
        for number, packet in enumerate(video.packets_on()):
            assert packet.pts is not None
            time_s = packet.pts * video.time_base
            first = time_s if first is None else first
            offset_s = BEGINS - first + (0 if jump is None or number < jump else 100)
            recorder.packet(packet, offset_s)
        recorder.close()


def pictures(path: Path) -> list[str]:
    with opened(address.parse(path), Limits()) as video:
        return [digest(frame) for _, frame in sampling.samples(video, Every(1))]


def feed(folder: Path) -> Source:
    return replace(source(), uri="rtsp://camera/1", live=True, footage=str(folder))


@pytest.mark.parametrize("kind", [H264, HEVC, MPEG4], ids=lambda kind: str(kind.name))
def test_segments_hold_every_picture_of_the_feed_as_it_was(kind: Kind, folder: Path, tmp_path: Path) -> None:
    path = kind.make(folder)
    record(path, Keep(tmp_path))
    there = segments(tmp_path)
    assert len(there) == kind.seconds // 2
    assert there[0].start_s == BEGINS
    assert [b.start_s - a.start_s for a, b in pairwise(there)] == [2] * (len(there) - 1)
    assert [md5 for segment in there for md5 in pictures(segment.path)] == pictures(path)


async def test_frames_are_fetched_at_any_rate_and_are_those_of_the_feed(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    path, stream = H264.make(folder), feed(tmp_path)
    record(path, Keep.parse(str(tmp_path)).of(stream))
    footage = Footage(workers)
    reach = await footage.reach(stream)
    assert (reach.begin_s, reach.end_s, reach.rate) == (1000, 1010, 25)
    found = await footage.around(stream, 1005, rate=10, before_s=1, behind_s=1, longest=48)
    with opened(address.parse(path), Limits()) as video:
        painter = Painter(Look(longest=48))
        theirs = {round(1000 * c.time_s): painter.jpeg(f).data for c, f in sampling.samples(video, Every(1))}
    assert len(found) == 21
    wanted = [Fraction(1004) + Fraction(i, 10) for i in range(21)]
    first = [min(t for t in theirs if t + 1_000_000 >= 1000 * w - 1) for w in wanted]
    assert [frame.t_ms - 1_000_000 for frame in found] == first
    assert [frame.jpeg for frame in found] == [theirs[t] for t in first]


async def test_of_a_slow_camera_every_picture_is_fetched_though_one_answers_many_times(
    workers: Workers, tmp_path: Path
) -> None:
    camera, stream = Kind("slow-camera", "ts", f"{SLOW} -g 1 -bf 0", rate="1/4", seconds=40), feed(tmp_path)
    record(camera.make(tmp_path), Keep.parse(str(tmp_path)).of(stream), segment_s=20)
    found = await Footage(workers).timed(stream, [1000 + t for t in range(37)], longest=None)
    assert [frame.t_ms for frame in found] == [1_000_000 + 4000 * i for i in range(10)]


async def test_times_that_nobody_recorded_are_left_out_and_none_at_all_is_out_of_reach(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    stream = feed(tmp_path)
    record(H264.make(folder), Keep.parse(str(tmp_path)).of(stream), jump=100)
    footage = Footage(workers)
    found = await footage.timed(stream, [1001, 1050, 1100, 1106, 5000], longest=None)
    assert [frame.t_ms for frame in found] == [1_001_000, 1_106_000]
    for elsewhere in (feed(tmp_path / "nothing"), replace(stream, footage=None)):
        with pytest.raises(Rejected, match="footage-unreachable"):
            await footage.reach(elsewhere)
        with pytest.raises(Rejected, match="footage-unreachable"):
            await footage.timed(elsewhere, [1001], longest=None)
    with pytest.raises(Rejected, match="footage-unreachable"):
        await footage.timed(stream, [5000], longest=None)


async def test_a_file_is_its_own_footage(workers: Workers, folder: Path) -> None:
    stream = replace(source(), uri=str(H264.make(folder)))
    found = await Footage(workers).around(stream, 5, rate=1, before_s=2, behind_s=2, longest=48)
    assert [frame.t_ms for frame in found] == [3000, 4000, 5000, 6000, 7000]


@pytest.mark.parametrize("begin", [1003, 1002, 1001.32])
async def test_a_clip_goes_over_segments_and_is_what_the_feed_showed(
    begin: float, workers: Workers, folder: Path, tmp_path: Path
) -> None:
    path, stream = H264.make(folder), feed(tmp_path)
    record(path, Keep.parse(str(tmp_path)).of(stream))
    clipped = await Footage(workers).clip(stream, from_s=begin, until_s=1007, path=tmp_path / "clip.mp4")
    assert float(clipped.begin_s) == begin
    assert clipped.frames == round((1007 - begin) * 25)
    whole, mine = pictures(path), pictures(tmp_path / "clip.mp4")
    at = round((begin - 1000) * 25)
    assert clipped.coded == -at % 25
    assert mine[clipped.coded : clipped.frames - 4] == whole[at + clipped.coded : at + clipped.frames - 4]


async def test_a_clip_over_a_hole_keeps_its_time(workers: Workers, folder: Path, tmp_path: Path) -> None:
    path, stream = H264.make(folder), feed(tmp_path)
    record(path, Keep.parse(str(tmp_path)).of(stream), jump=100)
    clipped = await Footage(workers).clip(stream, from_s=1003, until_s=1105, path=tmp_path / "clip.mp4")
    assert (clipped.begin_s, clipped.frames) == (Fraction(1003), 50)
    with opened(address.parse(tmp_path / "clip.mp4"), Limits()) as video:
        times = [c.time_s for c, _ in sampling.samples(video, Every(1))]
    assert times[24:26] == pytest.approx([24 / 25, 101], abs=0.02)


async def test_a_clip_of_a_file_is_cut_out_of_it(workers: Workers, folder: Path, tmp_path: Path) -> None:
    stream = replace(source(), uri=str(H264.make(folder)))
    clipped = await Footage(workers).clip(stream, from_s=2, until_s=4, path=tmp_path / "clip.mp4")
    assert (clipped.frames, clipped.coded) == (50, 0)


@pytest.mark.parametrize("cut", [0.999, 0.9, 0.7])
def test_a_segment_that_is_cut_off_is_read_to_there(cut: float, folder: Path, tmp_path: Path) -> None:
    path = H264.make(folder)
    record(path, Keep(tmp_path), segment_s=60)
    [segment] = segments(tmp_path)
    data = segment.path.read_bytes()
    segment.path.write_bytes(data[: int(len(data) * cut)])
    kept = pictures(segment.path)[:-4]  # a picture that was cut in two, and those made with it, are shown damaged
    assert kept == pictures(path)[: len(kept)]
    assert len(kept) >= 250 * cut - 30, "a second is lost at most"


WRITE = """
import sys, time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from streamproc.video import address
from streamproc.video.limits import Limits
from streamproc.video.container import opened
from streamproc.video.keep import Keep
from streamproc.video.recorder import Recorder
with opened(address.parse(sys.argv[1]), Limits()) as video:
    recorder = Recorder(Keep(Path(sys.argv[2])), video.stream, segment_s=60)
    for number, packet in enumerate(video.packets_on()):
        recorder.packet(packet, Fraction(0))
        if number == 200:
            print("written", flush=True)
            time.sleep(100)
"""


def test_a_recorder_that_is_killed_leaves_what_it_had_a_second_before(folder: Path, tmp_path: Path) -> None:
    path = H264.make(folder)
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    [segment] = segments(tmp_path)
    kept = pictures(segment.path)
    assert kept == pictures(path)[: len(kept)]
    assert len(kept) >= 170


def test_the_oldest_make_room_by_bytes_and_by_hours(folder: Path, tmp_path: Path) -> None:
    path = H264.make(folder)
    record(path, Keep(tmp_path / "all"), segment_s=1)
    whole = sum(segment.path.stat().st_size for segment in segments(tmp_path / "all"))
    record(path, Keep(tmp_path / "half", size_bytes=whole // 2), segment_s=1)
    kept = segments(tmp_path / "half")
    assert 3 <= len(kept) < 8
    assert kept[-1].start_s == BEGINS + 9
    before = segments(tmp_path / "all")
    old = time.time() - 7200
    for segment in before[:5]:
        os.utime(segment.path, (old, old))
    with opened(address.parse(path), Limits()) as video:
        recorder = Recorder(Keep(tmp_path / "all", hours=1), video.stream)
        recorder.packet(next(iter(video.packets_on())), Fraction(2000))
        recorder.close()
    assert [s.path for s in segments(tmp_path / "all")][:5] == [segment.path for segment in before[5:]]


def test_a_place_that_cannot_be_written_to_stops_no_feed(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    record(H264.make(folder), Keep(tmp_path / "file" / "below"), segment_s=1)
    assert caplog.text.count("is not recorded") == 1


class Full:
    """A segment whose end finds no room."""

    def __init__(self, out: Any) -> None:
        self._out, self.name = out, out.name

    def close(self) -> None:
        self._out.close()
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_recording_whose_end_finds_no_room_is_told_and_what_ended_the_connection_is_heard(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(address.parse(H264.make(folder)), Limits()) as video:
        recorder = Recorder(Keep(tmp_path), video.stream)
        recorder.packet(next(iter(video.packets_on())), Fraction(2000))
        recorder._out = Full(recorder._out)  # type: ignore[assignment]  # as far as it is used
        recorder.close()
    assert "is not recorded: No space left on device" in caplog.text


@pytest.mark.parametrize("encode", ["-c:v rawvideo -pix_fmt yuyv422", "-c:v flv1"])
def test_what_cannot_stand_in_an_mp4_is_said_and_leaves_no_file(
    encode: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind = Kind(f"footage-{encode.split()[1]}", "avi", encode, seconds=2)
    record(kind.make(folder), Keep(tmp_path), segment_s=1)
    assert "does not support" in caplog.text
    assert segments(tmp_path) == []


async def test_a_segment_that_cannot_be_read_hides_no_other(workers: Workers, folder: Path, tmp_path: Path) -> None:
    stream = feed(tmp_path)
    keep = Keep.parse(str(tmp_path)).of(stream)
    record(H264.make(folder), keep)
    there = segments(keep.folder)
    there[1].path.write_bytes(b"")
    there[-1].path.write_bytes(b"\0\0\0\x18ftyp")
    footage = Footage(workers)
    found = await footage.timed(stream, [1001, 1003, 1005, 1009], longest=None)
    assert [frame.t_ms for frame in found] == [1_001_000, 1_004_000, 1_005_000], (
        "the nearest behind it, where it is near"
    )
    assert (await footage.reach(stream)).end_s == 1008


def test_where_a_feed_is_kept_is_said_in_a_line() -> None:
    assert Keep.parse("/footage") == Keep(Path("/footage"), 24)
    assert Keep.parse("file:///f?hours=48.5&bytes=2e10") == Keep(Path("/f"), 48.5, 20_000_000_000)
    for wrong in ("s3://eva:hunter2@bucket", "/f?hours=-1", "/f?bytes=0", "/f?hours=long", "/f?days=3", "/f?bytes="):
        with pytest.raises(Misconfigured, match="footage") as told:
            Keep.parse(wrong)
        assert "hunter2" not in str(told.value)


def test_two_streams_never_share_a_folder(tmp_path: Path) -> None:
    names = ("a/b", "a%2Fb", "a", "a/../b", "Ä b")
    places = {Keep(tmp_path).of(replace(source(), stream=name)).folder for name in names}
    assert len(places) == len(names)
    assert all(place.parent.parent == tmp_path for place in places)
