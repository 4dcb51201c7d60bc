"""How commands end that somebody stops before they have begun, or that have nothing to finish."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from tests.e2e.answers import scripted
from tests.e2e.films import film

STOPPED_ON_ITS_WAY = """
import os, signal, sys
import streamproc.cli as cli
rooms = cli.build
def build(only):
    os.kill(os.getpid(), signal.SIGTERM)  # as early as anything of ours runs
    return rooms(only)
cli.build = build
sys.argv = ["streamproc", "run", "film.mp4"]
cli.main()
"""

STOPPED_AT_AN_IMPORT = """
import os, signal, sys
module, sys.argv[1:] = sys.argv[1], ["topics", "list"]
class Finder:
    def find_spec(self, name, path, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from streamproc.cli import main
main()
"""


def started(*command: str, bus: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "STREAMPROC_BUS": bus, "LOG_LEVEL": "warning"}
    command = (sys.executable, *command)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def bus(tmp_path: Path) -> str:
    return f"embedded:{tmp_path / 'streamproc.db'}"


def test_a_command_that_is_told_to_stop_before_it_has_begun_says_interrupted(bus: str) -> None:
    with started("-c", STOPPED_ON_ITS_WAY, bus=bus) as process:
        process.communicate(timeout=60)
    assert process.returncode == Code.INTERRUPTED


@pytest.mark.parametrize(
    ("module", "says"), [("typer", ""), ("streamproc.settings", "interrupted\n"), ("uvloop", "interrupted\n")]
)
def test_ctrl_c_while_things_are_loaded_shows_no_traceback(bus: str, module: str, says: str) -> None:
    with started("-c", STOPPED_AT_AN_IMPORT, module, bus=bus) as process:
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (Code.INTERRUPTED, says)


def test_one_that_only_looks_ends_the_same_way(bus: str, tmp_path: Path) -> None:
    match = film(tmp_path / "match.mp4", 4)
    assert exit_code(build(), ["run", str(match), "--only", "decode", "--bus", bus]) == Code.DONE
    with started("-m", "streamproc", "topics", "tail", "windows", "--follow", "--json", bus=bus) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (Code.INTERRUPTED, "interrupted\n")


def test_what_could_not_be_read_is_said_beside_the_share_that_was_covered(
    bus: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    match, broken = film(tmp_path / "match.mp4", 4), tmp_path / "broken.mp4"
    broken.write_bytes(b"no film")
    assert exit_code(build(), ["run", str(match), str(broken), "--bus", bus]) == Code.INCOMPLETE
    assert "1 of 2 streams done" in (said := capfd.readouterr().err)
    assert "100.0% covered of what could be read; 1 could not be" in said


def test_where_nothing_new_could_be_read_no_share_of_it_is_told(
    bus: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    match, broken = film(tmp_path / "match.mp4", 4), tmp_path / "broken.mp4"
    out = ("--out", str(tmp_path / "out"), "--bus", bus)
    assert exit_code(build(), ["run", str(match), *out]) == Code.DONE
    broken.write_bytes(b"no film")
    capfd.readouterr()
    assert exit_code(build(), ["run", str(match), str(broken), *out]) == Code.INCOMPLETE
    assert "0 of 1 streams done" in (said := capfd.readouterr().err)
    assert "none of them could be read" in said
    assert "covered" not in said


@pytest.mark.parametrize("wrong", ["missing.mp4", "empty", "broken.mp4"])
def test_what_is_wrong_with_a_command_is_not_buried_under_who_would_have_answered(
    bus: str, tmp_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("broken.mp4").write_bytes(b"no film")
    assert exit_code(build(), ["run", wrong, "--bus", bus]) in (Code.USAGE, Code.FAILED)
    said = capfd.readouterr().err
    assert wrong.removesuffix(".mp4") in said.splitlines()[0]
    assert "No model is named" not in said


def test_why_windows_failed_is_said_once_where_they_did_and_nothing_of_them_is_covered(
    bus: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that takes no pictures fails every window: whoever started the run reads why, in the run."""
    monkeypatch.chdir(tmp_path)
    match = film(tmp_path / "match.mp4", 8)
    with scripted(lambda _: 400) as server:
        settings = f'[endpoints.m]\ncard = "openai-compatible"\nurls = ["{server.url}"]\nserved_name = "scripted"\n'
        Path("streamproc.toml").write_text(settings)
        told = ["run", str(match), "--only", "decode,detect", "--model", "detect=m", "--bus", bus]
        assert exit_code(build(), told) == Code.INCOMPLETE
    said = capfd.readouterr().err
    told = [r.getMessage() for r in caplog.records if "not this picture" in r.getMessage()]
    assert len(told) == 1, told
    assert told[0].startswith("detect.m: failed for good (BadRequest)")
    assert "0.0% covered" in said
    assert "failed: 8.0 s of detect.m" in said


def test_a_stage_that_nothing_has_come_to_is_not_covered(bus: str, tmp_path: Path) -> None:
    match = film(tmp_path / "match.mp4", 4)
    assert exit_code(build(), ["run", str(match), "--only", "decode,dedup", "--bus", bus]) == Code.INCOMPLETE


def test_what_a_model_said_that_nobody_can_read_is_told_once(
    bus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    match = film(tmp_path / "match.mp4", 8)
    thinks = (
        b'{"choices": [{"message": {"content": null, "reasoning_content": "Let me see"}, "finish_reason": "length"}]}'
    )
    with scripted(lambda _: thinks) as server:
        settings = f'[endpoints.m]\ncard = "openai-compatible"\nurls = ["{server.url}"]\nserved_name = "scripted"\n'
        Path("streamproc.toml").write_text(settings)
        told = ["run", str(match), "--only", "decode,detect", "--model", "detect=m", "--bus", bus]
        assert exit_code(build(), told) == Code.INCOMPLETE
    said = [r.getMessage() for r in caplog.records if "failed for good" in r.getMessage()]
    assert len(said) == 1, said
    assert "detect.m: failed for good (unreadable): the model said ''" in said[0]
    assert "it only thought, and was cut short: raise max_tokens" in said[0]
