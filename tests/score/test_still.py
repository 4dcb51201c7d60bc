"""Where nothing moves: out of a film, out of the windows it was cut into, and into `score overdetection`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.formats.soccernet import Spot
from streamproc.score import overdetection
from tests.e2e.films import film
from tests.score import official


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")
    film(Path("films/g/1_720p.mp4"), 12, ("red", 4, 9), ("blue", 4.5, 5))
    return tmp_path


def streamproc(*arguments: str) -> int:
    return exit_code(build(), list(arguments))


def said(file: str) -> dict[str, list[list[int]]]:
    found: dict[str, list[list[int]]] = json.loads(Path(file).read_bytes())
    return found


def test_pictures_that_do_not_differ_make_one_stretch_and_none_spans_a_change() -> None:
    found = overdetection.still([0, 500, 900, 1400, 2000], [0.0, 0.0, 0.001, 0.2, 0.005], at_most=0.005)
    assert found == [(0, 900), (1400, 2000)]
    assert overdetection.still([7], [0.0], at_most=1) == overdetection.still([], [], at_most=1) == []


def test_a_film_is_still_between_its_changes() -> None:
    assert streamproc("score", "still", "films", "--out", "still.json") == Code.DONE
    assert said("still.json") == {"g/1_720p": [[0, 3500], [5000, 8500], [9000, 11_500]]}
    assert streamproc("score", "still", "films", "--out", "still.json", "--fps", "10", "--least", "0") == Code.DONE
    stretches = said("still.json")["g/1_720p"]
    assert stretches == [[0, 3900], [4000, 4400], [4500, 4900], [5000, 8900], [9000, 11_900]]


def test_the_windows_of_a_stream_say_the_same_but_for_what_no_window_spans() -> None:
    sampling = ("--set", "sampling.fps=2", "--set", "sampling.window_s=4", "--set", "sampling.step_s=2")
    wanted = ("--set", "labels=red box", "--set", "sampling.frames=8", *sampling)
    assert streamproc("run", "films", *wanted, "--only", "decode") == Code.DONE
    assert streamproc("score", "still", "g/1_720p", "--out", "still.json") == Code.DONE
    assert said("still.json") == {"g/1_720p": [[0, 3500], [5000, 8500], [9000, 11_500]]}


def test_events_where_nothing_moves_are_told_by_their_rows(capfd: pytest.CaptureFixture[str]) -> None:
    spots = [Spot(half=h, time_ms=t, label="Foul", confidence=0.9) for h, t in ((1, 2000), (1, 8700), (2, 1000))]
    official.write(Path(), {"g": ([], spots)})
    assert streamproc("score", "still", "films", "--out", "still.json") == Code.DONE
    capfd.readouterr()
    told = ("score", "overdetection", "--predictions", "predictions", "--still", "still.json", "--json")
    assert streamproc(*told) == Code.DONE
    out, err = capfd.readouterr()
    found = json.loads(out)["still"]
    assert (found["events"], found["rows"][0]["time_ms"], found["seconds"]) == (1, 2000, 9.5)
    assert "1 × stream of which --still says nothing: still.json: g/2" in err


@pytest.mark.parametrize(
    ("given", "code"),
    [("nobody", Code.UNREACHABLE), ("rtsp://127.0.0.1:9/x", Code.USAGE), ("broken.mp4", Code.FAILED)],
)
def test_what_cannot_be_looked_at_is_told_and_nothing_is_written(given: str, code: Code) -> None:
    Path("broken.mp4").write_bytes(b"no video" * 100)
    assert streamproc("score", "still", given, "--out", "still.json") == code
    assert not Path("still.json").exists()
