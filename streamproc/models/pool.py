"""All models of a process, kept busy: a call goes in, an answer comes out, whichever replica gave it.

While an endpoint is out, calls wait here and almost none goes out; nothing is rejected for what the endpoint did. A call
fails of itself only where others, asked after it, went through, or where the answer is one that nobody can read. What is
raised then is Retryable or Rejected by its class, and the runner decides.

    waits            outage, 429, quota, no free place
    goes elsewhere   a replica that is down, silent or slow; another model, where one is named as its stand-in
    goes twice       a straggler, within a twentieth of all calls
    raises           Rejected at once; Retryable after three failures of its own; OverBudget; NotBegun once we are to stop

It knows no bus and no runner. Clock, wall clock and randomness are arguments, so a test can let ten minutes pass at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamproc.errors import Misconfigured, Unreachable
from streamproc.models.budget import Budgets
from streamproc.models.call import Answer, Call
from streamproc.models.desk import Desk, Model, Record
from streamproc.models.errand import Errand
from streamproc.models.failures import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    url: str
    in_flight: int
    limit: int
    waiting: int
    circuit: str
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    model: str
    replicas: tuple[ReplicaStatus, ...]
    waits_s: float
    """Until a quota that is spent begins anew, or one call looks whether it has been raised."""


class Pool:
    def __init__(
        self,
        models: Sequence[Model],
        *,
        budgets: Budgets | None = None,
        record: Callable[[Record], None] = lambda _record: None,
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        self._wall, self._rng, self._record = wall, rng or random.Random(), record
        self.budgets = budgets or Budgets()
        self._drained = asyncio.Event()
        self._desks: dict[str, Desk] = {}
        self.add(*models)

    def add(self, *models: Model) -> None:
        """More of them, while others are asked. A name that is there stays what it is."""
        for m in models:
            if m.name not in self._desks:
                self._desks[m.name] = Desk(
                    m,
                    clock=self._clock,
                    wall=self._wall,
                    rng=self._rng,
                    record=self._record,
                )
        for m in models:
            for name in (*m.stand_ins, *(() if m.endpoints else (m.name,))):
                if name not in self._desks or not self._desks[name].model.endpoints:
                    raise Misconfigured(f"model '{m.name}': '{name}' has no endpoint")

    def sampling(self, model: str) -> Mapping[str, Any]:
        """What a call to it is made with, as its card says, where the call itself says nothing."""
        return self._desks[model].model.sampling if model in self._desks else {}

    async def ask(
        self,
        model: str,
        call: Call,
        *,
        stream: str,
        live: bool = True,
        deadline_s: float = 300.0,
        budgets: tuple[str, ...] = (),
        patience_s: float | None = None,
    ) -> Answer:
        """The answer. `deadline_s` is one attempt's; `patience_s` how long an outage is waited out (None: to its end)."""
        call, notes = self.budgets.within(call, budgets)
        errand = Errand(
            model,
            call,
            lambda: self._route(model),
            stream=stream,
            live=live,
            deadline_s=deadline_s,
            drained=self._drained,
        )
        self.budgets.begin(budgets)
        tokens, money = 0, 0.0
        try:
            async with asyncio.timeout(patience_s):
                answer = await errand.run()
            tokens, money = answer.tokens.into + answer.tokens.out, answer.money
        except Refused:
            tokens, money = errand.refused
            raise
        except TimeoutError as e:
            raise Unreachable(f"model '{model}'", f"no answer within {patience_s} s", remedy=self._remedy(model)) from e
        finally:  # also what failed or was cancelled has been called
            self.budgets.end(budgets, tokens=tokens, calls=errand.calls, money=money)
        return replace(answer, notes=(*notes, *answer.notes))

    def drain(self) -> None:
        """Calls that have been sent are waited for, and landed; no other is sent: whoever asks, or waits, gets NotBegun."""
        self._drained.set()
        for desk in self._desks.values():
            desk.replicas.look_again()

    def status(self) -> tuple[Status, ...]:
        now = self._clock()
        return tuple(
            Status(
                model=name,
                replicas=tuple(
                    ReplicaStatus(
                        url=r.endpoint.url,
                        in_flight=r.limiter.in_flight,
                        limit=r.limiter.limit,
                        waiting=r.waiting,
                        circuit=r.circuit.state,
                        why=r.circuit.why,
                    )
                    for r in desk.replicas.all
                ),
                waits_s=max(0.0, desk.replicas.waits_until - now),
            )
            for name, desk in self._desks.items()
        )

    def close(self) -> None:
        for desk in self._desks.values():
            desk.replicas.close()

    def _remedy(self, model: str) -> str:
        why = [r.circuit.why for r in self._desks[model].replicas.all if r.circuit.why]
        return why[0] if why else "`streamproc status` shows what waits for what"

    def _route(self, model: str) -> Desk:
        """Whom to ask now: the model, or the first of its stand-ins that is up, while it is not. Now and then one call asks
        the model all the same: nobody else would see that it is back."""
        if model not in self._desks:
            raise Misconfigured(f"no model '{model}' in this pool; there are {', '.join(self._desks)}")
        own = self._desks[model]
        names = () if own.replicas.up() or own.replicas.to_be_looked_at() else own.model.stand_ins
        return next((self._desks[n] for n in names if self._desks[n].replicas.up()), own)
