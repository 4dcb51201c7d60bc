"""Chaos over the whole pipeline: every stage as processes of their own, killed at random, over an endpoint with bad days.

    .venv/bin/python -m tests.chaos --pipeline --bus embedded --windows 100000 --kills 100 --seed 1 --json

Streams are short films, a few at a time: a new one is added whenever one is through, and now and then one is removed. The
harm comes at random points of the work done. When all streams are complete the topics are read from their beginning, and
`pipeline_check` says what is true. Deliberately the stages, prompts and parsers that people run; only the model is not one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from streamproc.bus.contract import Bus
from streamproc.bus.embedded import Embedded
from streamproc.bus.kafka import Kafka
from streamproc.errors import Retryable
from streamproc.messages import Source
from streamproc.pipeline import job, streams
from streamproc.pipeline.streams import Wanted
from streamproc.topics import deployment, partition_of
from streamproc.video.recipe import grid_of
from tests import brokers
from tests.chaos.pipeline_check import Findings, check
from tests.chaos.pipeline_evidence import Evidence, gathered
from tests.chaos.pipeline_heard import Heard
from tests.chaos.pipeline_truth import film, task
from tests.chaos.pipeline_weather import (
    APART,
    BROKER,
    CARD,
    DRAIN,
    FAILURES,
    KILL,
    REMOVE,
    SETTINGS,
    TOGETHER,
    Services,
    Stub,
    schedule,
)  # fmt: skip

PARTITIONS = 8
AT_ONCE = 12
"""Streams under way."""
LENGTH = 500
"""Windows of a stream."""
NO_FILE = "gone"
"""A stream whose film is not there."""
SESSION_S = 4.0
"""Long enough for a process that waits for its turn on a core among a dozen; whoever is killed is missed after it."""
RECOVERS_S = 30.0
LOOK_EVERY_S = 0.2


@dataclass
class Fault:
    """Something happened; since then this is waited for."""

    what: str
    over_at: float
    waits: dict[tuple[str, int], int]
    """(service, partition) that had something to do → what it had accounted for. Streams of a partition stand behind each
    other: that nothing comes of one of them says nothing."""


@dataclass
class Storm:
    """One run."""

    rng: random.Random
    bus: Bus
    heard: Heard
    services: Services
    stub: Stub
    cluster: brokers.Brokers | None
    films: dict[str, tuple[Path, int]]
    """Streams to come → their film, and how many windows it has."""
    at_once: int = AT_ONCE
    sources: dict[str, Source] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    waiting: list[Fault] = field(default_factory=list)
    calm_at: float = 0.0
    """Since then nothing else has happened: what is down again cannot be up."""
    slowest: tuple[float, str] = (0.0, "")
    late: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    """Faults that came, in order."""
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    async def ride(self, upsets: list[tuple[int, str]], *, bounded_s: float) -> bool:
        """Until every stream is complete. False where that took too long, or too much else went wrong."""
        deadline = time.monotonic() + bounded_s
        while time.monotonic() < deadline and len(self.services.failures) < FAILURES:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.services.look()
            await self._add()
            self._recovered()
            if not self.films and not self._background and not self._under_way():
                return True
            if upsets and upsets[0][0] <= self.heard.windows():
                self._begin(upsets.pop(0)[1])
        return False

    def _under_way(self) -> list[Source]:
        return [s for s in self.sources.values() if not self.heard.complete(s)]

    async def _add(self) -> None:
        while self.films and len(self._under_way()) < self.at_once:
            name = next(iter(self.films))
            path, _ = self.films[name]
            wants = task(name)
            grid = grid_of(wants.sampling.model_dump(), None)
            wanted = Wanted(name=name, uri=str(path), live=False, grid=grid, task=wants)
            try:
                entered = await job.enter(self.bus, [wanted], again=False)
            except Retryable:
                return  # the broker is away: later
            del self.films[name]
            self.sources[name] = entered.sources[0]

    def _begin(self, kind: str) -> None:
        """What lasts, lasts while the rest goes on."""
        self.done.append(kind)
        task_of = asyncio.create_task(self._act(kind))
        self._background.add(task_of)
        task_of.add_done_callback(self._background.discard)

    async def _act(self, kind: str) -> None:
        if kind in (KILL, DRAIN):
            number = self.rng.choice(list(self.services.running))
            gone = await (self.services.kill(number) if kind == KILL else self.services.drain(number))
            await self.services.start(gone.services)
            self._fault(f"{kind} of {', '.join(gone.services)}", gone.services)
        elif kind == REMOVE:
            await self._remove()
        elif kind == BROKER:
            await self._broker()
        else:
            seconds = self.rng.uniform(1, 8)
            self.stub.tell(f"{kind} {seconds}")
            await asyncio.sleep(seconds)
            self._fault(f"{kind} for {seconds:.1f} s", [s for s in self.heard.services if "." in s])

    async def _remove(self) -> None:
        there = [s for s in self._under_way() if s.stream not in self.removed and s.stream != NO_FILE]
        if not there:
            return
        source = self.rng.choice(there)
        changed = streams.changed(source, state="removed", from_index=self.heard.end(source, "decode"))
        await streams.publish(self.bus, [changed])
        self.removed.add(source.stream)

    async def _broker(self) -> None:
        assert self.cluster is not None
        i, since = self.rng.randrange(len(self.cluster.cluster.nodes)), time.time()
        await asyncio.to_thread(self.cluster.kill if len(self.cluster.cluster.nodes) > 1 else self.cluster.stop, i)
        await asyncio.sleep(self.rng.uniform(0, 3))
        await asyncio.to_thread(self.cluster.start, i)
        self.services.harm(None, since, slack_s=15.0)  # whose session ended meanwhile hears it when it is back
        self._fault("a broker's restart", self.heard.services)

    def _fault(self, what: str, services: Sequence[str]) -> None:
        places = [(service, partition) for service in services for partition in range(PARTITIONS)]
        waits = {place: self._done(*place) for place in places if self._has_work(*place)}
        self.waiting.append(Fault(what, time.monotonic(), waits))

    def _there(self, partition: int) -> list[Source]:
        return [s for s in self.sources.values() if partition_of(s.stream, PARTITIONS) == partition]

    def _done(self, service: str, partition: int) -> int:
        return sum(self.heard.total(source, service) for source in self._there(partition))

    def _has_work(self, service: str, partition: int) -> bool:
        return any(self.heard.has_work(source, service) for source in self._there(partition))

    def _recovered(self) -> None:
        now = time.monotonic()
        if self._background:
            self.calm_at = now
        for fault in list(self.waiting):
            for place, before in list(fault.waits.items()):
                if self._done(*place) > before or not self._has_work(*place):
                    del fault.waits[place]
            took_s = now - max(fault.over_at, self.calm_at)
            if fault.waits and took_s <= RECOVERS_S:
                continue
            self.waiting.remove(fault)
            self.slowest = max(self.slowest, (took_s, fault.what))
            if fault.waits:
                self.late.append(f"{fault.what}: still no progress after {took_s:.0f} s: {fault.waits}")


# the run ------------------------------------------------------------------------------------------------------------


async def storm(asked: argparse.Namespace, seed: int, folder: Path) -> tuple[Storm, Evidence, bool]:
    """Everything that was said and asked in one run, in memory."""
    rng = random.Random(seed)
    async with AsyncExitStack() as stack:
        stub = await Stub.start(asked.latency, seed)
        stack.push_async_callback(stub.close)
        bus, cluster, at = await _bus(asked, folder, stack)
        await bus.create(deployment())
        (folder / "stub.toml").write_text(CARD)
        (folder / "streamproc.toml").write_text(SETTINGS.format(port=stub.port, partitions=PARTITIONS, **at))
        services = Services(folder)
        stack.push_async_callback(services.close)
        heard = await stack.enter_async_context(Heard.follow(bus))
        run = Storm(rng, bus, heard, services, stub, cluster, await asyncio.to_thread(_films, asked, folder))
        for together in TOGETHER if asked.together else APART:
            await services.start(together)
        upsets = schedule(
            rng, windows=asked.windows, kills=asked.kills, brokers=max(1, asked.kills // 25) if cluster else 0
        )
        whole = await run.ride(upsets, bounded_s=asked.bounded)
        for number in list(services.running):
            await services.drain(number)
        calls = await stub.report(folder / "calls.jsonl")
        evidence = await gathered(bus, calls, run.sources, run.removed, asked.length, services)
    return run, evidence, whole


async def _bus(
    asked: argparse.Namespace, folder: Path, stack: AsyncExitStack
) -> tuple[Bus, brokers.Brokers | None, dict[str, object]]:
    """The bus, brokers of our own if there are any, and what the settings say of it."""
    bus: Bus
    if asked.bus == "embedded":
        bus = await Embedded.open(folder / "chaos.db", partitions=PARTITIONS, session_s=SESSION_S)
        stack.push_async_callback(bus.close)
        return bus, None, {"session_s": SESSION_S, "prefix": "", "bus": f"embedded:{folder / 'chaos.db'}"}
    named, own = os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), None
    if not named:
        own = await asyncio.to_thread(brokers.start, asked.brokers, settings={"group.min.session.timeout.ms": "1000"})
        stack.callback(own.close)
    bootstrap, session_s, prefix = (
        (named, 6.0, f"chaos-{uuid.uuid4().hex[:8]}.") if named else (own.bootstrap if own else "", SESSION_S, "chaos.")
    )
    bus = await Kafka.open(bootstrap, prefix=prefix, partitions=PARTITIONS, session_s=session_s)
    stack.push_async_callback(bus.close)
    return bus, own, {"session_s": session_s, "prefix": prefix, "bus": f"kafka://{bootstrap}"}


def _films(asked: argparse.Namespace, folder: Path) -> dict[str, tuple[Path, int]]:
    """One film serves all streams: questions name the stream."""
    path = film(folder / "film.mp4", asked.length)
    found = {f"s{i}": (path, asked.length) for i in range(max(1, asked.windows // asked.length))}
    return {**found, NO_FILE: (folder / "no-such-film.mp4", 1)}


async def run(asked: argparse.Namespace) -> int:
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(2**31)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="streamproc-chaos-"))
    try:
        ridden, evidence, whole = await storm(asked, seed, folder)
        found = check(evidence)
    finally:
        if not asked.keep:
            shutil.rmtree(folder, ignore_errors=True)
    result = told(asked, ridden, evidence, found, whole=whole)
    result |= {"seconds": round(time.monotonic() - began, 1), "seed": seed, "ok": result["ok"]}
    print(json.dumps(result) if asked.json else "\n".join(f"{k:18} {v}" for k, v in result.items()))
    return 0 if result["ok"] else 1


def told(
    asked: argparse.Namespace, ridden: Storm, evidence: Evidence, found: Findings, *, whole: bool
) -> dict[str, object]:
    """The last line; what is wrong stands on stderr."""
    if not whole:
        sys.stderr.write(f"not through: {ridden.heard.left(ridden.sources.values())}\n")
    for line in (*found.examples, *ridden.services.failures, *ridden.late):
        sys.stderr.write(f"{line}\n")
    ok = whole and found.ok and not ridden.services.failures and not ridden.late
    return {
        "windows": evidence.windows(),
        "kills": ridden.services.kills,
        "faults": len(ridden.done),
        "removed": len(ridden.removed),
        **found.counts(),
        "recovered_s": round(ridden.slowest[0], 1),
        "recovered_from": ridden.slowest[1],
        "ok": ok,
    }
