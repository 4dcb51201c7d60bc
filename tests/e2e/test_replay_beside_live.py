"""Replays while everything goes on: a camera is decoded and looked at by `up`, on either bus, and what it brought is done again
beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pytest

from streamproc.cli.frame import Code
from tests.e2e.films import film
from tests.e2e.logs import EITHER, chosen

pytestmark = pytest.mark.timeout(600)
DEADLINE_S = 240
LABELS = ("--set", "labels=red box, blue box")
WINDOWS = 8
"""Of 2 s each, and then the camera has shown both boxes."""


@pytest.fixture(params=EITHER, autouse=True)
def _bus(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(request.param, monkeypatch, tmp_path)
    monkeypatch.setenv("LOG_LEVEL", "error")
    assert ended("topics", "create", "--partitions", "2", "--replication", "1") == Code.DONE


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[str]:
    """Its address; it shows a red box, then a blue one, again and again."""
    seen = film(tmp_path / "camera.ts", 8, ("red", 1.0, 3.5), ("blue", 4.5, 7.0))
    told = tmp_path / "camera.out"  # it goes on to say when each frame was sent, which a pipe would hold up
    with told.open("w") as out, running("tests.video.rtsp", str(seen), out=out) as process:
        deadline = time.monotonic() + DEADLINE_S
        while not (lines := told.read_text().splitlines(keepends=True)) or not lines[0].endswith("\n"):
            assert time.monotonic() < deadline, "the camera did not come up"
            time.sleep(0.1)
        yield f"rtsp://127.0.0.1:{int(lines[0])}/live"
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def up(_bus: None) -> Iterator[None]:
    with running("streamproc", "up", "--port", "0", "--workers", "1") as process:
        yield
        process.terminate()
        process.wait(timeout=60)


def running(module: str, *arguments: str, out: IO[str] | None = None) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment, stdout=out)


def streamproc(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A process of its own, as people start it."""
    command = [sys.executable, "-m", "streamproc", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=DEADLINE_S)


def ended(*arguments: str | Path) -> int:
    return streamproc(*arguments).returncode


def said(*arguments: str) -> list[Any]:
    process = streamproc(*arguments)
    assert process.returncode == Code.DONE, process.stderr
    return [json.loads(row) for row in process.stdout.splitlines()]


def tail(name: str, stream: str) -> list[dict[str, Any]]:
    return [row["record"] for row in said("topics", "tail", name, "--stream", stream, "--json")]


def front_s(stream: str) -> float:
    """How far the last of its services has come."""
    (found,) = (s for s in said("status", "--json")[0]["streams"] if s["stream"] == stream)
    return min(float(a["done_s"] + a["skipped_s"]) for a in found["accounts"] if a["service"] != "ensemble")


def test_a_stretch_of_a_camera_is_done_again_from_any_point_while_it_goes_on(
    camera: str, up: None, tmp_path: Path
) -> None:
    assert ended("sources", "add", "door", camera, "--footage", tmp_path / "kept", *LABELS) == Code.DONE
    deadline = time.monotonic() + DEADLINE_S
    while (come_s := front_s("door")) < 2 * WINDOWS:
        assert time.monotonic() < deadline, f"{come_s} s have been looked at"
        time.sleep(0.5)
    shown = [w for w in tail("windows", "door") if w["outcome"] == "done" and not w.get("count")][1:6]
    count = shown[-1]["index"] - shown[0]["index"] + 1  # more than those where pictures were late
    from_, to = (datetime.fromisoformat(w["utc"]) for w in (shown[0], shown[-1]))
    stretch = ("--from", from_.isoformat(), "--to", (to + timedelta(seconds=1)).isoformat())

    (dry,) = said("replay", "door", "--as", "footage", "--at", "footage", *stretch, "--dry-run", "--json")
    assert (dry["windows"], dry["expired"]) == (count, 0)
    for at in ("windows", "events", "footage"):
        whole = count == len(shown) or at == "events"
        code = ended("replay", "door", "--as", at, "--at", at, *stretch)
        assert code == (Code.DONE if whole else Code.INCOMPLETE)
    assert ended("replay", "door", "--as", "windows", "--at", "events", *stretch) == Code.USAGE

    again = {at: tail("windows", f"door@{at}") for at in ("windows", "footage")}
    for windows in again.values():  # the same moments, by the same clock
        there = {(w["start_ms"], w["utc"]) for w in windows if w.get("frames")}
        assert there >= {(w["start_ms"], w["utc"]) for w in shown}
        assert windows[-1]["count"] == count
    for at in again:
        closed = [e["event"] for e in tail("events", f"door@{at}") if "event" in e and e["event"]["state"] == "close"]
        assert {event["label"] for event in closed} == {"red box", "blue box"}

    come_s = front_s("door")
    deadline = time.monotonic() + DEADLINE_S
    while front_s("door") <= come_s:
        assert time.monotonic() < deadline, "the camera is looked at no more"
        time.sleep(0.5)


@pytest.mark.parametrize("_bus", ["embedded"], indirect=True)
def test_of_a_camera_that_nobody_recorded_there_are_no_pictures_to_decode(camera: str, up: None) -> None:
    assert ended("sources", "add", "door", camera, *LABELS) == Code.DONE
    deadline = time.monotonic() + DEADLINE_S
    while front_s("door") < 2:
        assert time.monotonic() < deadline, "nothing was looked at"
        time.sleep(0.5)
    refused = streamproc("replay", "door", "--as", "x", "--at", "footage")
    assert refused.returncode == Code.USAGE
    assert "--footage DIR" in refused.stderr
