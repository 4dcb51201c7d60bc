"""What must be true in the end, read from the topics alone.

once        every number of every sequence has exactly one record (a torn bus may double it, but for windows: then
            consumers drop it)
whole       sequences that a service numbers itself have no holes
named       exactly the services that a revision names have an outcome, for every number
events      are those that a fold over the detections, in order, gives
outcomes    gaps stay gaps, failures of the stub are failures; nothing else is
coverage    says of every number what its record says
repeats     no call whose result had landed; of the others each as often as a process died that had it in hand, asked and
            not landed. A join, a leave, a drain repeat none
hand-over   no lease is taken from a process that is alive and awake
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from streamproc.messages import Detection, Record, Sequence, Source
from streamproc.ranges import Ranges
from streamproc.stage import Row
from tests.sim import toys
from tests.sim.world import MODELS, TOPICS, World


def check(world: World, lives: Iterable[tuple[str, int]]) -> None:
    """`lives`: streams, and generations of each."""
    for life in lives:
        records = {name: _once(world, life, name) for name in TOPICS}
        _whole(records, life)
        _named(world, life, records)
        _events(world, life, records)
        _outcomes(world, life, records)
        _coverage(world, life, records)
    if not world.weather.torn:
        _repeats(world)


def _repeats(world: World) -> None:
    assert world.repeated_landed == 0, f"seed {world.seed}: {world.repeated_landed} calls repeated that had landed"
    for key, asked in world.asked.items():
        assert asked - 1 <= world.allowed[key], (
            f"seed {world.seed}: {key} asked {asked} times, and {world.allowed[key]} who had it in hand died"
        )
    assert world.taken_from_the_living == 0, f"seed {world.seed}: {world.taken_from_the_living} leases cut off"


def _once(world: World, life: tuple[str, int], name: str) -> list[Record]:
    seen: dict[Sequence, Ranges] = defaultdict(Ranges)
    kept = []
    for record in world.records(name):
        if (record.stream, record.generation) != life:
            continue
        taken = seen[record.sequence]
        if taken.missing(record.index, record.until) != [(record.index, record.until)]:
            assert world.weather.torn, f"seed {world.seed}: twice: {record}"
            assert name != "windows", f"seed {world.seed}: twice, though its writer looks what stands: {record}"
            continue
        taken.add(record.index, record.until)
        kept.append(record)
    return kept


def _whole(records: dict[str, list[Record]], life: tuple[str, int]) -> None:
    for name, mine in records.items():
        numbers: dict[Sequence, Ranges] = defaultdict(Ranges)
        for record in mine:
            numbers[record.sequence].add(record.index, record.until)
        for sequence, ranges in numbers.items():
            if sequence.service not in MODELS:
                assert len(ranges) == 1, f"{life}: {name}: holes in {sequence}: {ranges}"
                assert ranges.pairs()[0][0] == 0, f"{life}: {name}: {sequence} begins at {ranges}"


def _source(world: World, record: Record) -> Source:
    return world.source(record.stream, record.generation, record.revision)


def _named(world: World, life: tuple[str, int], records: dict[str, list[Record]]) -> None:
    owed = {
        (i, service)
        for w in records["windows"]
        for i in range(w.index, w.until)
        for service in _source(world, w).services
        if service in MODELS
    }
    said = {(i, d.service) for d in records["detections"] for i in range(d.index, d.until)}
    assert owed == said, f"{life}: owed and not said {owed - said}, said and not owed {said - owed}"


def _events(world: World, life: tuple[str, int], records: dict[str, list[Record]]) -> None:
    said = {(i, d.service): d for d in records["detections"] for i in range(d.index, d.until)}
    state: Any = None
    expected: list[Any] = []
    for w in sorted(records["windows"], key=lambda r: r.index):
        models = [s for s in _source(world, w).services if s in MODELS]
        of = {m: said[w.index, m] for m in sorted(models)}
        first = next(iter(of.values()))
        row = Row("decode", *life, w.revision, w.index, w.until, first.start_ms, first.end_ms, None, of)
        told, state = toys.fold_lives(row, state)
        expected += told
    mine = [r for r in sorted(records["events"], key=lambda r: r.index) if not r.ended]
    assert [e.event for e in mine] == [e.event for e in expected], f"seed {world.seed}: {life}: events differ"  # type: ignore[attr-defined]


def _outcomes(world: World, life: tuple[str, int], records: dict[str, list[Record]]) -> None:
    windows = {i: w for w in records["windows"] for i in range(w.index, w.until)}
    for d in records["detections"]:
        w = windows[d.index]
        if w.outcome != "done" or w.ended:
            assert (d.outcome, d.reason, d.count) == (w.outcome, w.reason, w.count), (d, w)
        elif d.reason == "no context":
            assert world.weather.impatient, d
        elif world.dice((d.service, *life, "decode", d.index)) < 8:
            assert (d.outcome, d.reason) == ("failed", "unreadable"), d
        else:
            assert d.outcome == "done", d
            assert isinstance(d, Detection)
            assert d.events is not None, d


def _coverage(world: World, life: tuple[str, int], records: dict[str, list[Record]]) -> None:
    by_service: dict[str, Ranges] = defaultdict(Ranges)
    for name in ("windows", "detections", "descriptions"):
        for record in records[name]:
            by_service[record.service].add(record.index, record.until)
    for service, numbers in by_service.items():
        assert world.accounted(*life, service).taken == numbers, f"{life}: coverage of {service}"
