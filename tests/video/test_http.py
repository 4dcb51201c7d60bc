"""Files over HTTP from a local server: whole, as HLS, and answers that are no video at all."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from streamproc.errors import Rejected, StreamprocError, Unreachable
from streamproc.video import address, sampling
from streamproc.video.choice import Rate
from streamproc.video.container import opened
from streamproc.video.limits import Limits
from streamproc.video.picture import digest
from tests.video.files import SLOW, Kind, ffmpeg
from tests.video.judge import judge

MATCH = Kind("over-http", "mp4", f"{SLOW} -g 25 -movflags faststart", seconds=5)


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def do_GET(self) -> None:
            if self.path == "/around":
                self.send_response(302)
                self.send_header("Location", "/around")
                self.end_headers()
            elif self.path.startswith("/cut/"):
                self.cut(folder / self.path.removeprefix("/cut/"))
            elif self.path == "/page.mp4":
                page = b"<!doctype html><title>Sign in</title>" * 100
                self.send_response(200)
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)
            else:
                super().do_GET()

        def cut(self, path: Path) -> None:
            """Begins where it is asked to, and hangs up after a quarter of the file."""
            data = path.read_bytes()
            asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            at = int(asked[1]) if asked else 0
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {at}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - at))
            self.end_headers()
            self.wfile.write(data[at : at + len(data) // 4])
            self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def chosen(uri: str) -> list[str]:
    with opened(address.parse(uri), Limits()) as video:
        return [digest(frame) for _, frame in sampling.samples(video, Rate(Fraction(1)))]


def refused(uri: str, kind: type[StreamprocError]) -> str:
    with pytest.raises(kind) as told:
        chosen(uri)
    assert uri.split("//")[1] in str(told.value)
    return str(told.value)


def test_a_file_over_http_gives_the_frames_of_the_file(url: str, folder: Path) -> None:
    path = MATCH.make(folder)
    assert chosen(f"{url}/{path.name}") == [md5 for *_, md5 in judge(path).chosen(Rate(Fraction(1)))]


def test_a_server_that_hangs_up_is_read_on_from_there(url: str, folder: Path) -> None:
    path = MATCH.make(folder)
    assert chosen(f"{url}/cut/{path.name}") == [md5 for *_, md5 in judge(path).chosen(Rate(Fraction(1)))]


def test_hls_gives_the_frames_of_the_file(url: str, folder: Path) -> None:
    path = MATCH.make(folder)
    ffmpeg(f"-i {path} -c copy -hls_time 2 -hls_list_size 0", folder / "list.m3u8")
    assert chosen(f"{url}/list.m3u8") == [md5 for *_, md5 in judge(path).chosen(Rate(Fraction(1)))]


def test_a_page_where_a_video_should_be_is_refused(url: str, folder: Path) -> None:
    assert "not with a video" in refused(f"{url}/page.mp4", Rejected)


def test_nothing_at_an_address_is_refused(url: str, folder: Path) -> None:
    assert "404" in refused(f"{url}/none.mp4", Rejected)


def test_endless_redirects_end(url: str, folder: Path) -> None:
    refused(f"{url}/around", StreamprocError)


def test_a_server_that_is_not_there_may_come_back(folder: Path) -> None:
    refused("http://127.0.0.1:9/match.mp4", Unreachable)
