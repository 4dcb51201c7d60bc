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
from streamproc.topics import key_of, topic
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
    joins: float = 0.2
    """Of the kills: nobody dies, but one more joins, and leaves again a while later."""
    abrupt: float = 0.3
    """Of those who joined: they leave by dying."""
    hand_over_s: float = 30.0
    """What calls get to end where the lease is wanted by another; as much is there for a drain."""
    torn: float = 0.0
    """Landings whose outputs stand while state and progress do not."""
    unseen: float = 0.03
    away: float = 0.0
    """Requests that the bus does not answer."""
    table_lag_s: float = 0.0
    changes: float = 0.6
    """Streams that get another revision on the way."""
    lives: float = 0.0
    """Streams that are removed on the way, and added again under the same name."""
    impatient: bool = False
    """Not yet gives up soon, while contexts are slow."""
    streams: int = 3
    windows: int = 24


Key = tuple[Any, ...]
"""What a call is about: (service, stream, generation, root, index)."""


@dataclass
class World:
    seed: int
    weather: Weather
    rng: random.Random
    log: MemoryLog
    asked: Counter[Key] = field(default_factory=Counter)
    """How often, but for calls that were refused: those have to be made again."""
    allowed: Counter[Key] = field(default_factory=Counter)
    """How often it may be asked again: once for every death of a process that had it in hand."""
    by_process: dict[int, set[Key]] = field(default_factory=lambda: defaultdict(set))
    """What each has ever asked."""
    repeated_landed: int = 0
    taken_from_the_living: int = 0

    def __post_init__(self) -> None:
        self.log.moved = self.moved

    @property
    def repeated(self) -> int:
        return sum(n - 1 for n in self.asked.values() if n)

    def dice(self, *of: Any) -> int:
        """The same answer to the same question, in every life of every process."""
        return zlib.crc32(repr((self.seed, of)).encode()) % 100

    async def work(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, 0.02))

    def asker(self, process: int) -> toys.Ask:
        async def ask(service: str, about: Record) -> list[str]:
            key = (service, about.stream, about.generation, about.root, about.index)
            if self.landed(service, about):
                self.repeated_landed += 1
            self.asked[key] += 1
            self.by_process[process].add(key)
            await asyncio.sleep(self.rng.expovariate(1 / 0.2))
            if self.rng.random() < 0.05:
                self.asked[key] -= 1
                raise Retryable("429")
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
        return self._landed((service, about.stream, about.generation, about.root, about.index))

    def accounted(self, stream: str, generation: int, service: str) -> Accounted:
        """What the coverage topic says of a service."""
        whole = Accounted()
        for stored in self.log.under("coverage", key_of(stream, service)):
            if (hour := wire.decode(topic("coverage"), stored)).generation == generation:
                whole.hear(hour)
        return whole

    def source(self, stream: str, generation: int, revision: int) -> Source:
        stored = self.log.newest("sources", source_key(stream, generation, revision).encode())
        assert stored is not None
        found: Source = wire.decode(topic("sources"), stored)
        return found

    def moved(self, service: str, partition: int, bus: MemoryBus) -> None:
        self.taken_from_the_living += 1

    def dies(self, process: int) -> None:
        """It is killed, or sleeps for so long that others go on without it: what it has in hand may be asked again."""
        self.allowed.update(key for key in self.by_process[process] if not self._landed(key))

    def _landed(self, key: Key) -> bool:
        service, stream, generation, root, index = key
        if service == "context":
            return bool(self.log.newest("contexts", key_of(stream, f"{generation}.0")))
        name = "descriptions" if service == "describe" else "detections"
        return (service, root, stream, generation, index) in self.log.ids(name)


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
        made = stages(world, number)
        self.services = [
            Service(
                name,
                made[name],
                self.bus,
                bounds=Bounds(
                    calls=6,
                    window=64,
                    unlanded=40,
                    batch=8,
                    drain_s=world.weather.hand_over_s,
                    hand_over_s=world.weather.hand_over_s,
                ),
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
        self.world.dies(self.number)
        self.world.log.kill(self.bus)
        self.task.cancel()
        await asyncio.wait([self.task])

    def sleep(self) -> None:
        """SIGSTOP: nothing of it moves until it wakes."""
        self.world.dies(self.number)
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
