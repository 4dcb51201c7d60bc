"""What the arguments of a command line stand for; and folders that are watched."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.errors import Misconfigured, Rejected, Unreachable
from streamproc.video import address
from streamproc.video.sources import Found, check, found, natural
from streamproc.video.watched import Watched


def files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video")


def names(*arguments: str | Path, name: str | None = None) -> list[str]:
    return [one.name for one in found([str(a) for a in arguments], name=name)]


def refused(*arguments: str | Path) -> str:
    with pytest.raises(Misconfigured) as told:
        found([str(a) for a in arguments])
    return str(told.value)


def test_a_file_is_called_as_it_is_without_its_ending_and_lies_at_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, "match 1.final.mkv", "no ending")
    monkeypatch.chdir(tmp_path)
    assert found(["match 1.final.mkv", "no ending"]) == [
        Found("match 1.final", str(tmp_path / "match 1.final.mkv"), live=False),
        Found("no ending", str(tmp_path / "no ending"), live=False),
    ]
    assert names("file://" + str(tmp_path / "no ending")) == ["no ending"]


def test_a_folder_is_its_videos_in_natural_order_and_what_is_none_is_said(tmp_path: Path) -> None:
    files(tmp_path, "game 10/2_HQ.mkv", "game 10/1_HQ.mkv", "game 9/1_HQ.MP4", "game 9/Labels-v2.json", ".DS_Store")
    files(tmp_path, ".cache/x.mp4")
    said: list[str] = []
    there = [one.name for one in found([str(tmp_path)], say=said.append)]
    assert there == ["game 9/1_HQ", "game 10/1_HQ", "game 10/2_HQ"]
    [line] = said
    assert "game 9/Labels-v2.json" in line
    assert ".DS_Store" not in line


def test_of_many_files_left_out_some_are_named_and_all_are_counted(tmp_path: Path) -> None:
    files(tmp_path, "a.mp4", *(f"frame{i}.png" for i in range(30)))
    said: list[str] = []
    found([str(tmp_path)], say=said.append)
    assert "frame4.png and 25 more" in said[0]


def test_links_to_folders_are_followed_and_one_that_leads_back_ends(tmp_path: Path) -> None:
    files(tmp_path, "here/a.mp4", "elsewhere/b.mp4")
    (tmp_path / "here" / "there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "here")
    assert names(tmp_path / "here") == ["a", "there/b"]


@pytest.mark.parametrize("number", ["²", "٣", "10" * 3000])
def test_digits_of_any_kind_are_put_in_some_order(number: str) -> None:
    assert sorted([number, "2", "a"], key=lambda name: natural([name]))


def test_two_alike_are_an_error_that_says_so(tmp_path: Path) -> None:
    files(tmp_path, "a/x.mp4", "b/x.mp4", "b/x.mkv")
    assert "'x'" in refused(tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4")
    told = refused(tmp_path / "b")
    assert "x.mp4" in told
    assert "x.mkv" in told


def test_a_folder_without_videos_and_a_path_that_is_not_there_are_refused(tmp_path: Path) -> None:
    assert "no video" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "none.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named_and_not_passed_over(tmp_path: Path) -> None:
    files(tmp_path, "a.mp4", "closed/b.mp4")
    (tmp_path / "closed").chmod(0)
    assert "closed: Permission denied" in refused(tmp_path)
    (tmp_path / "closed").chmod(0o700)


def test_a_name_is_for_one_source_and_stands_before_those_of_a_folder(tmp_path: Path) -> None:
    files(tmp_path, "a.mp4", "b.mp4")
    assert names(tmp_path / "a.mp4", name="final") == ["final"]
    assert names(tmp_path, name="cup") == ["cup/a", "cup/b"]
    with pytest.raises(Misconfigured, match="one source"):
        found([str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")], name="x")


@pytest.mark.parametrize(
    "name", ["", "/", "a//b", "/a", "a/", "..", "a/../b", "./a", "match@2", "a\0b", "a\nb", "\x7f", "\x85", "a\udcff"]
)
def test_what_no_stream_can_be_called_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match="stream name"):
        check(name)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/@"), min_size=1), min_size=1)
)
def test_any_other_name_can_be_a_stream_and_a_key(parts: list[str]) -> None:
    if not {".", ".."} & set(parts):
        check("/".join(parts))
        assert "/".join(parts).encode()


def test_a_file_whose_name_is_no_unicode_is_refused_and_shown(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"video")
    assert "caf\\\\udce9" in refused(tmp_path)


# addresses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("rtsp://${USER}:${PASSWORD}@10.0.0.7:8554/cam/live.sdp", "10.0.0.7:8554/cam/live"),
        ("rtmp://host/app/key", "host/app/key"),
        ("srt://host:9000?streamid=x", "host:9000"),
        ("udp://239.0.0.1:1234", "239.0.0.1:1234"),
        ("webcam:0", "webcam-0"),
    ],
)
def test_a_live_address_is_a_feed_and_its_name_holds_no_secret(uri: str, name: str) -> None:
    assert found([uri]) == [Found(name, uri, live=True)]


@pytest.mark.parametrize("uri", ["gopher://eva:secret@host/x", "webcam:front", "webcam:"])
def test_what_no_source_can_be_is_refused_without_its_secrets(uri: str) -> None:
    assert "secret" not in refused(uri)


PAGES = {
    "/over.m3u8": ("application/vnd.apple.mpegurl", "#EXTM3U\n#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n"),
    "/live.m3u8": ("application/vnd.apple.mpegurl", "#EXTM3U\r\n#EXTINF:2,\r\na.ts\r\n"),
    "/master.m3u8": ("application/x-mpegurl", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlive.m3u8\n"),
    "/around.m3u8": ("application/x-mpegurl", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\naround.m3u8\n"),
    "/match.mp4": ("video/mp4", "video"),
    "/cam": ("multipart/x-mixed-replace; boundary=x", "--x"),
    "/live.ts": ("video/mp2t", None),
}


@pytest.fixture
def url() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = PAGES.get(self.path.partition("?")[0], (None, None))
            self.send_response(200 if kind else 404)
            self.send_header("Content-Type", kind or "text/plain")
            if body is not None:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "live"),
    [
        ("over.m3u8", False),
        ("live.m3u8", True),
        ("master.m3u8", True),
        ("around.m3u8", True),
        ("match.mp4", False),
        ("cam", True),
        ("live.ts", True),
    ],
)
def test_an_http_address_is_a_feed_where_nothing_says_that_it_ends(url: str, path: str, live: bool) -> None:
    [one] = found([f"{url}/{path}?token=hunter2"])
    assert (one.name, one.live) == (path.partition(".")[0], live)


def test_an_http_address_that_has_nothing_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(Rejected, match="404") as told:
        found([f"{url}/none.mp4?token=hunter2"])
    assert "hunter2" not in str(told.value)
    with pytest.raises(Unreachable) as gone:
        found(["http://eva:hunter2@127.0.0.1:9/x.mp4"])
    assert "hunter2" not in str(gone.value)


def test_an_address_whose_variables_are_elsewhere_is_judged_by_its_ending() -> None:
    assert [found([f"https://${{NOT_SET_HERE}}@host/x.{ending}"])[0].live for ending in ("m3u8", "mp4")] == [
        True,
        False,
    ]


def test_a_secret_is_read_from_the_file_that_the_environment_names(tmp_path: Path) -> None:
    (tmp_path / "camera").write_text("hunter2\n")
    told = {"CAMERA_FILE": str(tmp_path / "camera"), "GONE_FILE": str(tmp_path / "gone")}
    assert address.parse("rtsp://eva:${CAMERA}@host/", secrets=told).target == "rtsp://eva:hunter2@host/"
    with pytest.raises(Misconfigured, match="GONE_FILE"):
        address.parse("rtsp://eva:${GONE}@host/", secrets=told)


def test_a_password_that_stands_there_is_told_from_one_that_does_not() -> None:
    assert address.literal("rtsp://eva:hunter2@host/")
    assert not address.literal("rtsp://${USER}:${PASSWORD}@host/")


# pairs --------------------------------------------------------------------------------------------------------------


def test_two_folders_make_pairs_by_name_and_two_files_one(tmp_path: Path) -> None:
    files(tmp_path, "heat/c+1.mp4", "heat/10.mp4", "video/c+1.mkv", "video/10.mp4")
    heat, video = tmp_path / "heat", tmp_path / "video"
    assert found([f"stack:{heat}+{video}"]) == [
        Found("10", f"stack:{heat}/10.mp4+{video}/10.mp4", live=False),
        Found("c+1", f"stack:{heat}/c+1.mp4+{video}/c+1.mkv", live=False),
    ]
    pair = address.parse(f"stack:{heat}/c+1.mp4+{video}/c+1.mkv")
    assert pair.under is not None
    assert (pair.target, pair.under.target) == (f"{heat}/c+1.mp4", f"{video}/c+1.mkv")
    assert names(f"stack:{heat}/10.mp4+{video}/c+1.mkv") == ["10+c+1"]


def test_pairs_that_are_none_are_refused(tmp_path: Path) -> None:
    files(tmp_path, "heat/1.mp4", "heat/2.mp4", "video/1.mp4", "other.mp4")
    heat, video = tmp_path / "heat", tmp_path / "video"
    assert "'2' is only in" in refused(f"stack:{heat}+{video}")
    assert "a file and the other a folder" in refused(f"stack:{heat}+{tmp_path}/other.mp4")
    assert "TOP+BOTTOM" in refused(f"stack:{heat}")
    assert "TOP+BOTTOM" in refused(f"stack:{heat}+{tmp_path}/gone")


# watched ------------------------------------------------------------------------------------------------------------


def test_a_file_is_taken_once_when_it_has_stopped_growing(tmp_path: Path) -> None:
    now = [0.0]
    watched = Watched(tmp_path, settled_s=10, clock=lambda: now[0])

    def look(seconds: float) -> list[str]:
        now[0] += seconds
        return [one.name for one in watched.look()]

    files(tmp_path, "a.mp4", "notes.txt")
    assert look(0) == []
    assert look(9) == []
    with (tmp_path / "a.mp4").open("ab") as file:
        file.write(b"more")
    assert look(9) == []
    files(tmp_path, "sub/b.mkv")
    (tmp_path / "empty.mp4").touch()
    assert look(9) == []
    assert look(9) == ["a"]
    assert look(9) == ["sub/b"]
    with (tmp_path / "a.mp4").open("ab") as file:
        file.write(b"a recorder that was stopped goes on")
    assert [look(9), look(20), look(20)] == [[], [], []]


def test_a_file_that_comes_whole_by_another_name_is_taken_under_that(tmp_path: Path) -> None:
    now = [0.0]
    watched = Watched(tmp_path, settled_s=10, clock=lambda: now[0])
    files(tmp_path, "a.mp4.part")
    assert watched.look() == []
    (tmp_path / "a.mp4.part").rename(tmp_path / "a.mp4")
    for now[0] in (5, 14, 15):
        there = watched.look()
    assert [one.name for one in there] == ["a"]


def test_what_no_stream_can_be_called_is_said_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    files(tmp_path, "match@2.mp4", "new.mp4", "new.mkv", "notes.txt")
    watched = Watched(tmp_path, settled_s=10, clock=lambda: now[0])
    watched.look()
    now[0] = 10
    assert [one.uri for one in watched.look()] == [str(tmp_path / "new.mkv")]
    for name in ("match@2.mp4", "new.mp4", "notes.txt"):
        assert caplog.text.count(f"{name}: left out") == 1
    now[0] = 20
    assert watched.look() == []
    assert caplog.text.count("left out") == 3
