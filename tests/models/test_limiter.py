"""Concurrency finds itself on a simulated server, in virtual time. How close it comes is measured by the bench."""

from __future__ import annotations

import asyncio

from streamproc.models.limiter import Limiter
from tests.models.virtual import Server, virtually


async def driven(limiter: Limiter, server: Server, *, until: float, demand: int = 10_000) -> list[int]:
    """Always as many calls as the limit lets, up to the demand; the limit at every second."""
    loop, limits, wake = asyncio.get_running_loop(), list[int](), asyncio.Event()

    async def one() -> None:
        began = loop.time()
        await server.serve()
        limiter.finished(loop.time(), latency_s=loop.time() - began)
        wake.set()

    async with asyncio.TaskGroup() as group:
        while loop.time() < until:
            while not limiter.full and limiter.in_flight < demand:
                limiter.started(loop.time())
                group.create_task(one())
            if loop.time() >= len(limits):
                limits.append(limiter.limit)
            wake.clear()
            await wake.wait()
    return limits


def middle(limits: list[int]) -> float:
    return sorted(limits)[len(limits) // 2]


def test_it_finds_the_slots_of_a_server_and_follows_when_they_change() -> None:
    async def main() -> tuple[list[int], list[int], list[int]]:
        limiter, server = Limiter(), Server(slots=40, knee=1000, seconds=0.25)
        first = await driven(limiter, server, until=60)
        server.slots = 15
        second = await driven(limiter, server, until=120)
        server.slots = 60
        return first, second, await driven(limiter, server, until=180)

    first, second, third = virtually(main)
    assert 36 <= middle(first[30:]) <= 48
    assert 13 <= middle(second[90:]) <= 19
    assert 52 <= middle(third[150:]) <= 80


def test_it_learns_nothing_where_there_is_too_little_work() -> None:
    async def main() -> list[int]:
        return await driven(Limiter(), Server(slots=100, knee=1000, seconds=0.25), until=60, demand=10)

    assert max(virtually(main)) <= 16


def test_the_servers_own_count_of_waiting_calls_brings_it_down() -> None:
    limiter = Limiter(starts_at=100)
    now = 0.0
    for _ in range(100):
        limiter.started(now)
    for _ in range(2000):
        now += 0.01
        limiter.finished(now, latency_s=1.0, waiting=50.0)
        if not limiter.full:
            limiter.started(now)
    assert limiter.limit <= 64


def test_a_429_takes_a_third_and_many_at_once_are_one() -> None:
    limiter = Limiter(starts_at=100)
    for _ in range(100):
        limiter.started(0.0)
    for _ in range(50):
        limiter.throttled(1.0)
        limiter.finished(1.0, latency_s=None)
    assert limiter.limit == 70


def test_a_429_on_a_call_that_was_alone_changes_nothing() -> None:
    limiter = Limiter(starts_at=100)
    limiter.started(0.0)
    limiter.throttled(1.0)
    assert limiter.limit == 100


def test_a_crowd_at_the_start_is_taken_back_where_the_server_serves_one_by_one() -> None:
    async def main() -> list[int]:
        return await driven(Limiter(starts_at=32), Server(slots=1, knee=1000, seconds=0.5), until=60)

    limits = virtually(main)
    assert limits[0] == 32
    assert max(limits[20:]) <= 12


def test_a_crowd_at_the_start_stays_where_the_server_takes_it() -> None:
    async def main() -> list[int]:
        return await driven(Limiter(starts_at=32), Server(slots=64, knee=1000, seconds=0.5), until=10)

    assert min(virtually(main)) >= 32
