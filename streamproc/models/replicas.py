"""The replicas of one model, and who is given to whom: health, places, affinity, and the line of those who wait.

A stream has a favourite (weighted rendezvous hashing), so that the pictures two windows share meet in one cache. It goes
elsewhere only when its favourite is full and somebody else is not: then whoever has a free place takes from the longest
line. Live goes before replay everywhere. Nothing is sent here.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from streamproc.models.budget import Quota
from streamproc.models.call import Call, Heard
from streamproc.models.circuit import Circuit
from streamproc.models.limiter import Limiter

LEAST_ALARM_S: Final = 0.001

LONG_WAIT_S: Final = 60.0
"""A quota by the minute is waited for; a longer wait is a reason to ask another model, where one is named."""


class Asked(Protocol):
    """What answers: an `Endpoint`, or whatever behaves like one."""

    @property
    def url(self) -> str: ...
    async def ask(
        self, call: Call, *, deadline_s: float, with_data: bool = False, sent: Callable[[], None] = ...
    ) -> Heard:
        """`sent` is told of each call that goes out, before it does."""

    def takes(self, samples: int) -> int:
        """Calls for so many samples, as far as is known."""

    def forget(self) -> None:
        """It may have restarted: what it was shown is gone."""


class Replica:
    def __init__(self, endpoint: Asked, *, weight: float, rng: random.Random, starts_at: int) -> None:
        self.endpoint, self.weight = endpoint, weight
        self.limiter, self.circuit = Limiter(starts_at=starts_at), Circuit(rng)
        self.answered_at = -math.inf
        self.lines: dict[bool, deque[Waiter]] = {True: deque(), False: deque()}
        """Live or not → who waits for this one. As long as there are callers, whom the runner bounds: none is turned away."""

    def free(self, now: float) -> bool:
        if not self.circuit.lets(now):
            return False
        return not self.limiter.full if self.circuit.state == "closed" else True

    @property
    def waiting(self) -> int:
        return len(self.lines[True]) + len(self.lines[False])


class Waiter:
    """Somebody in line. Gets a replica, or None: look again, the world has changed."""

    __slots__ = ("not_at", "samples", "turn")

    def __init__(self, not_at: frozenset[Replica], samples: int) -> None:
        self.turn: asyncio.Future[Replica | None] = asyncio.get_running_loop().create_future()
        self.not_at, self.samples = not_at, samples


class Replicas:
    """`clock` is the loop's, or a test's; `wall` is for days."""

    def __init__(
        self,
        endpoints: Sequence[tuple[Asked, float]],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: random.Random,
        quota: Quota | None = None,
        starts_at: int = 4,
    ) -> None:
        self.all = [Replica(e, weight=w, rng=rng, starts_at=starts_at) for e, w in endpoints]
        self._clock, self._wall, self._quota = clock, wall, quota
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self.waits_until = -math.inf
        """A quota that is spent; nothing starts before."""

    def up(self) -> bool:
        """Whether anybody here can be expected to answer soon."""
        return self.waits_until - self._clock() < LONG_WAIT_S and any(r.circuit.state == "closed" for r in self.all)

    def to_be_looked_at(self) -> bool:
        """Whether a call that asks now would be the one that sees whether somebody is back."""
        now = self._clock()
        return not self._held_back(now) and any(r.circuit.state == "open" and r.free(now) for r in self.all)

    def favourite(self, stream: str, candidates: Iterable[Replica]) -> Replica:
        return max(candidates, key=lambda r: _score(stream, r))

    # places -------------------------------------------------------------------------------------------------------------

    async def place(
        self,
        stream: str,
        *,
        live: bool,
        not_at: frozenset[Replica] = frozenset(),
        again: bool = False,
        samples: int = 1,
    ) -> Replica | None:
        """A place with somebody, taken; None when the caller should look again whether this is still whom to wait for.
        Who waits `again` stood in line before, and does so no more."""
        if found := self.now(stream, not_at=not_at, samples=samples):
            return found
        waiter = Waiter(not_at, samples)
        healthy = [r for r in self.all if r.circuit.state == "closed" and r not in not_at] or self.all
        line = self.favourite(stream, healthy).lines[live]
        (line.appendleft if again else line.append)(waiter)
        self.serve()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter in line:
                line.remove(waiter)
            elif waiter.turn.done() and not waiter.turn.cancelled() and (given := waiter.turn.result()) is not None:
                # It was given a place in the moment it went away; perhaps the one place there is, to see.
                given.circuit.gave_up(self._clock(), started=self._clock())
                self.leave(given, latency_s=None)
            raise

    def now(self, stream: str, *, not_at: frozenset[Replica] = frozenset(), samples: int = 1) -> Replica | None:
        """A place at once or none: the favourite's, else that of anybody free whom nobody waits for."""
        now = self._clock()
        if self._held_back(now):
            return None
        free = [r for r in self.all if r not in not_at and r.free(now) and not r.waiting]
        if not free:
            return None
        closed = [r for r in self.all if r.circuit.state == "closed" and r not in not_at]
        favourite = self.favourite(stream, closed or free)
        best = favourite if favourite in free else max(free, key=lambda r: _room(r, stream))
        return self._take(best, now, samples)

    def second(self, stream: str, *, not_at: frozenset[Replica], samples: int = 1) -> Replica | None:
        """A place for a call that goes twice: over the limit where it must be, for it is one in twenty."""
        now = self._clock()
        others = [r for r in self.all if r not in not_at and r.circuit.state == "closed"]
        others = [r for r in others if r.limiter.in_flight <= 1.1 * r.limiter.limit]
        if not others or self._held_back(now):
            return None
        return self._take(max(others, key=lambda r: _room(r, stream)), now, samples)

    def leave(self, replica: Replica, *, latency_s: float | None, waiting: float | None = None) -> None:
        """The place is free again. No latency: the call failed, and says nothing of speed."""
        replica.limiter.finished(self._clock(), latency_s=latency_s, waiting=waiting)
        self.serve()

    def another(self) -> None:
        """A call more than was thought goes out for a place that is taken."""
        if self._quota is not None:
            self._quota.another(self._clock(), self._wall())

    def _take(self, replica: Replica, now: float, samples: int) -> Replica:
        replica.circuit.started()
        replica.limiter.started(now)
        if self._quota is not None:
            self._quota.started(now, self._wall(), calls=replica.endpoint.takes(samples))
        return replica

    # the line -----------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Gives free places to those in line, and sets an alarm for what only time will free."""
        now = self._clock()
        if not any(r.waiting for r in self.all):
            return
        for replica in self.all:
            while replica.free(now) and not self._held_back(now):
                if (waiter := self._next(replica)) is None:
                    break
                if not waiter.turn.done():
                    waiter.turn.set_result(self._take(replica, now, waiter.samples))
        self._set_alarm(now)

    def _next(self, replica: Replica) -> Waiter | None:
        for live in (True, False):
            own = replica.lines[live]
            longest = own or max((r.lines[live] for r in self.all), key=len)
            for at, waiter in enumerate(longest):
                if replica not in waiter.not_at:
                    del longest[at]
                    return waiter
                if at > 64:
                    break
        return None

    def look_again(self, replicas: Iterable[Replica] | None = None) -> None:
        """Sends those who wait for them back to choose anew, in their order."""
        for replica in self.all if replicas is None else replicas:
            for line in replica.lines.values():
                waiters = list(line)
                line.clear()
                for waiter in waiters:
                    if not waiter.turn.done():
                        waiter.turn.set_result(None)

    def hold_back(self, wait_s: float) -> None:
        """A quota is spent: nothing starts before."""
        self.waits_until = max(self.waits_until, self._clock() + wait_s)

    def _held_back(self, now: float) -> bool:
        if now < self.waits_until:
            return True
        if self._quota is None or not (wait_s := self._quota.wait_s(now, self._wall())):
            return False
        self.waits_until = now + wait_s
        return True

    def _set_alarm(self, now: float) -> None:
        times = [r.circuit.until for r in self.all if r.circuit.state == "open"]
        if now < self.waits_until:
            times = [self.waits_until]
        at = min((max(t, now + LEAST_ALARM_S) for t in times), default=math.inf)
        if at >= self._alarm_at > now or at == math.inf or not any(r.waiting for r in self.all):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = asyncio.get_running_loop().call_later(at - now, self._rings)

    def _rings(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self.serve()

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


def _score(stream: str, replica: Replica) -> float:
    """Weighted rendezvous: each stream ranks all replicas, and only those of one that is lost move."""
    digest = hashlib.blake2b(f"{replica.endpoint.url}\0{stream}".encode(), digest_size=8).digest()
    return -replica.weight / math.log((int.from_bytes(digest, "big") + 1) / (2**64 + 1))


def _room(replica: Replica, stream: str) -> tuple[float, float]:
    limiter = replica.limiter
    return (limiter.limit - limiter.in_flight) / limiter.limit, _score(stream, replica)
