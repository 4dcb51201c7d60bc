"""The frames a rule chooses from a file, exact and cheap: table, choice, plan and decoding put together.

One thread and one process; many slices at once are the business of `workers`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from av.video.frame import VideoFrame

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

    def __contains__(self, t: Fraction) -> bool:
        return self.from_s <= t and (self.until_s is None or t < self.until_s)

    def over(self, t: Fraction) -> bool:
        return self.until_s is not None and t >= self.until_s


ALL = Span()


def index(video: Opened) -> Table:
    """The table of a file just opened, with what only decoding could tell; the file stands at its beginning again."""
    table = scan(video)
    video.rewind()
    try:
        if table.doubt:
            settle(video, table)
            video.rewind()
    except Surprise as e:
        table.regular, table.why = False, str(e)
        video.rewind()
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
        yield from sequential(video, rule, span)
        return
    found = wanted(table, rule, span)
    stretches = list(plan(table, (packet for packet, _ in found)))
    yield from planned(video, rule, span, [chosen for _, chosen in found], stretches)


def planned(
    video: Opened, rule: Rule, span: Span, found: Sequence[Chosen], stretches: Sequence[Stretch]
) -> Iterator[tuple[Chosen, VideoFrame]]:
    """The frames of a plan; where it does not hold, those of a decode from the beginning."""
    by_pts = {chosen.pts: chosen for chosen in found}
    last = 0
    try:
        for chosen, frame in ((by_pts[pts], frame) for pts, frame in decode(video, stretches)):
            last = chosen.number
            yield chosen, frame
    except Surprise as e:
        log.warning("%s: decoded from beginning to end: %s", video.address.shown, e)
        video.rewind()
        yield from ((c, frame) for c, frame in sequential(video, rule, span) if c.number > last)


def sequential(video: Opened, rule: Rule, span: Span = ALL) -> Iterator[tuple[Chosen, VideoFrame]]:
    """The same by decoding everything from the beginning on, up to the end of the span."""
    chooser = Chooser(video.time_base, rule)
    for pts, frame in decode_all(video):
        if chosen := chooser.offer(pts):
            if span.over(chosen.t):
                return
            if chosen.t in span:
                yield chosen, frame
