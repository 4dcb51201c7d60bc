"""What all leases of one service in one process share: bounds, slots, the circuit, what is counted."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streamproc.bus.contract import Bus
from streamproc.errors import Misconfigured, SingledOut, StreamprocError
from streamproc.runner.attempts import Attempts, Backoff, Circuit, GaveUp
from streamproc.runner.pace import Roster
from streamproc.runner.slots import Slots
from streamproc.runner.tracing import Tracing
from streamproc.stage import Stage

log = logging.getLogger(__name__)

SHOWN = 200
"""Characters of a text in the log."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Nothing in a runner grows without one of these."""

    calls: int = 64
    """In flight at once, over all leases of the service."""
    in_flight_bytes: int = 128 * 2**20
    """Of records in hand, over all leases."""
    window: int = 4096
    """Records read beyond the first that is not done, a lease: what is read again after a takeover."""
    unlanded: int = 2000
    """Results waiting for the landing under way, a lease; intake pauses there."""
    batch: int = 500
    """Records of one fetch."""
    drain_s: float = 30.0
    """What calls in flight get to finish when the service is told to stop; and what is done, to land."""
    hand_over_s: float = 30.0
    """What calls in flight get to finish where another member should have their lease. Longer ones are cut, and made
    again by the next owner."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise Misconfigured(f"bounds.{name} is {getattr(self, name)}; it must be above 0")


@dataclass(slots=True)
class Counts:
    """Since the process began; read by whoever shows them."""

    records_in: int = 0
    records_out: int = 0
    passed_over: int = 0
    duplicate: int = 0
    late: int = 0
    dead: int = 0
    skipped: int = 0
    failed: int = 0
    expired: int = 0
    bugs: int = 0
    landings: int = 0
    landed: int = 0
    landed_bytes: int = 0
    unseen_ends: int = 0
    fenced: int = 0
    handed_over: int = 0
    cut: int = 0
    landing_s: list[float] = field(default_factory=list)
    """The last landings' durations; whoever shows them empties the list."""


class Load:
    """Bytes of records in hand, over all leases."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._listeners: dict[int, Callable[[], None]] = {}

    @property
    def full(self) -> bool:
        return self.bytes >= self.limit

    @property
    def share(self) -> int:
        """What one fetch may bring: all leases may ask at the same time, having seen the same room."""
        return max(1, self.limit // (4 * max(2, len(self._listeners))))

    def listen(self, eased: Callable[[], None]) -> Callable[[], None]:
        self._listeners[id(eased)] = eased
        return lambda: self._listeners.pop(id(eased), None) and None

    def add(self, size: int) -> None:
        self.bytes += size

    def sub(self, size: int) -> None:
        was_full = self.full
        self.bytes -= size
        if was_full and not self.full:
            for eased in list(self._listeners.values()):
                eased()


class Shared:
    """One service in this process."""

    def __init__(
        self,
        service: str,
        stage: Stage,
        bus: Bus,
        *,
        bounds: Bounds,
        backoff: Backoff,
        now: Callable[[], float],
        rng: random.Random,
        tracing: Tracing | None = None,
    ) -> None:
        self.service, self.stage, self.bus, self.bounds = service, stage, bus, bounds
        self.now, self.rng, self.tracing = now, rng, tracing
        self.slots = Slots(bounds.calls)
        self.circuit = Circuit(backoff, rng=rng)
        self.attempts = Attempts(self.circuit, rng=rng)
        self.roster = Roster(bus)
        self.load = Load(bounds.in_flight_bytes)
        self.counts = Counts()
        self._told = set[str]()

    def tell(self, kind: str, why: object) -> None:
        """What fails for good is told once a kind: a key that is wrong fails a million inputs, and nobody reads on to
        dead letters of what he takes to go well."""
        if kind not in self._told:
            self._told.add(kind)
            log.warning(
                "%s: failed for good (%s): %s; told once a kind. `streamproc trace STREAM TIME` says of any moment why",
                self.service,
                kind,
                str(why).rstrip("."),
            )

    def tell_said(self, record: Any) -> None:
        """The same of an answer that a stage made nothing of; where it had none, what it was told has failed elsewhere."""
        if (raw := getattr(record, "raw", None)) is not None:
            how = f" ({record.how})" if record.how else ""
            self.tell(record.reason or "unreadable", f"the model said {raw[:SHOWN]!r}{how}")


def kind_of(error: Exception) -> str:
    """The class of what went wrong, from under those that say what was done about it."""
    while isinstance(error, GaveUp | SingledOut) and isinstance(error.__cause__, StreamprocError):
        error = error.__cause__
    return type(error).__name__
