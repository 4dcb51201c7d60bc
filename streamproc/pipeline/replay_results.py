"""Which results of the original a replay says again: those of the numbers it has, what lies in its time, and how that ends.

Windows are said again by their numbers. Events and incidents have numbers of their own, so they are chosen by time: an event
by its steps, an incident by its place. Who answers them goes by their numbers.

A stream tells at its end what is still open, so an event that the range leaves open is closed where that ends, as dedup
would have closed it: with what had been seen of it until then. Else nobody would ever judge it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from streamproc.messages import Event, Incident, Record, Source
from streamproc.pipeline.parts import DECODE, PARTS
from streamproc.pipeline.replay_archive import Archive

DEDUP: Final = "dedup"
LOCATE: Final = "locate"
ROOTS: Final = (DEDUP, LOCATE)
"""Stages whose results have numbers of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """An event that the range leaves open."""

    last: Event
    """Its last step in the range."""
    closed_at: int | None
    """The number under which the original has closed it, and others have answered that; None: it has not."""


@dataclass(slots=True)
class Results:
    """Of the original."""

    records: dict[str, list[Record]] = field(default_factory=dict)
    """Topic → what is said again; of descriptions also those of what was closed behind the range."""
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Root → [begin, until) of its numbers."""
    left: list[Left] = field(default_factory=list)


async def results(
    archive: Archive,
    old: Source,
    said: Sequence[str],
    *,
    windows: tuple[int, int],
    times_ms: tuple[int, int],
    ranges: Mapping[str, tuple[int, int]] | None = None,
) -> Results:
    """`ranges`: what was found out the first time, where this is not the first."""
    topics = [name for name in _written(said) if name != "windows"]
    there = {name: await _spoken(archive, name, old, said) for name in topics}
    found = Results(ranges=dict(ranges) if ranges else _numbers(there, said, times_ms))
    found.ranges[DECODE] = windows
    found.left = _left(there.get("events", ()), found.ranges)
    behind = {(left.last.root, left.closed_at) for left in found.left}
    for name, records in there.items():
        kept = [r for r in records if _inside(r, found.ranges) or (r.service != r.root and (r.root, r.index) in behind)]
        if kept:
            found.records[name] = kept
    del found.ranges[DECODE]
    return found


def _written(said: Sequence[str]) -> list[str]:
    return sorted({name for s in said for name in PARTS[s.partition(".")[0]].kind.writes})


async def _spoken(archive: Archive, name: str, old: Source, said: Sequence[str]) -> list[Record]:
    there = await archive.results(name, old.stream, old.generation)
    return [r for r in there if r.service in said and not r.ended]


def _numbers(
    there: Mapping[str, Sequence[Record]], said: Sequence[str], times_ms: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    found = {s: (0, 0) for s in said if s.partition(".")[0] in ROOTS}  # it has said nothing there
    for records in there.values():
        for record in records:
            if record.service == record.root in found and times_ms[0] <= _place_ms(record) < times_ms[1]:
                lo, hi = found[record.root]
                found[record.root] = (
                    (min(lo, record.index), max(hi, record.until)) if hi else (record.index, record.until)
                )
    return found


def _place_ms(record: Record) -> int:
    """An incident is told of a whole stretch; where in it, it says itself."""
    if isinstance(record, Incident) and record.time_ms is not None:
        return record.time_ms
    return record.start_ms


def _inside(record: Record, ranges: Mapping[str, tuple[int, int]]) -> bool:
    lo, hi = ranges.get(record.root, (0, 0))
    return record.index < hi and record.until > lo


def _left(events: Sequence[Record], ranges: Mapping[str, tuple[int, int]]) -> list[Left]:
    """In the order in which they began to be told of."""
    last: dict[str, Event] = {}
    closed: dict[str, int] = {}
    for record in sorted(events, key=lambda r: r.index):
        if not isinstance(record, Event) or record.event is None:
            continue
        if _inside(record, ranges):
            last[record.event.id] = record
        elif record.event.state == "close":
            closed[record.event.id] = record.index
    return [
        Left(last=one, closed_at=closed.get(name))
        for name, one in last.items()
        if one.event is not None and one.event.state != "close"
    ]
