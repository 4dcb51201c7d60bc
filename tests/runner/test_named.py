"""Folds over numbers that lie on no grid, named at once, later, not for a while: which rows there are.

Events are numbered 0, 1, 2, … by the service that tells them; which revision an event belongs to, only its record says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc import wire
from streamproc.messages import Description, Event, Record, Source, Verdict
from streamproc.runner.look import source_key
from streamproc.stage import Fold, Look, Row
from tests.runner.rig import Rig, told
from tests.sim import clock

NAMED = ("decode", "dedup", "describe.a", "describe.b", "ensemble")
UNNAMED = tuple(s for s in NAMED if s != "ensemble")


class Judge(Fold):
    """A verdict a row, which tells who said what."""

    writes = ("verdicts",)

    def __init__(self, reads: str, *joined: str) -> None:
        self.reads, self.joined = (reads,), joined  # type: ignore[misc]  # one class for two topics

    def joins(self, source: Source) -> tuple[str, ...]:
        return self.joined

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[Sequence[Record], Any]:
        said = ",".join(f"{s}={r.reason or r.outcome}" for s, r in row.of.items())
        rows = [] if row.ended else [Verdict.of(row, until_index=None, label=f"{row.index}:{said}")]
        return rows, None


EVENTS = Judge("events", "dedup")
DESCRIBED = Judge("descriptions", "describe.a", "describe.b")


def revisions(rig: Rig, *named: bool) -> list[Source]:
    """Revision r begins at window 100 · r: far from the numbers of events."""
    return [
        rig.source("m", *(NAMED if yes else UNNAMED), count=1000, revision=r, from_index=100 * r)
        for r, yes in enumerate(named)
    ]


def tell(rig: Rig, kind: type[Record], service: str, of: Source, *numbers: int, ended: bool = False) -> None:
    for number in numbers:
        start_ms = of.grid.starts_ms(of.from_index) + 500 * number
        made = kind(
            id=f"{service}/dedup/m/0/{number}",
            service=service,
            root="dedup",
            stream="m",
            generation=0,
            revision=of.revision,
            index=number,
            start_ms=start_ms,
            end_ms=start_ms + 500,
            outcome="done",
            count=number if ended else None,
        )
        rig.log.append([wire.encode(made, partitions=rig.log.partitions, time="")])


def verdicts(rig: Rig) -> list[str]:
    return [v.label for v in sorted(rig.records("verdicts"), key=lambda v: v.index) if v.label]


def over(rig: Rig) -> bool:
    return any(v.ended for v in rig.records("verdicts"))


@told
async def test_a_fold_over_events_that_is_named_later_tells_of_every_event_of_its_revisions() -> None:
    rig = Rig.of()
    first, second = revisions(rig, False, True)
    tell(rig, Event, "dedup", first, 0, 1, 2)
    tell(rig, Event, "dedup", second, 3, 4, 5, 6, 7, 8)
    tell(rig, Event, "dedup", second, 9, ended=True)
    async with rig.running("ensemble", EVENTS) as service:
        await rig.until(lambda: over(rig))
    assert verdicts(rig) == [f"{i}:dedup=done" for i in range(3, 9)]
    assert [v.index for v in sorted(rig.records("verdicts"), key=lambda v: v.index)] == list(range(7))
    assert service.shared.counts.late == service.shared.counts.expired == 0


@told
async def test_a_fold_over_events_waits_for_its_joined_services_and_for_no_number_it_does_not_owe() -> None:
    rig = Rig.of()
    first, second, third = revisions(rig, True, False, True)
    tell(rig, Description, "describe.a", third, 5, 7, 6)
    tell(rig, Description, "describe.b", third, 6, 5)
    tell(rig, Description, "describe.a", first, 1, 0)
    async with rig.running("ensemble", DESCRIBED) as service:
        await rig.until(lambda: service.shared.counts.records_in == 7)
        tell(rig, Description, "describe.b", first, 0, 1)
        await rig.until(lambda: len(verdicts(rig)) == 2)
    async with rig.running("ensemble", DESCRIBED) as service:
        tell(rig, Description, "describe.b", second, 4, 3)
        await rig.until(lambda: service.shared.counts.passed_over == 2)
    async with rig.running("ensemble", DESCRIBED) as service:
        tell(rig, Description, "describe.a", second, 2)
        await rig.until(lambda: len(verdicts(rig)) == 4)
        tell(rig, Description, "describe.b", third, 7)
        await rig.until(lambda: len(verdicts(rig)) == 5)
    assert verdicts(rig) == [f"{i}:describe.a=done,describe.b=done" for i in (0, 1, 5, 6, 7)]


@told
async def test_events_that_expired_unread_are_told_apart_from_those_that_nobody_owes() -> None:
    rig = Rig.of(partitions=1)
    first, second = revisions(rig, False, True)
    tell(rig, Event, "dedup", first, 0, 1)
    tell(rig, Event, "dedup", second, 2)
    async with rig.running("ensemble", EVENTS):
        await rig.until(lambda: len(verdicts(rig)) == 1)
    tell(rig, Event, "dedup", second, 3, 4)
    rig.log.expire("events", 0, before=rig.log.span("events", 0).end)
    tell(rig, Event, "dedup", second, 5)
    tell(rig, Event, "dedup", second, 6, ended=True)
    async with rig.running("ensemble", EVENTS):
        await rig.until(lambda: over(rig))
    assert verdicts(rig) == ["2:dedup=done", "3:dedup=expired", "5:dedup=done"]
    (gap,) = [v for v in rig.records("verdicts") if v.label == "3:dedup=expired"]
    assert gap.start_ms > 0, "it stands where the stream was, not at its beginning"


@told
async def test_what_waited_for_its_source_over_a_restart_is_passed_over_where_it_is_not_ours() -> None:
    rig = Rig.of()
    (first,) = revisions(rig, True)
    unknown = rig.source("other", *UNNAMED, count=1000)  # the same revision of another stream: only its fields matter
    later = type(unknown).of(unknown, **_as_revision(unknown, stream="m", revision=1, from_index=100))
    tell(rig, Event, "dedup", first, 0)
    tell(rig, Event, "dedup", later, 1)
    async with rig.running("ensemble", EVENTS):
        await rig.until(lambda: bool(rig.log.state_keys("park")))
    rig.log.put(later, sub=source_key("m", 0, 1).split("\0")[1:])
    last = rig.source("m", *NAMED, count=1000, revision=2, from_index=200)
    async with rig.running("ensemble", EVENTS):
        tell(rig, Event, "dedup", last, 2)
        await rig.until(lambda: len(verdicts(rig)) == 2)
    assert verdicts(rig) == ["0:dedup=done", "2:dedup=done"]
    assert not rig.log.state_keys("park")


def _as_revision(of: Source, **fields: Any) -> dict[str, Any]:
    kept = {f: getattr(of, f) for f in of.__struct_fields__}
    number, stream = fields["revision"], fields["stream"]
    return kept | fields | {"id": f"cli/cli/{stream}/0/{number}", "index": number}


@given(
    named=st.lists(st.booleans(), min_size=1, max_size=4),
    sizes=st.lists(st.integers(0, 4), min_size=4, max_size=4),
    order=st.randoms(use_true_random=False),
    cuts=st.integers(1, 4),
    kills=st.booleans(),
)
@pytest.mark.timeout(300)
def test_every_event_whose_revision_names_the_service_has_its_row_in_order_whatever_comes_when(
    named: list[bool], sizes: list[int], order: Any, cuts: int, kills: bool
) -> None:
    async def story() -> None:
        rig = Rig.of(partitions=1)
        sources = revisions(rig, *named)
        of = [source for source, size in zip(sources, sizes, strict=False) for _ in range(size)]
        told_ = [(service, number) for number in range(len(of)) for service in ("describe.a", "describe.b")]
        order.shuffle(told_)
        owed = [i for i, source in enumerate(of) if "ensemble" in source.services]
        for part in range(cuts):
            ending = rig.killed if kills and part < cuts - 1 else rig.running
            async with ending("ensemble", DESCRIBED):
                for service_name, number in told_[part::cuts]:
                    tell(rig, Description, service_name, of[number], number)
                await asyncio.sleep(order.uniform(0, 0.3))
                if part == cuts - 1:
                    await rig.until(lambda: len(verdicts(rig)) == len(owed))
        assert verdicts(rig) == [f"{i}:describe.a=done,describe.b=done" for i in owed]
        assert not rig.log.state_keys("park")

    clock.run(story())
