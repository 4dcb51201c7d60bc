"""Run one seed to its end: until every stream is complete in every service."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from msgspec.structs import replace

from streamproc.messages import Source
from streamproc.runner.look import source_key
from tests.bus.memory import MemoryLog
from tests.sim import clock, toys
from tests.sim.oracle import check
from tests.sim.world import LAYOUTS, MODELS, TOPICS, Process, Weather, World

GIVE_UP_S = 3000.0
"""Of virtual time."""


class Stuck(AssertionError):
    """Not complete after a long time: something waits for what will never come."""


def simulate(seed: int, weather: Weather) -> World:
    return clock.run(_simulate(seed, weather))


async def _simulate(seed: int, weather: Weather) -> World:
    rng = random.Random(seed)
    log = MemoryLog(
        partitions=2,
        rng=rng,
        torn=weather.torn,
        unseen=weather.unseen,
        away=weather.away,
        table_lag_s=weather.table_lag_s,
    )
    world = World(seed, weather, rng, log)
    layout = rng.choice(LAYOUTS)
    sources = {(f"m{i}", 0): _first(world, f"m{i}") for i in range(weather.streams)}
    for source in sources.values():
        publish(world, source)
    changes = {life: rng.uniform(0.1, 2) for life in sources if rng.random() < weather.changes}
    again = {life: rng.uniform(0.1, 4) for life in sources if weather.lives and rng.random() < weather.lives}
    processes = [Process(world, number, names) for number, names in enumerate(layout)]
    guests: list[tuple[float, Process]] = []
    asleep: list[tuple[float, Process]] = []
    woken: list[Process] = []
    kills, number, loop = weather.kills, len(processes), asyncio.get_running_loop()
    while not complete(world, sources):
        await asyncio.sleep(rng.uniform(0.05, 0.5))
        now = loop.time()
        if now > GIVE_UP_S:
            raise Stuck(f"seed {seed}: {missing(world, sources)}")
        for life in [life for life, when in changes.items() if now > when]:
            del changes[life]
            if sources[life].state == "active":
                sources[life] = _second(world, sources[life])
                publish(world, sources[life])
        for stream, generation in [life for life, when in again.items() if now > when]:
            del again[stream, generation]
            publish(world, _removed(world, sources[stream, generation]))
            sources[stream, generation] = _removed(world, sources[stream, generation])
            sources[stream, generation + 1] = _first(world, stream, generation + 1)
            publish(world, sources[stream, generation + 1])
        for wakes, process in [a for a in asleep if a[0] < now]:
            asleep.remove((wakes, process))
            process.wake()
            woken.append(process)
        for leaves, process in [g for g in guests if g[0] < now]:
            guests.remove((leaves, process))
            await (process.kill() if rng.random() < weather.abrupt else process.drain())
            process.raise_if_failed()
        for process in (*woken, *(p for _, p in guests)):
            process.raise_if_failed()
        for i, process in enumerate(processes):
            process.raise_if_failed()
            if kills > 0 and rng.random() < 1 / len(processes):
                kills -= 1
                dice = rng.random()
                if dice < weather.zombies:
                    process.sleep()
                    asleep.append((now + rng.uniform(1, 60), process))
                elif dice < weather.zombies + weather.drains:
                    await process.drain()
                    process.raise_if_failed()
                elif dice < weather.zombies + weather.drains + weather.joins:
                    guests.append((now + rng.uniform(0, rng.choice((0.3, 10))), Process(world, number, process.names)))
                    number += 1
                    continue
                else:
                    await process.kill()
                processes[i] = Process(world, number, process.names)
                number += 1
    for process in (*processes, *woken, *(p for _, p in guests)):
        await process.drain()
        process.raise_if_failed()
    for _, process in asleep:
        await process.kill()
    check(world, sources)
    return world


def _first(world: World, stream: str, generation: int = 0) -> Source:
    rng = world.rng
    models = rng.choice([MODELS, MODELS[:1]])
    gaps = {b: b + rng.randrange(2, 9) for b in rng.sample(range(0, 20, 10), rng.randrange(0, 3))}
    count = rng.randrange(world.weather.windows // 2, world.weather.windows)
    gaps = {a: b for a, b in gaps.items() if b < count}
    services = ("decode", "context", *models, "dedup", "describe")
    return toys.source(stream, services=services, count=count, gaps=gaps, generation=generation)


def _second(world: World, first: Source) -> Source:
    """Another set of models, from an index that decode cannot have reached so far."""
    models = MODELS[:1] if MODELS[1] in first.services else MODELS
    seen = max((r.until for r in world.records("windows") if r.stream == first.stream), default=0)
    gaps = {int(a): b for a, b in first.task["gaps"].items()}
    beyond = seen + toys.AHEAD + 2
    beyond = next((b for a, b in gaps.items() if a < beyond < b), beyond)  # a gap is made in one step, before or after
    return toys.source(
        first.stream,
        services=("decode", "context", *models, "dedup", "describe"),
        count=first.task["count"],
        gaps=gaps,
        generation=first.generation,
        revision=1,
        from_index=beyond,
    )


def _removed(world: World, before: Source) -> Source:
    """As `streamproc sources remove` does."""
    decoded = world.accounted(before.stream, before.generation, "decode").taken.end
    return replace(
        before,
        state="removed",
        revision=before.revision + 1,
        index=before.revision + 1,
        from_index=max(decoded, before.from_index),
    )


def publish(world: World, source: Source) -> None:
    world.log.put(source, sub=source_key(source.stream, source.generation, source.revision).split("\0")[1:])


def complete(world: World, lives: Iterable[tuple[str, int]]) -> bool:
    return not missing(world, lives) and not world.log.state_keys("park")


def missing(world: World, lives: Iterable[tuple[str, int]]) -> list[tuple[str, int, str]]:
    """(stream, generation, service) whose coverage has no end, or a hole before it."""
    return [
        (*life, service)
        for life in lives
        for service in ("decode", "context", "dedup", "describe", "detect.a")
        if not world.accounted(*life, service).complete
    ]


__all__ = ["TOPICS", "Stuck", "simulate"]
