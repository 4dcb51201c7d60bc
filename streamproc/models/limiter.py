"""How many calls one replica is given at a time: a number that finds itself and follows when the server changes.

What counts is throughput. It is measured at the number that holds, and now and then at one a step above or below. A step
up stays where it brings throughput, a step down where it costs none; steps grow while they keep working, and come more
rarely while they keep failing. So it stops at the corner beyond which calls only wait for each other, whether that is the
server's slots, its batch or its memory. A 429, or the server's own count of waiting calls, moves it at once.

A 429 also tells where the ceiling is: as many as had their places when one more was refused. It is remembered, come near
to and kept, and what lies beyond is tried again after rests that double for as long as it is refused.

No clock here: times come with what happens.
"""

from __future__ import annotations

import math
from typing import Final, Literal

STEP: Final = 1.08
"""Between what holds and what is tried: small enough to cost nothing while it is wrong."""

WORTH: Final = 0.12
"""A step up must bring an eighth of what it would bring to an idle server; a step down may cost no more than that."""

LEAST_OF_BURST: Final = 0.7
"""What is left at the least after a burst of 429s: it may have been about something else, and the way back is long."""

REST_S: Final = 10.0
LONGEST_REST_S: Final = 80.0
"""Between two looks beyond a ceiling, the shortest and the longest."""

STARTS_AT: Final = 4
MOST: Final = 4096

Phase = Literal["start", "hold", "up", "down"]


class Limiter:
    """`limit` is the number; `started`, `finished` and `throttled` tell it what happens."""

    def __init__(self, *, starts_at: int = STARTS_AT, most: int = MOST) -> None:
        self._most = most
        self._holds = float(min(starts_at, most))
        self._phase: Phase = "start"
        self._tried = self._holds
        self._rate: float | None = None
        """Calls a second at what holds, smoothed."""
        self._reach = {"up": 1, "down": 1}
        """Steps to try at once."""
        self._rest = {"up": 1, "down": 1}
        """Phases to hold before the next try."""
        self._failed_ways = set[str]()
        self._held = 0
        self._next: Literal["up", "down"] = "up"
        self.in_flight = 0
        self.latency_s: float | None = None
        self._least_s = math.inf
        self._settles_until: float | None = None
        self._throttled_at, self._floor = -math.inf, 1.0
        """The last burst of 429s, and what it may not go below."""
        self._ceiling, self._ceiling_until, self._ceiling_rest_s = math.inf, -math.inf, REST_S
        # What the phase has seen so far; nothing counts until calls have settled at the new number.
        self._began: float | None = None
        self._done = 0
        self._busy = 0.0
        self._at = 0.0
        self._waiting, self._told = 0.0, 0

    @property
    def limit(self) -> int:
        return max(1, round(self._holds if self._phase in {"hold", "start"} else self._tried))

    @property
    def full(self) -> bool:
        return self.in_flight >= self.limit

    def started(self, now: float) -> None:
        self._count_up(now)
        self.in_flight += 1

    def finished(self, now: float, *, latency_s: float | None, waiting: float | None = None) -> None:
        """`latency_s` is None for calls that failed: they make room, and say nothing of speed."""
        self._count_up(now)
        self.in_flight -= 1
        if latency_s is None:
            return
        weight = max(0.05, 1 / max(1, self.limit))
        self._least_s = min(self._least_s, latency_s)
        self.latency_s = latency_s if self.latency_s is None else self.latency_s + weight * (latency_s - self.latency_s)
        if self._settles_until is None:
            self._settles_until = now + latency_s
        if now < self._settles_until:
            return
        if self._began is None:
            self._began, self._busy, self._at = now, 0.0, now
            return
        self._done += 1
        if waiting is not None:
            self._waiting += waiting
            self._told += 1
        long_enough = now - self._began >= (self.latency_s if self._phase == "start" else max(1.0, 2 * self.latency_s))
        if self._done >= self._enough and long_enough:
            self._decide(now)

    def throttled(self, now: float) -> None:
        """A 429. Those that were under way already are one and the same; one on a call that was alone is about a quota,
        and nothing that fewer at a time would help."""
        if self.in_flight <= 1:
            return
        if now - self._throttled_at >= 2 * (self.latency_s or 0.5):
            self._throttled_at, self._floor = now, max(1.0, self._holds * LEAST_OF_BURST)
            again = self._phase == "up" and self._tried > self._ceiling
            self._ceiling_rest_s = min(LONGEST_REST_S, self._ceiling_rest_s * 2) if again else REST_S
            self._ceiling_until = now + self._ceiling_rest_s
        # All but this one have their places, as far as is known: those refused with it are still to be heard of.
        self._holds = self._ceiling = max(self._floor, min(self._holds, self.in_flight - 1.0))
        self._rate, self._reach["up"] = None, 1
        self._go("hold", now)

    # measuring ----------------------------------------------------------------------------------------------------------

    @property
    def _enough(self) -> int:
        """Calls that make a phase: few while it searches, more once it has found, when being wrong costs more than time."""
        if self._phase == "start":
            return 8
        if self._searching:
            return max(40, 2 * self.limit)
        return max(60, 3 * self.limit) if self._phase == "hold" else max(100, 5 * self.limit)

    @property
    def _searching(self) -> bool:
        """Until a step has failed both ways."""
        return len(self._failed_ways) < 2

    def _count_up(self, now: float) -> None:
        """Seconds times calls in flight, to know whether there was work enough to learn from."""
        self._busy += max(0.0, now - self._at) * min(self.in_flight, self.limit)
        self._at = now

    def _go(self, phase: Phase, now: float) -> None:
        self._phase = phase
        self._settles_until = None if self.latency_s is None else now + self.latency_s
        self._began, self._done, self._busy, self._at = None, 0, 0.0, now
        self._waiting, self._told = 0.0, 0

    # deciding -----------------------------------------------------------------------------------------------------------

    def _decide(self, now: float) -> None:
        assert self._began is not None
        seconds = now - self._began
        rate = self._done / seconds
        if self._busy / seconds < 0.9 * self.limit:
            self._go("start" if self._phase == "start" else "hold", now)  # too little work: nothing was learnt
            return
        if self._told and (queue := self._waiting / self._told) > max(1.0, 0.1 * self.limit):
            # The server says that calls wait. They may be others', so no more than a fifth goes at once.
            self._holds, self._rate = max(1.0, self.limit - queue, 0.8 * self.limit), None
            self._go("hold", now)
            return
        {"start": self._start, "hold": self._hold, "up": self._try_up, "down": self._try_down}[self._phase](rate, now)

    def _start(self, rate: float, now: float) -> None:
        """Doubling while it brings a third at least; then what the last but one would need for the throughput of the last."""
        if self._holds > STARTS_AT and self._rate is None and rate * self._least_s < self._holds / 4:
            # Most of them only wait in a line that the server does not tell of: it is none that batches. From below, then.
            self._holds = float(STARTS_AT)
            self._go("start", now)
            return
        before, self._rate = self._rate, rate
        if before is not None and rate < 1.35 * before:
            self._holds = max(1.0, self._holds / 2 * min(2.0, max(1.0, rate / before)))
            self._rate = None
            self._go("hold", now)
        elif self._holds >= self._most:
            self._go("hold", now)
        else:
            self._holds = min(self._most, self._holds * 2)
            self._go("start", now)

    def _hold(self, rate: float, now: float) -> None:
        if self._rate is None or abs(rate / self._rate - 1) > 0.12:
            if self._rate is not None:
                # Another server than a moment ago. If calls take longer, they may well wait for each other.
                self._holds = max(1.0, self._holds * min(1.0, max(0.5, rate / self._rate)))
                self._reach, self._rest = {"up": 1, "down": 1}, {"up": 1, "down": 1}
                self._failed_ways.clear()
            self._rate = rate if self._rate is None else None
        else:
            self._rate += 0.3 * (rate - self._rate)
        self._held += 1
        if self._rate is not None and self._held >= self._rest[self._next]:
            self._try(self._next, now)
        else:
            self._go("hold", now)

    def _try(self, way: Literal["up", "down"], now: float) -> None:
        factor = STEP ** (self._reach[way] * (2 if self._searching else 1))
        if way == "up":
            below = self._holds < self._ceiling or now < self._ceiling_until
            most = min(self._most, self._ceiling) if below else self._most
            self._tried = min(most, max(self._holds * factor, self._holds + 1))
        else:
            self._tried = max(1.0, min(self._holds / factor, self._holds - 1))
        self._held = 0
        if round(self._tried) == round(self._holds):
            self._next = "down" if way == "up" else "up"
            self._go("hold", now)
        else:
            self._go(way, now)

    def _try_up(self, rate: float, now: float) -> None:
        assert self._rate is not None
        if self._tried > self._ceiling:
            self._ceiling, self._ceiling_rest_s = math.inf, REST_S  # nobody was refused
        brings = math.log(rate / self._rate) / math.log(self._tried / self._holds)
        self._took("up", rate, now, clearly=brings > 0.4) if brings > WORTH else self._failed("up", now)

    def _try_down(self, rate: float, now: float) -> None:
        assert self._rate is not None
        costs = math.log(self._rate / rate) / math.log(self._holds / self._tried)
        self._took("down", rate, now, clearly=costs < WORTH / 2) if costs < WORTH else self._failed("down", now)

    def _took(self, way: Literal["up", "down"], rate: float, now: float, *, clearly: bool) -> None:
        self._holds, self._rate = self._tried, rate
        self._reach[way] = min(4, self._reach[way] * 2) if clearly else 1
        self._rest[way], self._next = 1, way
        self._try(way, now)

    def _failed(self, way: Literal["up", "down"], now: float) -> None:
        self._failed_ways.add(way)
        self._rest[way] = min(4, self._rest[way] * 2) if self._reach[way] == 1 else 1
        self._reach[way] = 1
        self._next = "down" if way == "up" else "up"
        self._go("hold", now)
