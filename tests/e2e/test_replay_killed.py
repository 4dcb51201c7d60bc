"""Replays killed at any moment, on either bus: what does them, and whoever else works for them. What is there at the end is
what nobody's killing would have given, and no call whose answer had landed was made again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamproc.cli.frame import Code
from tests.e2e.answers import MODEL, Scripted, scripted
from tests.e2e.films import film
from tests.e2e.logs import EITHER, chosen, records, until_some

pytestmark = pytest.mark.timeout(600)
DEADLINE_S = 240
COLOURS = ("red", "blue")
BOXES = [(COLOURS[i % 2], 4.0 * i, 4.0 * i + 2) for i in range(5)]
TASK = f"""
name = "boxes"
labels = "red box, blue box"
ahead = 6
[sampling]
fps = "1"
window_s = "2"
step_s = "2"
[caption]
model = "{MODEL}"
[detect]
models = ["{MODEL}"]
[dedup]
within_s = 1.0
[describe]
models = ["{MODEL}"]
samples = 1
[ensemble]
"""
POINTS = ("windows", "footage", "events")
TOPICS = ("windows", "captions", "detections", "events", "descriptions", "verdicts")
ASKED = ("captions", "detections", "descriptions")
SERVICES = (["decode", f"caption.{MODEL}"], [f"detect.{MODEL}", "dedup"], [f"describe.{MODEL}.6-5-10", "ensemble"])


@pytest.fixture(scope="module", params=EITHER)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    """On its bus a match has run, and was replayed from each point without a disturbance."""
    with pytest.MonkeyPatch.context() as patch, scripted(_answer, latency_s=0.2, counts=True) as served:
        chosen(request.param, patch, tmp_path_factory.mktemp("ran"))
        patch.setenv("STREAMPROC_SESSION_S", "4")  # what a kill costs
        patch.setenv("LOG_LEVEL", "error")
        Path("streamproc.toml").write_text(
            f'[endpoints.{MODEL}]\ncard = "openai-compatible"\nurls = ["{served.url}"]\nserved_name = "{MODEL}"\n'
        )
        Path("boxes.toml").write_text(TASK)
        match = film(Path("match.mp4"), 24, *BOXES, ruled=True)
        ended("topics", "create", "--partitions", "2", "--replication", "1")
        ended("run", str(match), "--task", "boxes.toml", "--workers", "1")
        assert len([e for e in records("events", "match") if e.event and e.event.state == "close"]) == len(BOXES)
        for at in POINTS:
            ended("replay", "match", "--as", f"whole-{at}", "--at", at, "--workers", "1")
        yield served


def _answer(colours: frozenset[str]) -> str:
    """To each of the questions: whoever wants a text takes it, and so does who wants a list."""
    return json.dumps([{"label": f"{c} box", "confidence": 0.9, "text": "it comes and goes"} for c in sorted(colours)])


def started(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "streamproc", *arguments]
    return subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(*arguments: str, whole: bool = True) -> bool:
    process = started(*arguments)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == Code.DONE or not whole, said
    return process.returncode == Code.DONE


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)


class Calls:
    """What of the endpoint's work has landed, to be looked at after each kill."""

    def __init__(self, model: Scripted, *streams: str) -> None:
        self.model, self.streams = model, streams
        self.repeated: list[str] = []
        self._from, self._landed = len(model.asked), set[bytes]()

    def until(self, number: int, process: subprocess.Popen[str]) -> None:
        """As many calls have come in since the last look, or the process is through."""
        deadline = time.monotonic() + DEADLINE_S
        while len(self.model.asked) < self._from + number and process.poll() is None:
            assert time.monotonic() < deadline, "nobody asks for anything"
            time.sleep(0.02)

    def look(self) -> None:
        since = self.model.asked[self._from :]
        self.repeated += [f"call {self._from + i}" for i, about in enumerate(since, 1) if about in self._landed]
        self._from += len(since)
        for stream in self.streams:
            for name in ASKED:
                for record in records(name, stream):
                    if record.tokens is not None:
                        self._landed.add(self.model.asked[record.tokens.into - 1])


def made(stream: str) -> dict[str, list[Mapping[str, Any]]]:
    """All that it comes to: its records without its name, and without what differs from call to call."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for name in TOPICS:
        there = records(name, stream)
        assert len({r.id for r in there}) == len(there), f"{name} are there twice"
        rows = [json.loads(msgspec.json.encode(r).decode().replace(f"{stream}/", "STREAM/")) for r in there]
        for row in rows:
            for volatile in ("stream", "tokens", "seconds", "attempts"):
                row.pop(volatile, None)
        found[name] = sorted(rows, key=lambda row: (row["service"], row["root"], row["index"], row["id"]))
    return found


@pytest.mark.parametrize("at", POINTS)
def test_the_same_command_goes_on_after_each_kill(model: Scripted, at: str) -> None:
    rng, stream = random.Random(at), f"match@killed-{at}"
    calls, many = (
        Calls(model, stream),
        sum(r.tokens is not None for n in ASKED for r in records(n, f"match@whole-{at}")),
    )
    command = ("replay", "match", "--as", f"killed-{at}", "--at", at, "--workers", "1")
    for number in (None, *(rng.randint(1, max(1, many // 3)) for _ in range(2))):
        process = started(*command)
        if number is None:
            until_some("windows" if at != "events" else "events", stream)
        else:
            calls.until(number, process)
        kill(process)
        calls.look()
    ended(*command)
    calls.look()
    assert calls.repeated == []
    ended("coverage", stream)
    assert made(stream) == made(f"match@whole-{at}")


def test_those_who_are_up_go_on_after_each_kill_of_any_of_them(model: Scripted) -> None:
    rng, stream = random.Random(1), "match@killed"
    calls, up = Calls(model, stream), ("up", "--port", "0", "--workers", "1")
    ended("replay", "match", "--as", "killed", "--detach")
    working = [started(*up, *services) for services in SERVICES]
    try:
        for i in rng.sample([0, 1, 2], 3):
            calls.until(rng.randint(2, 6), working[i])
            kill(working[i])
            calls.look()
            working[i] = started(*up, *SERVICES[i])
        deadline = time.monotonic() + DEADLINE_S
        while not ended("coverage", stream, whole=False):
            assert time.monotonic() < deadline, "it never became complete"
            assert [p.poll() for p in working] == [None] * 3
        calls.look()
    finally:
        for process in working:
            kill(process)
    assert calls.repeated == []
    assert made(stream) == made("match@whole-windows")
