"""The spotting score beside the official evaluation, over the same files; and a million predictions."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np

from streamproc.cli.scoring import games as folders
from streamproc.formats.soccernet import LABELS, Spot
from streamproc.score import spotting
from tests.score import official

ROUNDS = 2
Value = tuple[str, float, float | None, bool | None]


def run() -> Iterator[Value]:
    with tempfile.TemporaryDirectory(prefix="bench-score-") as folder:
        yield from _hundred(Path(folder) / "hundred")
        yield from _million(Path(folder) / "million")


def _hundred(folder: Path) -> Iterator[Value]:
    official.write(folder, official.made_up(5, games=100, predictions=300))
    ours, theirs, ratios = [], [], []
    for _ in range(ROUNDS):
        ours.append(_seconds(lambda: _all_metrics(folder)))
        theirs.append(_seconds(lambda: official.evaluate(folder, metric="loose")))
        ratios.append(theirs[-1] / ours[-1])
    yield "score: 100 games of 300, from files, all metrics, s", median(ours), 2.0, median(ours) <= 2
    yield "score: 100 games of 300, official, loose alone, s", median(theirs), None, None
    yield "score: times as fast as the official code", median(ratios), 20.0, median(ratios) >= 20
    seconds, _ = _command(folder, "--draws", "200")
    yield "score: 100 games of 300, the command with intervals, s", seconds, None, None


def _all_metrics(folder: Path) -> None:
    games = folders.read(folder / "labels", folder / "predictions")
    counted = spotting.tally(games.truth, games.predictions, games=len(games.names), classes=len(LABELS))
    spotting.score(counted)


def _million(folder: Path) -> Iterator[Value]:
    official.write(folder, {f"game {n:03d}": _crowded(n, predictions=2000) for n in range(500)})
    seconds, megabytes = _command(folder, "--draws", "0")
    yield "score: 1,000,000 predictions, the command, s", seconds, 10.0, seconds <= 10
    yield "score: 1,000,000 predictions, memory, MB", megabytes, 1000.0, megabytes <= 1000
    seconds, megabytes = _command(folder, "--draws", "200")
    yield "score: 1,000,000 predictions, with intervals, s", seconds, None, None
    yield "score: 1,000,000 predictions, with intervals, memory, MB", megabytes, None, None


def _crowded(seed: int, *, predictions: int) -> tuple[list[Spot], list[Spot]]:
    random = np.random.default_rng(seed)

    def spots(count: int, confidence: list[float | None]) -> list[Spot]:
        rows = zip(
            random.integers(1, 3, count).tolist(),
            random.integers(0, 47 * 60_000, count).tolist(),
            random.integers(0, len(LABELS), count).tolist(),
            confidence,
            strict=True,
        )
        return [Spot(half=half, time_ms=at, label=LABELS[label], confidence=c) for half, at, label, c in rows]

    return spots(220, [None] * 220), spots(predictions, random.random(predictions).round(4).tolist())


MEASURE = """
import resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""A small process starts the command: whoever is started counts the memory of who started it as its own, and we are large."""


def _command(folder: Path, *options: str) -> tuple[float, float]:
    """Seconds and megabytes of `streamproc score spotting` over a folder."""
    where = ("--labels", str(folder / "labels"), "--predictions", str(folder / "predictions"))
    command = [sys.executable, "-m", "streamproc", "score", "spotting", *where, "--json", *options]
    done = subprocess.run([sys.executable, "-c", MEASURE, *command], stdout=subprocess.PIPE, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"score spotting ended with {done.returncode}")
    seconds, largest = done.stdout.split()
    return float(seconds), float(largest) / (1e6 if sys.platform == "darwin" else 1e3)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
