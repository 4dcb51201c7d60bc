"""Which frames are looked at: the rule of the contract, to the last case. Frames come as timestamps in shown order.

Sample k of rate F wants t = k/F, counted from the first shown frame; the frame chosen is the first with pts ≥ t. Where
one frame answers several samples the latest keeps it. All times are exact; no float is made before the choice stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from streamproc.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Rate:
    """So many samples a second."""

    per_s: Fraction

    def __post_init__(self) -> None:
        if not 0 < self.per_s <= 1000:
            raise Misconfigured(f"{self.per_s} frames a second: more than 0 and at most 1000 can be asked for")


@dataclass(frozen=True, slots=True)
class Every:
    """Frames 1, 1 + n, 1 + 2n …"""

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise Misconfigured(f"every {self.n}th frame: 1 or more can be asked for")


Rule = Rate | Every


def rate(text: str) -> Rate:
    """A rate as people write it: `1`, `2.5`, `30000/1001`."""
    try:
        return Rate(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise Misconfigured(f"'{text}' is no rate: a number like 1 or 2.5, or a fraction like 30000/1001") from None


class Chosen(NamedTuple):
    k: int
    """Number of the sample, from 0."""
    t: Fraction
    """The time that was asked for, in seconds of the stream; with Every that of the frame itself."""
    number: int
    """Of the frame in shown order, from 1; 0 in a feed, whose beginning nobody saw."""
    pts: int
    time_s: Fraction
    """When the frame is shown, in seconds of the stream."""


def choose(shown: Iterable[int], time_base: Fraction, rule: Rule) -> Iterator[Chosen]:
    """The frames to look at, each once, as the frames come by."""
    chooser = Chooser(time_base, rule)
    for pts in shown:
        if chosen := chooser.offer(pts):
            yield chosen


class Chooser:
    """Says of one frame after the other whether it is looked at; needs to know none that come later."""

    def __init__(self, time_base: Fraction, rule: Rule) -> None:
        self._time_base = time_base
        self._first: int | None = None
        self._number = 0
        self._next_k = 0
        self._every = rule.n if isinstance(rule, Every) else 0
        self._per_s = rule.per_s if isinstance(rule, Rate) else Fraction(0)
        steps = time_base * self._per_s
        self._up, self._down = steps.numerator, steps.denominator

    def offer(self, pts: int) -> Chosen | None:
        if self._first is None:
            self._first = pts
        self._number += 1
        ticks = pts - self._first
        if self._every:
            k, over = divmod(self._number - 1, self._every)
            if over:
                return None
            time_s = ticks * self._time_base
            return Chosen(k, time_s, self._number, pts, time_s)
        k = ticks * self._up // self._down
        if k < self._next_k:
            return None
        self._next_k = k + 1
        return Chosen(k, k / self._per_s, self._number, pts, ticks * self._time_base)
