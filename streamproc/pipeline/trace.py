"""What became of one moment of a stream in every service, read off the topics alone: `trace` gathers it.

The windows that show the moment, and one on either side; what every service said of each; the events that any of it became
part of, and what was described and judged of these. What it comes to in a sentence is `trace_told`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.messages import Event, Record, Source, Window
from streamproc.pipeline import streams
from streamproc.pipeline.letters import letters
from streamproc.pipeline.parts import DECODE, PARTS
from streamproc.pipeline.progress import Account, Progress
from streamproc.pipeline.trace_find import Finder, Landed
from streamproc.topics import partition_of
from streamproc.video.recipe import sampling_of

AROUND = 1
"""Windows shown on either side of those that show the moment."""
LIVES_MS = 120_000
"""How far from a moment an event may still speak of it that its windows are part of."""
IN_ORDER = ("windows", "contexts", "events", "incidents", "verdicts")
"""Topics that one record after the other lands in: those of runs and folds."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a service stands with the stream, apart from the moment."""

    account: Account
    at_work: bool
    """Somebody holds its lease of the stream's partition."""
    lag: int
    """Records in the stream's partition that it has not done."""

    @property
    def asked(self) -> bool:
        """Somebody works in it for the stream, or has: a run of only some stages leaves the others for later."""
        return self.at_work or self.account.answered > 0


@dataclass(frozen=True, slots=True)
class Moment:
    """All that the topics have of it."""

    source: Source
    at_ms: int
    windows: tuple[int, int]
    """Numbers of the windows that show it: [begin, until)."""
    said: Mapping[str, Sequence[Landed]]
    """Service → what it said of windows around, of events, or of incidents."""
    standing: Mapping[str, Standing]
    letters: Mapping[str, str]
    """Ids of failed outcomes that have a dead letter → its error."""

    def of(self, service: str, index: int) -> Landed | None:
        """What a service said of a number."""
        return next((s for s in self.said.get(service, ()) if s.record.index <= index < s.record.until), None)

    def service(self, stage: str) -> str | None:
        """The one service of a stage that has one: some are called by their model too."""
        return next((s for s in self.source.services if s.partition(".")[0] == stage), None)

    def ended(self) -> Record | None:
        """The end of the stream's windows, where it has come; results that were imported have one too."""
        root = self.source.grid.root
        return next(
            (s.record for some in self.said.values() for s in some if s.record.ended and s.record.root == root), None
        )

    def here(self, service: str) -> list[Landed | None]:
        """What a service said of each window that shows the moment."""
        return [self.of(service, index) for index in range(*self.windows)]

    def lives(self) -> dict[str, list[Landed]]:
        """Event → the steps of its life that we know, in their order; of events that a window of the moment is part of."""
        begin, until = self.windows
        return {
            name: steps
            for name, steps in self._steps().items()
            if any(begin <= vote.index < until for vote in steps[-1].record.event.votes)
        }

    def spanning(self) -> dict[str, list[Landed]]:
        """The same of events that the moment lies in, whoever spoke for them."""
        return {
            name: steps
            for name, steps in self._steps().items()
            if steps[-1].record.event.start_ms <= self.at_ms < steps[-1].record.event.end_ms
        }

    def _steps(self) -> dict[str, list[Landed]]:
        steps: dict[str, list[Landed]] = {}
        for landed in self.said.get("dedup", ()):
            if isinstance(landed.record, Event) and landed.record.event is not None:
                steps.setdefault(landed.record.event.id, []).append(landed)
        return steps


def in_force(revisions: Sequence[Source], at_ms: int) -> Source:
    """The revision whose numbers a moment lies in."""
    told = [r for r in revisions if r.grid.starts_ms(max(r.from_index, r.grid.first)) <= at_ms]
    return max(told or revisions[:1], key=lambda r: (r.from_index, r.revision))


async def moment(bus: Bus, newest: Source, at_ms: int, *, claims: Claims | None = None) -> Moment:
    """Everything about a time of a stream."""
    revisions = await streams.revisions(bus, newest.stream, newest.generation)
    source = in_force(revisions, at_ms)
    finder, p = Finder(bus, source, claims), partition_of(source.stream, bus.partitions)
    length_ms, step_ms = _sizes(source)
    around = max(0, at_ms - length_ms - AROUND * step_ms), at_ms + 1 + length_ms + AROUND * step_ms
    lives = max(0, around[0] - LIVES_MS), around[1] + LIVES_MS
    progress = Progress()
    for stored in (await bus.follow("coverage", p)).under(source.stream.encode() + b"\0"):
        progress.hear(stored)
    said: dict[str, list[Landed]] = {}
    for name in _written(source):
        wide = lives if name in ("events", "descriptions", "verdicts", "incidents") else around
        for landed in await finder.over(name, *wide, in_order=name in IN_ORDER):
            said.setdefault(landed.record.service, []).append(landed)
    windows = _windows(source, at_ms, said.get(DECODE, ()))
    for service in source.services:
        await _look_further(finder, service, progress.of(source, service), windows, said)
    dead = [letter async for letter in letters(bus, source.stream)]
    return Moment(
        source,
        at_ms,
        windows,
        said,
        {s: await _standing(bus, s, source, progress, p) for s in source.services},
        {letter.id: letter.error for letter in dead if letter.generation == source.generation},
    )


def _sizes(source: Source) -> tuple[int, int]:
    """How long a window is at most, and from one to the next."""
    cut = sampling_of(source.task["sampling"], source.grid)
    return max(1, round(1000 * max(cut.length_s, cut.step_s))), max(1, round(1000 * cut.step_s))


def _written(source: Source) -> list[str]:
    """Topics that the stream's services write, in the order of the flow."""
    stages = {service.partition(".")[0] for service in source.services} | {DECODE}
    return list(dict.fromkeys(name for stage, part in PARTS.items() if stage in stages for name in part.kind.writes))


def _windows(source: Source, at_ms: int, said: Iterable[Landed]) -> tuple[int, int]:
    """By what decode said; by the grid, where it said nothing."""
    shown = [
        s.record.index
        for s in said
        if isinstance(s.record, Window) and not s.record.ended and s.record.start_ms <= at_ms < s.record.end_ms
        if s.record.until_index is None
    ]
    if shown:
        return min(shown), max(shown) + 1
    grid = source.grid
    step_ms = max(1, grid.starts_ms(grid.first + 1) - grid.starts_ms(grid.first))
    index = max(grid.first, grid.first + (at_ms - grid.starts_ms(grid.first)) // step_ms)
    while grid.starts_ms(index) > at_ms and index > grid.first:
        index -= 1
    while grid.starts_ms(index + 1) <= at_ms:
        index += 1
    return index, index + 1


async def _look_further(
    finder: Finder, service: str, account: Account, windows: tuple[int, int], said: dict[str, list[Landed]]
) -> None:
    """What is accounted for and was not where it should be has landed late, as after an outage: the whole topic is read."""
    stage = service.partition(".")[0]
    if stage not in ("detect", "caption"):
        return
    known = [s.record for s in said.get(service, ())]
    for index in range(*windows):
        if account.numbers.has(index, index + 1) and not any(r.index <= index < r.until for r in known):
            begin_ms = finder.source.grid.starts_ms(index)
            for name in PARTS[stage].kind.writes:
                found = await finder.over(name, begin_ms, begin_ms + 1, in_order=False, whole=True)
                said.setdefault(service, []).extend(s for s in found if s.record.service == service)
            return


async def _standing(bus: Bus, service: str, source: Source, progress: Progress, p: int) -> Standing:
    members, done = await bus.members(service), await bus.progress(service)
    lag = 0
    for name in (n for n, services in source.readers.items() if service in services):
        span = await bus.span(name, p)
        lag += max(0, span.end - max(span.begin, done.get((name, p), 0)))
    return Standing(progress.of(source, service), any(p in held for held in members.values()), lag)
