"""dedup: which reports are one event, whatever order they came in, and how an event lives and ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from streamproc import wire
from streamproc.messages import Detection, Event, Life, Sighting, Source, record_id
from streamproc.stages.dedup import Dedup, Options
from tests.runner.rig import Rig, told
from tests.sim import clock, toys

Told = Mapping[int, Sequence[Sighting] | str]
"""Window → what a model says of it: sightings, the reason why it failed or was skipped."""


def goal(confidence: float | None = None, **more: Any) -> Sighting:
    return Sighting(label="Goal", confidence=confidence, **more)


def foul(confidence: float | None = None, **more: Any) -> Sighting:
    return Sighting(label="Foul", confidence=confidence, **more)


class Story(Rig):
    """Windows of 4 s, one every 2 s: window 50 is from 100 s to 104 s."""

    @classmethod
    def of(cls, partitions: int = 2) -> Story:
        return cls(Rig.of(partitions).log)

    def match(self, *models: str, count: int = 100, **options: Any) -> Source:
        from streamproc.runner.look import source_key

        made = toys.source("m", services=[*(f"detect.{m}" for m in models), "dedup"], count=count)
        made.task["dedup"] = options
        self.log.put(made, sub=source_key("m", 0, 0).split("\0")[1:])
        return made

    def says(self, of: Source, model: str, told: Told, *, ended: bool = True) -> None:
        """All windows in order; those not told of have nothing in them."""
        count = of.task["count"]
        self.log.append([self.detection(of, model, i, told.get(i, ())) for i in range(count + ended)])

    def detection(self, of: Source, model: str, index: int, said: Any = (), until: int | None = None) -> wire.Entry:
        service = f"detect.{model}"
        window = toys.window(of, index, until or index + 1, of.task["count"])
        fields: dict[str, Any] = {"service": service, "root": "decode", "count": window.count, "reason": window.reason}
        fields |= {"id": record_id(service, "decode", of.stream, 0, index), "outcome": window.outcome}
        if isinstance(said, str):
            fields |= {"outcome": "failed" if said == "failed" else "skipped", "reason": said}
        elif window.outcome == "done" and not window.ended:
            fields["events"] = tuple(said)
        return wire.encode(Detection.of(window, **fields), partitions=self.log.partitions, time="")

    async def lives(self) -> list[Life]:
        """All that dedup tells, once the stream has ended."""
        async with self.running("dedup", Dedup()):
            await self.until(lambda: any(r.ended for r in self.records("events")))
        found: list[Event] = sorted(self.records("events"), key=lambda r: r.index)
        assert [e.index for e in found] == list(range(len(found)))
        return [e.event for e in found if e.event]

    async def closed(self) -> list[Life]:
        return [e for e in await self.lives() if e.state == "close"]

    def bytes(self) -> list[bytes | None]:
        return [s.value for s in self.records_at("events")]


def spans(lives: Iterable[Life]) -> list[tuple[str, float, float]]:
    return [(e.label, e.start_ms / 1000, e.end_ms / 1000) for e in lives]


# life ---------------------------------------------------------------------------------------------------------------


@told
async def test_a_goal_that_two_windows_share_is_one_event_with_a_life() -> None:
    rig = Story.of()
    rig.says(rig.match("a"), "a", {50: [goal(0.8, details="shot")], 51: [goal(0.9, details="net")]})
    opened, updated, closed = await rig.lives()
    assert [(e.id, e.revision, e.state) for e in (opened, updated, closed)] == [
        ("m/e0", 0, "open"),
        ("m/e0", 1, "update"),
        ("m/e0", 2, "close"),
    ]
    assert (opened.start_ms, opened.end_ms, opened.time_ms) == (100_000, 104_000, 102_000), "the window's middle"
    assert (closed.start_ms, closed.end_ms, closed.time_ms) == (100_000, 106_000, 103_000), "of what both have seen"
    assert (closed.confidence, closed.details) == (0.9, "net")
    assert [(v.model, v.index, v.confidence) for v in closed.votes] == [("a", 50, 0.8), ("a", 51, 0.9)]


@told
async def test_two_goals_ten_seconds_apart_are_two_events() -> None:
    rig = Story.of()
    rig.says(rig.match("a"), "a", {i: [goal()] for i in (49, 50, 54, 55)})
    assert spans(await rig.closed()) == [("Goal", 98, 104), ("Goal", 108, 114)]


@told
async def test_one_long_foul_over_three_windows_is_one_event() -> None:
    rig = Story.of()
    rig.says(rig.match("a"), "a", {i: [foul()] for i in (49, 50, 51)})
    (one,) = await rig.closed()
    assert (one.start_ms, one.end_ms, one.time_ms, len(one.votes)) == (98_000, 106_000, 102_000, 3)


@told
async def test_times_that_models_give_part_what_windows_alone_would_join_and_join_what_is_near() -> None:
    rig = Story.of()
    said = {49: [goal(time_ms=101_000)], 50: [goal(time_ms=101_500)], 51: [goal(time_ms=105_900)]}
    rig.says(rig.match("a"), "a", said)
    assert [e.time_ms for e in await rig.closed()] == [101_250, 105_900]


@told
async def test_a_time_outside_of_its_window_counts_as_none() -> None:
    rig = Story.of()
    rig.says(rig.match("a"), "a", {50: [goal(time_ms=3_000)]})
    (one,) = await rig.closed()
    assert one.time_ms == 102_000


@told
async def test_windows_that_overlap_are_of_one_moment_however_long_they_are() -> None:
    rig = Story.of()
    rig.says(rig.match("a", within_s=0), "a", {i: [goal()] for i in (49, 50, 52)})
    assert spans(await rig.closed()) == [("Goal", 98, 104), ("Goal", 104, 108)]


@told
async def test_labels_are_the_same_in_any_case_and_teams_vote() -> None:
    rig = Story.of()
    said = {i: [goal(team=t)] for i, t in ((49, None), (50, "home"), (51, "away"), (52, "away"))}
    said[50] = [Sighting(label="GOAL", team="home"), foul()]
    rig.says(rig.match("a"), "a", said)
    one, other = sorted(await rig.closed(), key=lambda e: e.id)
    assert (one.label, one.team, len(one.votes)) == ("Goal", "away", 4)
    assert (other.label, other.id) == ("Foul", "m/e1")


@told
async def test_several_models_see_one_event_and_who_looked_and_saw_nothing_is_known() -> None:
    rig = Story.of()
    match = rig.match("a", "b", "c", "d")
    rig.says(match, "a", {50: [goal(0.9)], 51: [goal(0.5)]})
    rig.says(match, "b", {51: [goal(0.6)]})
    rig.says(match, "c", {})
    rig.says(match, "d", dict.fromkeys(range(100), "failed"))
    (one,) = await rig.closed()
    assert [(v.index, v.model) for v in one.votes] == [(50, "a"), (51, "a"), (51, "b")]
    assert one.looked == ("a", "b", "c"), "d never answered"
    assert one.confidence == 0.75, "the mean of each model's highest"


@told
async def test_a_model_that_repeats_itself_in_one_window_has_one_vote() -> None:
    rig = Story.of()
    rig.says(rig.match("a"), "a", {50: [foul(0.2), foul(0.7), foul(0.1)]})
    opened, closed = await rig.lives()
    assert [(v.index, v.confidence) for v in closed.votes] == [(50, 0.7)]
    assert opened.state == "open", "one record a row"


@told
async def test_what_goes_on_for_ever_is_cut_into_events() -> None:
    rig = Story.of()
    rig.says(rig.match("a", count=60, longest_s=20), "a", {i: [foul()] for i in range(60)})
    closed = await rig.closed()
    assert [len(e.votes) for e in closed] == [11, 11, 11, 11, 11, 5]


@told
async def test_an_event_closes_while_nothing_is_seen_in_gaps_and_where_all_fails() -> None:
    rig = Story.of()
    match = rig.match("a")
    rig.log.append([rig.detection(match, "a", i) for i in range(10)])
    rig.log.append([rig.detection(match, "a", 10, [goal()])])

    def states() -> list[str]:
        return [r.event.state for r in rig.records("events")]

    async with rig.running("dedup", Dedup()):
        await rig.until(lambda: states() == ["open"])
        rig.log.append([rig.detection(match, "a", 11, "failed")])
        await asyncio.sleep(1)
        assert states() == ["open"], "window 12 may still report it"
        rig.log.append([rig.detection(match, "a", 12, until=15)])  # a gap up to 30 s
        await rig.until(lambda: states() == ["open", "close"])


@told
async def test_an_event_that_is_alive_at_the_end_closes_there() -> None:
    rig = Story.of()
    rig.says(rig.match("a", count=20), "a", {19: [goal()]})
    assert [e.state for e in await rig.lives()] == ["open", "close"]
    (ended,) = [r for r in rig.records("events") if r.ended]
    assert (ended.index, ended.count) == (2, 2)


@told
async def test_what_failed_was_skipped_or_could_not_be_read_is_no_vote() -> None:
    rig = Story.of()
    rig.says(rig.match("a"), "a", {50: "failed", 51: "late", 52: "unreadable"})
    assert await rig.lives() == []


@told
async def test_a_service_that_takes_over_in_the_middle_of_an_event_goes_on_with_it() -> None:
    rig = Story.of()
    match = rig.match("a", count=20)
    rig.log.append([rig.detection(match, "a", i, [goal()] if i == 9 else ()) for i in range(10)])
    async with rig.running("dedup", Dedup()):
        await rig.until(lambda: len(rig.records("events")) == 1)
    rig.log.append([rig.detection(match, "a", i, [goal()] if i == 10 else ()) for i in range(10, 21)])
    opened, updated, closed = await rig.lives()
    assert {opened.id, updated.id, closed.id} == {"m/e0"}
    assert [v.index for v in closed.votes] == [9, 10]


@told
async def test_the_rule_is_that_of_the_revision() -> None:
    from streamproc.runner.look import source_key

    rig = Story.of()
    first = rig.match("a", count=40)
    second = toys.source("m", services=first.services, count=40, revision=1, from_index=20)
    second.task["dedup"] = {"within_s": 60}
    rig.log.put(second, sub=source_key("m", 0, 1).split("\0")[1:])
    said: Told = {i: [goal(time_ms=2000 * i)] for i in (5, 10, 25, 30)}
    rig.log.append([rig.detection(first, "a", i, said.get(i, ())) for i in range(20)])
    rig.log.append([rig.detection(second, "a", i, said.get(i, ())) for i in range(20, 41)])
    assert [len(e.votes) for e in await rig.closed()] == [1, 1, 2]


# dropping repeats ---------------------------------------------------------------------------------------------------


def kept_by_predecessors(
    said: list[tuple[float, Sighting]], within_s: float, last: int, same: Callable[[Sighting, Sighting], bool]
) -> list[tuple[float, Sighting]]:
    """An event is dropped if one of the last k kept is the same, at most s seconds before it."""
    kept: list[tuple[float, Sighting]] = []
    for time, one in said:
        if not any(same(one, other) and time - before <= within_s for before, other in kept[-last:]):
            kept.append((time, one))
    return kept


def same_label(one: Sighting, other: Sighting) -> bool:
    return one.label.casefold() == other.label.casefold()


def same_label_and_team(one: Sighting, other: Sighting) -> bool:
    return same_label(one, other) and one.team == other.team


@pytest.mark.parametrize(("rule", "same"), [("label", same_label), ("label+team", same_label_and_team)])
@given(data=st.data())
def test_the_rules_of_the_predecessors_keep_exactly_what_theirs_kept(rule: str, same: Any, data: st.DataObject) -> None:
    labels, teams = st.sampled_from(["Goal", "goal", "Foul", "FOUL", "Corner"]), st.sampled_from([None, "home", "away"])
    sightings = st.lists(st.builds(Sighting, label=labels, team=teams), max_size=4)
    windows = data.draw(st.lists(sightings, min_size=1, max_size=12))
    within_s, last = data.draw(st.sampled_from([0.0, 2.0, 3.0, 4.0, 9.0])), data.draw(st.integers(1, 10))
    ordered = [(2.0 * i, s) for i, w in enumerate(windows) for s in sorted(w, key=lambda s: s.label.casefold())]

    async def story() -> list[Life]:
        rig = Story.of()
        match = rig.match("a", count=len(windows), rule=rule, within_s=within_s, last=last)
        rig.says(match, "a", dict(enumerate(windows)))
        return await rig.closed()

    closed = sorted(clock.run(story()), key=lambda e: int(e.id.removeprefix("m/e")))
    kept = kept_by_predecessors(ordered, within_s, last, same)
    assert [(e.start_ms / 1000, e.label, e.team) for e in closed] == [(t, s.label, s.team) for t, s in kept]


@told
async def test_the_same_event_within_three_seconds_is_dropped_and_votes_for_the_one_kept() -> None:
    """Row 2: partial results merged, the same event within 3 s dropped."""
    rig = Story.of()
    said: Told = {50: [goal(0.95)], 51: [goal(0.93, details="celebration")], 52: [goal(0.9)]}
    rig.says(rig.match("a", rule="label"), "a", said)
    first, second = await rig.closed()
    assert (first.start_ms, first.end_ms, first.confidence, first.details) == (100_000, 104_000, 0.95, None)
    assert [v.index for v in first.votes] == [50, 51]
    assert second.start_ms == 104_000, "3 s are counted from the one kept, not from what was dropped"


@told
async def test_likeness_drops_what_says_much_the_same_under_any_label() -> None:
    rig = Story.of()
    said: Told = {
        50: [Sighting(label="Shot on target", details="number 9 shoots from the left")],
        51: [
            Sighting(label="Shots on target", details="number 9 shoots from the left."),
            Sighting(label="Shot on target", details="a header after the corner"),
        ],
    }
    rig.says(rig.match("a", rule="likeness"), "a", said)
    assert [e.details for e in await rig.closed()] == ["number 9 shoots from the left", "a header after the corner"]


@told
async def test_under_a_rule_that_drops_repeats_several_models_vote_too() -> None:
    rig = Story.of()
    match = rig.match("a", "b", rule="label")
    rig.says(match, "a", {50: [goal(0.9)]})
    rig.says(match, "b", {50: [goal(0.4)]})
    (one,) = await rig.closed()
    assert [v.model for v in one.votes] == ["a", "b"]
    assert one.looked == ("a", "b")


# order --------------------------------------------------------------------------------------------------------------

SIGHTING = st.builds(
    Sighting,
    label=st.sampled_from(["Goal", "goal", "Foul"]),
    team=st.sampled_from([None, "home", "away"]),
    confidence=st.sampled_from([None, 0.2, 0.5, 0.9]),
    details=st.sampled_from([None, "a", "b c"]),
    time_ms=st.sampled_from([None, 3_000, 6_500, 11_000]),
)
WINDOW = st.lists(SIGHTING, max_size=3) | st.sampled_from(["failed", "late"])


@given(
    rule=st.sampled_from(["life", "label", "label+team", "likeness"]),
    told=st.lists(st.tuples(WINDOW, WINDOW), min_size=1, max_size=10),
    gap=st.none() | st.tuples(st.integers(0, 8), st.integers(2, 5)),
    seed=st.integers(0, 2**32),
)
def test_the_same_inputs_give_the_same_events_in_whatever_order_they_come(
    rule: str, told: list[tuple[Any, Any]], gap: tuple[int, int] | None, seed: int
) -> None:
    """Out of order, repeated, failed, skipped, in gaps, with restarts between: byte by byte."""
    dice = random.Random(seed)
    count = len(told)
    lost = range(gap[0], min(gap[0] + gap[1], count)) if gap else range(0)

    async def story(*, shuffled: bool) -> list[bytes | None]:
        rig = Story.of(partitions=1)
        match = rig.match("a", "b", count=count, rule=rule)
        entries = [
            rig.detection(match, model, i, said, lost.stop if model == "a" and i in lost[:1] else None)
            for i in range(count + 1)
            for model, said in zip("ab", told[i] if i < count else ((), ()), strict=True)
            if model == "b" or i not in lost[1:]
        ]
        if shuffled:
            entries += dice.sample(entries, dice.randrange(len(entries) + 1))
            dice.shuffle(entries)
        cuts = sorted(dice.randrange(len(entries) + 1) for _ in range(2)) if shuffled else []
        for begin, end in zip([0, *cuts], [*cuts, len(entries)], strict=True):
            rig.log.append(entries[begin:end])
            async with rig.running("dedup", Dedup()) as service:
                await asyncio.sleep(0.2)
                assert service.joined
        await rig.lives()
        return rig.bytes()

    assert clock.run(story(shuffled=True)) == clock.run(story(shuffled=False))


@pytest.mark.parametrize(
    "wrong", [{"rule": "labels"}, {"within_s": -1}, {"last": 0}, {"alike": 2}, {"longest_s": 0}, {"window_s": 3}]
)
def test_an_option_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(wrong)
