"""The pool and its limiter against simulated servers in virtual time, where the best that can be had is known.

Best: of all fixed numbers of calls at a time the one with the highest throughput, the smaller of two alike.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from functools import cache
from statistics import median
from typing import Any

from streamproc.errors import Throttled, Unreachable
from streamproc.models.limiter import Limiter
from tests.models.test_pool import Simulated, a_pool, busy, raises, rate
from tests.models.virtual import Server, virtually

SERVERS: dict[str, dict[str, Any]] = {
    "slots alone": {"slots": 40, "knee": 1000, "seconds": 0.25},
    "a knee, then slots": {"slots": 96, "knee": 32, "seconds": 0.2, "slope": 0.5},
    "a knee that costs": {"slots": 96, "knee": 24, "seconds": 0.3, "slope": 1.2},
    "few slots": {"slots": 6, "knee": 100, "seconds": 0.5},
    "slow calls": {"slots": 64, "knee": 64, "seconds": 1.0},
    "fast calls": {"slots": 24, "knee": 16, "seconds": 0.05, "slope": 0.7},
}

MOVED: dict[str, tuple[str, dict[str, Any]]] = {
    "slots halved": ("slots alone", {"slots": 20}),
    "slots doubled": ("slots alone", {"slots": 80}),
    "knee moved": ("a knee that costs", {"knee": 40}),
    "calls twice as long": ("fast calls", {"seconds": 0.1}),
}

ROUNDS = 7


class Fixed:
    """What the limiter is compared with."""

    def __init__(self, limit: int) -> None:
        self.limit, self.in_flight = limit, 0

    @property
    def full(self) -> bool:
        return self.in_flight >= self.limit

    def started(self, now: float) -> None:
        self.in_flight += 1

    def finished(self, now: float, *, latency_s: float | None) -> None:
        self.in_flight -= 1


Done = list[tuple[float, float]]


async def driven(limiter: Limiter | Fixed, server: Server, *, until: float) -> Done:
    """As many calls at a time as are let; when each ended and how long it took."""
    loop, wake, done = asyncio.get_running_loop(), asyncio.Event(), Done()

    async def one() -> None:
        began = loop.time()
        await server.serve()
        limiter.finished(loop.time(), latency_s=loop.time() - began)
        done.append((loop.time(), loop.time() - began))
        wake.set()

    async with asyncio.TaskGroup() as group:
        while loop.time() < until:
            while not limiter.full:
                limiter.started(loop.time())
                group.create_task(one())
            wake.clear()
            await wake.wait()
    return done


def speed(done: Done, since: float, until: float) -> tuple[float, float]:
    """Calls a second and the latency that one in twenty exceeds."""
    took = sorted(latency for at, latency in done if since <= at < until)
    return len(took) / (until - since), took[int(0.95 * len(took))]


@cache
def best(server: tuple[tuple[str, Any], ...]) -> tuple[float, float]:
    """Of fixed numbers, on a geometric grid and then closer around its best."""
    tried: dict[int, tuple[float, float]] = {}

    def fixed(n: int) -> float:
        if n not in tried:
            tried[n] = speed(virtually(lambda: driven(Fixed(n), Server(**dict(server)), until=30)), 6, 30)
        return tried[n][0]

    grid = sorted({round(2 * 1.25**i) for i in range(20)})
    top = max(grid, key=fixed)
    for n in range(round(top / 1.25), round(top * 1.25) + 1, max(1, top // 16)):
        fixed(n)
    most = max(throughput for throughput, _ in tried.values())
    return tried[min(n for n, (throughput, _) in tried.items() if throughput >= 0.995 * most)]


def found(before: dict[str, Any], after: dict[str, Any] | None, seed: int) -> tuple[float, float]:
    """Of the best: throughput and latency from 30 s after the beginning, or the change, on."""

    async def main() -> tuple[float, float]:
        limiter, server = Limiter(), Server(**before, seed=seed)
        if after is None:
            return speed(await driven(limiter, server, until=75), 30, 75)
        await driven(limiter, server, until=60)
        for name, value in after.items():
            setattr(server, name, value)
        return speed(await driven(limiter, server, until=135), 90, 135)

    throughput, late_s = virtually(main)
    most, least_s = best(tuple(sorted((before | (after or {})).items())))
    return throughput / most, late_s / least_s


def judged(name: str, value: float, goal: float, *, least: bool) -> tuple[str, float, float | None, bool | None]:
    return name, round(value, 3), goal, value >= goal if least else value <= goal


def limiter() -> Iterator[tuple[str, float, float | None, bool | None]]:
    cases: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
        n: (before, None) for n, before in SERVERS.items()
    }
    cases |= {name: (SERVERS[before], after) for name, (before, after) in MOVED.items()}
    for name, (before, after) in cases.items():
        rounds = [found(before, after, seed) for seed in range(1, ROUNDS + 1)]
        yield judged(f"limiter: {name}: throughput of the best", median(r[0] for r in rounds), 0.97, least=True)
        yield judged(f"limiter: {name}: p95 latency of the best's", median(r[1] for r in rounds), 1.2, least=False)


async def _dies(_call: object) -> None:
    raise Unreachable("a", "refused", remedy="")


async def _hangs(_call: object) -> None:
    await asyncio.Event().wait()


async def _is_slow(_call: object) -> None:
    await asyncio.sleep(5)


def replicas() -> Iterator[tuple[str, float, float | None, bool | None]]:
    """Three replicas, one of them goes: what the two that are left could do is two thirds."""
    for what, wrong in (("dies", _dies), ("hangs", _hangs), ("turns slow", _is_slow)):
        shares, late, failed = list[float](), list[float](), 0
        for seed in range(ROUNDS):

            async def main(seed: int = seed, wrong: Any = wrong) -> Sequence[float]:
                three = [Simulated(f"http://{n}/v1", seed=3 * seed + i) for i, n in enumerate("abc")]
                pool = a_pool(*three)

                async def accident() -> None:
                    await asyncio.sleep(40)
                    three[1].wrong = wrong

                async with asyncio.TaskGroup() as group:
                    group.create_task(accident())
                    task = group.create_task(busy(pool, callers=96, until=70))
                return task.result()

            try:
                came = virtually(main)
            except ExceptionGroup:
                failed += 1
                continue
            two_thirds = rate(came, 20, 40) * 2 / 3
            shares.append(rate(came, 45, 70) / two_thirds)
            late.append(next((s for s in range(31) if rate(came, 40 + s, 41 + s) >= 0.9 * two_thirds), 31))
        yield judged(f"pool: one of three {what}: rounds with a failed window", failed, 0, least=False)
        yield judged(f"pool: one of three {what}: seconds until the rest are at 90 %", median(late), 5, least=False)
        yield judged(f"pool: one of three {what}: throughput of the rest after 5 s", median(shares), 0.97, least=True)


def refusing() -> Iterator[tuple[str, float, float | None, bool | None]]:
    """A server that has no line before its slots, but a 429: of what its slots could do, from 30 s on."""
    for what, slots, seconds, starts_at, rest_s in (
        ("8 slots", 8, 0.25, 4, None),
        ("8 slots, slow calls, a crowd at the start", 8, 1.0, 64, None),
        ("8 slots and a Retry-After", 8, 1.0, 4, 1.0),
        ("40 slots", 40, 0.25, 64, None),
    ):
        shares = list[float]()
        for seed in range(1, ROUNDS + 1):
            replica = Simulated(slots=slots, knee=1000, seconds=seconds, seed=seed)
            replica.refusal = Throttled("429", retry_after_s=rest_s)

            async def main(replica: Simulated = replica, starts_at: int = starts_at) -> Sequence[float]:
                return await busy(a_pool(replica, starts_at=starts_at), callers=64, until=150)

            shares.append(rate(virtually(main), 30, 150))
        ideal = best(tuple(sorted({"slots": slots, "knee": 1000, "seconds": seconds}.items())))[0]
        yield judged(f"pool: 429 beyond {what}: throughput of the ideal", median(shares) / ideal, 0.9, least=True)


def outage() -> Iterator[tuple[str, float, float | None, bool | None]]:
    """Down for ten minutes, then 429 for five, under sixty-four callers."""

    async def main() -> tuple[Sequence[float], Simulated]:
        replica = Simulated()
        pool = a_pool(replica)

        async def accident() -> None:
            await asyncio.sleep(30)
            replica.wrong = raises(Unreachable("a", "refused", remedy=""))
            await asyncio.sleep(600)
            replica.wrong = raises(Throttled("429"))
            await asyncio.sleep(300)
            replica.wrong = None

        async with asyncio.TaskGroup() as group:
            group.create_task(accident())
            task = group.create_task(busy(pool, callers=64, until=1020))
        return task.result(), replica

    try:
        came, replica = virtually(main)
    except ExceptionGroup as e:
        yield "pool: outage: windows lost or given up", float(len(e.exceptions)), 0, False
        return
    # Sixty-four calls that were under way when it went down had been sent before.
    calls = [at for at, _, _ in replica.asked if 31 <= at < 930]
    yield "pool: outage: windows lost or given up", 0.0, 0, True
    yield judged("pool: outage: calls a second while it lasts", len(calls) / 899, 1, least=False)
    yield judged(
        "pool: outage: most calls in any 10 s of it",
        max(sum(s <= at < s + 10 for at in calls) for s in range(31, 920)),
        10,
        least=False,
    )
    yield judged("pool: outage: throughput 30 s after it", rate(came, 960, 1020) / rate(came, 15, 30), 0.9, least=True)


def run() -> Iterator[tuple[str, float, float | None, bool | None]]:
    random.seed(1)
    yield from limiter()
    yield from replicas()
    yield from refusing()
    yield from outage()
