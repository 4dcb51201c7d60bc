"""A feed's time: what its packets say, held against the wall clock, so that stream time never jumps and never stands.

A server that restarts, wraps its timestamps, jumps or pauses goes on with other numbers; the wall clock says where on
the stream's own axis that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

JUMP_S = Fraction(5)
"""More than this between two frames, or behind the wall clock, is no network's jitter."""
LEAD_S, SLEW = Fraction(30), Fraction(1, 100)
"""A feed may be so far ahead of the wall clock (a playlist begins some segments back); where its clock is fast and it comes
to more, its time is held back by this share."""


@dataclass(slots=True)
class StreamTime:
    """Timestamps of one connection as stream time. `now_s` is the stream's time by the wall clock."""

    late_s: Fraction = Fraction(0)
    """How long the first frame has waited for us."""
    offset_s: Fraction | None = None
    last_s: Fraction = Fraction(-1)
    """Of the last frame."""
    passed_s: Fraction = Fraction(-1)
    """How far packets have come that were left out: what is not looked at is no pause."""
    wanted_s: Fraction = Fraction(0)
    """When the next sample is wanted."""
    jumps: int = 0

    def at(self, time_s: Fraction, now_s: Fraction) -> Fraction:
        """Of a frame."""
        if self.offset_s is None:
            self.offset_s = now_s - self.late_s - time_s
            self.passed_s = time_s + self.offset_s
        found = time_s + self.offset_s
        step_s = found - self.last_s
        apart_s = found - max(self.last_s, self.passed_s)
        if (self.last_s >= 0 and (step_s < 0 or apart_s > JUMP_S)) or now_s - found > JUMP_S:
            self.jumps += 1
            self.offset_s = max(now_s, self.last_s) - time_s
            found = time_s + self.offset_s
            self.passed_s = found
        elif found - now_s > LEAD_S:
            self.offset_s -= step_s * SLEW
            found = time_s + self.offset_s
        self.last_s = found
        return found

    def until_wanted(self, time_s: Fraction) -> Fraction | None:
        """How long before the next sample; None where nobody knows: before the first frame, and behind a jump."""
        if self.offset_s is None:
            return None
        found = time_s + self.offset_s
        if not -JUMP_S <= found - max(self.last_s, self.passed_s) <= JUMP_S:
            return None
        return self.wanted_s - found

    def left_out(self, time_s: Fraction) -> None:
        """A packet that nobody decodes."""
        if self.offset_s is not None:
            self.passed_s = max(self.passed_s, time_s + self.offset_s)
