"""A whole match through `streamproc run`: against decoding alone, and against its calls perfectly scheduled.

50 minutes, 224p, GOP 50; soccer as it is shipped (context, detect, dedup, ensemble): 1 fps, windows of 4 s every 2 s; a model
with 64 places that takes a second. What is least possible is the slower of two: decoding alone; or the context, and behind
it all other calls, 64 at a time. Everything else, the start of the process among it, is ours to keep small.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import orjson

from streamproc.video import address
from streamproc.video.choice import Rate
from streamproc.video.decode import decode
from streamproc.video.look import Look
from streamproc.video.windows import Cut, Sampling
from streamproc.video.workers import Workers
from tests.bench import _people
from tests.bench.video import _ffmpeg, _source

MINUTES = 50
LATENCY_S, SLOTS = 1.0, 64
CORES = 2
OVER, FIRST_S = 1.15, 1.5

Line = tuple[str, float, float | None, bool | None]


def run(minutes: int = MINUTES) -> Iterator[Line]:
    match = _match(minutes)
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name:
        folder = Path(name)
        alone_s = asyncio.run(_decoding(match))
        with _people.model(latency_s=LATENCY_S, slots=SLOTS) as asked:
            _people.settle(folder, asked)
            began, wall_s, first_s = _through(folder, match)
            spans = asked.spans()
    openings = sum(opening for _, _, opening in spans)
    calls_s = LATENCY_S * (openings + math.ceil((len(spans) - openings) / SLOTS))
    least_s = max(alone_s, calls_s)
    what = f"a match of {minutes} minutes"
    yield f"{what}: decoding alone, s", alone_s, None, None
    yield f"{what}: its {len(spans)} calls perfectly scheduled, s", calls_s, None, None
    yield f"{what}: wall over the slower of both", wall_s / least_s, OVER, wall_s / least_s <= OVER
    first_call_s = min(came for came, _, opening in spans if not opening) - began
    yield f"{what}: the first call of detect after the start, s", first_call_s, None, None
    yield f"{what}: the last answer after the start, s", max(end for _, end, _ in spans) - began, None, None
    beyond_s = first_s - LATENCY_S * 2
    yield f"{what}: first event beyond context and detect, s", beyond_s, FIRST_S, beyond_s <= FIRST_S


def _through(folder: Path, match: Path) -> tuple[float, float, float]:
    """When it began; seconds to the end, and to the first event."""
    models = [part for stage in ("context", "detect") for part in ("--model", f"{stage}={_people.NAME}")]
    command = ["run", str(match), "--task", "soccer", *models, "--workers", str(CORES), "--json", "--out", "out"]
    began, wall, first_s = time.perf_counter(), time.time(), math.inf
    with _people.started(folder, command, log="run.log") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if first_s == math.inf and orjson.loads(line).get("topic") == "events":
                first_s = time.perf_counter() - began
        _people.ended(process, folder, "run.log")
    return wall, time.perf_counter() - began, first_s


async def _decoding(match: Path) -> float:
    """The same pictures, with nobody to look at them."""
    rule = Sampling(Rate(Fraction(1)), Fraction(2), Fraction(4), frames=4, look=Look(longest=384))
    async with Workers(CORES) as workers:
        began = time.perf_counter()
        async with aclosing(decode(workers, _source(), address.parse(match), Cut(rule))) as steps:
            async for _ in steps:
                pass
        return time.perf_counter() - began


def _match(minutes: int) -> Path:
    """Ten seconds that move, again and again: making them costs more than looking at them."""
    path = Path(tempfile.gettempdir()) / f"streamproc-bench-match-{minutes}.mp4"
    if path.exists():
        return path
    first, part = path.with_suffix(".first.mp4"), path.with_suffix(".part.mp4")
    encode = "-c:v libx264 -preset veryfast -sc_threshold 0 -g 50"
    _ffmpeg(f"-f lavfi -i testsrc2=s=398x224:r=25:d=10,format=yuv420p {encode}", first)
    _ffmpeg(f"-stream_loop {minutes * 6 - 1} -i {first} -c copy", part)
    first.unlink()
    part.rename(path)
    return path
