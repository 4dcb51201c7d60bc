"""Whether a replica is called at all: closed while it answers, open while it does not, then one call to see.

A refused connection or a 429 opens it at once; what might be the input's own fault only when it comes three times in a
row. Whatever was under way when it opened changes nothing any more: sixty-four failures of one outage are one.
"""

from __future__ import annotations

import math
import random
from typing import Final, Literal

IN_A_ROW: Final = 3
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 20.0
"""With its spread it is 26: however long it was out, work goes on within half a minute of its return."""

LOOKS_EVERY_S: Final = 300.0
"""However long a server wants to be left alone, one call looks so often: servers err, and quotas are raised."""

State = Literal["closed", "open", "trying"]


class Circuit:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._in_a_row = 0
        self.in_vain = 0
        """Calls that went out to see, since it opened, and were sent away."""
        self._waits_s = FIRST_WAIT_S
        self._opened_at = -math.inf
        self.until = -math.inf
        """When one call may go out to see; meaningless while closed."""
        self.state: State = "closed"
        self.why: str | None = None

    def lets(self, now: float) -> bool:
        return self.state == "closed" or (self.state == "open" and now >= self.until)

    def started(self) -> None:
        if self.state == "open":
            self.state = "trying"

    def succeeded(self, *, started: float) -> bool:
        """Whether this closed it. What came back late from before it opened says nothing of now."""
        if started < self._opened_at:
            return False
        closed_it, self.state = self.state != "closed", "closed"
        self._in_a_row, self.in_vain, self._waits_s, self.why = 0, 0, FIRST_WAIT_S, None
        return closed_it

    def failed(self, now: float, *, started: float, why: str, at_once: bool, wait_s: float = 0.0) -> bool:
        """Whether this opened it. `at_once`: no doubt that it is the server; `wait_s`: how long it wants to be left alone."""
        if started < self._opened_at:
            return False
        self._in_a_row += 1
        if self.state == "closed" and not at_once and self._in_a_row < IN_A_ROW:
            return False
        opened = self.state == "closed"
        self.in_vain += not opened
        # Never less than a second, and never all replicas at the same moment.
        wait = max(self._waits_s * self._rng.uniform(1.0, 1.3), min(wait_s, LOOKS_EVERY_S))
        self._waits_s = min(LONGEST_WAIT_S, self._waits_s * 2)
        self.state, self.until, self._opened_at, self.why = "open", now + wait, now, why
        return opened

    def gave_up(self, now: float, *, started: float) -> None:
        """The call that was to see was cancelled: nothing was learnt, another may go."""
        if self.state == "trying" and started >= self._opened_at:
            self.state, self.until = "open", now
