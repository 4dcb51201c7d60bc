"""Calls in numbers, from a pool on a real observer."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from streamproc.models.body import Manner
from streamproc.models.budget import Budgets, Limits, OverBudget
from streamproc.models.call import Call
from streamproc.models.card import served
from streamproc.models.desk import Record
from streamproc.models.endpoint import Endpoint
from streamproc.models.failures import Refused
from streamproc.models.metrics import Meter
from streamproc.models.observer import running
from streamproc.models.opening import model_of
from streamproc.models.pool import Pool
from streamproc.models.prompt import Prompt
from streamproc.models.transport import AiohttpTransport


async def test_calls_tokens_limit_and_circuit_are_counted_by_model() -> None:
    registry = CollectorRegistry()
    meter = Meter(registry)
    async with running() as (url, _), AiohttpTransport() as transport:
        model = model_of(served(f"observer@{url}"), environ={}, transport=transport)
        budgets = Budgets({"task:t": Limits(calls=1)})
        pool = Pool([model], record=meter.record, budgets=budgets, rng=random.Random(1))
        meter.watch(pool)
        call = Call(prompt=Prompt("What happens?"))
        answer = await pool.ask("observer", call, stream="s", budgets=("task:t",))
        with pytest.raises(OverBudget):
            await pool.ask("observer", call, stream="s", budgets=("task:t",))
    said = generate_latest(registry).decode()
    assert 'streamproc_endpoint_calls_total{model="observer",outcome="done"} 1.0' in said
    assert f'streamproc_endpoint_tokens_total{{kind="in",model="observer"}} {float(answer.tokens.into)}' in said
    assert f'streamproc_endpoint_circuit{{model="observer",url="{url}"}} 0.0' in said
    assert f'streamproc_endpoint_limit{{model="observer",url="{url}"}} 4.0' in said
    assert 'streamproc_budget_spent_ratio{budget="task:t"} 1.0' in said
    assert 'streamproc_budget_left_out_total{budget="task:t"} 1.0' in said
    assert 'streamproc_endpoint_call_seconds_count{model="observer"} 1.0' in said


@pytest.mark.parametrize(("fault", "says"), [("refuse", "observer at"), ("filter", "stopped by a content filter")])
async def test_a_refusal_is_paid_for_as_any_answer_is(fault: str, says: str) -> None:
    registry, records = CollectorRegistry(), list[Record]()
    meter = Meter(registry)

    def record(of: Record) -> None:
        records.append(of)
        meter.record(of)

    async with running() as (url, _), AiohttpTransport() as transport:
        model = model_of(served(f"observer@{url}"), environ={}, transport=transport)
        endpoint = Endpoint(url, Manner(model="observer"), transport=transport, headers={"x-observer": fault})
        budgets = Budgets({"task:t": Limits(money=1.0)})
        refusing = replace(model, endpoints=[(endpoint, 1.0)], price=lambda tokens: tokens.into / 100)
        pool = Pool([refusing], record=record, budgets=budgets, rng=random.Random(1))
        with pytest.raises(Refused, match=says):
            await pool.ask("observer", Call(prompt=Prompt("What happens?")), stream="s", budgets=("task:t",))
    (record_of,) = records
    assert record_of.outcome == "Refused"
    assert record_of.tokens is not None
    spent = budgets.spent["task:t"]
    assert spent.tokens == record_of.tokens.into + record_of.tokens.out > 0
    assert spent.money == record_of.tokens.into / 100
    said = generate_latest(registry).decode()
    assert f'streamproc_endpoint_tokens_total{{kind="in",model="observer"}} {float(record_of.tokens.into)}' in said
