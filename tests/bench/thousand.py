"""A thousand feeds on Kafka and four processes of `detect` and `dedup`: how they share them, and what a fifth changes that comes and goes.

The decoding is not what is measured: we play it, and publish a small window of each feed in its turn, fifty a second, where
its lag policy would let it leave. How late a feed is, is seen from outside: from when a window was due until its detection
could be read, whoever came or left meanwhile. For the endpoint's share the turns rest, and a backlog lies there instead,
which a feed never has: its windows are none of those whose delay counts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from fractions import Fraction
from pathlib import Path

import msgspec
import simplejpeg

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.bus.kafka import Kafka
from streamproc.cli.frame import Code
from streamproc.messages import Detection, Frame, Grid, Source, Window, record_id
from streamproc.pipeline import streams
from streamproc.pipeline.progress import followed
from streamproc.pipeline.streams import Wanted
from streamproc.task import Task
from streamproc.topics import deployment, partition_of, topic
from streamproc.video import lag
from streamproc.video.lag import Lag, left_out
from tests import brokers
from tests.bench import _people

STREAMS, PARTITIONS, PROCESSES = 1000, 16, 4
A_SECOND = 50
"""Windows of all feeds together; a feed's next is due when all others have had their turn."""
SLOTS, LATENCY_S, CALLS = 40, 0.5, 16
"""The endpoint does 80 calls a second, few enough that two cores are not what is measured; each process may ask more of it
than its part."""
DETECT, DEDUP = f"detect.{_people.NAME}", "dedup"
LAG_S = 30.0
LAG = f"skip-older-than={LAG_S:g}"
SPREAD, SHARE, SETTLED_S = 0.10, 0.95, 10.0
SETTLES_S, MEASURED_S = 10.0, 15.0
STILL_S = 5.0
"""Shares that have not changed for so long have settled: longer than a leader takes to see that they are uneven."""
STARTS_S, BOUND_S = 60.0, 30.0
"""How long is waited for the first shares, and for whatever comes later: a value beyond its goal comes of it, and an end."""
TICK_S, LOOK_EVERY_S = 0.2, 0.1

Line = tuple[str, float, float | None, bool | None]
Shares = dict[str, dict[str, list[int]]]
"""Service → process → partitions."""


def run(streams: int = STREAMS) -> Iterator[Line]:
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    with ExitStack() as stack:
        bootstrap = named or stack.enter_context(brokers.start()).bootstrap
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamproc-bench-")))
        asked = stack.enter_context(_people.model(latency_s=LATENCY_S, slots=SLOTS))
        prefix = f"thousand-{uuid.uuid4().hex[:8]}."
        _people.settle(folder, asked, f'bus = "kafka://{bootstrap}"', f'topic_prefix = "{prefix}"')
        yield from asyncio.run(_measured(bootstrap, prefix, Crew(folder, stack), asked, streams))


def _most(what: str, value: float, goal: float) -> Line:
    return what, value, goal, value <= goal


async def _measured(bootstrap: str, prefix: str, crew: Crew, asked: _people.Asked, number: int) -> list[Line]:
    bus = await Kafka.open(bootstrap, prefix=prefix, partitions=PARTITIONS)
    try:
        await bus.create(deployment())
        sources = _sources(number)
        await streams.publish(bus, sources)
        for _ in range(PROCESSES):
            crew.start()
        feeds = Feeds(bus, sources)
        async with feeds.seen():
            await _settled(bus, PROCESSES, time.monotonic() + STARTS_S)
            async with feeds.shown():
                await asyncio.sleep(feeds.step_s)
            spread = _off(await _shares(bus), PROCESSES, feeds.weights)
            share = await _share(feeds, asked)
            async with feeds.shown():
                await asyncio.sleep(STILL_S)

                began = time.monotonic()
                crew.start()
                arriving = asyncio.create_task(_arrived(bus, PROCESSES + 1, began))
                shares, join_s = await _goes_on(feeds, PROCESSES + 1, began)
                of_five, came_s = _off(shares, PROCESSES + 1, feeds.weights), await arriving

                began = time.monotonic()
                leaver = crew.end(signal.SIGTERM)
                shares, leave_s = await _goes_on(feeds, PROCESSES, began)
                again = _off(shares, PROCESSES, feeds.weights)
                await asyncio.to_thread(crew.well_ended, leaver)

                began = time.monotonic()
                crew.end(signal.SIGKILL)
                _, kill_s = await _goes_on(feeds, PROCESSES - 1, began)
            await feeds.all_answered()
        missing = await _unaccounted(bus, feeds)
        of, settles = f"{number:,} feeds on {PARTITIONS} partitions", "s until every partition goes on as shared"
        furthest = "streams of one, furthest from the mean"
        return [
            _most(f"{of}, {PROCESSES} processes: {furthest}", spread, SPREAD),
            (f"{of}, with a fifth: {furthest}", of_five, None, None),
            _most(f"{of}, {PROCESSES} that stay: {furthest}", again, SPREAD),
            (f"{of}: of what the endpoint can do", share, SHARE, share >= SHARE),
            _most(f"a fifth process joins: from its start {settles}", join_s, SETTLED_S),
            ("of which until it was in its groups: s", came_s, None, None),
            _most(f"a process leaves: {settles}", leave_s, SETTLED_S),
            (f"a process is killed: {settles}", kill_s, None, None),
            _most(f"{of}: the longest from a window due to its detection, s", feeds.longest_s, LAG_S),
            _most(f"{of}: windows that a lag policy left out", feeds.left_out, 0),
            _most(f"{of}: windows that failed, were answered twice, or not by all", feeds.wrong + missing, 0),
            ("the largest process, MB", crew.peak_mb(), None, None),
        ]
    finally:
        await bus.close()


async def _share(feeds: Feeds, asked: _people.Asked) -> float:
    """Of what the endpoint can do, with more to do than it can."""
    can = SLOTS / LATENCY_S
    await feeds.lay(int(can * (SETTLES_S + MEASURED_S) * 1.5) // len(feeds.sources) + 1)
    await asyncio.to_thread(_people.busy, asked, can, bounded_s=SETTLES_S)
    rate = await asyncio.to_thread(_people.rate, asked, MEASURED_S)
    await feeds.all_answered()
    return rate / can


# processes ----------------------------------------------------------------------------------------------------------


class Crew:
    """The processes at work."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._running: list[subprocess.Popen[bytes]] = []
        self._peak_mb = 0.0

    def start(self) -> None:
        told = {"log": "up.log", "STREAMPROC_BOUNDS__CALLS": str(CALLS)}
        command = ["up", DETECT, DEDUP, "--workers", "1"]
        process = self._stack.enter_context(_people.started(self._folder, command, **told))
        self._stack.callback(process.kill)
        self._running.append(process)

    def end(self, how: signal.Signals) -> subprocess.Popen[bytes]:
        """The one that has been there longest: it has what the others have not just been given."""
        self.peak_mb()
        process = self._running.pop(0)
        process.send_signal(how)
        return process

    def well_ended(self, process: subprocess.Popen[bytes]) -> None:
        """Told to leave, it drains, and says by its code that it was told."""
        if process.wait(timeout=BOUND_S) != Code.INTERRUPTED:
            raise self._broken(process)

    def peak_mb(self) -> float:
        """Of the largest of all that there were."""
        for process in self._running:
            if process.poll() is not None:
                raise self._broken(process)
            said = Path(f"/proc/{process.pid}/status").read_text()
            peak_kb = next(line.split()[1] for line in said.splitlines() if line.startswith("VmHWM:"))
            self._peak_mb = max(self._peak_mb, int(peak_kb) / 1024)
        return self._peak_mb

    def _broken(self, process: subprocess.Popen[bytes]) -> RuntimeError:
        return RuntimeError(f"it ended with {process.returncode}: {(self._folder / 'up.log').read_text()[-2000:]}")


async def _shares(bus: Bus) -> Shares:
    return {service: await bus.members(service) for service in (DETECT, DEDUP)}


async def _arrived(bus: Bus, processes: int, began: float) -> float:
    """Seconds until so many work in every service, whatever they hold."""
    while any(len(members) < processes for members in (await _shares(bus)).values()):
        if time.monotonic() > began + BOUND_S:
            break
        await asyncio.sleep(LOOK_EVERY_S)
    return time.monotonic() - began


async def _settled(bus: Bus, processes: int, until: float) -> tuple[Shares, float]:
    """The shares of so many processes that stay as they are, and since when; as they are in the end, if they never do."""
    seen, changed = await _shares(bus), time.monotonic()
    while time.monotonic() < until:
        if _whole(seen, processes) and time.monotonic() > changed + STILL_S:
            return seen, changed
        await asyncio.sleep(LOOK_EVERY_S)
        if (now := await _shares(bus)) != seen:
            seen, changed = now, time.monotonic()
    return seen, time.monotonic()


def _whole(shares: Shares, processes: int) -> bool:
    """Everybody has something, and all of it is somebody's."""
    return all(
        len(members) == processes
        and all(members.values())
        and sorted(p for held in members.values() for p in held) == list(range(PARTITIONS))
        for members in shares.values()
    )


async def _goes_on(feeds: Feeds, processes: int, began: float) -> tuple[Shares, float]:
    """The shares so many processes come to, and seconds until a window of each partition that was due since is answered."""
    until = began + BOUND_S
    shares, since = await _settled(feeds.bus, processes, until)
    return shares, await feeds.going_on(since, until) - began


def _off(shares: Shares, processes: int, weights: Sequence[int]) -> float:
    """How far the worst share of streams is from the mean, as a part of it. Who is missing has none."""
    mean = sum(weights) / processes
    loads = [
        [sum(weights[p] for p in held) for held in members.values()] + [0] * (processes - len(members))
        for members in shares.values()
    ]
    return max(abs(load - mean) / mean for each in loads for load in each)


async def _unaccounted(bus: Bus, feeds: Feeds) -> int:
    """Windows of which `dedup` has said nothing, after a while."""
    until = time.monotonic() + BOUND_S
    async with followed(bus) as progress:
        while True:
            told = {s.stream: progress.of(s, DEDUP).numbers.total for s in feeds.sources}
            left = sum(feeds.shown_of[stream] - total for stream, total in told.items())
            if not left or time.monotonic() > until:
                return left
            await asyncio.sleep(1)


# feeds --------------------------------------------------------------------------------------------------------------


class Feeds:
    """What `decode` would do, as far as others see it; and how late they are with it."""

    def __init__(self, bus: Bus, sources: Sequence[Source]) -> None:
        self.bus, self.sources, self.step_s = bus, sources, len(sources) / A_SECOND
        self.weights = [0] * PARTITIONS
        for source in sources:
            self.weights[partition_of(source.stream, PARTITIONS)] += 1
        self.shown_of = {s.stream: 0 for s in sources}
        self.longest_s, self.left_out, self._twice_or_failed = 0.0, 0, 0
        self._lag = Lag.parse(LAG)
        self._picture = simplejpeg.encode_jpeg(memoryview(bytes(96 * 56 * 3)).cast("B", (56, 96, 3)))
        self._open: dict[str, dict[int, float | None]] = defaultdict(dict)
        """Of a stream: windows without a detection, and when each was due; those of a backlog never were."""
        self._answered: list[tuple[int, float, float]] = []
        """(partition, when a window was due, when its detection could be read)"""

    @property
    def wrong(self) -> int:
        """Windows that failed, or were answered twice, or have no answer."""
        return self._twice_or_failed + sum(map(len, self._open.values()))

    # going out

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Each feed in its turn, for as long as the context lasts."""
        async with asyncio.TaskGroup() as tasks:
            over = asyncio.Event()
            tasks.create_task(self._show(over))
            yield
            over.set()

    async def lay(self, each: int) -> None:
        """So many windows of every feed, all at once."""
        for first in range(0, len(self.sources), 100):
            await self._publish([(s, None) for s in self.sources[first : first + 100] for _ in range(each)])

    async def _show(self, over: asyncio.Event) -> None:
        began, shown = time.monotonic(), 0
        while not over.is_set():
            due = int((time.monotonic() - began) * A_SECOND) + 1
            turns = range(shown, due)
            await self._publish([(self.sources[n % len(self.sources)], began + n / A_SECOND) for n in turns])
            shown = due
            await asyncio.sleep(TICK_S)

    async def _publish(self, turns: Sequence[tuple[Source, float | None]]) -> None:
        entries = []
        for source, due in turns:
            index, waiting = self.shown_of[source.stream], self._open[source.stream]
            window = self._window(source, index)
            behind = index - min(waiting, default=index)
            if due is not None and not self._lag.keeps(index, behind=behind, step_s=self.step_s):
                window = left_out(window)
                self.left_out += 1
            self.shown_of[source.stream], waiting[index] = index + 1, due
            entries.append(wire.encode(window, partitions=PARTITIONS, time=""))
        await self.bus.publish(entries)

    def _window(self, source: Source, index: int) -> Window:
        start_ms, end_ms = source.grid.starts_ms(index), source.grid.starts_ms(index + 1)
        return msgspec.structs.replace(
            Window.of(source, index=index, start_ms=start_ms, end_ms=end_ms),
            id=record_id("decode", "decode", source.stream, source.generation, index),
            service="decode",
            root="decode",
            frames=(Frame(t_ms=start_ms, jpeg=self._picture),),
            width=96,
            height=56,
        )

    # coming back

    @asynccontextmanager
    async def seen(self) -> AsyncIterator[None]:
        """Detections are read as they come, for as long as the context lasts."""
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen())
            yield
            listening.cancel()

    async def all_answered(self) -> None:
        """Or a while has passed. What is late by then is as late as that at least."""
        until = time.monotonic() + BOUND_S
        while any(self._open.values()) and time.monotonic() < until:  # noqa: ASYNC110  # an event would be on the path that is measured
            await asyncio.sleep(LOOK_EVERY_S)
        for due in (due for waiting in self._open.values() for due in waiting.values() if due is not None):
            self.longest_s = max(self.longest_s, time.monotonic() - due)

    async def going_on(self, since: float, until: float) -> float:
        """When of every partition a window had been answered that was due since; now, where that takes too long."""
        wanted = {p for p, weight in enumerate(self.weights) if weight}
        while True:
            first = {p: seen for p, due, seen in reversed(self._answered) if due > since}
            if first.keys() == wanted:
                return max(first.values())
            if time.monotonic() > until:
                return time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _listen(self) -> None:
        offsets = [0] * PARTITIONS
        while True:
            for p, offset in enumerate(offsets):
                batch = await self.bus.read("detections", p, offset, max_records=500, max_bytes=2**22)
                for stored in batch:
                    self._hear(p, wire.decode(topic("detections"), stored), time.monotonic())
                    offsets[p] = stored.offset + 1
            await asyncio.sleep(LOOK_EVERY_S)

    def _hear(self, partition: int, said: Detection, now: float) -> None:
        waiting = self._open[said.stream]
        for number in range(said.index, said.until):
            if number not in waiting or (said.outcome != "done" and said.reason != lag.LAG):
                self._twice_or_failed += 1
            if (due := waiting.pop(number, None)) is not None:
                self.longest_s = max(self.longest_s, now - due)
                self._answered.append((partition, due, now))


def _sources(number: int) -> list[Source]:
    step = str(Fraction(number, A_SECOND))
    task = Task.model_validate(
        {
            "name": "bench",
            "sampling": {"fps": "1", "window_s": step, "step_s": step},
            "detect": {"models": [_people.NAME]},
            "dedup": {},
        }
    )
    grid = Grid(root="decode", origin="0", step=step, first=0)
    return [
        streams.first(Wanted(name=f"camera-{n}", uri="rtsp://127.0.0.1/live", live=True, grid=grid, task=task, lag=LAG))
        for n in range(number)
    ]
