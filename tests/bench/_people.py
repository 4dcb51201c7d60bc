"""streamproc as people start it: processes in a folder that has its settings, and a model that they ask."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

ROOT = Path(__file__).parents[2]
CARD = "qwen2.5-vl-7b"
"""A server that batches, as a real one would be."""
NAME = "m"

Span = tuple[float, float, bool]


class Asked:
    """The model's process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.url = process, f"http://127.0.0.1:{port}/v1"

    def spans(self) -> list[Span]:
        """(came, answered, about an opening or with the mark) of every call."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/answered", timeout=20) as answer:
            return [tuple(span) for span in orjson.loads(answer.read())]


@contextlib.contextmanager
def model(*, latency_s: float, slots: int, every: int = 8, growth: float = 0.0, mark: str = "") -> Iterator[Asked]:
    """`every`: one answer in so many tells of an event. `growth`: with all slots busy a call takes so much longer; then
    spans tell of those calls whose instructions have the `mark`."""
    command = [sys.executable, "-m", "tests.bench._model", str(latency_s), str(slots), str(every)]
    command += [str(growth), mark] if mark else []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield Asked(process, int(process.stdout.readline()))
        finally:
            process.kill()


def settle(folder: Path, asked: Asked, *lines: str) -> None:
    """The settings of all who run in a folder."""
    endpoint = f'[endpoints.{NAME}]\ncard = "{CARD}"\nurls = ["{asked.url}"]\nserved_name = "m"\n'
    (folder / "streamproc.toml").write_text("\n".join([*lines, "[http]", "port = 0", endpoint]))


def started(folder: Path, arguments: Sequence[str], *, log: str, **environment: str) -> subprocess.Popen[bytes]:
    """`streamproc …` in a folder; stdout is ours to read, stderr goes into a file there."""
    others = {n: v for n, v in os.environ.items() if not n.startswith(("STREAMPROC_", "KAFKA_", "OPENAI_"))}
    with (folder / log).open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "streamproc", *arguments],
            cwd=folder,
            env={**others, "PYTHONPATH": str(ROOT), "LOG_LEVEL": "warning", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
        )


def busy(asked: Asked, calls_per_s: float, *, bounded_s: float = 60.0) -> None:
    """Back once nearly so many calls a second are answered: whoever asks has found their feet."""
    deadline = time.monotonic() + bounded_s
    while time.monotonic() < deadline:
        time.sleep(0.5)
        since = time.time() - 1
        if sum(answered > since for _, answered, _ in asked.spans()) > 0.8 * calls_per_s:
            return


def rate(asked: Asked, seconds: float) -> float:
    """Answers a second, from now on."""
    began = time.time()
    time.sleep(seconds)
    ended = time.time()
    return sum(began <= answered < ended for _, answered, _ in asked.spans()) / (ended - began)


def ended(process: subprocess.Popen[bytes], folder: Path, log: str) -> None:
    """It must have come to a good end."""
    if process.wait(timeout=900) != 0:
        raise RuntimeError(f"it ended with {process.returncode}: {(folder / log).read_text()[-2000:]}")
