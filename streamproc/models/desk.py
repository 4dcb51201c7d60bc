"""One model's desk: its replicas, what is known of their latency, and the books that are kept of each attempt.

It sends one call to one replica and draws the conclusions for the replicas: who is alive, who is not, how many calls at a
time. What becomes of the call that failed is `errand`'s business.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from streamproc.errors import Rejected, Retryable, Throttled, Unreachable
from streamproc.messages import Tokens
from streamproc.models.budget import Quota, until_midnight_s
from streamproc.models.call import Call, Heard
from streamproc.models.circuit import LOOKS_EVERY_S
from streamproc.models.failures import Garbled, QuotaSpent, Refused
from streamproc.models.limiter import STARTS_AT
from streamproc.models.replicas import LONG_WAIT_S, Asked, Replica, Replicas

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: its replicas with their weights, what it costs and allows, and who stands in for it."""

    name: str
    endpoints: Sequence[tuple[Asked, float]]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """What a call is made with that does not say so itself."""
    price: Callable[[Tokens], float] = field(default=lambda _tokens: 0.0)
    """In dollars."""
    quota: Quota | None = None
    stand_ins: tuple[str, ...] = ()
    starts_at: int = STARTS_AT
    """Calls at a time, of each replica, before anything is known of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One attempt at an ask, for metrics and logs: no text, no key, no picture."""

    model: str
    url: str
    outcome: str
    """`done`, or the class of the error."""
    seconds: float
    tokens: Tokens | None = None
    hedge: bool = False
    calls: int = 1
    """What it took: samples may take one each, and pictures the server has lost are sent again."""
    sent_bytes: int = 0


TRIAL_S: Final = 30.0

SENT_AWAY: Final = 2
"""So many trials in a row that end in a 429 are no crowd any more: then people are told, as of an outage."""

AGAIN_AFTER_S: Final = (60.0, 3600.0)
"""An outage is told again when it has lasted twice as long, between these: of one that ends by itself little is said, and
one that does not, as a wrong URL, stays in sight."""


class Desk:
    def __init__(
        self,
        model: Model,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: random.Random,
        record: Callable[[Record], None],
    ) -> None:
        self.model, self.clock, self.rng = model, clock, rng
        self.replicas = Replicas(
            model.endpoints, clock=clock, wall=wall, rng=rng, quota=model.quota, starts_at=model.starts_at
        )
        self.answered_at = -1.0
        self.calls = self.hedges = 0
        self.late_s: float | None = None
        """What one call in twenty exceeds; None until enough were heard."""
        self._wall, self._record = wall, record
        self._latencies = deque[float](maxlen=256)
        self._told = dict[Replica, tuple[float, float]]()
        """Replicas that are out, and were said to be: first when, and last when."""

    async def attempt(
        self,
        replica: Replica,
        call: Call,
        *,
        deadline_s: float,
        with_data: bool = False,
        hedge: bool = False,
        sent: Callable[[], None] = lambda: None,
    ) -> Heard:
        """Sends it and keeps the books, whatever becomes of it; the place at the replica is given back. `sent` is told of
        each call that goes out: samples may take one each."""
        began = self.clock()
        calls, foreseen = 0, replica.endpoint.takes(call.samples)

        def goes_out() -> None:
            nonlocal calls
            calls += 1
            if calls > foreseen:
                self.replicas.another()
            sent()

        if replica.circuit.state == "trying" and self.late_s is not None:
            # Everybody waits for what this one call shows, so it gets what a good call needs, and not all that it may have.
            deadline_s = min(deadline_s, max(TRIAL_S, 10 * self.late_s))
        outcome, heard, tokens = "cancelled", None, None
        try:
            heard = await replica.endpoint.ask(call, deadline_s=deadline_s, with_data=with_data, sent=goes_out)
            outcome, tokens = "done", heard.reply.tokens
        except (Rejected, Garbled) as e:
            outcome, tokens = type(e).__name__, e.tokens if isinstance(e, Refused) else None
            self._alive(replica, began)  # an answer, if not the one that was hoped for
            raise
        except Retryable as e:
            outcome = type(e).__name__
            self._failed(replica, e, began)
            raise
        else:
            self._alive(replica, began)
            self._heard(self.clock() - began)
            return heard
        finally:
            now = self.clock()
            replica.circuit.gave_up(now, started=began)
            load = heard.reply.load if heard else None
            self.replicas.leave(
                replica, latency_s=now - began if heard else None, waiting=load.waiting if load else None
            )
            self._record(
                Record(
                    model=self.model.name,
                    url=replica.endpoint.url,
                    outcome=outcome,
                    seconds=now - began,
                    tokens=tokens,
                    hedge=hedge,
                    calls=calls,
                    sent_bytes=heard.sent_bytes if heard else 0,
                )
            )

    def shut(self, replica: Replica, why: str) -> None:
        """It is down, though it did not say so."""
        now = self.clock()
        if replica.circuit.failed(now, started=now, why=why, at_once=True):
            self._out(replica, why)
            self._opened(replica)

    def _heard(self, latency_s: float) -> None:
        self.calls += 1
        self._latencies.append(latency_s)
        if len(self._latencies) >= 20 and self.calls % 16 == 0:
            self.late_s = sorted(self._latencies)[int(0.95 * len(self._latencies))]

    def _alive(self, replica: Replica, began: float) -> None:
        self.answered_at = replica.answered_at = self.clock()
        if replica.circuit.succeeded(started=began):
            replica.endpoint.forget()
            if self._told.pop(replica, None):
                log.warning("%s answers again", replica.endpoint.url)

    def _failed(self, replica: Replica, e: Retryable, began: float) -> None:
        now, circuit = self.clock(), replica.circuit
        wait_s = (e.retry_after_s or 0.0) if isinstance(e, Throttled) else 0.0
        if isinstance(e, QuotaSpent) and e.retry_after_s is None:
            wait_s = until_midnight_s(self._wall())
        if isinstance(e, Throttled):
            replica.limiter.throttled(now)
        was, why = circuit.state, _why(e, wait_s)
        opened = circuit.failed(
            now,
            started=began,
            why=why,
            at_once=isinstance(e, Unreachable) or (isinstance(e, Throttled) and not self._one_too_many(replica, e)),
            wait_s=wait_s,
        )
        if was == "open" or circuit.state != "open":
            return  # it says nothing new, or not enough
        if isinstance(e, QuotaSpent):
            self.replicas.hold_back(min(wait_s, LOOKS_EVERY_S))
        if not isinstance(e, Throttled) or _lasts(e, wait_s) or circuit.in_vain >= SENT_AWAY:
            self._out(replica, why)
        if opened:
            self._opened(replica)

    def _one_too_many(self, replica: Replica, e: Throttled) -> bool:
        """One was refused while others have their places, and nothing was said of a rest: fewer at a time will do."""
        return e.retry_after_s is None and not isinstance(e, QuotaSpent) and replica.limiter.in_flight > 1

    def _out(self, replica: Replica, why: str) -> None:
        """Its calls wait, and nobody else would say what for. A 429 is no outage, unless it is all there is, or asks for
        a long rest, or is about a quota: those may last till midnight."""
        now, url = self.clock(), replica.endpoint.url
        if replica not in self._told:
            self._told[replica] = now, now
            log.warning("%s is out, calls wait: %s", url, why)
        began, told_at = self._told[replica]
        if now - told_at >= min(max(told_at - began, AGAIN_AFTER_S[0]), AGAIN_AFTER_S[1]):
            log.warning("%s is still out after %s, calls wait: %s", url, _long(now - began), why)
            self._told[replica] = began, now

    def _opened(self, replica: Replica) -> None:
        """Those in its line choose again, among the others; all of them, where perhaps a stand-in is to be asked."""
        self.replicas.look_again([replica] if self.replicas.up() else None)


def _lasts(e: Throttled, wait_s: float) -> bool:
    return isinstance(e, QuotaSpent) or wait_s > LONG_WAIT_S


def _why(e: Retryable, wait_s: float) -> str:
    """What it said, and how long that holds where it is long."""
    if not isinstance(e, Throttled) or not _lasts(e, wait_s):
        return str(e)
    but = f" but one call every {_long(LOOKS_EVERY_S)}" if wait_s > LOOKS_EVERY_S else ""
    said = "quota spent" if isinstance(e, QuotaSpent) else "as it says"
    return f"{said}, nothing is asked for {_long(wait_s)}{but}: {e}"


def _long(seconds: float) -> str:
    """A wait as people say it."""
    minutes, hours = round(seconds / 60), seconds / 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
