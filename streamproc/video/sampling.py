"""The frames a rule chooses from a file, exact and cheap: table, choice, plan and decoding put together.

One thread and one process; many slices at once are the business of `workers`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from av.video.frame import VideoFrame

from streamproc.errors import Misconfigured
from streamproc.video.choice import Chooser, Chosen, Rule, choose
from streamproc.video.container import Opened
from streamproc.video.decoding import Surprise, decode, decode_all, settle
from streamproc.video.plan import Stretch, plan
from streamproc.video.table import Table, scan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Span:
    """Samples with from_s ≤ t < until_s, in stream time; None: to the end."""

    from_s: Fraction = Fraction(0)
    until_s: Fraction | None = None

    def __post_init__(self) -> None:
        if self.until_s is not None and self.until_s <= self.from_s:
            raise Misconfigured(f"from {float(self.from_s):g} s to {float(self.until_s):g} s there is nothing")

    def __contains__(self, t: Fraction) -> bool:
        return self.from_s <= t and (self.until_s is None or t < self.until_s)

    def over(self, t: Fraction) -> bool:
        return self.until_s is not None and t >= self.until_s


ALL = Span()

BACK_S = Fraction(1)
"""Time that goes back by more is worth a word: two recordings in one file, say, each with a clock of its own."""


def index(video: Opened) -> Table:
    """The table of a file, with what only decoding could tell."""
    table = scan(video)
    try:
        settle(video, table)
    except Surprise as e:
        table.regular, table.why = False, str(e)
    if not table.regular:
        log.info("%s: decoded from beginning to end: %s", video.address.shown, table.why)
    return table


def wanted(table: Table, rule: Rule, span: Span = ALL) -> list[tuple[int, Chosen]]:
    """What a rule chooses of a regular table: packets, each with what it was chosen for."""
    shown = table.shown()
    chosen = choose((table.pts[i] for i in shown), table.time_base, rule)
    return [(shown[c.number - 1], c) for c in chosen if c.t in span]


def samples(video: Opened, rule: Rule, span: Span = ALL) -> Iterator[tuple[Chosen, VideoFrame]]:
    """The frames chosen, in shown order."""
    table = index(video)
    if not table.regular:
        yield from within(span, sequential(video, rule))
        return
    found = wanted(table, rule, span)
    stretches = list(plan(table, (packet for packet, _ in found)))
    yield from planned(video, rule, [chosen for _, chosen in found], stretches)


def planned(
    video: Opened, rule: Rule, found: Sequence[Chosen], stretches: Sequence[Stretch]
) -> Iterator[tuple[Chosen, VideoFrame]]:
    """The frames of a plan; where it does not hold, those of a decode from the beginning."""
    by_pts = {chosen.pts: chosen for chosen in found}
    last = found[0].k - 1 if found else 0
    try:
        for pts, frame in decode(video, stretches):
            last = by_pts[pts].k
            yield by_pts[pts], frame
    except Surprise as e:
        log.warning("%s: decoded from beginning to end: %s", video.address.shown, e)
        for chosen, frame in sequential(video, rule):
            if chosen.k > found[-1].k:
                return
            if chosen.k > last:
                yield chosen, frame


@dataclass(slots=True)
class Count:
    """What a decode of everything has come to."""

    samples: int = 0
    ticks: int = 0
    """From the first shown frame to the end of the last."""


def sequential(video: Opened, rule: Rule, *, count: Count | None = None) -> Iterator[tuple[Chosen, VideoFrame]]:
    """The same by decoding everything from the beginning on."""
    chooser, count = Chooser(video.time_base, rule), count or Count()
    first: int | None = None
    last, told = 0, False
    for pts, frame in decode_all(video):
        first = pts if first is None else first
        last = max(last, pts - first)
        back_s = (last + first - pts) * video.time_base
        if back_s > BACK_S and not told:
            told = True
            log.warning(
                "%s: its time jumps back by %.1f s at %.1f s: pictures of a time that has passed are not looked at",
                video.address.shown,
                back_s,
                last * video.time_base,
            )
        count.ticks = max(count.ticks, pts - first + (frame.duration or video.tick))
        if chosen := chooser.offer(pts):
            count.samples = chosen.k + 1
            yield chosen, frame


def within(span: Span, found: Iterator[tuple[Chosen, VideoFrame]]) -> Iterator[tuple[Chosen, VideoFrame]]:
    """Those of a span; nothing is decoded behind it."""
    for chosen, frame in found:
        if span.over(chosen.t):
            return
        if chosen.t in span:
            yield chosen, frame
