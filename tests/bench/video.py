"""Choosing frames against ffmpeg doing the same: two worker processes against two threads, rounds taken in turns.

By the wall, which counts, and by CPU, which says the same on a machine that has other things to do. Also what ours costs
above decoding the frames needed and nothing else, and its memory on a long film.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shlex
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median

from streamproc.messages import Grid, Source
from streamproc.video import address, sampling
from streamproc.video.choice import Rate
from streamproc.video.container import opened
from streamproc.video.decode import decode
from streamproc.video.decoding import decode as decode_stretches
from streamproc.video.limits import Limits
from streamproc.video.look import Look
from streamproc.video.plan import plan
from streamproc.video.windows import Cut, Sampling
from streamproc.video.workers import Workers

ROUNDS = 3
SECONDS = 60
CHOICE = "select='isnan(prev_pts)+gt(floor((pts-start_pts)*TB*{f}+1e-9),floor((prev_pts-start_pts)*TB*{f}+1e-9))',scale={scale}"


@dataclass(frozen=True)
class Case:
    name: str
    encode: str
    rate: int
    goal: float
    size: str = "1280x720"
    longest: int = 384
    floor: float | None = None


LONG_S, TASTED = 50 * 60, 4
"""A long film, of which so many slices are taken: by then the whole of it has been surveyed."""

X264 = "-c:v libx264 -preset veryfast -sc_threshold 0"
CASES = (
    Case("gop 12", f"{X264} -g 12", 1, 4.5),
    Case("gop 50", f"{X264} -g 50", 1, 3, floor=1.1),
    Case("gop 250", f"{X264} -g 250", 1, 2),
    Case("224p gop 50", f"{X264} -g 50", 1, 2.6, size="398x224", longest=398),
    Case("5 fps gop 50", f"{X264} -g 50", 5, 2, floor=1.25),
    Case("hevc gop 50", "-c:v libx265 -preset ultrafast -x265-params log-level=error:keyint=50:bframes=4", 1, 2.2),
)


FULL = Case("1080p", "-c:v libx264 -preset ultrafast -crf 45 -g 50", 5, 0, size="1920x1080", longest=1920)


Seconds = dict[tuple[Case, str], list[float]]


def run() -> Iterator[tuple[str, float, float | None, bool | None]]:
    folder = Path(tempfile.gettempdir()) / "streamproc-bench-video"
    folder.mkdir(exist_ok=True)
    wall, cpu = asyncio.run(_rounds({case: _file(folder, case) for case in CASES}))
    for case in CASES:
        theirs, ours = (median(wall[case, who]) for who in ("ffmpeg", "ours"))
        yield f"video {case.name}: times as fast as ffmpeg", theirs / ours, case.goal, theirs / ours >= case.goal
    for case in CASES:
        theirs, ours = (median(cpu[case, who]) for who in ("ffmpeg", "ours"))
        yield f"video {case.name}: times less cpu than ffmpeg", theirs / ours, None, None
    for case in CASES:
        if case.floor:
            over = median(cpu[case, "ours"]) / median(cpu[case, "floor"])
            yield f"video {case.name}: cpu over the floor", over, case.floor, over <= case.floor
    film = _file(folder, FULL, LONG_S)
    peak_mb = asyncio.run(_peak_mb(film))
    film.unlink()  # half a gigabyte, and quickly made
    yield "video 50 minutes of 1080p: MB of the largest process", peak_mb, 400, peak_mb <= 400


async def _rounds(files: dict[Case, Path]) -> tuple[Seconds, Seconds]:
    """By the wall, and of all CPUs."""
    wall, cpu = defaultdict[tuple[Case, str], list[float]](list), defaultdict[tuple[Case, str], list[float]](list)
    async with Workers(2) as workers:
        await _ours(workers, files[CASES[0]], CASES[0])  # a service's workers are there already
        for _ in range(ROUNDS):
            for case, path in files.items():
                begin, spent = time.perf_counter(), _of_children()
                _theirs(path, case)
                wall[case, "ffmpeg"].append(time.perf_counter() - begin)
                cpu[case, "ffmpeg"].append(_of_children() - spent)
                begin, spent = time.perf_counter(), _spent(workers)
                await _ours(workers, path, case)
                wall[case, "ours"].append(time.perf_counter() - begin)
                cpu[case, "ours"].append(_spent(workers) - spent)
                if case.floor:
                    cpu[case, "floor"].append(await _floor(workers, path, case))
    return wall, cpu


def _theirs(path: Path, case: Case) -> None:
    chain = CHOICE.format(f=case.rate, scale=f"{case.longest}:-2")
    command = ["ffmpeg", "-v", "error", "-threads", "2", "-i", str(path), "-vf", chain, "-fps_mode", "passthrough"]
    pictures = subprocess.run(
        [*command, "-c:v", "mjpeg", "-q:v", "3", "-f", "image2pipe", "-"], capture_output=True, check=True, timeout=120
    )
    assert pictures.stdout


async def _ours(workers: Workers, path: Path, case: Case) -> None:
    rule = Sampling(Rate(Fraction(case.rate)), Fraction(2), Fraction(2), look=Look(longest=case.longest))
    steps = decode(workers, _source(), address.parse(path), Cut(rule))
    frames = 0
    async with aclosing(steps):
        async for records, _ in steps:
            frames += sum(len(window.frames) for window in records)
    assert frames == SECONDS * case.rate, frames


@dataclass(frozen=True)
class Floor:
    """A job: decode one of two halves of the packets needed, planned before, and make no picture of them. Answer: CPU seconds."""

    path: Path
    rate: int
    half: int

    def run(self) -> Iterator[float]:
        with opened(address.parse(self.path), Limits()) as video:
            table = sampling.index(video)
            found = sampling.wanted(table, Rate(Fraction(self.rate)))
            middle = len(found) // 2
            found = found[middle:] if self.half else found[:middle]
            stretches = list(plan(table, (packet for packet, _ in found)))
            begin = time.process_time()
            assert sum(1 for _ in decode_stretches(video, stretches)) == len(found)
            yield time.process_time() - begin


async def _floor(workers: Workers, path: Path, case: Case) -> float:
    """As ours is measured: by two processes at once, for what shares a core or its caches slows both."""
    halves = await asyncio.gather(*(workers.one(Floor(path, case.rate, half)) for half in range(2)))
    return float(sum(halves))


def _of_children() -> float:
    """CPU seconds of the processes that have ended; the workers are there to the end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _spent(workers: Workers) -> float:
    """CPU seconds of all workers so far."""
    ticks = 0
    for pid in workers.pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def _peak_mb(path: Path) -> float:
    """Of whoever asks, or of a worker: five frames a second, as large as they are."""
    async with Workers(2) as workers:
        rule = Sampling(Rate(Fraction(FULL.rate)), Fraction(2), Fraction(3), look=Look(longest=FULL.longest))
        taken = 0
        async with aclosing(decode(workers, _source(), address.parse(path), Cut(rule))) as steps:
            async for _ in steps:
                if (taken := taken + 1) == TASTED:
                    break
            pids = [os.getpid(), *workers.pids]
            return max(_high_water_mb(pid) for pid in pids)


def _high_water_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def _file(folder: Path, case: Case, seconds: int = SECONDS) -> Path:
    """A moving picture; the same ten seconds again and again, for making it costs more than measuring it."""
    path = folder / f"{case.size}-{case.encode.split('-preset')[0].split()[-1]}-{case.encode.split()[-1]}-{seconds}.mp4"
    if path.exists():
        return path
    first = folder / f"first-{path.name}"
    picture = f"testsrc2=s={case.size}:r=25:d=10,format=yuv420p"
    _ffmpeg(f"-f lavfi -i {picture} {case.encode}", first)
    _ffmpeg(f"-stream_loop {seconds // 10 - 1} -i {shlex.quote(str(first))} -c copy", path)
    first.unlink()
    return path


def _ffmpeg(options: str, output: Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *shlex.split(options), str(output)], check=True, timeout=170)


def _source() -> Source:
    place = {"stream": "bench", "generation": 1, "revision": 1, "index": 1, "start_ms": 0, "end_ms": 0}
    return Source(
        **place,  # type: ignore[arg-type]  # one dictionary of two types
        id="",
        service="",
        root="",
        outcome="done",
        uri="",
        live=False,
        state="active",
        from_index=0,
        grid=Grid(root="decode", origin="0", step="2", first=0),
        task={},
        services=(),
        readers={},
        lag="block",
    )
