"""dedup: what many windows and models report, as events that each happened once, with a life, a span and votes.

Rows come in index order, and within a row reports in the order of time, label and model; so the same inputs give the same
events, in whatever order they came. Two kinds of rules say which report is of which event:

    life         (default) of the same label and moment. A report's moment is the time that the model gave, else the middle
                 of its window. Two are the same moment where they are at most `within_s` apart, or where the windows of
                 those without a time overlap. So a goal that two windows share is one, a foul that goes on over three is
                 one and grows, and two goals 10 s apart are two. Teams do not part them: models mix them up, so they vote.
    label, label+team, likeness
                 of the same label (and team, or much the same words), its window beginning at most `within_s` after that
                 of one of the `last` events kept. What repeats an event is a vote for it and changes nothing else.

An event opens with its first report, says what changed once a row, and closes when no report to come can be of it: in rows
that failed, in gaps and at the end, too. What it says of itself:

    start_ms, end_ms   all windows that speak for it
    time_ms            the median of the times that models gave, else of the middles of the windows
    confidence         each model's highest, and the mean of these over the models that saw it
    label, team        as first said; the team that most reports name
    details            of the surest report
    looked             models that answered for any of these windows; who of them has no vote saw nothing

What could not be read is no report. It asks no model, and believes everyone alike: whom to believe is ensemble's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

from msgspec import Struct
from pydantic import Field
from rapidfuzz import fuzz

from streamproc.messages import Detection, Event, Life, Record, Sighting, Source, Vote
from streamproc.models.vote import mode, rounded_median
from streamproc.stage import Fold, Look, Row
from streamproc.stages.options import Section, Told

READS = "detect."
"""What the services joined are called, before the model's name."""


class Options(Section):
    rule: Literal["label", "label+team", "likeness", "life"] = Field(
        "life", description="Which reports are of one event; `life` follows it over windows, the others drop repeats."
    )
    within_s: float = Field(3.0, ge=0, le=3600, description="How far apart reports of one event may be.")
    last: int = Field(
        10, ge=1, le=10_000, description="How many events kept a repeat is looked for in; not for `life`."
    )
    alike: float = Field(0.85, ge=0, le=1, description="`likeness`: how alike label and details must be.")
    longest_s: float = Field(60.0, gt=0, le=86_400, description="`life`: what goes on longer is another event.")


# state --------------------------------------------------------------------------------------------------------------


class Report(Struct, array_like=True, frozen=True):
    """One model, one window, one event, as far as it is needed for as long as the event lives."""

    model: str
    index: int
    time_ms: int
    either_way_ms: int
    """Half the window, where the model gave no time."""
    team: str | None
    confidence: float | None

    def same_moment(self, other: Report, within_ms: int) -> bool:
        apart_ms = abs(self.time_ms - other.time_ms)
        return apart_ms <= within_ms or apart_ms < self.either_way_ms + other.either_way_ms

    def reaches_ms(self, within_ms: int) -> int:
        """No window that begins later can report the same moment."""
        return self.time_ms + max(within_ms, self.either_way_ms)


class Alive(Struct, array_like=True):
    """An event that reports may still be of."""

    number: int
    revision: int
    label: str
    team: str | None
    """As first said."""
    details: str | None
    from_ms: int
    """Where its first window began."""
    start_ms: int
    end_ms: int
    reports: list[Report]
    """One a model and window, as they came: the surest."""
    repeats: list[Report]
    """Of what a rule dropped: votes, and nothing else."""
    looked: list[str]


class Lives(Struct, array_like=True):
    next: int
    """The number of the next event."""
    alive: list[Alive]


class Said(Struct, frozen=True):
    """A sighting with its place, as a row brings it."""

    report: Report
    of: Sighting
    start_ms: int
    end_ms: int


# rules --------------------------------------------------------------------------------------------------------------


def said_in(row: Row) -> list[Said]:
    """Every sighting of a row in the order of time, label, model."""
    said = [
        _said(record, sighting)
        for record in row.of.values()
        if isinstance(record, Detection) and record.outcome == "done"
        for sighting in record.events or ()
    ]
    return sorted(said, key=lambda s: (s.report.time_ms, s.of.label.casefold(), s.report.model))


def _said(record: Detection, of: Sighting) -> Said:
    start, end = record.start_ms, record.end_ms
    timed = of.time_ms is not None and start <= of.time_ms <= end
    report = Report(
        model=record.service.removeprefix(READS),
        index=record.index,
        time_ms=of.time_ms if timed and of.time_ms is not None else (start + end) // 2,
        either_way_ms=0 if timed else (end - start) // 2,
        team=of.team,
        confidence=of.confidence,
    )
    return Said(report, of, start, end)


def _known(lives: Lives, said: Said, rule: Options) -> Alive | None:
    """The event that a report is of, if there is one."""
    within_ms = round(1000 * rule.within_s)
    label = said.of.label.casefold()
    if rule.rule != "life":
        kept = [a for a in lives.alive if a.number >= lives.next - rule.last]
        return next((a for a in reversed(kept) if _repeats(a, said, rule, within_ms)), None)
    near = [
        (min(abs(r.time_ms - said.report.time_ms) for r in a.reports), a.number, a)
        for a in lives.alive
        if a.label.casefold() == label
        and said.report.time_ms - a.reports[0].time_ms <= 1000 * rule.longest_s
        and any(r.same_moment(said.report, within_ms) for r in a.reports)
    ]
    return min(near, default=(0, 0, None))[-1]


def _repeats(alive: Alive, said: Said, rule: Options, within_ms: int) -> bool:
    if said.start_ms - alive.from_ms > within_ms:
        return False
    if rule.rule == "likeness":
        return _alike(alive.label, alive.details, said.of.label, said.of.details) >= rule.alike
    if alive.label.casefold() != said.of.label.casefold():
        return False
    return rule.rule == "label" or (alive.team or "").casefold() == (said.of.team or "").casefold()


def _alike(label: str, details: str | None, other: str, its_details: str | None) -> float:
    one, two = f"{label} {details or ''}".casefold(), f"{other} {its_details or ''}".casefold()
    return fuzz.token_sort_ratio(one, two) / 100


def _over(alive: Alive, start_ms: int, rule: Options) -> bool:
    """No report of a window that begins at `start_ms` or later can be of it."""
    within_ms = round(1000 * rule.within_s)
    if rule.rule != "life":
        return start_ms > alive.from_ms + within_ms
    return start_ms > max(r.reaches_ms(within_ms) for r in alive.reports)


# events -------------------------------------------------------------------------------------------------------------


def _begun(number: int, said: Said) -> Alive:
    return Alive(
        number=number,
        revision=-1,
        label=said.of.label,
        team=said.of.team,
        details=said.of.details,
        from_ms=said.start_ms,
        start_ms=said.start_ms,
        end_ms=said.end_ms,
        reports=[said.report],
        repeats=[],
        looked=[],
    )


def _grown(alive: Alive, said: Said, rule: Options) -> None:
    if rule.rule != "life":
        alive.repeats.append(said.report)
        return
    if _sure(said.report) > max(map(_sure, alive.reports)):
        alive.details = said.of.details or alive.details
    alive.details = alive.details or said.of.details
    alive.start_ms, alive.end_ms = min(alive.start_ms, said.start_ms), max(alive.end_ms, said.end_ms)
    alive.reports = _surest([*alive.reports, said.report])


def _surest(reports: Iterable[Report]) -> list[Report]:
    """One a model and window."""
    kept: dict[tuple[str, int], Report] = {}
    for report in reports:
        at = (report.model, report.index)
        if at not in kept or _sure(report) > _sure(kept[at]):
            kept[at] = report
    return list(kept.values())


def _sure(report: Report) -> float:
    return -1.0 if report.confidence is None else report.confidence


def _life(alive: Alive, stream: str, state: Literal["open", "update", "close"]) -> Life:
    votes = _surest([*alive.reports, *alive.repeats])
    timed = [r.time_ms for r in alive.reports if not r.either_way_ms]
    teams = [r.team for r in alive.reports if r.team is not None]
    return Life(
        id=f"{stream}/e{alive.number}",
        revision=alive.revision,
        state=state,
        label=alive.label,
        team=mode(teams) if teams else None,
        start_ms=alive.start_ms,
        end_ms=alive.end_ms,
        time_ms=rounded_median(timed or [r.time_ms for r in alive.reports]),
        confidence=_confidence(alive.reports),
        votes=tuple(
            Vote(model=v.model, index=v.index, confidence=v.confidence)
            for v in sorted(votes, key=lambda v: (v.index, v.model))
        ),
        details=alive.details,
        looked=tuple(alive.looked),
    )


def _confidence(reports: Sequence[Report]) -> float | None:
    best: dict[str, float] = {}
    for report in reports:
        if report.confidence is not None:
            best[report.model] = max(best.get(report.model, 0.0), report.confidence)
    return round(sum(best[m] for m in sorted(best)) / len(best), 6) if best else None


# stage --------------------------------------------------------------------------------------------------------------


class Dedup(Fold):
    reads, writes = ("detections",), ("events",)
    State: ClassVar[Any] = Lives | None

    def __init__(self) -> None:
        self._told = Told("dedup", Options)

    def joins(self, source: Source) -> tuple[str, ...]:
        return tuple(s for s in source.services if s.startswith(READS))

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[list[Record], Lives]:
        source = look.source(row)
        # In a gap time has come as far as its last window; a row of one window is that window.
        start_ms = source.grid.starts_ms(row.until - 1) if row.until_index is not None else row.start_ms
        return folded(row, state or Lives(0, []), self._told.of(source), start_ms=start_ms)


def folded(row: Row, lives: Lives, rule: Options, *, start_ms: int) -> tuple[list[Record], Lives]:
    """What one row tells, and the events that live on. `start_ms`: where the last window of the row begins."""
    told: list[Record] = []

    def tell(alive: Alive, state: Literal["open", "update", "close"]) -> None:
        alive.revision += 1
        told.append(Event.of(row, until_index=None, event=_life(alive, row.stream, state)))

    for alive in [a for a in lives.alive if row.ended or _over(a, start_ms, rule)]:
        tell(alive, "close")
        lives.alive.remove(alive)
    touched: dict[int, Alive] = {}
    for said in said_in(row):
        known = _known(lives, said, rule)
        if known is None:
            known = _begun(lives.next, said)
            lives.alive.append(known)
            lives.next += 1
        else:
            _grown(known, said, rule)
        touched[known.number] = known
    looked = [s.removeprefix(READS) for s, r in row.of.items() if isinstance(r, Detection) and r.outcome == "done"]
    for _, alive in sorted(touched.items()):
        alive.looked = sorted({*alive.looked, *looked})
        tell(alive, "update" if alive.revision >= 0 else "open")
    return told, lives
