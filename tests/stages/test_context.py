"""context: what is asked of a stream's opening, how far it holds, and that nobody stops for its sake."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from streamproc.errors import Rejected, Retryable
from streamproc.messages import Context, Frame, Grid, Window
from streamproc.models.call import Call
from streamproc.stage import Row
from streamproc.stages.context import KEPT_BYTES, Contextualiser, Opening, Options
from streamproc.stages.detect import Detect
from streamproc.stages.options import Stretches
from tests.runner.rig import told
from tests.sim import toys
from tests.stages.scripted import Scripted, Texts
from tests.stages.watching import RED, Watching, observed, picture, task, window

TEAMS = {
    "home_team": "Leeds",
    "home_kit": "white",
    "away_team": "Derby",
    "away_kit": "black",
    "scene": "A dull afternoon.",
}
SOCCER = task("soccer")


def knows(*said: Any) -> Scripted:
    return Scripted(lambda _call: said or [TEAMS])


def contexts(story: Watching) -> list[Context]:
    return [c for c in story.in_order("contexts") if not c.ended]


def keys(story: Watching) -> list[str]:
    return [s.key.decode().split("\0")[1] for s in story.records_at("contexts")]


def times_s(call: Call) -> list[float]:
    return [p.t_ms / 1000 for p in call.prompt.pictures]


# a row of systems.md, 3 ---------------------------------------------------------------------------------------------


@told
async def test_context_first_one_call_on_the_opening_seconds_finds_teams_and_kits_for_every_later_prompt() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "context.m", "detect.m")
    about, looks = knows(), Scripted(lambda _call: ["None"])
    async with story.running("detect.m", Detect("m", looks)), story.running("context.m", Contextualiser("m", about)):
        story.show(source, *range(10))
        story.end(source, 10)
        detections = await story.come("detections", 11)
    assert len(about.calls) == 1
    (context,) = contexts(story)
    assert (context.fields, context.from_, context.until_, context.outcome) == (TEAMS, 0, None, "done")
    assert context.id == "context.m/context.m/m/0/0"
    assert all("home_kit: white" in (call.prompt.context or "") for call in looks.calls)
    assert {d.context for d in detections if not d.ended} == {context.id}


# the opening --------------------------------------------------------------------------------------------------------


@told
async def test_pictures_are_spread_evenly_over_the_opening_and_each_is_shown_once() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "context.m")
    about = knows()
    async with story.running("context.m", Contextualiser("m", about)):
        story.show(source, *range(7))
        await story.come("contexts", 1)
    assert times_s(about.calls[0]) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert contexts(story)[0].end_ms == 16_000, "asked as soon as the last one is there"


@told
async def test_the_opening_begins_with_the_first_picture_there_is() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "context.m")
    about = knows()
    async with story.running("context.m", Contextualiser("m", about)):
        story.gap(source, 0, 30)
        story.show(source, *range(30, 40))
        await story.come("contexts", 1)
    assert times_s(about.calls[0])[0] == 60
    assert (contexts(story)[0].from_, contexts(story)[0].start_ms) == (0, 60_000)


@told
async def test_a_stream_that_is_shorter_than_its_opening_is_asked_about_when_it_ends() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "context.m")
    about = knows()
    async with story.running("context.m", Contextualiser("m", about)):
        story.show(source, 0, 1)
        story.end(source, 2)
        await story.come("contexts", 2)
    assert times_s(about.calls[0]) == [0, 2, 4]
    assert keys(story) == ["0.0", "0.ended"]


@told
async def test_time_passes_in_gaps_and_failures_too() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "context.m")
    about = knows()
    async with story.running("context.m", Contextualiser("m", about)):
        story.show(source, 0)
        story.gap(source, 1, 2, "unreadable", "failed")
        story.gap(source, 2, 90)
        await story.come("contexts", 1)
    assert times_s(about.calls[0]) == [0, 2]


@told
async def test_where_there_is_no_picture_at_all_the_record_says_so_at_the_end() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "context.m")
    about = knows()
    async with story.running("context.m", Contextualiser("m", about)):
        story.gap(source, 0, 30)
        story.end(source, 30)
        await story.come("contexts", 2)
    assert about.calls == []
    assert (contexts(story)[0].outcome, contexts(story)[0].reason) == ("skipped", "no-pictures")


@told
async def test_a_stream_of_nothing_says_nothing() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "context.m")
    async with story.running("context.m", Contextualiser("m", knows())):
        story.end(source, 0)
        await story.come("contexts", 1)
    assert contexts(story) == []


@told
async def test_an_opening_of_very_many_windows_does_not_hold_up_who_waits_for_it() -> None:
    story = Watching.of()
    for name, ahead in (("m", {}), ("n", {"ahead": 6})):
        said = task("soccer", context={"opening_s": 600, "frames": 64}, **ahead)
        source = story.stream(said, "context.m", name=name)
        about = knows()
        async with story.running("context.m", Contextualiser("m", about)):
            story.show(source, *range(ahead.get("ahead", 256) // 2))
            await story.until(lambda about=about: len(about.calls) == 1)  # type: ignore[misc]  # bound now


@given(
    frames=st.integers(1, 12),
    opening_s=st.floats(0.5, 60),
    shown=st.lists(st.integers(0, 40), max_size=30).map(sorted),
)
def test_whatever_comes_the_pictures_are_few_and_in_order_and_of_the_opening(
    frames: int, opening_s: float, shown: list[int]
) -> None:
    options = Options(model="m", frames=frames, opening_s=opening_s)
    opening, of = Opening(0, None), toys.source("m", services=(), count=0)
    for index in shown:
        opening.take(window(of, index), options)
    times = [t for t, _ in opening.pictures]
    assert len(times) <= frames
    assert times == sorted(set(times))
    assert all(t < times[0] + opening_s * 1000 for t in times)
    assert bool(times) == bool(shown)


MIB = bytes(2**20)


@told
async def test_pictures_that_are_too_large_together_are_thinned_evenly_while_they_gather() -> None:
    story = Watching.of()
    source = story.stream(task("soccer", context={"opening_s": 32, "frames": 16}), "context.m")
    about = knows()
    async with story.running("context.m", Contextualiser("m", about)):
        story.put(*(window(source, i, MIB, MIB, MIB, MIB) for i in range(20)))
        await story.come("contexts", 1)
    assert times_s(about.calls[0]) == [0, 4, 8, 12, 16, 20, 24, 28]
    assert (contexts(story)[0].how or "").endswith("; thinned to 8 pictures, as they are large")


@told
async def test_a_picture_that_is_too_large_by_itself_is_asked_about_at_once() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "context.m")
    about = knows()
    async with story.running("context.m", Contextualiser("m", about)):
        story.put(window(source, 0, MIB * 9))
        await story.come("contexts", 1)
    assert times_s(about.calls[0]) == [0]


@given(
    frames=st.integers(1, 64),
    sizes=st.lists(st.integers(0, KEPT_BYTES), min_size=1, max_size=80),
)
def test_however_large_pictures_are_those_kept_are_within_bounds_and_evenly_spread(
    frames: int, sizes: list[int]
) -> None:
    options, of = Options(model="m", frames=frames, opening_s=frames), toys.source("m", services=(), count=0)
    opening, jpeg = Opening(0, None), memoryview(bytes(KEPT_BYTES))
    for second, size in enumerate(sizes):
        shown: Any = jpeg[:size]
        opening.take(Window.of(window(of, 0), frames=(Frame(t_ms=second * 1000, jpeg=shown),)), options)
        assert opening.size_bytes <= KEPT_BYTES
    times = [t_ms // 1000 for t_ms, _ in opening.pictures]
    assert times == list(range(0, min(len(sizes), frames), opening.every))


# how far it holds ---------------------------------------------------------------------------------------------------


@told
async def test_at_fixed_strides_it_is_asked_again_and_windows_draw_on_what_holds_for_them() -> None:
    story = Watching.of()
    said = task("soccer", context={"every_s": 20, "opening_s": 4, "frames": 2})
    source = story.stream(said, "context.m", "detect.m")
    about = Scripted(lambda call: [TEAMS | {"scene": f"at {times_s(call)[0]:g} s"}])
    looks = Scripted(lambda _call: ["None"])
    async with story.running("context.m", Contextualiser("m", about)), story.running("detect.m", Detect("m", looks)):
        story.show(source, *range(25))
        story.end(source, 25)
        detections = await story.come("detections", 26)
    assert [(c.from_, c.until_) for c in contexts(story)] == [(0, 10), (10, 20), (20, 30)]
    assert keys(story) == ["0.0", "0.10", "0.20", "0.ended"]
    by_id = {c.id: (c.fields or {})["scene"] for c in contexts(story)}
    assert {d.index: by_id[d.context] for d in detections if not d.ended} == {
        i: f"at {i // 10 * 20} s" for i in range(25)
    }


@told
async def test_a_stretch_that_ends_in_a_gap_is_asked_about_all_the_same() -> None:
    story = Watching.of()
    said = task("soccer", context={"every_s": 20, "opening_s": 15})
    source = story.stream(said, "context.m")
    about = knows()
    async with story.running("context.m", Contextualiser("m", about)):
        story.show(source, 0, 1)
        story.gap(source, 2, 40)
        story.show(source, *range(40, 50))
        await story.come("contexts", 2)
    assert [c.from_ for c in contexts(story)] == [0, 40]
    assert times_s(about.calls[0]) == [0, 2, 4]


@told
async def test_a_stretch_of_one_window_has_its_own_context() -> None:
    story = Watching.of()
    said = task("soccer", context={"every_s": 2, "opening_s": 1, "frames": 1})
    source = story.stream(said, "context.m")
    async with story.running("context.m", Contextualiser("m", knows())):
        story.show(source, *range(3))
        await story.come("contexts", 3)
    assert [(c.from_, c.until_) for c in contexts(story)] == [(0, 1), (1, 2), (2, 3)]


@given(
    index=st.integers(0, 10_000),
    every_s=st.one_of(st.just(0.0), st.floats(0.01, 10_000)),
    step=st.sampled_from(["2", "1/3", "1001/30000", "10"]),
    first=st.integers(0, 500),
)
def test_every_index_lies_in_the_one_stretch_that_says_so(index: int, every_s: float, step: str, first: int) -> None:
    grid, stretches = Grid(root="decode", origin="0", step=step, first=first), Stretches(every_s=every_s)
    index += first
    begin, until = stretches.of(grid, index)
    assert begin <= index
    assert until is None or index < until
    assert stretches.of(grid, begin) == (begin, until)


@told
async def test_another_life_of_a_stream_has_a_context_of_its_own() -> None:
    story = Watching.of()
    async with story.running("context.m", Contextualiser("m", knows())):
        for generation in (0, 1):
            source = story.stream(SOCCER, "context.m", generation=generation)
            story.show(source, *range(8))
            story.end(source, 8)
        await story.come("contexts", 4)
    assert sorted(keys(story)) == ["0.0", "0.ended", "1.0", "1.ended"]


@told
async def test_a_new_revision_goes_on_with_what_is_known() -> None:
    story = Watching.of()
    about, looks = knows(), Scripted(lambda _call: ["None"])
    async with story.running("context.m", Contextualiser("m", about)), story.running("detect.m", Detect("m", looks)):
        source = story.stream(SOCCER, "context.m", "detect.m")
        story.show(source, *range(8))
        later = story.stream(SOCCER, "context.m", "detect.m", revision=1, from_index=8)
        story.show(later, 8, 9)
        detections = await story.come("detections", 10)
    assert len(about.calls) == 1
    assert len({d.context for d in detections}) == 1


# failing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "outcome", "reason", "raw"),
    [
        (lambda _call: Rejected("too many pictures"), "failed", "too many pictures", None),
        (lambda _call: ["I see two teams."], "failed", "unreadable", "I see two teams."),
        (lambda _call: [""], "failed", "unreadable", ""),
    ],
)
def test_its_failing_stops_nobody(says: Callable[[Call], Texts], outcome: str, reason: str, raw: str | None) -> None:
    @told
    async def story() -> None:
        story = Watching.of()
        source = story.stream(SOCCER, "context.m", "detect.m")
        about, looks = Scripted(says), Scripted(lambda _call: ["None"])
        async with (
            story.running("context.m", Contextualiser("m", about)),
            story.running("detect.m", Detect("m", looks)),
        ):
            story.show(source, *range(10))
            story.end(source, 10)
            detections = await story.come("detections", 11)
            await story.come("contexts", 2)
        (context,) = contexts(story)
        assert (context.outcome, context.fields, context.from_, context.raw) == (outcome, None, 0, raw)
        assert (context.reason or "").startswith(reason)
        assert all(d.outcome == "done" and d.context is None for d in detections)
        assert {call.prompt.context for call in looks.calls} == {None}

    story()


@told
async def test_who_waits_for_a_context_service_that_is_away_goes_on_without_it_and_waits_once() -> None:
    story, loop = Watching.of(), asyncio.get_running_loop()
    source = story.stream(task("soccer", detect={"context_wait_s": 60}), "context.m", "detect.m")
    looks = Scripted(lambda _call: ["None"])
    async with story.running("detect.m", Detect("m", looks)):
        story.show(source, *range(5))
        detections = await story.come("detections", 5)
        assert 60 <= loop.time() < 62
        story.show(source, *range(5, 10))
        await story.come("detections", 10)
        assert loop.time() < 62
    assert all(d.context is None and d.outcome == "done" for d in detections)


@told
async def test_an_outage_of_its_model_is_waited_out_by_nobody_else_and_its_answer_used_once_it_comes() -> None:
    story, out = Watching.of(), [True]
    source = story.stream(SOCCER, "context.m", "detect.m")
    about = Scripted(lambda _call: Retryable("no route") if out[0] else [TEAMS])
    looks = Scripted(lambda _call: ["None"])
    async with story.running("context.m", Contextualiser("m", about)), story.running("detect.m", Detect("m", looks)):
        story.show(source, *range(10))
        before = await story.come("detections", 10)
        out[0] = False
        await story.come("contexts", 1)
        story.show(source, 10)
        after = (await story.come("detections", 11))[10:]
    assert {d.context for d in before} == {None}
    assert [d.context for d in after] == [contexts(story)[0].id]


@told
async def test_where_the_task_wants_no_context_nobody_waits_for_one() -> None:
    story = Watching.of()
    source = story.stream(task("soccer", context=None), "detect.m")
    async with story.running("detect.m", Detect("m", Scripted(lambda _call: ["None"]))):
        story.show(source, 0)
        await story.come("detections", 1)
    assert asyncio.get_running_loop().time() < 1


# orders of events ---------------------------------------------------------------------------------------------------


@told
async def test_whoever_takes_over_has_the_pictures_and_asks_once() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "context.m")
    first, second = knows(), knows()
    async with story.running("context.m", Contextualiser("m", first)) as service:
        story.show(source, 0, 1, 2)
        await story.until(lambda: service.shared.counts.records_in == 3)
    story.show(source, *range(3, 10))
    async with story.running("context.m", Contextualiser("m", second)):
        await story.come("contexts", 1)
    assert (len(first.calls), len(second.calls)) == (0, 1)
    assert times_s(second.calls[0]) == [0, 2, 4, 6, 8, 10, 12, 14]


async def test_an_attempt_that_is_cut_short_leaves_nothing_behind() -> None:
    source = replace(
        toys.source("m", services=(), count=0), task=task("soccer", context={"every_s": 2, "opening_s": 1})
    )
    silent: Any = SimpleNamespace(ask=lambda *_args, **_options: asyncio.Event().wait())
    stage, begin = Contextualiser("m", silent), 7_001
    shown = window(source, begin)
    row = Row("decode", "m", 0, 0, begin, begin + 1, shown.start_ms, shown.end_ms, None, {"decode": shown})
    look: Any = SimpleNamespace(source=lambda _row: source)
    attempt = asyncio.create_task(stage.fold(row, None, look))
    await asyncio.sleep(0)
    assert openings(begin), "it is asked about"
    attempt.cancel()
    await asyncio.wait([attempt])
    del row, attempt
    assert not openings(begin)


def openings(begin: int) -> list[Opening]:
    """All that are in memory."""
    gc.collect()
    return [o for o in gc.get_objects() if isinstance(o, Opening) and o.begin == begin]


@told
async def test_windows_that_come_again_change_nothing() -> None:
    said = list[list[float]]()
    for order in ([*range(10)], [0, 1, 2, 1, 0, 3, 3, 2, 4, 5, 6, 7, 0, 8, 9]):
        story = Watching.of()
        source = story.stream(SOCCER, "context.m", name=f"m{len(said)}")
        about = knows()
        async with story.running("context.m", Contextualiser("m", about)):
            story.show(source, *order)
            await story.come("contexts", 1)
        said.append(times_s(about.calls[0]))
    assert said[0] == said[1]


async def test_the_observer_knows_a_stream_by_what_it_measures() -> None:
    story = Watching.of()
    async with observed() as (pool, observer), story.running("context.m", Contextualiser("m", pool)):
        source = story.stream(SOCCER, "context.m")
        story.put(*(window(source, i, *[picture(patch=RED)] * 4) for i in range(8)))
        await story.come("contexts", 1)
    (context,) = contexts(story)
    assert observer.calls == 1
    assert context.outcome == "done"
    assert set(context.fields or {}) == set(TEAMS)
    assert "no AI" in (context.fields or {})["scene"]
    assert context.tokens is not None
    assert context.tokens.into > 0


# options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every_s": 10}, "less than the 15 s of opening_s"),
        ({"fields": {}}, "at least 1"),
        ({"fields": {"a": {"type": "sting"}}}, "did you mean 'string'"),
        ({"fields": {"a": {"typ": "string"}}}, "did you mean 'type'"),
        ({"fields": {"a": {"enum": []}}}, "enum is a list"),
        ({"prompt": "{field}"}, "did you mean 'fields'"),
        ({"opening": 3}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Options.model_validate({"model": "m"} | options)
