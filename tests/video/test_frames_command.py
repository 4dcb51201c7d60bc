"""`streamproc frames`: what scripts read of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import simplejpeg

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.video.choice import rate
from tests.video.files import SLOW, Kind
from tests.video.judge import judge

LATE = Kind("late", "ts", f"{SLOW} -g 25 -output_ts_offset 3000", seconds=5)


def frames(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = exit_code(build(), ["frames", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_line_a_sample_says_which_frame_and_when(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = LATE.make(folder)
    code, out, _ = frames(capsys, str(path), "--fps", "1/2", "--json", "--digest")
    assert code == Code.DONE
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["frame"], line["pts"], line["md5"]) for line in lines] == judge(path).chosen(rate("1/2"))
    assert [line["t"] for line in lines] == [0, 2, 4]
    assert [line["time_s"] for line in lines] == [0, 2, 4]
    assert {line["time_base"] for line in lines} == {"1/90000"}
    assert {tuple(line) for line in lines} == {("t", "frame", "pts", "time_base", "time_s", "md5")}


def test_pictures_are_written_where_asked_and_nowhere_else(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = frames(
        capsys, str(LATE.make(folder)), "--every", "50", "--json", "--out", str(tmp_path / "new" / "pictures")
    )
    assert code == Code.DONE
    written = [Path(json.loads(line)["file"]) for line in out.splitlines()]
    assert sorted((tmp_path / "new" / "pictures").iterdir()) == written
    assert [simplejpeg.decode_jpeg_header(path.read_bytes())[:2] for path in written] == [(64, 96)] * 3


def test_a_span_is_that_part_of_the_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(LATE.make(folder))
    _, whole, _ = frames(capsys, path, "--fps", "5", "--json")
    _, part, _ = frames(capsys, path, "--fps", "5", "--json", "--from", "0:01", "--to", "2.5")
    assert part.splitlines() == [line for line in whole.splitlines() if 1 <= json.loads(line)["t"] < 2.5]


@pytest.mark.parametrize(
    "asked",
    [
        (),
        ("--fps", "1", "--every", "2"),
        ("--fps", "0"),
        ("--fps", "-1"),
        ("--fps", "fast"),
        ("--fps", "1/0"),
        ("--every", "0"),
        ("--fps", "1", "--from", "soon"),
        ("--fps", "1", "--from", "3", "--to", "2"),
    ],
)
def test_what_cannot_be_asked_is_wrong_usage(
    asked: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = frames(capsys, str(LATE.make(folder)), *asked)
    assert (code, out) == (Code.USAGE, "")
    assert err


def test_a_file_that_is_not_there_is_a_failure_that_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = frames(capsys, "no-such-match.mp4", "--fps", "1")
    assert (code, out) == (Code.FAILED, "")
    assert "no-such-match.mp4: No such file" in err


def test_a_server_that_is_not_there_is_unreachable(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = frames(capsys, "http://eva:hunter2@127.0.0.1:9/match.mp4", "--fps", "1")
    assert code == Code.UNREACHABLE
    assert "hunter2" not in err
