"""One call on its way: who was asked, what failed, whose fault it was, and when it goes twice.

What an endpoint does to everybody is no failure of the call: it waits and goes again. It fails of itself only where
others, asked after it, went through; where there are no others, a canary is asked. An answer that cannot be read is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from streamproc.errors import NotBegun, Rejected, Retryable, SingledOut, StreamprocError, Throttled, Unreachable
from streamproc.messages import Tokens
from streamproc.models.call import Answer, Call, Heard
from streamproc.models.desk import Desk
from streamproc.models.failures import Garbled, Refused
from streamproc.models.prompt import BYTES_PER_TOKEN, Prompt
from streamproc.models.replicas import Replica
from streamproc.models.reply import Reply

OWN_FAILURES: Final = 3
"""After so many failures that nobody else had, it is the call."""

HEDGED_SHARE: Final = 0.05
"""Of calls that may go twice."""

HEDGE_AFTER: Final = 2.0
"""Times the latency that one call in twenty exceeds."""

SILENT_AFTER_S: Final = 2.0
"""A replica that answers nobody for this long, and for four such latencies, while others answer, is down."""

CANARY: Final = Call(prompt=Prompt("Answer with the word yes."), max_tokens=8)
"""Asked where one call alone fails again and again, and there is no other to tell whether it or the server is at fault."""


class Errand:
    """One call on its way: who was tried, what failed, what is its own fault. `route` says whose desk to go to now: the
    model's, or a stand-in's while it is out."""

    def __init__(
        self,
        model: str,
        call: Call,
        route: Callable[[], Desk],
        *,
        stream: str,
        live: bool,
        deadline_s: float,
        drained: asyncio.Event,
    ) -> None:
        """`drained`: nothing is sent any more once it is set."""
        self.model, self.call, self.route = model, call if live else replace(call, yields=True), route
        self.stream, self.live, self.deadline_s = stream, live, deadline_s
        self._drained = drained
        self.attempts = self.calls = self.own = self.unjudged = 0
        self.failed_at: float | None = None
        self.last: Replica | None = None
        self.tried = self.vouched = False
        self.refused = (0, 0.0)
        """Tokens and money that a refusal took."""

    async def run(self) -> Answer:
        asked_at = self.route().clock()
        while True:
            if self._drained.is_set():
                raise NotBegun(f"no call of {self.model} is begun any more: we are to stop")
            desk = self.route()
            not_at = frozenset((self.last,)) if self.last and self._others(desk, self.last) else frozenset[Replica]()
            replica = await desk.replicas.place(
                self.stream, live=self.live, not_at=not_at, again=self.attempts > 0, samples=self.call.samples
            )
            if replica is None:
                continue
            began = desk.clock()
            try:
                heard, winner_began = await self._raced(desk, replica)
            except Refused as e:
                if e.tokens is not None:
                    self.refused = e.tokens.into + e.tokens.out, desk.model.price(e.tokens)
                raise
            except Throttled:
                continue  # nobody's fault; the circuit is open, and the next place is given when it may be
            except Unreachable:
                self.last, self.tried = replica, True
                continue
            except Garbled as e:
                # Somebody is there, and this is what they say: another may do better, and waiting would not.
                self.own += 1
                if self.own >= OWN_FAILURES or not self._others(desk, replica):
                    raise SingledOut(str(e)) from e
                self.last, self.tried = replica, True
                continue
            except Retryable as e:
                self.last, self.tried = replica, True
                await self._judge(desk, e)
                continue
            tokens = heard.reply.tokens or _estimated(self.call, heard.reply)
            return Answer(
                model=desk.model.name,
                prompt=self.call.prompt.digest,
                reply=heard.reply,
                tokens=tokens,
                queued_s=began - asked_at,
                served_s=desk.clock() - winner_began,
                attempts=self.attempts,
                money=desk.model.price(tokens),
                notes=(*self._notes(desk, heard), *heard.notes),
            )

    def _notes(self, desk: Desk, heard: Heard) -> Iterator[str]:
        if desk.model.name != self.model:
            yield f"answered by {desk.model.name}: {self.model} is out"
        if heard.reply.tokens is None:
            yield "tokens estimated from the text: the server counts none"

    def _others(self, desk: Desk, than: Replica) -> bool:
        return any(r is not than and r.circuit.state == "closed" for r in desk.replicas.all)

    async def _judge(self, desk: Desk, e: Retryable) -> None:
        """Whose fault it was: the call's, where somebody else got an answer between its failures."""
        now = desk.clock()
        if self.failed_at is not None and desk.answered_at > self.failed_at:
            self.own, self.unjudged = self.own + 1, 0
        else:
            self.unjudged += 1
        if self.own >= OWN_FAILURES or self.vouched:
            raise SingledOut(str(e)) from e
        if self.unjudged >= OWN_FAILURES:
            self.vouched = await self._canary(desk)
        self.failed_at = now
        with suppress(TimeoutError):
            async with asyncio.timeout(min(5.0, 0.1 * 2**self.attempts) * desk.rng.uniform(0.5, 1.0)):
                await self._drained.wait()

    async def _canary(self, desk: Desk) -> bool:
        """Whether the server answers a call that nobody can fail at; then what fails next, fails of itself."""
        replica = await desk.replicas.place(self.stream, live=self.live)
        if replica is None:
            return False
        try:
            await desk.attempt(replica, CANARY, deadline_s=self.deadline_s)
        except Rejected:
            return True  # it has been read and answered
        except Retryable:
            return False
        return True

    async def _raced(self, desk: Desk, replica: Replica) -> tuple[Heard, float]:
        """The answer of the replica, or of a second one if the first is a straggler; the other call is cancelled."""
        tasks, asked = {self._send(desk, replica, hedge=False): (replica, desk.clock())}, {replica}
        failure: StreamprocError | None = None
        try:
            while tasks:
                patience_s = self._patience(desk, [began for _, began in tasks.values()])
                done, _ = await asyncio.wait(tasks, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    _, began = tasks.pop(task)
                    if (e := task.exception()) is None:
                        return task.result(), began
                    if not isinstance(e, Retryable):
                        raise e
                    failure = e
                if not done:
                    ((slow, began),) = tasks.values()  # perhaps the second: the first may have failed meanwhile
                    self._give_up_on_silent(desk, slow, began)
                    if (second := self._second(desk, not_at=frozenset(asked))) is not None:
                        asked.add(second)
                        tasks[self._send(desk, second, hedge=True)] = second, desk.clock()
            assert failure is not None
            raise failure
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _send(self, desk: Desk, replica: Replica, *, hedge: bool) -> asyncio.Task[Heard]:
        self.attempts += 1
        with_data = hedge or self.tried
        return asyncio.create_task(
            desk.attempt(
                replica, self.call, deadline_s=self.deadline_s, with_data=with_data, hedge=hedge, sent=self._sent
            )
        )

    def _sent(self) -> None:
        self.calls += 1

    def _patience(self, desk: Desk, began: Sequence[float]) -> float | None:
        """How long to wait before looking whether it is a straggler; None where there is nobody else to ask."""
        if len(began) > 1 or len(desk.replicas.all) < 2 or desk.late_s is None:
            return None
        due, now = began[0] + HEDGE_AFTER * desk.late_s, desk.clock()
        return due - now if due > now else max(0.25, desk.late_s)

    def _give_up_on_silent(self, desk: Desk, replica: Replica, began: float) -> None:
        """Raises where it has answered nobody for so long that it must be down, while others answer; opens its circuit."""
        assert desk.late_s is not None
        now, heard_at = desk.clock(), max(replica.answered_at, began)
        if now - heard_at < max(SILENT_AFTER_S, 4 * desk.late_s) or desk.answered_at <= heard_at:
            return
        why = f"silent for {now - heard_at:.1f} s"
        desk.shut(replica, why)
        raise Unreachable(replica.endpoint.url, why, remedy="It takes calls and answers none: look at its log")

    def _second(self, desk: Desk, not_at: frozenset[Replica]) -> Replica | None:
        """A place for a second call, as far as there is an allowance for it."""
        if desk.hedges + 1 > HEDGED_SHARE * desk.calls:
            return None
        second = desk.replicas.second(self.stream, not_at=not_at, samples=self.call.samples)
        desk.hedges += second is not None
        return second


def _estimated(call: Call, reply: Reply) -> Tokens:
    """Budgets must end also where nobody counts."""
    said = sum(len(s.text.encode()) + len((s.reasoning or "").encode()) for s in reply.samples)
    return Tokens(into=call.prompt.text_tokens, out=said // BYTES_PER_TOKEN)
