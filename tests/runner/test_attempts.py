"""Failure classes, backoff, circuit; in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import TypeVar

import pytest

from streamproc.errors import Misconfigured, Rejected, Retryable, SingledOut, Throttled
from streamproc.runner.attempts import Attempts, Backoff, Circuit, GaveUp
from tests.sim import clock

T = TypeVar("T")

BACKOFF = Backoff(first_s=0.1, most_s=10.0, attempts=8, opens_after=5)


async def rest(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def ready() -> None:
    return None


class Endpoint:
    """Answers by a script: an error class, or anything else."""

    def __init__(self, behave: Callable[[int, float], Exception | None]) -> None:
        self.behave = behave
        self.calls: list[float] = []

    async def call(self) -> str:
        now = asyncio.get_running_loop().time()
        self.calls.append(now)
        await asyncio.sleep(0)  # there and back, if only in no time
        if error := self.behave(len(self.calls), now):
            raise error
        return "answer"


def attempts() -> Attempts:
    return Attempts(Circuit(BACKOFF, rng=random.Random(1)), rng=random.Random(2))


def test_a_failure_that_passes_is_tried_again() -> None:
    async def story() -> None:
        endpoint = Endpoint(lambda n, _: Retryable("500") if n < 3 else None)
        assert await attempts().run(endpoint.call, ready=ready, rest=rest) == "answer"
        assert len(endpoint.calls) == 3

    clock.run(story())


def test_an_input_that_fails_while_others_pass_is_given_up() -> None:
    async def story() -> None:
        tries = attempts()
        good, bad = Endpoint(lambda *_: None), Endpoint(lambda *_: Retryable("500"))

        async def others() -> None:
            while True:
                await tries.run(good.call, ready=ready, rest=rest)
                await asyncio.sleep(0.05)

        background = asyncio.create_task(others())
        with pytest.raises(GaveUp, match="gave up: 500"):
            await tries.run(bad.call, ready=ready, rest=rest)
        assert not tries.circuit.open
        background.cancel()

    clock.run(story())


def test_an_outage_opens_the_circuit_and_gives_nobody_up() -> None:
    async def story() -> None:
        tries = attempts()
        endpoint = Endpoint(lambda _, now: Retryable("refused") if now < 600 else None)
        runs = [asyncio.create_task(tries.run(endpoint.call, ready=ready, rest=rest)) for _ in range(20)]
        await asyncio.sleep(60)
        assert tries.circuit.open
        assert await asyncio.gather(*runs) == ["answer"] * 20
        during = [t for t in endpoint.calls if 10 < t < 600]
        assert all(b - a >= 1.0 for a, b in pairwise(during)), "at most one call a second"
        assert not tries.circuit.open

    clock.run(story())


def test_while_the_circuit_is_open_intake_is_asked_for_a_fresh_input_when_all_have_failed() -> None:
    async def story() -> None:
        tries = attempts()
        poison = Endpoint(lambda *_: Retryable("500: crashed on this picture"))
        stuck = asyncio.create_task(tries.run(poison.call, ready=ready, rest=rest))
        await asyncio.sleep(BACKOFF.most_s)
        while not tries.circuit.takes_in:
            await tries.circuit.changed()
        good = Endpoint(lambda *_: None)
        assert await tries.run(good.call, ready=ready, rest=rest) == "answer"
        assert not tries.circuit.open, "one answer shows that it was no outage"

        async def others() -> None:
            while True:
                await asyncio.sleep(0.05)
                await tries.run(good.call, ready=ready, rest=rest)

        background = asyncio.create_task(others())
        with pytest.raises(GaveUp):
            await stuck
        background.cancel()

    clock.run(story())


def test_an_input_that_fails_alone_is_given_up_also_where_there_is_no_other_to_ask() -> None:
    async def story() -> None:
        tries = attempts()
        endpoint = Endpoint(lambda *_: SingledOut("500: crashed on this picture, and answers others"))
        with pytest.raises(GaveUp, match="gave up: 500"):
            await tries.run(endpoint.call, ready=ready, rest=rest)
        assert not tries.circuit.open, "this was no outage"

    clock.run(story())


def test_throttling_waits_as_long_as_it_was_told_and_is_no_failure_of_the_input() -> None:
    async def story() -> None:
        tries = attempts()
        endpoint = Endpoint(lambda n, _: Throttled("429", retry_after_s=7) if n < 30 else None)
        assert await tries.run(endpoint.call, ready=ready, rest=rest) == "answer"
        gaps = [b - a for a, b in pairwise(endpoint.calls)]
        assert min(gaps) >= 7

    clock.run(story())


def test_a_rejection_is_an_answer() -> None:
    async def story() -> None:
        tries = attempts()
        endpoint = Endpoint(lambda *_: Rejected("400"))
        with pytest.raises(Rejected, match="400"):
            await tries.run(endpoint.call, ready=ready, rest=rest)
        assert len(endpoint.calls) == 1

    clock.run(story())


def test_a_probe_that_is_cancelled_leaves_the_looking_to_another() -> None:
    async def story() -> None:
        tries = attempts()
        hang = asyncio.Event()

        async def hanging() -> str:
            if tries.circuit.open:
                await hang.wait()
            raise Retryable("500")

        first = asyncio.create_task(tries.run(hanging, ready=ready, rest=rest))
        await asyncio.sleep(BACKOFF.most_s)
        assert tries.circuit.open
        await asyncio.sleep(60)  # it looks by now, and hangs
        second = Endpoint(lambda *_: None)
        other = asyncio.create_task(tries.run(second.call, ready=ready, rest=rest))
        await asyncio.sleep(1)
        assert second.calls == []
        first.cancel()
        assert await other == "answer"

    clock.run(story())


async def no_call() -> str:
    return "known already"


def test_an_outage_opens_the_circuit_also_where_every_second_record_needs_no_call() -> None:
    async def story() -> None:
        tries = attempts()
        endpoint = Endpoint(lambda _, now: Retryable("refused") if now < 60 else None)
        runs = [asyncio.create_task(tries.run(endpoint.call, ready=ready, rest=rest)) for _ in range(10)]
        while not tries.circuit.open:
            assert await tries.run(no_call, ready=ready, rest=rest) == "known already"
            await asyncio.sleep(0.01)
        assert await asyncio.gather(*runs) == ["answer"] * 10
        assert not tries.circuit.open

    clock.run(story())


def test_a_record_that_needs_no_call_passes_while_the_circuit_is_open_and_leaves_the_looking_to_another() -> None:
    async def refuse_what_it_sees() -> str:
        raise Rejected("no frames")

    async def story() -> None:
        tries = attempts()
        endpoint = Endpoint(lambda _, now: Retryable("refused") if now < 60 else None)
        stuck = asyncio.create_task(tries.run(endpoint.call, ready=ready, rest=rest))
        await asyncio.sleep(BACKOFF.most_s)
        assert tries.circuit.open
        while asyncio.get_running_loop().time() < 50:
            await asyncio.sleep(2)
            async with asyncio.timeout(60):
                assert await tries.run(no_call, ready=ready, rest=rest) == "known already"
                with pytest.raises(Rejected, match="no frames"):
                    await tries.run(refuse_what_it_sees, ready=ready, rest=rest)
            assert tries.circuit.open, "nobody has heard of the endpoint so far"
        assert await stuck == "answer"
        assert not tries.circuit.open

    clock.run(story())


def test_a_handler_that_fails_without_waiting_can_also_close_the_circuit_it_opened() -> None:
    async def story() -> None:
        tries, failures = attempts(), iter(range(7))

        async def shaky() -> str:
            if next(failures, None) is not None:
                raise Retryable("locked")
            return "answer"

        assert await tries.run(shaky, ready=ready, rest=rest) == "answer"
        assert not tries.circuit.open

    clock.run(story())


def test_fewer_attempts_than_open_the_circuit_are_refused() -> None:
    with pytest.raises(Misconfigured, match="an outage dead-letters"):
        Backoff(attempts=5, opens_after=5)


def test_those_who_leave_in_an_outage_send_nobody_else_to_look() -> None:
    """As a lease does that is handed over: those of other leases wait on, one of them looks at a time."""

    async def story() -> None:
        tries, endpoint = attempts(), Endpoint(lambda *_: Retryable("500"))
        calls = [asyncio.create_task(tries.run(endpoint.call, ready=ready, rest=rest)) for _ in range(40)]
        await asyncio.sleep(30)
        assert tries.circuit.open
        before = len(endpoint.calls)
        for call in calls[:20]:
            call.cancel()
        await asyncio.sleep(20)
        assert before < len(endpoint.calls)
        assert all(b - a >= 0.99 for a, b in pairwise(endpoint.calls[before - 1 :]))
        for call in calls:
            call.cancel()

    clock.run(story())


def test_whoever_was_to_look_and_leaves_sends_another() -> None:
    async def story() -> None:
        tries, endpoint = attempts(), Endpoint(lambda n, _: Retryable("500") if n < 8 else None)
        gone: list[asyncio.Task[str]] = []

        async def leaves(awaitable: Awaitable[T]) -> T:
            """It may go on, and is cancelled before it does."""
            answer = await awaitable
            if tries.circuit.open and not gone and (task := asyncio.current_task()):
                gone.append(task)
                task.cancel()
                await asyncio.sleep(0)
            return answer

        calls = [asyncio.create_task(tries.run(endpoint.call, ready=ready, rest=leaves)) for _ in range(7)]
        done, _ = await asyncio.wait(calls, timeout=600)
        assert len(done) == 7
        assert [call for call in calls if call.cancelled()] == gone
        assert all(call.result() == "answer" for call in calls if call not in gone)

    clock.run(story())
