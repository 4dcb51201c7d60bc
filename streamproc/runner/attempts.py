"""Failure classes, backoff and the circuit: how often a call is tried, and when nobody tries at all.

Only failures of this input count as its attempts. While everything fails, the endpoint is out: the circuit opens, intake
stops, one call at a time looks whether it is back, and nothing is dead-lettered for it.

A handler that never waited has asked nobody: that it answered says nothing of the endpoint. Else an outage would never
show in a stage where every second record needs no call.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from streamproc.errors import Misconfigured, Rejected, Retryable, SingledOut, Throttled

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter between `first_s` and a bound that doubles up to `most_s`."""

    first_s: float = 0.2
    most_s: float = 30.0
    attempts: int = 8
    """Of one input, circuit closed."""
    opens_after: int = 5
    """Failures in a row, over all inputs of the service, that open the circuit."""

    def __post_init__(self) -> None:
        if self.attempts <= self.opens_after:
            raise Misconfigured(
                f"attempts ({self.attempts}) must exceed opens_after ({self.opens_after}): else an outage dead-letters what it meets"
            )

    def wait_s(self, failures: int, rng: random.Random) -> float:
        bound = min(self.most_s, self.first_s * 2.0 ** min(failures, 32))
        return self.first_s + rng.random() * (bound - self.first_s)


class GaveUp(Rejected):
    """Tried as often as may be."""

    def __init__(self, attempts: int, last: Retryable) -> None:
        super().__init__(f"gave up: {last}")  # without the number: an outcome says the same whatever the weather was
        self.attempts = attempts


class Circuit:
    """Of one service: closed (calls go), or open (one looks, the others wait).

    The one that looks is the one that has failed least, and intake hands in a fresh one where all have failed: so an
    input that breaks its endpoint every time cannot pass for an outage for ever.
    """

    def __init__(self, backoff: Backoff, *, rng: random.Random) -> None:
        self.backoff, self._rng = backoff, rng
        self.open = False
        self._in_a_row = 0
        self._probes = 0
        self._due = False
        self._order = 0
        self._waiting: list[tuple[int, int, asyncio.Future[bool]]] = []
        self._changed = asyncio.Event()

    @property
    def takes_in(self) -> bool:
        """Intake may go on: the circuit is closed, or all who wait have failed and a fresh one is wanted."""
        return not self.open or (self._due and all(failures for failures, _, _ in self._waiting))

    @property
    def troubled(self) -> bool:
        """Something has failed since the last answer."""
        return self.open or self._in_a_row > 0

    async def changed(self) -> None:
        """Back when `takes_in` may have changed."""
        self._changed.clear()
        await self._changed.wait()

    async def pass_(self, failures: int) -> bool:
        """Back when this call may go; True if it is the one that looks whether the endpoint is back."""
        if not self.open:
            return False
        if self._due and failures == 0:
            self._due = False
            return True
        if self._due:  # a fresh one was waited for, and may never come
            asyncio.get_running_loop().call_later(1.0, self._look_if_due)
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._order += 1
        entry = (failures, self._order, turn)
        self._waiting.append(entry)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.gone()
            raise
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def succeeded(self) -> None:
        self._in_a_row = self._probes = 0
        if self.open:
            log.warning("the endpoint answers again: calls go on")
            self.open = self._due = False
            self._changed.set()
            for _, _, turn in self._waiting:
                if not turn.done():
                    turn.set_result(False)

    def failed(self, error: Retryable, *, probe: bool) -> None:
        """`probe`: the call was the one that looks."""
        if probe:
            self._probes += 1
            self._look_again_after(error)
        elif not self.open:
            self._in_a_row += 1
            if self._in_a_row >= self.backoff.opens_after:
                log.warning(
                    "%d failures in a row, the last: %s. No calls until it answers again", self._in_a_row, error
                )
                self.open = True
                self._look_again_after(error)

    def gone(self) -> None:
        """The call that was to look was cancelled before it had looked: another does."""
        if self.open:
            self._look()

    def _look_again_after(self, error: Retryable) -> None:
        asked = error.retry_after_s if isinstance(error, Throttled) else None
        wait_s = self.backoff.wait_s(self._probes + 2, self._rng)
        wait_s = max(1.0, wait_s, asked or 0.0)  # never more than one call a second
        asyncio.get_running_loop().call_later(wait_s, self._look)

    def _look(self) -> None:
        if not self.open:
            return
        fresh_first = sorted((failures, order, turn) for failures, order, turn in self._waiting if not turn.done())
        if fresh_first and (fresh_first[0][0] == 0 or self._due):
            self._due = False
            fresh_first[0][2].set_result(True)
        elif fresh_first:
            # All who wait have failed: give intake a moment to hand in a fresh one, else the one that failed least goes.
            self._due = True
            self._changed.set()
            asyncio.get_running_loop().call_later(1.0, self._look_if_due)
        else:
            self._due = True
            self._changed.set()

    def _look_if_due(self) -> None:
        if self._due:
            self._look()


class Rest(Protocol):
    """Awaits something that is no call, without holding a slot meanwhile."""

    async def __call__(self, awaitable: Awaitable[T], /) -> T: ...


class Asked:
    """Whether a call asked anybody, or answered out of itself.

    What is due in the loop has its turn before a call that waits goes on: so a mark that was made due before the call is
    there after it exactly if the call waited. An input that has failed before counts as asking, whether it waits or not:
    else a handler that fails without waiting could open the circuit, and nothing could close it. And while nothing has
    failed it does not matter: what fails meanwhile fails while the call waits.
    """

    __slots__ = ("_due", "_yes")

    def __init__(self, *, known: bool) -> None:
        self._yes = known
        self._due: asyncio.Handle | None = None

    def __enter__(self) -> None:
        if not self._yes:
            self._due = asyncio.get_running_loop().call_soon(self._mark)

    def __exit__(self, *_: object) -> None:
        if self._due is not None:
            self._due.cancel()

    def _mark(self) -> None:
        self._yes = True

    def __bool__(self) -> bool:
        return self._yes


class Attempts:
    """Tries calls of one service."""

    def __init__(self, circuit: Circuit, *, rng: random.Random) -> None:
        self.circuit, self._rng = circuit, rng
        self.retried = 0
        self._told = set[str]()

    async def run(self, call: Callable[[], Awaitable[T]], *, ready: Callable[[], Awaitable[None]], rest: Rest) -> T:
        """What `call` answers. `ready` is awaited before each call: is the lease fresh?"""
        circuit = self.circuit
        failures = counted = 0
        while True:
            probe = await self._pass(failures, rest) if circuit.open else False
            looked = not probe
            asked = Asked(known=failures > 0 or not circuit.troubled)
            try:
                await ready()
                with asked:
                    answer = await call()
            except Retryable as e:
                looked = True
                if isinstance(e, SingledOut):
                    circuit.succeeded()  # others went through; of the last input of all nothing else would tell
                    self._tell(e)
                counted += not (circuit.open or isinstance(e, Throttled))
                failures += 1
                if not isinstance(e, SingledOut):
                    circuit.failed(e, probe=probe)
                if counted >= circuit.backoff.attempts:
                    raise GaveUp(failures, e) from e
                self.retried += 1
                wait_s = self._wait_s(e, failures)
            except Rejected:
                if asked:
                    looked = True
                    circuit.succeeded()  # it answered, if only to say no
                raise
            else:
                if asked:
                    looked = True
                    circuit.succeeded()
                return answer
            finally:
                if not looked:
                    circuit.gone()
            if not circuit.open:
                await rest(asyncio.sleep(wait_s))

    def _tell(self, error: SingledOut) -> None:
        """Once a kind: its attempts may take minutes, and a server of which nothing can be read fails them all."""
        kind = type(error.__cause__ or error).__name__
        if kind not in self._told:
            self._told.add(kind)
            log.warning("a call failed of itself (%s), and is tried again: %s", kind, error)

    async def _pass(self, failures: int, rest: Rest) -> bool:
        looks = False

        async def turn() -> None:
            nonlocal looks
            looks = await self.circuit.pass_(failures)

        try:
            await rest(turn())
        except asyncio.CancelledError:
            if looks:  # it only waited for its slot
                self.circuit.gone()
            raise
        return looks

    def _wait_s(self, error: Retryable, failures: int) -> float:
        asked = error.retry_after_s if isinstance(error, Throttled) else None
        return max(asked or 0.0, self.circuit.backoff.wait_s(failures, self._rng))
