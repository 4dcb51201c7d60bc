"""Budgets: what a crowd may spend, what counts, and what is left out. The steps before the end stand in `test_pool`."""

from __future__ import annotations

import asyncio

import pytest

from streamproc.errors import LeftOut
from streamproc.models.budget import Budgets, Limits, OverBudget, Spent
from streamproc.models.failures import BadRequest
from tests.models.test_pool import CALL, Simulated, a_pool, raises
from tests.models.virtual import virtually

NAMES = ("source:m", "task:t")


async def crowd(budgets: Budgets, *, callers: int, replica: Simulated) -> list[BaseException | None]:
    """All at once; what became of each."""
    pool = a_pool(replica, budgets=budgets)
    asks = [pool.ask("m", CALL, stream="m", budgets=NAMES) for _ in range(callers)]
    return [e if isinstance(e, BaseException) else None for e in await asyncio.gather(*asks, return_exceptions=True)]


def test_a_crowd_that_begins_together_makes_no_call_more_than_the_budget_has() -> None:
    budgets, replica = Budgets({"task:t": Limits(calls=10)}), Simulated(slots=64, knee=64)
    ended = virtually(lambda: crowd(budgets, callers=200, replica=replica))
    assert len(replica.asked) == 10
    assert sum(isinstance(e, OverBudget) for e in ended) == 190
    assert budgets.spent["task:t"] == Spent(tokens=1100, calls=10, answered=10, left_out=190)


def test_tokens_of_calls_that_are_under_way_count_as_those_of_calls_before() -> None:
    budgets, replica = Budgets({"task:t": Limits(tokens=11_000)}), Simulated(slots=64, knee=64)

    async def main() -> None:
        pool = a_pool(replica, budgets=budgets)
        await pool.ask("m", CALL, stream="m", budgets=NAMES)
        asks = [pool.ask("m", CALL, stream="m", budgets=NAMES) for _ in range(500)]
        await asyncio.gather(*asks, return_exceptions=True)

    virtually(main)
    assert budgets.spent["task:t"].tokens == 11_000  # a hundred calls of 110


def test_money_is_counted_by_the_price_of_the_model() -> None:
    budgets = Budgets({"task:t": Limits(money=1.0)})
    budgets.begin(NAMES)
    budgets.end(NAMES, tokens=1000, calls=1, money=0.25)
    assert budgets.share("task:t") == 0.25
    budgets.begin(NAMES)  # under way, and likely to cost as much
    assert budgets.share("task:t") == 0.5


def test_calls_that_fail_are_calls_all_the_same() -> None:
    budgets, replica = Budgets({"task:t": Limits(calls=10)}), Simulated(slots=64, knee=64)
    replica.wrong = raises(BadRequest("400"))

    async def main() -> list[type[BaseException]]:
        pool, ended = a_pool(replica, budgets=budgets), list[type[BaseException]]()
        for _ in range(15):
            try:
                await pool.ask("m", CALL, stream="m", budgets=NAMES)
            except (BadRequest, OverBudget) as e:
                ended.append(type(e))
        return ended

    assert virtually(main) == [BadRequest] * 10 + [OverBudget] * 5
    assert budgets.spent["task:t"].under_way == 0


def test_a_call_that_is_given_up_is_no_longer_under_way() -> None:
    budgets, replica = Budgets({"task:t": Limits(calls=10)}), Simulated(slots=64, knee=64, seconds=100)

    async def main() -> None:
        ask = asyncio.create_task(a_pool(replica, budgets=budgets).ask("m", CALL, stream="m", budgets=NAMES))
        await asyncio.sleep(1)
        ask.cancel()
        await asyncio.gather(ask, return_exceptions=True)

    virtually(main)
    spent = budgets.spent["task:t"]
    assert (spent.under_way, spent.calls, spent.answered) == (0, 1, 0)


def test_the_budget_that_is_nearest_its_end_decides() -> None:
    budgets = Budgets({"source:m": Limits(calls=1000), "task:t": Limits(calls=2)})
    virtually(lambda: crowd(budgets, callers=5, replica=Simulated()))
    assert {name: (s.calls, s.left_out) for name, s in budgets.spent.items()} == {
        "source:m": (2, 0),
        "task:t": (2, 3),
    }


def test_who_has_no_budget_pays_nothing() -> None:
    budgets = Budgets({"task:other": Limits(calls=1)})
    assert virtually(lambda: crowd(budgets, callers=20, replica=Simulated())) == [None] * 20
    assert budgets.spent["task:other"].calls == 0


def test_what_is_left_out_is_no_dead_letter_and_says_budget() -> None:
    with pytest.raises(LeftOut, match="the budget of 'task:t' is spent") as caught:
        Budgets({"task:t": Limits(calls=0)}).within(CALL, NAMES)
    assert caught.value.reason == "budget"
