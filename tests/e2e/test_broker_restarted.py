"""The broker goes away under processes that work, and comes back: they wait for it, and nobody has to start them again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import brokers
from tests.e2e.answers import scripted
from tests.e2e.films import film

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]
DEADLINE_S = 240
LABELS = ("--set", "labels=red box", "--model", "detect=m")
NONE = '{"events": []}'


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[brokers.Brokers]:
    if why := brokers.missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    monkeypatch.chdir(tmp_path)
    with brokers.start() as one:
        monkeypatch.setenv("STREAMPROC_BUS", f"kafka://{one.bootstrap}")
        assert streamproc("topics", "create", "--partitions", "2", "--replication", "1").returncode == 0
        yield one


def streamproc(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamproc", *map(str, arguments)]
    return subprocess.run(command, env=environment(), check=False, capture_output=True, text=True, timeout=DEADLINE_S)


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}


def started(*arguments: str | Path, out: Path) -> subprocess.Popen[bytes]:
    with out.open("wb") as file:
        command = [sys.executable, "-m", "streamproc", *map(str, arguments)]
        return subprocess.Popen(command, env=environment(), stdout=file, stderr=file)


def until(there: Callable[[], bool], *, of: subprocess.Popen[bytes], says: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not there():
        assert of.poll() is None, says.read_text()
        assert time.monotonic() < deadline, says.read_text()
        time.sleep(0.1)


def served(url: str) -> None:
    Path("streamproc.toml").write_text(
        f'[endpoints.m]\ncard = "openai-compatible"\nurls = ["{url}"]\nserved_name = "scripted"\n'
    )


def complete(stream: str) -> bool:
    return streamproc("coverage", stream, "--json").returncode == 0


def test_processes_that_are_up_wait_for_it_and_go_on(broker: brokers.Brokers, tmp_path: Path) -> None:
    says, tailed = tmp_path / "up.out", tmp_path / "tail.out"
    with scripted(lambda _: NONE) as server:
        served(server.url)
        assert streamproc("sources", "add", "first", film(tmp_path / "first.mp4", 8), *LABELS).returncode == 0
        with (
            started("up", "--port", "0", "--workers", "1", out=says) as up,
            started("topics", "tail", "windows", "--follow", "--json", out=tailed) as tail,
        ):
            until(lambda: complete("first"), of=up, says=says)
            until(lambda: b'"first"' in tailed.read_bytes(), of=tail, says=tailed)
            broker.stop(0)
            until(lambda: "Waiting for it" in says.read_text(), of=up, says=says)
            until(lambda: b"Waiting for it" in tailed.read_bytes(), of=tail, says=tailed)
            broker.start(0)
            assert streamproc("sources", "add", "second", film(tmp_path / "second.mp4", 8), *LABELS).returncode == 0
            until(lambda: complete("second"), of=up, says=says)
            until(lambda: b'"second"' in tailed.read_bytes(), of=tail, says=tailed)
            for process in (up, tail):
                process.terminate()
                process.wait(timeout=120)
    assert says.read_text().count("Waiting for it") == 1


def test_a_run_waits_for_it_and_shows_every_result_once(broker: brokers.Brokers, tmp_path: Path) -> None:
    says, match = tmp_path / "run.out", film(tmp_path / "match.mp4", 60)
    with scripted(lambda _: '[{"label": "red box"}]', latency_s=1.0) as server:
        served(server.url)
        arguments = ("run", match, *LABELS, "--only", "decode,detect", "--json", "--workers", "1")
        with started(*arguments, out=says) as run:
            until(lambda: "detections" in says.read_text(), of=run, says=says)
            broker.stop(0)
            until(lambda: "Waiting for it" in says.read_text(), of=run, says=says)
            broker.start(0)
            run.wait(timeout=DEADLINE_S)
    assert run.returncode == 0, says.read_text()
    lines: list[Any] = [json.loads(line) for line in says.read_text().splitlines() if line.startswith('{"topic"')]
    shown = [line["record"]["id"] for line in lines if line["record"].get("count") is None]
    assert len(shown) == len(set(shown)) == 30
