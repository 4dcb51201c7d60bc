"""Feeds, and a replay beside them in a process of its own, on one endpoint: what feeds wait longer for, and what the replay gets.

Feeds' windows are published at their pace, `streamproc up` looks at them, and `streamproc replay` does a long recorded stream
again. It joins the services that are up, so half of the partitions, and of the feeds, become its own; who began is told from
who joined by nobody. The endpoint batches: with all its slots busy a call takes twice as long as one that is alone.

A window's latency is from its landing on the bus to its detection being there to be read. A replay may fill the endpoint,
and so make it slower for everybody: that is no fault of the pipeline's, so what the endpoint itself took for feeds' calls,
from came to answered, is what their latency is held against. The ratio is

    p99 beside the replay / (p99 alone − the endpoint's p99 alone + the endpoint's p99 beside the replay)

for feeds' windows and calls everywhere: below the line stands what feeds would wait if the pipeline added no more than it
does where they are alone. So 1.15 says: what it adds because of the replay is 15 % of that at the most.

One feed lies on each partition, and so one of them among the replay's own windows: a sixteenth of all feeds, which p99 sees.
Those are also told apart, from the others that the replay's process looks at, and from those of the process that was there.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles

import simplejpeg
from msgspec.structs import replace

from streamproc import wire
from streamproc.bus.contract import Bus, Lease
from streamproc.messages import Detection, Frame, Grid, Source, Window, record_id
from streamproc.pipeline import streams
from streamproc.pipeline.streams import Wanted
from streamproc.runner.cover import Cover, sub_key
from streamproc.task import Task
from streamproc.topics import partition_of, topic
from tests.bench import _people
from tests.bench._people import Span
from tests.bench.live import PARTITIONS, _deployed

LATENCY_S, SLOTS, GROWTH = 0.3, 32, 1.0
"""Full, it does 53 calls a second, each in 0.6 s."""
STEP_S = 1.0
"""Between two windows of one feed: 16 calls a second of all of them."""
SERVICES = (f"detect.{_people.NAME}", "dedup")
RECORDED, AGAIN = "film", "trial"
WINDOWS = 4500
"""Recorded: more than the endpoint can do while anything is measured."""
MARK = "Once more"
"""What the replay's instructions begin with, and the feeds' do not."""
OPENING_S, JOINING_S = 8.0, 20.0
ALONE_S, BESIDE_S = 32.0, 45.0
ENDING_S, PATIENCE_S = 20.0, 60.0
GOAL, LEAST_LEFT = 1.15, 0.8

Line = tuple[str, float, float | None, bool | None]
Number = tuple[str, int]


def run(*, bus: str = "embedded", alone_s: float = ALONE_S, beside_s: float = BESIDE_S) -> Iterator[Line]:
    """`bus`: `embedded`, or `kafka://HOST:PORT`."""
    alone, joining, beside = asyncio.run(_measured(bus, alone_s, beside_s))
    for measured, what in ((alone, "feeds alone"), (beside, "feeds beside a replay")):
        yield f"{what}, p50 of {len(measured.late)}: ms", _p(measured.late, 50), None, None
        yield f"{what}, p99: ms", _p(measured.late, 99), None, None
        yield f"{what}, the endpoint's own p99: ms", _p(measured.own, 99), None, None
        yield f"{what}, before a model is wanted and once it has answered, p99: ms", _p(measured.added, 99), None, None
        yield f"{what}, in the line for the model, p99: ms", _p(measured.queued, 99), None, None
    for where, late in beside.by_place.items():
        yield f"feeds {where}, p99 of {len(late)}: ms", _p(late, 99), None, None
    yield "feeds while the replay joins, the latest: ms", 1000 * max(joining.late), None, None
    yield "a replay beside feeds: calls a second of feeds", beside.live_rate, None, None
    yield "a replay beside feeds: calls a second of the replay", beside.replay_rate, None, None
    yield "a replay beside feeds: share of the slots busy", beside.busy, None, None
    value = beside.replay_busy / (1 - beside.live_busy)
    yield "a replay beside feeds: share of what feeds leave it", value, LEAST_LEFT, value >= LEAST_LEFT
    value = _p(beside.own, 99) / (1000 * LATENCY_S * (1 + GROWTH))
    yield "feeds beside a replay, the endpoint's own p99 over that of a full batch", value, None, None
    adds = _p(alone.late, 99) - _p(alone.own, 99)
    value = _p(beside.late, 99) / (adds + _p(beside.own, 99))
    yield "feeds' p99 beside a replay over the endpoint's own", value, GOAL, value <= GOAL


def _p(seconds: Collection[float], percent: int) -> float:
    return 1000 * quantiles(seconds, n=100, method="inclusive")[percent - 1]


# what is measured ---------------------------------------------------------------------------------------------------


@dataclass
class Heard:
    """What has become of feeds' windows, by the clock that all processes share."""

    landed: dict[Number, float] = field(default_factory=dict)
    answered: dict[Number, tuple[float, Detection]] = field(default_factory=dict)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def all_of(self, begin: float, until: float) -> bool:
        return all(n in self.answered for n, at in self.landed.items() if begin <= at < until)

    async def until(self, true: Callable[[], bool], *, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while not true():
                self.came.clear()
                await self.came.wait()


class Measured:
    """From `begin` to `until`. What was not answered at all is as late as it is by now."""

    def __init__(self, heard: Heard, spans: Collection[Span], begin: float, until: float) -> None:
        now, self.added, self.queued = time.time(), list[float](), list[float]()
        self.by_place: dict[str, list[float]] = {}
        self._late = dict[Number, float]()
        for number, at in heard.landed.items():
            if begin <= at < until:
                seen_at, told = heard.answered.get(number, (now, None))
                self._late[number] = seen_at - at
                if told is not None and (took := told.seconds) is not None:
                    self.added.append(seen_at - at - took.queued - took.served)
                    self.queued.append(took.queued)
        self.late = list(self._late.values())
        self.own = [answered - came for came, answered, again in spans if not again and begin <= came < until]
        done = [again for _, answered, again in spans if begin <= answered < until]
        self.replay_rate = sum(done) / (until - begin)
        self.live_rate = len(done) / (until - begin) - self.replay_rate
        self.live_busy, self.replay_busy = _busy(spans, begin, until)
        self.busy = self.live_busy + self.replay_busy

    def place(self, held: dict[str, list[int]], partitions: int) -> None:
        """Feeds on the replay's partition, in its process, and in the other."""
        its = partition_of(f"{RECORDED}@{AGAIN}", partitions)
        same = next((held_by for held_by in held.values() if its in held_by), [])
        for (stream, _), late in self._late.items():
            home = partition_of(stream, partitions)
            what = (
                "on the replay's partition"
                if home == its
                else "in its process"
                if home in same
                else "in the other process"
            )
            self.by_place.setdefault(what, []).append(late)


def _busy(spans: Collection[Span], begin: float, until: float) -> tuple[float, float]:
    """The share of all slots that feeds had, and that the replay had. Where more calls are there than slots, they share."""
    moves = sorted((at, by, again) for came, done, again in spans for at, by in ((came, 1), (done, -1)))
    there, had, last = [0, 0], [0.0, 0.0], begin
    for at, by, again in [*moves, (until, 0, False)]:
        now = min(max(at, begin), until)
        for whose in (0, 1):
            had[whose] += (now - last) * there[whose] * min(1, SLOTS / max(1, sum(there)))
        last = now
        there[again] += by
    whole = SLOTS * (until - begin)
    return had[0] / whole, had[1] / whole


async def _measured(bus_is: str, alone_s: float, beside_s: float) -> tuple[Measured, Measured, Measured]:
    """Feeds alone, while the replay joins, and beside it."""
    with tempfile.TemporaryDirectory(prefix="streamproc-bench-") as name, ExitStack() as stack:
        folder, heard = Path(name), Heard()
        asked = stack.enter_context(_people.model(latency_s=LATENCY_S, slots=SLOTS, growth=GROWTH, mark=MARK))
        async with _deployed(bus_is, folder) as (bus, settings):
            _people.settle(folder, asked, *settings)
            feeds = [_feed(stream) for stream in _spread(bus.partitions)]
            await streams.publish(bus, feeds)
            await _record(bus)
            _start(stack, folder, "up", *SERVICES)
            async with _going_on(bus, feeds, heard):
                await heard.until(lambda: bool(heard.answered), within_s=PATIENCE_S)
                alone = await _stretch(heard, OPENING_S, alone_s)
                again = f"detect.system={MARK}. {{labels}}"
                began = time.time()
                replay = _start(stack, folder, "replay", RECORDED, "--as", AGAIN, "--set", again)
                await _until_asked(asked)
                beside = await _stretch(heard, JOINING_S, beside_s)
                if (code := replay.poll()) is not None:
                    raise RuntimeError(
                        f"the replay has ended with {code}: {(folder / 'replay.log').read_text()[-2000:]}"
                    )
                held = await bus.members(SERVICES[0])
            spans = asked.spans()
        stretches = (alone, (began, beside[0]), beside)
        found = tuple(Measured(heard, spans, begin, until) for begin, until in stretches)
        found[-1].place(held, PARTITIONS)
        return found[0], found[1], found[2]


async def _stretch(heard: Heard, opens_s: float, lasts_s: float) -> tuple[float, float]:
    """From when to when it was measured, once what came meanwhile has been answered."""
    await asyncio.sleep(opens_s)
    begin = time.time()
    await asyncio.sleep(lasts_s)
    until = time.time()
    with suppress(TimeoutError):  # what has not come is measured as it is
        await heard.until(lambda: heard.all_of(begin, until), within_s=ENDING_S)
    return begin, until


async def _until_asked(asked: _people.Asked) -> None:
    deadline = time.time() + PATIENCE_S
    while not any(again for *_, again in await asyncio.to_thread(asked.spans)):
        if time.time() > deadline:
            raise RuntimeError(f"the replay has asked for nothing in {PATIENCE_S:g} s")
        await asyncio.sleep(0.5)


def _start(stack: ExitStack, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    process = stack.enter_context(_people.started(folder, [*arguments, "--workers", "1"], log=f"{arguments[0]}.log"))
    stack.callback(process.kill)
    assert process.stdout is not None
    threading.Thread(
        target=process.stdout.read, daemon=True
    ).start()  # results: it would wait for whoever does not read
    return process


# feeds --------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _going_on(bus: Bus, feeds: list[Source], heard: Heard) -> AsyncIterator[None]:
    """Their windows come, and detections are read as they land."""
    async with asyncio.TaskGroup() as tasks:
        jobs = [tasks.create_task(_shown(bus, feeds, heard)), tasks.create_task(_listened(bus, heard))]
        yield
        for job in jobs:
            job.cancel()


async def _shown(bus: Bus, feeds: list[Source], heard: Heard) -> None:
    began, picture = time.monotonic(), _picture()
    for number in range(2**40):
        await asyncio.sleep(max(0.0, began + number * STEP_S / len(feeds) - time.monotonic()))
        window = _window(feeds[number % len(feeds)], number // len(feeds), picture)
        await bus.publish([wire.encode(window, partitions=bus.partitions, time="")])
        heard.landed[window.stream, window.index] = time.time()


async def _listened(bus: Bus, heard: Heard) -> None:
    """As a service of its own: what lands wakes it."""
    async with (
        bus.join("beside", ["detections"], weights=lambda: [1] * bus.partitions) as membership,
        asyncio.TaskGroup() as tasks,
    ):
        async for lease in membership.leases():
            tasks.create_task(_read(lease, heard))


async def _read(lease: Lease, heard: Heard) -> None:
    while True:
        for stored in await lease.fetch(max_records=500, max_bytes=2**22, wait_s=0.5):
            told = wire.decode(topic("detections"), stored)
            if isinstance(told, Detection):
                heard.answered.setdefault((told.stream, told.index), (time.time(), told))
        heard.came.set()


def _spread(partitions: int) -> list[str]:
    """A feed's name for each partition."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        found.setdefault(partition_of(f"camera-{number}", partitions), f"camera-{number}")
        number += 1
    return [found[p] for p in sorted(found)]


def _source(name: str, *, live: bool) -> Source:
    task = Task.model_validate(
        {
            "name": "bench",
            "sampling": {"fps": "1", "window_s": "1", "step_s": "1"},
            "detect": {"models": [_people.NAME]},
            "dedup": {},
        }
    )
    grid = Grid(root="decode", origin="0", step="1", first=0)
    return streams.first(Wanted(name=name, uri="nowhere", live=live, grid=grid, task=task))


def _feed(name: str) -> Source:
    """It has windows that we publish; nobody is to decode it."""
    return replace(_source(name, live=True), services=SERVICES)


async def _record(bus: Bus) -> None:
    """A stream that has been decoded to its end, and looked at by nobody."""
    source, picture = replace(_source(RECORDED, live=False), services=("decode",)), _picture()
    at_end = {"index": WINDOWS, "start_ms": 1000 * WINDOWS, "end_ms": 1000 * WINDOWS, "count": WINDOWS}
    ended = replace(Window.of(source, **at_end), **_said(source, WINDOWS))
    cover, now = Cover("decode", RECORDED, 0), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for begin in range(0, WINDOWS, 500):
        made = [_window(source, i, picture) for i in range(begin, min(begin + 500, WINDOWS))]
        for window in (some := [*made, ended] if begin + 500 >= WINDOWS else made):
            cover.add(window, "done", source)
        await bus.publish([wire.encode(w, partitions=bus.partitions, time=now) for w in some])
    hours = [cover.record("decode", hour) for hour in sorted(cover.hours)]
    await bus.publish([wire.encode(h, partitions=bus.partitions, time=now, sub=sub_key(h)) for h in hours])
    await streams.publish(bus, [source])


def _window(source: Source, index: int, picture: bytes) -> Window:
    place = Window.of(source, index=index, start_ms=1000 * index, end_ms=1000 * index + 1000)
    frames = tuple(Frame(t_ms=1000 * index + i, jpeg=picture) for i in range(2))
    return replace(place, **_said(source, index), frames=frames, width=384, height=216)


def _said(source: Source, index: int) -> dict[str, str]:
    """By the decoder."""
    identity = record_id("decode", "decode", source.stream, source.generation, index)
    return {"id": identity, "service": "decode", "root": "decode"}


def _picture() -> bytes:
    made: bytes = simplejpeg.encode_jpeg(memoryview(bytes(384 * 216 * 3)).cast("B", (216, 384, 3)))
    return made
