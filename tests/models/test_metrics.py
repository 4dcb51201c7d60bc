"""Calls in numbers, from a pool on a real observer."""

from __future__ import annotations

import random

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from streamproc.models.budget import Budgets, Limits, OverBudget
from streamproc.models.call import Call
from streamproc.models.card import served
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
