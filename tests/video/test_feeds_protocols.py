"""Feeds as FFmpeg brings them: HLS that is still being written, RTMP, UDP; and what this build of it cannot do."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest

from streamproc.errors import Rejected, Unreachable
from streamproc.messages import Window
from streamproc.video import address
from streamproc.video.choice import Rate
from streamproc.video.container import opened
from streamproc.video.follow import Backoff, Feed
from streamproc.video.limits import Limits
from streamproc.video.look import Look
from streamproc.video.sources import found
from streamproc.video.windows import Cut, Sampling
from streamproc.video.workers import Workers
from tests.video.files import SLOW, Kind
from tests.video.test_decode import source

SEEN = Kind("protocols", "ts", f"{SLOW} -g 10 -bf 0 -x264-params repeat-headers=1", seconds=6)
CUT = Cut(Sampling(Rate(Fraction(5)), Fraction(1, 2), Fraction(1, 2), look=Look(longest=64)))


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(1) as made:
        yield made


@asynccontextmanager
async def sending(path: Path, options: str) -> AsyncIterator[None]:
    """ffmpeg, showing a file again and again as a camera would."""
    command = f"-v error -nostdin -re -stream_loop -1 -i {path} -c copy {options}"
    process = await asyncio.create_subprocess_exec("ffmpeg", *command.split(), stderr=asyncio.subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def watched(workers: Workers, uri: str, enough: Callable[[list[Window]], bool]) -> list[Window]:
    feed = Feed(
        workers,
        address.parse(uri),
        CUT,
        zero_s=time.monotonic(),
        limits=Limits(read_s=5, open_s=10),
        backoff=Backoff(first_s=0.05, most_s=0.2),
        random=Random(7),
    )
    records: list[Window] = []
    async with asyncio.timeout(60), aclosing(feed.windows(source("1"))) as steps:
        async for step, _ in steps:
            records += step
            if enough(records):
                break
    at = 0
    for record in records:
        assert record.index == at, "every index leaves as a window or within a gap"
        at = record.until
    times = [frame.t_ms for record in records for frame in record.frames]
    assert times == sorted(set(times))
    return records


def seen(count: int) -> Callable[[list[Window]], bool]:
    return lambda records: sum(bool(record.frames) for record in records) >= count


async def test_a_playlist_that_is_still_being_written_is_a_feed(workers: Workers, folder: Path, tmp_path: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    playlist = tmp_path / "live.m3u8"
    try:
        async with sending(
            SEEN.make(folder), f"-f hls -hls_time 1 -hls_list_size 4 -hls_flags delete_segments {playlist}"
        ):
            async with asyncio.timeout(30):
                while not playlist.exists():  # noqa: ASYNC110  # nobody tells of a file
                    await asyncio.sleep(0.02)
            [one] = await asyncio.to_thread(found, [f"http://127.0.0.1:{server.server_port}/live.m3u8"])
            assert one.live
            await watched(workers, one.uri, seen(12))  # more than the playlist ever holds
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_rtmp_is_watched(workers: Workers, folder: Path) -> None:
    uri = f"rtmp://127.0.0.1:{free_port()}/live/camera"
    async with sending(SEEN.make(folder), f"-f flv -listen 1 {uri}"):
        await watched(workers, uri, seen(4))


async def test_udp_is_watched_from_mid_stream_on(workers: Workers, folder: Path) -> None:
    uri = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    async with sending(SEEN.make(folder), f"-f mpegts {uri}?pkt_size=1316"):
        await watched(workers, uri, seen(4))


def test_what_this_ffmpeg_cannot_do_and_a_webcam_that_is_not_there_are_told_by_name() -> None:
    for uri in ("srt://127.0.0.1:9", "webcam:99"):
        with pytest.raises((Rejected, Unreachable), match=uri), opened(address.parse(uri), Limits(open_s=2)):
            pass
