"""`streamproc run` as people use it: results, going on, going on after a kill, and what it says of wrong wishes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from tests.e2e.answers import scripted
from tests.e2e.films import film
from tests.video.files import ffmpeg

LABELS = ("--set", "labels=red box, blue box")
BOXES = (("red", 4.0, 9.0), ("blue", 14.0, 17.0), ("red", 24.0, 27.0))
ENVIRONMENT = {**os.environ, "LOG_LEVEL": "warning"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")  # also where a broker is named for other tests
    return tmp_path


@pytest.fixture(scope="module")
def match(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("films") / "match.mp4", 30, *BOXES)


def run(*arguments: str | Path) -> int:
    return exit_code(build(), ["run", *map(str, arguments)])


def started(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """As a process of its own, to be stopped."""
    command = [sys.executable, "-m", "streamproc", *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def files(folder: Path) -> dict[str, bytes]:
    """All results but what speaks of clocks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "summary.json"
    }


def said(path: Path) -> Any:
    return json.loads(path.read_bytes())


def test_a_film_becomes_events_captions_and_a_coverage_without_holes(match: Path) -> None:
    assert run(match, *LABELS, "--out", "out") == Code.DONE
    events = said(Path("out/match/events.json"))
    spans = {(e["label"], e["start_ms"] // 1000, e["end_ms"] // 1000) for e in events}
    for colour, begin, end in BOXES:
        assert any(label == f"{colour} box" and a <= begin + 2 and b >= end - 2 for label, a, b in spans), spans
    assert len(events) == len(BOXES)
    assert len(Path("out/match/captions.jsonl").read_text().splitlines()) == 15  # 30 s in steps of 2 s
    for row in said(Path("out/match/coverage.json")):
        assert row["ended"]
        assert row["missing"] == row["failed"] == []
    summary = said(Path("out/match/summary.json"))
    assert summary["complete"]
    assert summary["models"]["observer"]["answers"] == 30  # captions and detections, each once
    assert summary["source"]["digest"]


def test_what_is_complete_is_not_done_again_not_even_on_a_new_bus(
    match: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(match, *LABELS, "--out", "out") == Code.DONE
    before = files(Path("out"))
    capfd.readouterr()
    assert run(match, *LABELS, "--out", "out", "--bus", "embedded:other.db", "--json") == Code.DONE
    receipt = json.loads(capfd.readouterr().out.splitlines()[-1])["receipt"]
    assert receipt["calls"] == 0
    assert files(Path("out")) == before


def test_the_same_command_goes_on_where_it_was_and_asks_nothing_twice(
    match: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(match, *LABELS, "--only", "caption", "--json") == Code.DONE
    first = json.loads(capfd.readouterr().out.splitlines()[-1])["receipt"]
    assert run(match, *LABELS, "--out", "out", "--json") == Code.DONE
    second = json.loads(capfd.readouterr().out.splitlines()[-1])["receipt"]
    assert (first["calls"], second["calls"]) == (15, 15)
    assert said(Path("out/match/summary.json"))["complete"]


def test_again_runs_beside_what_there_is(match: Path) -> None:
    assert run(match, *LABELS, "--out", "out") == Code.DONE
    assert run(match, *LABELS, "--out", "out", "--again") == Code.DONE
    one, two = said(Path("out/match/events.json")), said(Path("out/match@2/events.json"))
    assert [(e["label"], e["start_ms"]) for e in one] == [(e["label"], e["start_ms"]) for e in two]
    assert [e["id"] for e in two] == [e["id"].replace("match/", "match@2/") for e in one]


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_it_ends_with_the_same_files(match: Path, seed: int) -> None:
    assert run(match, *LABELS, "--out", "whole", "--bus", "embedded:whole.db") == Code.DONE
    rng = random.Random(seed)
    command = ("run", match, *LABELS, "--out", "killed", "--workers", "1")
    for _ in range(3):
        process = started(*command)
        try:
            process.wait(timeout=rng.uniform(1.0, 6.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    last = started(*command)
    _, told = last.communicate(timeout=60)
    assert last.returncode == Code.DONE, told.decode()
    assert files(Path("killed")) == files(Path("whole"))


def test_ctrl_c_lets_what_is_under_way_land_and_says_how_to_go_on(match: Path) -> None:
    process = started(
        "run",
        match,
        *LABELS,
        "--json",
        "--model",
        "caption=observer",
        "--set",
        "sampling.step_s=0.1",
        "--set",
        "sampling.fps=10",
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first result is there
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == Code.INTERRUPTED
    assert b"once more leaves at once" in told
    assert b"goes on from here" in told


def test_answers_that_lie_in_the_store_stand_in_the_files_too(
    match: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a long story " * 2**10
    monkeypatch.setenv("STREAMPROC_CLAIMS__STORE", str(here / "store"))
    monkeypatch.setenv("STREAMPROC_CLAIMS__THRESHOLD_BYTES", "8192")
    with scripted(lambda _: text) as model:
        served = f"caption=openai-compatible@{model.url}"
        assert run(match, *LABELS, "--model", served, "--only", "caption", "--out", "results") == Code.DONE
    rows = [json.loads(row) for row in Path("results/match/captions.jsonl").read_text().splitlines()]
    assert len(rows) == 15
    assert {row["raw"] for row in rows} == {text}
    assert {len(file.read_bytes()) > len(text) for file in (here / "store").rglob("*") if file.is_file()} == {True}


def test_a_video_that_cannot_be_read_keeps_no_other_from_being_done(
    match: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "films").mkdir()
    (here / "films" / "good.mp4").write_bytes(match.read_bytes())
    (here / "films" / "broken.mp4").write_bytes(b"no video" * 1000)
    assert run("films", *LABELS, "--out", "out") == Code.INCOMPLETE
    assert said(Path("out/good/summary.json"))["complete"]
    assert "broken" in said(Path("out/broken/summary.json"))["error"]
    assert "broken" in capfd.readouterr().err


def test_a_video_without_a_frame_rate_keeps_no_other_from_being_done_frame_by_frame(
    match: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "films").mkdir()
    (here / "films" / "good.mp4").write_bytes(match.read_bytes())
    ffmpeg("-f lavfi -i testsrc=s=64x64 -frames:v 1 -c:v libx264", here / "films" / "still.ts")
    assert run("films", *LABELS, "--every", "5", "--only", "decode", "--out", "out") == Code.INCOMPLETE
    assert "frame rate" in said(Path("out/still/summary.json"))["error"]
    assert "still: sampling.every 5" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        (["--task", "socer"], "did you mean 'soccer'"),
        (["--set", "dedup.withins=3"], "did you mean 'dedup.within_s'"),
        (["--set", "dedup.within_s=-1"], "dedup.within_s"),
        (["--set", "sampling.fps=fast"], "sampling.fps"),
        (["--model", "detct=observer"], "did you mean 'detect'"),
        (["--model", "detect=obsrver"], "did you mean 'observer'"),
        (["--only", "detekt"], "no such stage"),
        (["--bus", "redis://x"], "embedded:PATH"),
        (["--fps", "1", "--every", "2"], "--fps or --every"),
    ],
)
def test_a_wish_that_cannot_be_is_told_with_the_nearest_that_can(
    match: Path, wishes: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(match, *wishes) == Code.USAGE
    assert told in capfd.readouterr().err
    assert not Path("streamproc.db").exists()  # nothing was begun


def test_an_endpoint_that_is_not_there_is_told_before_anything_is_decoded(
    match: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(match, *LABELS, "--model", "detect=openai-compatible@http://127.0.0.1:9/v1") == Code.UNREACHABLE
    assert "127.0.0.1:9" in capfd.readouterr().err
    assert not Path("streamproc.db").exists()


def test_two_inputs_of_one_name_are_told_apart_by_nobody(match: Path, here: Path) -> None:
    other = here / "b" / "match.mkv"
    other.parent.mkdir()
    other.write_bytes(match.read_bytes())
    assert run(match, other) == Code.USAGE


def test_a_folder_with_other_results_is_left_alone(match: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(match, *LABELS, "--out", "out") == Code.DONE
    before = files(Path("out"))
    assert run(match, "--set", "labels=green box", "--out", "out", "--bus", "embedded:other.db") == Code.USAGE
    assert "another task" in capfd.readouterr().err
    assert files(Path("out")) == before


def test_a_stream_that_ran_under_another_task_says_what_differs(match: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(match, *LABELS, "--only", "decode") == Code.DONE
    capfd.readouterr()
    assert run(match, *LABELS, "--set", "dedup.within_s=4") == Code.USAGE
    told = capfd.readouterr().err
    assert "dedup.within_s" in told
    assert "--again" in told


def test_services_that_are_up_take_what_is_added_and_end_when_idle(match: Path) -> None:
    def streamproc(*arguments: str) -> int:
        return exit_code(build(), list(arguments))

    assert streamproc("sources", "add", "m", str(match), *LABELS) == Code.DONE
    assert streamproc("up", "--until-idle", "--port", "0") == Code.DONE
    assert streamproc("coverage", "m") == Code.DONE
    assert streamproc("sources", "remove", "m") == Code.DONE
    assert streamproc("sources", "list", "--json") == Code.DONE
    assert streamproc("sources", "remove", "n") == Code.USAGE


def test_told_to_stop_in_an_outage_it_does_not_wait_for_its_end(match: Path) -> None:
    asked: list[int] = []

    def out(_colours: frozenset[str]) -> int:
        asked.append(503)
        return 503

    with scripted(out) as server:
        Path("streamproc.toml").write_text(
            f'[endpoints.m]\ncard = "openai-compatible"\nurls = ["{server.url}"]\nserved_name = "scripted"\n'
        )
        command = ("run", match, *LABELS, "--only", "detect", "--model", "detect=m", "--out", "out")
        process = started(*command)
        wait_until(lambda: len(asked) > 3)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
        assert process.returncode == Code.INTERRUPTED
        assert b"once more leaves at once" in told
        assert b"not all calls ended" not in told  # as it would be said at the deadline of a drain
        server.says = lambda _colours: '{"events": []}'
        assert run(*command[1:]) == Code.DONE
    answers = [json.loads(line) for line in Path("out/match/detections.jsonl").read_text().splitlines()]
    assert [answer["outcome"] for answer in answers] == ["done"] * 15


@pytest.mark.parametrize(
    ("hostile", "cause"),
    [
        (b'{"choices": [{"message": {"content": "' + b"a" * 9 * 2**20 + b'"}}]}', "larger than"),
        (b'{"choices": [{"message": {"content": "{', "no chat completion"),
        (b"\xff\xfe\x00", "no chat completion"),
        (b"", "no chat completion"),
    ],
    ids=["too large", "cut", "bytes", "empty"],
)
def test_an_answer_that_nobody_can_read_fails_its_window_and_is_no_outage(
    match: Path, hostile: bytes, cause: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tried: list[bytes] = []

    def says(colours: frozenset[str]) -> str | bytes:
        if "blue" in colours:
            tried.append(hostile)
            return hostile
        return '{"events": []}'

    with scripted(says) as server:
        settled(server.url, attempts=6)
        assert run(match, *LABELS, "--only", "detect", "--model", "detect=m", "--out", "out") == Code.INCOMPLETE
    assert "is out" not in capfd.readouterr().err
    answers = [json.loads(line) for line in Path("out/match/detections.jsonl").read_text().splitlines()]
    failed = [answer for answer in answers if answer["outcome"] == "failed"]
    assert all(cause in answer["reason"] for answer in failed), failed
    assert [a["index"] for a in failed] == [6, 7, 8]  # the windows that show the blue box
    assert len(tried) == 6 * len(failed)
    assert {a["outcome"] for a in answers if a not in failed} == {"done"}


def test_an_answer_with_what_cannot_be_in_it_is_read_all_the_same(
    match: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.dumps('{"events": [{"label": "blue box", "confidence": 0.9, "details": "\\ud800 half"}]}').encode()
    usage = b'{"prompt_tokens": 1%s, "completion_tokens": 5}' % (b"0" * 30)
    odd = b'{"model": "gpt-99", "choices": [{"message": {"content": %s, "reasoning": "\\ud800 \xff"}}], "usage": %s}'

    def says(colours: frozenset[str]) -> str | bytes:
        return odd % (content, usage) if "blue" in colours else '{"events": []}'

    with scripted(says) as server:
        settled(server.url, attempts=6)
        with caplog.at_level("WARNING"):
            assert run(match, *LABELS, "--only", "detect,dedup", "--model", "detect=m", "--out", "out") == Code.DONE
    answers = [json.loads(line) for line in Path("out/match/detections.jsonl").read_text().splitlines()]
    found = [answer for answer in answers if answer["events"]]
    assert [a["index"] for a in found] == [6, 7, 8]
    for answer in found:
        assert answer["events"][0]["details"] == "? half"
        assert all(said in answer["how"] for said in ("replaced", "is not believed", "it answered as 'gpt-99'"))
    assert [e["label"] for e in said(Path("out/match/events.json"))] == ["blue box"]
    assert sum("it answers as 'gpt-99'" in record.getMessage() for record in caplog.records) == 1


def settled(url: str, *, attempts: int) -> None:
    """Settings with a model, and little patience."""
    Path("streamproc.toml").write_text(
        f'[endpoints.m]\ncard = "openai-compatible"\nurls = ["{url}"]\nserved_name = "scripted"\n'
        f"[backoff]\nfirst_s = 0.01\nmost_s = 0.05\nattempts = {attempts}\n"
    )


def wait_until(true: Callable[[], bool], *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
