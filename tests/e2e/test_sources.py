"""The table of sources while everything runs: changes at a window, whole lists, and how every stream stands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from tests.e2e.films import film
from tests.e2e.logs import records, until_some

LABELS = ("--set", "labels=red box")
SLOWLY = ("--set", "ahead=2", "--set", "sampling.step_s=0.5", "--set", "sampling.window_s=1")
PACED = 'ahead = 2\n[sampling]\nfps = 2\nstep_s = "0.5"\nwindow_s = "1"\n'
JUDGED = '[ensemble]\nover = "events"\n'
ENVIRONMENT = {**os.environ, "LOG_LEVEL": "warning"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")
    return tmp_path


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("films") / "long.mp4", 240, ("red", 4.0, 9.0), ("red", 200.0, 205.0))


def sources(*arguments: str | Path) -> int:
    return exit_code(build(), ["sources", *map(str, arguments)])


def listed(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capfd.readouterr()
    assert sources("list", "--json") == Code.DONE
    return {(row := json.loads(text))["stream"]: row for text in capfd.readouterr().out.splitlines()}


@contextmanager
def up(stream: str, capfd: pytest.CaptureFixture[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Services at work until a stream is complete. `--until-idle` would not do: while it is changed nothing is to do."""
    command = [sys.executable, "-m", "streamproc", "up", "--port", "0", "--workers", "1"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
        deadline = time.monotonic() + 120
        while not listed(capfd)[stream]["complete"]:
            assert process.poll() is None, "it is not to end by itself"
            assert time.monotonic() < deadline, "it never became complete"
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == Code.INTERRUPTED
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)


def test_a_change_takes_effect_at_a_window_and_every_service_owes_from_there(
    long: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sources("add", "m", long, *LABELS, *SLOWLY) == Code.DONE
    with up("m", capfd):
        until_some("detections", "m")
        change = ("--set", "sampling.step_s=2", "--set", "detect.prompt=Anything?", "--set", "ensemble.at_least=2")
        assert sources("change", "m", *change) == Code.DONE
        assert "from window" in capfd.readouterr().err
    m = listed(capfd)["m"]
    assert m["complete"]
    first = m["from_index"]
    windows = sorted(records("windows", "m"), key=lambda w: w.index)
    assert [w.index for w in windows] == list(range(len(windows)))
    assert {w.revision for w in windows if w.index < first} == {0}
    assert {w.revision for w in windows if w.index >= first} == {m["revision"]}
    starts = [w.start_ms for w in windows if not w.ended]
    assert {b - a for a, b in pairwise(starts[: first + 1])} == {500}
    assert {b - a for a, b in pairwise(starts[first:])} == {2000}
    prompts = {
        d.prompt: min(x.index for x in records("detections", "m") if x.prompt == d.prompt)
        for d in records("detections", "m")
        if d.prompt
    }
    assert sorted(prompts.values()) == [0, first]


def test_a_service_that_is_named_later_is_complete_from_there_on(long: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = Path("task.toml")
    task.write_text(f'name = "plain"\nlabels = "red box"\n{PACED}[caption]\n')
    assert sources("add", "m", long, "--task", task) == Code.DONE
    with up("m", capfd):
        until_some("captions", "m", most=24)
        task.write_text(task.read_text() + "[detect]\n[dedup]\n")
        assert sources("change", "m", "--task", task) == Code.DONE
    m = listed(capfd)["m"]
    assert m["complete"]
    detections = records("detections", "m")
    assert min(d.index for d in detections) == m["from_index"] > 0
    assert {d.revision for d in detections} == {m["revision"]}
    assert [e.event.label for e in records("events", "m") if e.event and e.event.state == "close"] == ["red box"]


def test_a_list_is_applied_as_it_says_first(long: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cameras = Path("cameras.toml")
    one = f'[[streams]]\nstream = "one"\nuri = "{long}"\nset = {{labels = "red box"}}\n'
    two = '[[streams]]\nstream = "two"\nuri = "rtsp://127.0.0.1:9/two"\nlag = "sample=3"\nstate = "paused"\n'
    cameras.write_text(one + two)
    assert sources("apply", cameras) == Code.DONE
    assert capfd.readouterr().out.splitlines() == ["add  one", "add  two", "pause  two"]
    assert {n: (s["state"], s["lag"]) for n, s in listed(capfd).items()} == {
        "one": ("active", "block"),
        "two": ("paused", "sample=3"),
    }
    assert sources("apply", cameras) == Code.DONE
    assert "nothing to do" in capfd.readouterr().err
    cameras.write_text(one + two + 'footage = "kept?hours=1"\n')
    assert sources("apply", cameras) == Code.DONE
    assert capfd.readouterr().out.splitlines() == ["change  two  footage"]
    assert listed(capfd)["two"]["footage"] == "kept?hours=1"
    cameras.write_text(one.replace("red", "blue"))
    before = listed(capfd)
    assert sources("apply", cameras, "--prune", "--dry-run", "--json") == Code.DONE
    steps = [json.loads(text) for text in capfd.readouterr().out.splitlines()]
    assert [(s["action"], s["stream"], s["what"]) for s in steps] == [
        ("change", "one", ["task.labels.names"]),
        ("remove", "two", []),
    ]
    assert listed(capfd) == before
    assert sources("apply", cameras, "--prune") == Code.DONE
    after = listed(capfd)
    assert (after["one"]["task"]["labels"]["names"], after["two"]["state"]) == (["blue box"], "removed")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[streams]]\nuri = 'x'", "is its name"),
        ("[[streams]]\nstream = 'a'\nuril = 'x'", "did you mean 'uri'"),
        ("[[streams]]\nstream = 'a'\nuri = 'x.mp4'\nstate = 'off'", "active or paused"),
        ("[[streams]]\nstream = 'a'\nuri = 'rtsp://h/x'\nlag = 'sampel=3'", "did you mean 'sample'"),
        ("[[streams]]\nstream = 'a'\nuri = 'rtsp://h/x'\nlag = 'sample=1'", "from 2 on"),
        ("[[streams]]\nstream = 'a'\n", "needs a uri"),
        ("[[streams]]\nstream = 'a'\nuri='rtsp://h/a'\n[[streams]]\nstream = 'a'\nuri='rtsp://h/a'", "twice"),
        ("streams = 3", "a list of streams"),
        ("[[streams]\n", "neither TOML nor JSON"),
        ('[{"stream": "a", "uri": "rtsp://h/a", "set": [3]}]', "a list of KEY=VALUE"),
        ("cameras = []", "a list of streams"),
    ],
)
def test_a_list_with_a_mistake_changes_nothing(text: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("list").write_text(text)
    assert sources("apply", "list") == Code.USAGE
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (["change", "mm"], "did you mean 'm'"),
        (["change", "m", "--lag", "skip-older-than=3"], "is of feeds"),
        (["change", "m", "rtsp://127.0.0.1:9/x"], "and stays one"),
        (["change", "m", "--set", "detect.promt=x"], "did you mean 'detect.prompt'"),
        (["change", "m", "nothing.mp4"], "nothing.mp4"),
        (["add", "x", "rtsp://127.0.0.1:9/x", "--lag", "skip-older-than=0"], "above 0"),
    ],
)
def test_a_change_that_cannot_be_is_told_and_leaves_the_stream_as_it_is(
    long: Path, wishes: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sources("add", "m", long, *LABELS) == Code.DONE
    before = listed(capfd)
    assert sources(*wishes) != Code.DONE
    assert said in capfd.readouterr().err
    assert listed(capfd) == before


def test_who_judges_later_owes_a_verdict_on_every_step_that_is_told_from_there_on(
    long: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Steps of events lie on no grid: which revision each has, only it says, so none may be passed over, and none waited for."""
    task = Path("task.toml")
    plain = f'name = "plain"\nlabels = "red box"\n{PACED}[caption]\n[detect]\n[dedup]\n'
    task.write_text(plain)
    assert sources("add", "m", long, "--task", task) == Code.DONE
    with up("m", capfd):
        until_some("events", "m")
        task.write_text(plain + '[locate]\nmodel = "observer"\nsamples = 1\nstretch_s = 30\n[describe]\n' + JUDGED)
        assert sources("change", "m", "--task", task) == Code.DONE
    m = listed(capfd)["m"]
    assert m["complete"]
    events, verdicts, described = (
        sorted(records(n, "m"), key=lambda r: r.index) for n in ("events", "verdicts", "descriptions")
    )
    owed = [e for e in events if e.revision == m["revision"]]
    assert len(events) > len(owed) > 1, "the first were told before anybody was to judge"
    assert [d.index for d in described if d.root == "dedup"] == [e.index for e in owed]
    assert [(v.index, v.start_ms) for v in verdicts] == [(i, e.start_ms) for i, e in enumerate(owed)]
    ends = [e for e in owed if e.event and e.event.state == "close"]
    assert [v.inputs[0] for v in verdicts if v.label] == [e.id for e in ends]
    incidents = [i for i in records("incidents", "m") if not i.ended]
    assert min(i.start_ms for i in incidents) == next(
        w.start_ms for w in records("windows", "m") if w.index == m["from_index"]
    )


def test_a_name_that_will_not_do_or_is_taken_is_told_what_can_be_done_here(
    long: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--name` and `--again` are options of a run."""
    assert sources("add", "m", long, "--set", "labels=red box") == Code.DONE
    assert sources("add", "m", long, "--set", "labels=blue box") == Code.USAGE
    assert sources("add", "m@2", long) == Code.USAGE
    assert sources("add", "m@2", tmp_path) == Code.USAGE
    said = capfd.readouterr().err
    assert "`streamproc sources change m`" in said
    assert "--name" not in said
    assert "--again" not in said
    assert said.count("call it otherwise") == 2
