"""661 dash-cam clips through `streamproc run` as it is shipped, with the observer: memory, and whether a kill -9 changes a file.

How fast it is, is not judged: the observer works on the cores that everything else needs.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import _people
from tests.bench.video import _ffmpeg

CLIPS = 661
SECONDS = 4
MEMORY_MB = 400
KILLED_AT = 0.4
"""Of the time that it takes."""
LOOK_EVERY_S = 0.2

Line = tuple[str, float, float | None, bool | None]


def run(clips: int = CLIPS) -> Iterator[Line]:
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name:
        folder = Path(name)
        _made(folder / "clips", clips)
        largest = _Largest()
        whole_s = _through(folder, "whole", largest)
        _killed(folder, "killed", whole_s * KILLED_AT)
        _through(folder, "killed", largest)
        same = _files(folder / "whole") == _files(folder / "killed") != {}
        streams = len(list((folder / "whole").rglob("coverage.json")))
    what = f"{clips} clips"
    yield f"{what}: wall, s", whole_s, None, None
    yield f"{what}: streams with results", streams, clips, streams == clips
    yield f"{what}: memory of the largest process, MB", largest.mb, MEMORY_MB, largest.mb <= MEMORY_MB
    yield f"{what}: the same files after a kill -9", float(same), 1, same


def _command(to: str) -> list[str]:
    return ["run", "clips", "--task", "dashcam", "--out", to, "--bus", f"embedded:{to}.db", "--json"]


def _through(folder: Path, to: str, largest: _Largest) -> float:
    began = time.perf_counter()
    with _people.started(folder, _command(to), log=f"{to}.log") as process:
        watch = threading.Thread(target=largest.watch, args=(process,))
        watch.start()
        assert process.stdout is not None
        for _ in process.stdout:
            pass
        _people.ended(process, folder, f"{to}.log")
        watch.join()
    return time.perf_counter() - began


def _killed(folder: Path, to: str, after_s: float) -> None:
    with _people.started(folder, _command(to), log=f"{to}.log") as process:
        reading = threading.Thread(target=lambda: process.stdout and process.stdout.read())
        reading.start()
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        reading.join()


class _Largest:
    """Of all processes of a run, what one of them has held at most."""

    def __init__(self) -> None:
        self.mb = 0.0

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None:
            for pid in [process.pid, *_children(process.pid)]:
                try:
                    held = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has just ended
                self.mb = max(self.mb, int(held[0]) / 1024 if held else 0.0)
            time.sleep(LOOK_EVERY_S)


def _children(pid: int) -> list[int]:
    try:
        own = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return own + [grandchild for child in own for grandchild in _children(child)]


def _files(folder: Path) -> dict[str, bytes]:
    """All results but what speaks of clocks."""
    there = (p for p in folder.rglob("*") if p.is_file() and p.name != "summary.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in there}


def _made(folder: Path, clips: int) -> None:
    """A few clips that differ, under many names."""
    folder.mkdir()
    originals = []
    for i, picture in enumerate(("testsrc2", "mandelbrot", "testsrc", "smptebars", "rgbtestsrc")):
        path = folder.parent / f"clip-{i}.mp4"
        source = f"{picture}=s=640x360:r=30,trim=duration={SECONDS},format=yuv420p"
        _ffmpeg(f"-f lavfi -i {shlex.quote(source)} -c:v libx264 -preset veryfast -g 30", path)
        originals.append(path)
    for i in range(clips):
        (folder / f"{i:04}.mp4").hardlink_to(originals[i % len(originals)])
