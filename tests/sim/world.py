"""One seed: sources, processes that come and go, weather; and then what must be true."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from streamproc import wire
from streamproc.errors import Rejected, Retryable
from streamproc.messages import Record, Source
from streamproc.runner import Backoff, Bounds, Service
from streamproc.runner.cover import Accounted
from streamproc.runner.look import source_key
from streamproc.stage import Stage
from streamproc.topics import key_of, partition_of, topic
from tests.bus.memory import MemoryBus, MemoryLog
from tests.sim import toys

TOPICS = ("windows", "contexts", "detections", "events", "descriptions")
MODELS = ("detect.a", "detect.b")


@dataclass(frozen=True, slots=True)
class Weather:
    """What goes wrong, and how often."""

    kills: int = 8
    zombies: float = 0.2
    """Of the kills: not dead, only asleep for longer than the session."""
    drains: float = 0.2
    """Of the kills: told to stop, and allowed to."""
    torn: float = 0.0
    """Landings whose outputs stand while state and progress do not."""
    unseen: float = 0.03
    table_lag_s: float = 0.0
    changes: float = 0.6
    """Streams that get another revision on the way."""
    impatient: bool = False
    """Not yet gives up soon, while contexts are slow."""
    streams: int = 3
    windows: int = 24


@dataclass(slots=True)
class Call:
    """One call of a stub endpoint, as the endpoint saw it."""

    process: int
    service: str
    key: tuple[Any, ...]


@dataclass
class World:
    seed: int
    weather: Weather
    rng: random.Random
    log: MemoryLog
    answered: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    in_flight: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))
    by_process: dict[int, set[tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(set))
    allowed: int = 0
    repeated_landed: int = 0
    numbers: dict[MemoryBus, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log.moved = self.moved

    def dice(self, *of: Any) -> int:
        """The same answer to the same question, in every life of every process."""
        return zlib.crc32(repr((self.seed, of)).encode()) % 100

    async def work(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, 0.02))

    def asker(self, process: int) -> toys.Ask:
        async def ask(service: str, about: Record) -> list[str]:
            key = (service, about.stream, about.generation, about.root, about.index)
            call = Call(process, service, key)
            if self.landed(service, about):
                self.repeated_landed += 1
            self.in_flight[process].append(call)
            try:
                await asyncio.sleep(self.rng.expovariate(1 / 0.2))
                if self.rng.random() < 0.05:
                    raise Retryable("429")
                self.answered[key] += 1
                self.by_process[process].add(key)
            finally:
                self.in_flight[process].remove(call)
            if self.dice(key) < 8:
                raise Rejected("unreadable")
            return [label for label in ("goal", "card") if self.dice(service, about.stream, about.index, label) < 25]

        return ask

    # what has landed

    def records(self, name: str) -> list[Any]:
        kind = topic(name)
        return [wire.decode(kind, s) for p in range(self.log.partitions) for s in self.log.all(name, p)]

    def landed(self, service: str, about: Record) -> bool:
        """The outcome of this call stands in the log."""
        number = about.index
        if service == "context":
            return bool(self.log.newest("contexts", key_of(about.stream, "0")))
        name = "descriptions" if service == "describe" else "detections"
        return (service, about.root, about.stream, about.generation, number) in self.log.ids(name)

    def accounted(self, stream: str, service: str) -> Accounted:
        """What the coverage topic says of a service."""
        whole = Accounted()
        for stored in self.log.under("coverage", key_of(stream, service)):
            whole.hear(wire.decode(topic("coverage"), stored))
        return whole

    def source(self, stream: str, generation: int, revision: int) -> Source:
        stored = self.log.newest("sources", source_key(stream, generation, revision).encode())
        assert stored is not None
        found: Source = wire.decode(topic("sources"), stored)
        return found

    def moved(self, service: str, partition: int, bus: MemoryBus) -> None:
        """A partition goes to another member: what the old one has under way will be asked again."""
        self.allowed += self.cost(self.numbers[bus], service, partition)

    def cost(self, process: int, service: str | None = None, partition: int | None = None) -> int:
        """What taking leases from a process may cost: calls in flight, and answers that have not landed."""
        unlanded = 0
        keys = [*self.by_process[process], *(call.key for call in self.in_flight[process])]
        for whose, stream, generation, root, index in keys:
            if service not in (None, whose) or partition not in (None, partition_of(stream, self.log.partitions)):
                continue
            if whose == "context":
                unlanded += not self.log.newest("contexts", key_of(stream, "0"))
            else:
                name = "descriptions" if whose == "describe" else "detections"
                unlanded += (whose, root, stream, generation, index) not in self.log.ids(name)
        return unlanded


def stages(world: World, process: int) -> dict[str, Stage]:
    ask = world.asker(process)
    patience_s = 1.0 if world.weather.impatient else 1e7
    return {
        "decode": toys.Decode(world.work),
        "context": toys.Contexts(ask),
        **{m: toys.Detect(m, ask, patience_s=patience_s) for m in MODELS},
        "dedup": toys.Dedup(),
        "describe": toys.Describe(ask),
    }


class Process:
    """Some services over one bus of their own, as one process would have them."""

    def __init__(self, world: World, number: int, names: tuple[str, ...]) -> None:
        self.world, self.number, self.names = world, number, names
        self.bus = MemoryBus(world.log)
        world.numbers[self.bus] = number
        made = stages(world, number)
        self.services = [
            Service(
                name,
                made[name],
                self.bus,
                bounds=Bounds(calls=6, window=64, unlanded=40, batch=8),
                backoff=Backoff(first_s=0.02, most_s=1.0),
                now=asyncio.get_running_loop().time,
                rng=world.rng,
            )
            for name in names
        ]
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for service in self.services:
                tasks.create_task(service.run())

    async def kill(self) -> None:
        self.world.allowed += self.world.cost(self.number)
        self.world.log.kill(self.bus)
        self.task.cancel()
        await asyncio.wait([self.task])

    def sleep(self) -> None:
        """SIGSTOP: nothing of it moves until it wakes."""
        self.world.allowed += self.world.cost(self.number)
        self.world.log.stop(self.bus)

    def wake(self) -> None:
        self.world.log.resume(self.bus)

    async def drain(self) -> None:
        for service in self.services:
            await service.drain()
        await asyncio.wait([self.task])

    def raise_if_failed(self) -> None:
        if self.task.done() and not self.task.cancelled() and (error := self.task.exception()):
            raise error


LAYOUTS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("decode", "context", "detect.a", "detect.b", "dedup", "describe"),),
    (("decode", "context", "dedup"), ("detect.a", "detect.b"), ("describe",)),
    (("decode", "detect.a"), ("detect.a", "detect.b"), ("context", "dedup", "describe"), ("dedup", "detect.b")),
)
