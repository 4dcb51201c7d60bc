"""Recordings in an object store, over a real S3 server: what a folder would hold, wherever it is looked at from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path

import pytest
from msgspec.structs import replace

from streamproc.errors import Misconfigured, Rejected, Unreachable
from streamproc.messages import Source
from streamproc.video import address
from streamproc.video.bucket import Bucket
from streamproc.video.container import opened
from streamproc.video.footage import Footage
from streamproc.video.keep import Keep, segments, stored_segments
from streamproc.video.limits import Limits
from streamproc.video.recorder import Recorder
from streamproc.video.sending import Sending
from streamproc.video.workers import Workers
from tests.s3 import make_bucket
from tests.video.test_decode import source
from tests.video.test_footage import BEGINS, H264, Full, pictures, record

WITHIN_S = 60


@pytest.fixture
def place(bucket: str, tmp_path: Path) -> str:
    return f"s3://{bucket}/cameras?spool={tmp_path / 'spool'}"


@pytest.fixture
async def workers(aws: str) -> AsyncIterator[Workers]:
    async with Workers(1) as found:
        yield found


def feed(place: str) -> Source:
    return replace(source(), stream="gate/north 1", uri="rtsp://camera/1", live=True, footage=place)


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def sent(path: Path, keep: Keep, *, segment_s: float = 2) -> None:
    """Recorded, and all of it in the store."""
    record(path, keep, segment_s=segment_s)
    until(lambda: not segments(keep.folder))


async def test_what_is_recorded_into_a_store_is_what_a_folder_would_hold(
    place: str, workers: Workers, folder: Path, tmp_path: Path
) -> None:
    path, stream = H264.make(folder), feed(place)
    keep, beside = Keep.parse(place).of(stream), Keep(tmp_path / "beside")
    sent(path, keep)
    record(path, beside)
    there, here = stored_segments(keep), segments(beside.folder)
    assert [segment.start_s for segment in there] == [segment.start_s for segment in here]
    assert keep.bucket
    for one, other in zip(there, here, strict=True):
        assert one.key
        assert Bucket(keep.bucket).fetch(one.key, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == other.path.read_bytes()
    footage = Footage(workers)
    reach = await footage.reach(stream)
    assert (reach.begin_s, reach.end_s, reach.rate) == (1000, 1010, 25)
    found = await footage.around(stream, 1005, rate=10, before_s=2, behind_s=2, longest=48)
    folders = replace(stream, footage=str(tmp_path / "folders"))
    record(path, Keep.parse(str(tmp_path / "folders")).of(folders))
    assert found == await footage.around(folders, 1005, rate=10, before_s=2, behind_s=2, longest=48)
    assert len(found) == 41
    clipped = await footage.clip(stream, from_s=1003, until_s=1007, path=tmp_path / "clip.mp4")
    assert (float(clipped.begin_s), clipped.frames) == (1003, 100)
    assert len(pictures(tmp_path / "clip.mp4")) >= 100
    assert segments(keep.folder) == [], "what was fetched to be looked at is not kept"
    with pytest.raises(Rejected, match="footage-unreachable"):
        await footage.timed(stream, [5000], longest=None)


async def test_a_segment_that_still_grows_is_seen_by_this_machine(place: str, workers: Workers, folder: Path) -> None:
    stream = feed(place)
    keep = Keep.parse(place).of(stream)
    with opened(address.parse(H264.make(folder)), Limits()) as video:
        recorder, first = Recorder(keep, video.stream, segment_s=4), None
        for packet in video.packets_on():
            assert packet.pts is not None
            first = packet.pts if first is None else first
            recorder.packet(packet, BEGINS - first * video.time_base)
        until(lambda: len(segments(keep.folder)) == 1)
        found = await Footage(workers).timed(stream, [1001, 1008.2], longest=None)
        assert [frame.t_ms for frame in found] == [1_001_000, 1_008_200]
        recorder.close()
    until(lambda: not segments(keep.folder))
    assert len(stored_segments(keep)) == 3


def test_a_segment_whose_end_found_no_room_is_sent_as_far_as_it_came(place: str, folder: Path) -> None:
    keep = Keep.parse(place).of(feed(place))
    with opened(address.parse(H264.make(folder)), Limits()) as video:
        recorder = Recorder(keep, video.stream)
        recorder.packet(next(iter(video.packets_on())), Fraction(2000))
        recorder._out = Full(recorder._out)  # type: ignore[assignment]  # as far as it is used
        recorder.close()
    until(lambda: not segments(keep.folder))
    assert len(stored_segments(keep)) == 1


RECORD = """
import sys, time
from fractions import Fraction
from streamproc.messages import Source
from streamproc.video import address
from streamproc.video.limits import Limits
from streamproc.video.container import opened
from streamproc.video.keep import Keep
from streamproc.video.recorder import Recorder
from tests.video.test_footage_store import feed
with opened(address.parse(sys.argv[1]), Limits()) as video:
    recorder = Recorder(Keep.parse(sys.argv[2]).of(feed(sys.argv[2])), video.stream, segment_s=60)
    for number, packet in enumerate(video.packets_on()):
        recorder.packet(packet, Fraction(0))
        if number == 200:
            print("written", flush=True)
            time.sleep(100)
"""


def test_what_a_killed_recorder_left_in_the_spool_goes_with_the_next_one(
    place: str, folder: Path, tmp_path: Path
) -> None:
    path, keep = H264.make(folder), Keep.parse(place).of(feed(place))
    with subprocess.Popen(
        [sys.executable, "-c", RECORD, str(path), place], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    [left] = segments(keep.folder)
    assert stored_segments(keep) == []
    with opened(address.parse(path), Limits()) as video:
        Recorder(keep, video.stream).close()
    until(lambda: not segments(keep.folder))
    [there] = stored_segments(keep)
    assert there.path.name == left.path.name
    assert keep.bucket
    assert there.key
    assert Bucket(keep.bucket).fetch(there.key, tmp_path / "left.mp4")
    kept = pictures(tmp_path / "left.mp4")
    assert kept == pictures(path)[: len(kept)]
    assert len(kept) >= 170


def test_the_oldest_make_room_in_the_store_by_bytes_and_by_hours(place: str, folder: Path, tmp_path: Path) -> None:
    path, keep = H264.make(folder), Keep.parse(place).of(feed(place))
    assert keep.bucket
    sent(path, keep, segment_s=1)
    whole = sum(one.size_bytes for one in Bucket(keep.bucket).below(f"{keep.below}/"))
    half = Keep.parse(f"{place}&bytes={whole // 2}").of(replace(feed(place), stream="half"))
    sent(path, half, segment_s=1)
    kept = stored_segments(half)
    assert 3 <= len(kept) < 8
    assert kept[-1].start_s == BEGINS + 9
    assert len(stored_segments(keep)) == 10, "another stream's are its own"
    late = Sending(keep, now=lambda: time.time() + 25 * 3600)
    keep.folder.mkdir(parents=True, exist_ok=True)
    (newest := keep.folder / "0000009999000000.mp4").write_bytes(b"\0")
    late.add(newest)
    late.close()
    late.join()
    assert [segment.start_s for segment in stored_segments(keep)] == [9999]


def test_while_a_store_cannot_be_reached_the_spool_keeps_it_and_no_feed_stops(
    aws: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"later-{os.getpid()}-{time.time_ns()}"
    keep = Keep.parse(f"s3://{name}/?spool={tmp_path}").of(feed(""))
    record(H264.make(folder), keep, segment_s=2)
    assert len(segments(keep.folder)) == 5
    sending = Sending(keep, again_s=0.05)
    until(lambda: "AWS_ENDPOINT_URL" in caplog.text)
    with pytest.raises(Unreachable, match=name):
        stored_segments(keep)
    make_bucket(aws, name)
    until(lambda: not segments(keep.folder))
    sending.close()
    sending.join()
    assert [segment.start_s - BEGINS for segment in stored_segments(keep)] == [0, 2, 4, 6, 8]


def test_a_place_in_a_store_is_said_in_a_line(tmp_path: Path) -> None:
    keep = Keep.parse("s3://bucket/a/b/?hours=48&bytes=2e10&spool=/spool")
    assert (keep.bucket, keep.hours, keep.size_bytes) == ("s3://bucket/a/b", 48, 20_000_000_000)
    places = {Keep.parse(f"s3://{text}?spool=/spool").folder for text in ("bucket/a/b", "bucket/a", "bucket/a~2Fb")}
    assert len(places) == 3
    streams = [replace(source(), stream=name) for name in ("a/b", "a~2Fb", "a%2Fb", "a")]
    assert len({keep.of(stream).below for stream in streams}) == 4
    for wrong in ("ftp://host/x", "s3://", "s3://eva:hunter2@bucket/x", "s3://bucket?spool=/x&days=3", "/f?spool=/x"):
        with pytest.raises(Misconfigured, match="footage") as told:
            Keep.parse(wrong)
        assert "hunter2" not in str(told.value)
