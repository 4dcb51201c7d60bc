"""detect: how a model is asked what happens in a window, and what its answer comes to."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from streamproc import wire
from streamproc.errors import Rejected, Retryable
from streamproc.messages import Detection, Sighting
from streamproc.models.call import Call
from streamproc.models.observer import Settings
from streamproc.models.observer.answers import labels_in
from streamproc.models.reply import Sample
from streamproc.stages.asking import RAW_MOST
from streamproc.stages.detect import (
    DETAILS_MOST,
    EVENTS_MOST,
    Detect,
    Options,
    Seen,
    bounded,
    prompt_of,
    read,
    time_ms,
    voted,
    wish,
)
from streamproc.stages.options import Labels
from streamproc.topics import topic
from tests.models.corpus.fuzz import strings
from tests.runner.rig import told
from tests.sim import toys
from tests.stages.scripted import Scripted, Texts
from tests.stages.watching import RED, YELLOW, Watching, observed, picture, task, window

SOCCER = task("soccer", context=None)
OF = toys.source("m", services=(), count=0)
GOAL = {"label": "Goal", "team": "home", "confidence": 0.9, "details": "Header", "time": 1}


async def looked(said: Texts | Exception, **sections: Any) -> Detection:
    """What one window comes to where a model says this."""
    story = Watching.of()
    source = story.stream(task("soccer", context=None, **sections), "detect.m")
    async with story.running("detect.m", Detect("m", Scripted(lambda _call: said))):
        story.show(source, 0)
        (detection,) = await story.come("detections", 1)
    assert isinstance(detection, Detection)
    return detection


def seen(*texts: str, question: str = "", labels: Any = None, **more: Any) -> Seen:
    """The same without a runner."""
    options, wanted = (
        Options(models=("m",), **more),
        Labels.model_validate(SOCCER["labels"] if labels is None else labels),
    )
    samples = [Sample(text=text, finish="stop") for text in texts]
    return read(samples, options, wanted, window(OF, 5), question=question)


def labels_of(found: Seen) -> list[str]:
    return [e.label for e in found.events or ()]


# rows of systems.md, 2 and 3 ----------------------------------------------------------------------------------------


@told
async def test_null_class_is_exactly_none_looked_at_and_nothing_there() -> None:
    found = await looked(["None"])
    assert (found.outcome, found.events, found.how, found.raw) == ("done", (), "null", "None")


@told
async def test_an_answer_that_cannot_be_read_is_failed_and_never_silently_nothing() -> None:
    for said in ("", "Two teams play soccer.", '{"label": "Go', "42"):
        found = await looked([said])
        assert (found.outcome, found.reason, found.events, found.raw) == ("failed", "unreadable", None, said)


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("Free-kick", "Indirect free-kick"),
        ("Shot on target", "Shots on target"),
        ("shots off-target", "Shots off target"),
        ("YELLOW CARD", "Yellow card"),
        ("Yellow->red card", "Yellow->red card"),
        ("second yellow", "Yellow->red card"),
        ("Fouls", "Foul"),
        ("Goal kick", "Clearance"),
        ("Throw in", "Throw-in"),
        ("Corner Kick", "Corner"),
    ],
)
def test_fuzzy_label_names_become_soccernets(said: str, label: str) -> None:
    assert labels_of(seen(orjson.dumps([GOAL | {"label": said}]).decode())) == [label]


@pytest.mark.parametrize(
    "raw",
    [
        '[{"label": "Goal", "team": "home", "confidence": 0.9}]',
        '```json\n[{"label": "Goal", "team": "home", "confidence": 0.9}]\n```',
        "{'label': 'Goal', 'team': 'home', 'confidence': 0.9}",
        'I see this: {"label": "Goal", "team": "home", "confidence": 0.9} and no more.',
        '{"events": [{"label": "Goal", "team": "home", "confidence": 0.9}, {"label": "Fo',
        "1. **Goal** (home, 0.9)",
        "Event: Goal\nTeam: home\nConfidence: 90%",
    ],
)
def test_json_recovery_and_numbered_lists(raw: str) -> None:
    (event,) = seen(raw).events or ()
    assert (event.label, event.team, event.confidence) == ("Goal", "home", 0.9)


def test_prompt_echo_is_no_event() -> None:
    options, wanted = (
        Options(models=("m",), system="", prompt="Report:\n{labels}\n{event}"),
        Labels(names=("Goal", "Foul")),
    )
    prompt = prompt_of(options, wanted, window(OF, 5), None)
    sample = Sample(text=prompt.question, finish="stop")
    assert read([sample], options, wanted, window(OF, 5), question=prompt.question).events is None


@told
async def test_sampling_settings_of_a_run_are_the_calls() -> None:
    story = Watching.of()
    said = task("soccer", context=None, detect={"temperature": 0.7, "top_p": 0.9, "samples": 3, "max_tokens": 256})
    source = story.stream(said, "detect.m")
    asks = Scripted(lambda _call: ["None"] * 3)
    async with story.running("detect.m", Detect("m", asks)):
        story.show(source, 0)
        await story.come("detections", 1)
    (call,) = asks.calls
    assert (dict(call.params), call.samples, call.max_tokens) == ({"temperature": 0.7, "top_p": 0.9}, 3, 256)


@told
async def test_two_models_look_at_a_match_side_by_side() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "detect.a", "detect.b")
    a, b = Scripted(lambda _call: [[GOAL]]), Scripted(lambda _call: ["None"])
    async with story.running("detect.a", Detect("a", a)), story.running("detect.b", Detect("b", b)):
        story.show(source, 0)
        await story.until(lambda: len(story.records("detections")) == 2)
    said = {d.service: (d.model, len(d.events)) for d in story.records("detections")}
    assert said == {"detect.a": ("a", 1), "detect.b": ("b", 0)}


@pytest.mark.parametrize("limits", [{"image_limit": 2}, {"context_tokens": 2800}])
async def test_image_limits_and_context_overflow_leave_frames_out_and_say_so(limits: Any) -> None:
    story = Watching.of()
    async with observed(settings=Settings(**limits)) as (pool, _), story.running("detect.m", Detect("m", pool)):
        source = story.stream(SOCCER, "detect.m")
        story.put(window(source, 0, *[picture(patch=RED, larger=7)] * 4))
        (found,) = await story.come("detections", 1)
    assert [e.label for e in found.events] == ["Red card"]
    assert "2 of 4 frames" in found.how


# what is read -------------------------------------------------------------------------------------------------------


@told
async def test_an_event_keeps_what_was_said_of_it_and_the_record_who_said_it() -> None:
    found = await looked([[GOAL]])
    assert found.events == (Sighting(label="Goal", team="home", confidence=0.9, details="Header", time_ms=1000),)
    assert (found.index, found.start_ms, found.end_ms, found.model, found.how) == (0, 0, 4000, "m", "json")
    assert found.tokens is not None
    assert found.tokens.out == 10


async def test_ten_thousand_events_in_one_answer_are_as_many_as_a_record_carries_and_the_window_stands() -> None:
    found = await looked([[{**GOAL, "details": f"Header {i} " + "ö" * 100} for i in range(10_000)]])
    assert (found.outcome, len(found.raw or "")) == ("done", RAW_MOST)
    assert found.events
    assert found.how
    assert "raw cut to" in found.how
    assert len(wire.encode(found, partitions=1, time="").value or b"") < topic("detections").max_bytes


def test_of_more_than_a_record_carries_the_first_stand_and_it_is_said() -> None:
    many = tuple(Sighting(label="x" * 1000, details="\x01" * 2000, time_ms=i) for i in range(EVENTS_MOST + 1))
    found = bounded(Seen(many, "json"))
    assert found.how == "json; only the first 100 events kept"
    assert [e.time_ms for e in found.events or ()] == list(range(EVENTS_MOST))
    assert {len(e.details or "") for e in found.events or ()} == {DETAILS_MOST}
    few = Seen(many[:1], "json")
    assert bounded(few).how == "json"
    assert bounded(Seen(None, "unreadable")).events is None
    whole = Detection.of(window(OF, 5), events=found.events, raw="\x01" * RAW_MOST)
    assert len(wire.encode(whole, partitions=1, time="").value or b"") < topic("detections").max_bytes


def test_what_is_not_of_the_task_stays_other_in_its_own_words() -> None:
    (event,) = seen('[{"label": "Pitch invasion", "details": "a dog"}]').events or ()
    assert (event.label, event.details) == ("other", "Pitch invasion: a dog")


def test_teams_are_kept_only_where_the_task_has_teams() -> None:
    (event,) = seen(orjson.dumps(GOAL).decode(), labels=["Goal"]).events or ()
    assert event.team is None


@pytest.mark.parametrize(
    ("said_s", "at_ms"),
    [(0, 10_000), (1.25, 11_250), (4, 14_000), (4.5, None), (10, 10_000), (12.5, 12_500), (14, 14_000), (15, None), (754, None), (None, None)],
)  # fmt: skip
def test_a_time_is_since_the_first_picture_else_of_the_stream_else_not_believed(said_s: Any, at_ms: int | None) -> None:
    assert time_ms(said_s, window(OF, 5)) == at_ms


@given(said_s=st.floats(0, 1e6), index=st.integers(0, 5000))
def test_no_time_lies_outside_of_its_window(said_s: float, index: int) -> None:
    of = window(OF, index)
    at = time_ms(said_s, of)
    assert at is None or of.start_ms <= at <= of.end_ms


@pytest.mark.parametrize("seed", range(2))
def test_any_text_is_events_of_the_task_or_nothing_or_unreadable(seed: int) -> None:
    names = {*SOCCER["labels"]["names"], "other"}
    for text in strings(seed, 800):
        found = seen(text)
        assert found.how
        for event in found.events or ():
            assert event.label in names
            assert event.confidence is None or 0 <= event.confidence <= 1
            assert event.time_ms is None or 10_000 <= event.time_ms <= 14_000


# several samples ----------------------------------------------------------------------------------------------------


@told
async def test_of_several_samples_a_label_is_as_sure_as_many_saw_it() -> None:
    foul = {"label": "Foul", "team": "away", "confidence": 0.3}
    found = await looked([[GOAL, foul], [GOAL | {"time": 3}], "None", "hm", [GOAL]], detect={"samples": 5})
    assert found.how == "4 of 5 votes"
    assert [(e.label, e.team, e.confidence) for e in found.events or ()] == [
        ("Goal", "home", 0.75),
        ("Foul", "away", 0.25),
    ]
    assert orjson.loads(found.raw or "")[2] == "None"


@told
async def test_where_no_sample_can_be_read_it_is_unreadable() -> None:
    found = await looked(["hm", "hm"], detect={"samples": 2})
    assert (found.outcome, found.reason, found.how) == ("failed", "unreadable", "0 of 2 votes")


@given(st.data())
def test_the_vote_is_the_same_in_whatever_order_samples_came(data: st.DataObject) -> None:
    sighting = st.builds(
        Sighting,
        label=st.sampled_from(["Goal", "goal", "Foul", "Corner"]),
        team=st.sampled_from([None, "home", "away"]),
        confidence=st.sampled_from([None, 0.2, 0.9]),
        details=st.sampled_from([None, "a", "b"]),
        time_ms=st.sampled_from([None, 1000, 2000]),
    )
    samples = data.draw(st.lists(st.lists(sighting, max_size=3), min_size=1, max_size=5))
    mixed = data.draw(st.permutations(samples))
    assert voted(samples) == voted(mixed)
    assert all(e.confidence is not None and 0 < e.confidence <= 1 for e in voted(samples))


# in one's own words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "label"),
    [
        ("tell me when a red car passes", "a red car passes"),
        ("Tell me whenever it rains.", "it rains"),
        ("Please let me know if someone falls!", "someone falls"),
        ("tell me when\n a dog\n  barks\n", "a dog barks"),
        ("a man who will say hello", "a man who will say hello"),
        ("tell me when", ""),
        ("  ", ""),
    ],
)
def test_a_question_becomes_the_one_label(question: str, label: str) -> None:
    assert wish(question) == label


def test_tell_me_when_is_answered_under_that_label_whatever_the_model_calls_it() -> None:
    question = "tell me when a red car passes"
    found = seen(
        '[{"label": "red sedan", "confidence": 0.8, "details": "from the left"}]', labels={}, question=question
    )
    assert labels_of(found) == ["red sedan"], "no question of the task"
    options = Options(models=("m",), question=question)
    sample = Sample(text='[{"label": "red sedan", "details": "from the left"}]', finish="stop")
    (event,) = read([sample], options, Labels(), window(OF, 5), question="").events or ()
    assert (event.label, event.details) == ("a red car passes", "red sedan: from the left")


def prompted(labels: Any = None, **options: Any) -> str:
    prompt = prompt_of(Options(models=("m",), **options), Labels.model_validate(labels or {}), window(OF, 0), None)
    return f"{prompt.system}\n{prompt.question}"


def test_what_is_looked_for_stands_in_the_prompt_as_labels_as_a_question_or_as_anything() -> None:
    assert labels_in(prompted("Red car, Fire")) == ["Red car", "Fire"]
    assert "- it rains" in prompted(question="tell me when it rains")
    assert "Whatever a viewer" in prompted()
    both = prompted("Red car", question="Parked ones too.")
    assert "- Red car" in both
    assert "Parked ones too." in both
    assert "team" not in both
    assert '"team"' in prompted({"names": ["Goal"], "teams": True})
    long = "tell me when " + "very " * 40 + "big dogs run"
    assert long in prompted(question=long), "a label is short; the question is told whole"


@pytest.mark.parametrize("text", [prompted("Goal"), prompted(), prompted(question="is there a dog?")])
def test_every_prompt_offers_the_null_class_and_no_variable_is_left(text: str) -> None:
    assert "output exactly: None" in text
    assert not [name for name in Options.VARIABLES if f"{{{name}}}" in text]


# on the runner ------------------------------------------------------------------------------------------------------


def asks_after(call: Call) -> Texts:
    """A goal in every third window."""
    return [[GOAL]] if call.prompt.pictures[0].t_ms % 6000 == 0 else ["None"]


@told
async def test_gaps_failures_and_the_end_are_passed_on_and_cost_no_call() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "detect.m")
    asks = Scripted(asks_after)
    async with story.running("detect.m", Detect("m", asks)):
        story.show(source, 0)
        story.gap(source, 1, 2, "unreadable", "failed")
        story.gap(source, 2, 5)
        story.put(window(source, 5, frames=(), clips=()))
        story.end(source, 6)
        found = await story.come("detections", 5)
    assert len(asks.calls) == 1
    assert [(d.index, d.until, d.outcome, d.reason, d.events, d.count) for d in found] == [
        (0, 1, "done", None, (Sighting(label="Goal", team="home", confidence=0.9, details="Header", time_ms=1000),), None),
        (1, 2, "failed", "unreadable", None, None),
        (2, 5, "skipped", "missing", None, None),
        (5, 6, "skipped", "no-pictures", None, None),
        (6, 7, "done", None, None, 6),
    ]  # fmt: skip


@told
async def test_windows_that_come_twice_are_asked_about_once_and_answers_in_any_order_are_each_windows_own() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "detect.m")
    dice = random.Random(4)

    class Late(Scripted):
        async def ask(self, model: str, call: Call, **more: Any) -> Any:
            await asyncio.sleep(dice.random() * 10)
            return await super().ask(model, call, **more)

    asks = Late(asks_after)
    async with story.running("detect.m", Detect("m", asks)):
        story.show(source, *range(20))
        story.show(source, *range(5, 30))
        found = await story.come("detections", 30)
    assert [bool(d.events) for d in found] == [i % 3 == 0 for i in range(30)]
    assert len(asks.calls) == 30
    assert [d.index for d in story.records("detections")] != list(range(30)), "they did come in another order"


@told
async def test_whoever_takes_over_asks_nothing_that_has_landed() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "detect.m")
    first, second = Scripted(asks_after), Scripted(asks_after)
    async with story.running("detect.m", Detect("m", first)):
        story.show(source, *range(10))
        await story.come("detections", 10)
    story.show(source, *range(10, 20))
    async with story.running("detect.m", Detect("m", second)):
        await story.come("detections", 20)
    assert (len(first.calls), len(second.calls)) == (10, 10)


@told
async def test_a_window_that_a_model_rejects_fails_alone() -> None:
    story = Watching.of()
    source = story.stream(SOCCER, "detect.m")
    asks = Scripted(lambda call: Rejected("refused") if call.prompt.pictures[0].t_ms == 2000 else ["None"])
    async with story.running("detect.m", Detect("m", asks)):
        story.show(source, 0, 1, 2)
        found = await story.come("detections", 3)
    assert [(d.outcome, d.reason) for d in found] == [("done", None), ("failed", "refused"), ("done", None)]
    assert len(story.dead("windows")) == 1


@told
async def test_what_may_pass_later_is_tried_again() -> None:
    story, left = Watching.of(), [2]
    source = story.stream(SOCCER, "detect.m")

    def says(_call: Call) -> Texts | Exception:
        left[0] -= 1
        return Retryable("busy") if left[0] >= 0 else ["None"]

    asks = Scripted(says)
    async with story.running("detect.m", Detect("m", asks)):
        story.show(source, 0)
        await story.come("detections", 1)
    assert len(asks.calls) == 3


@told
async def test_a_task_that_cannot_be_read_rejects_its_windows_by_name() -> None:
    story = Watching.of()
    source = story.stream(task("soccer", context=None, detect={"samples": 0}), "detect.m")
    async with story.running("detect.m", Detect("m", Scripted(lambda _call: ["None"]))):
        story.show(source, 0)
        (found,) = await story.come("detections", 1)
    assert found.outcome == "failed"
    assert "'detect' cannot be read" in (found.reason or "")


@told
async def test_feeds_go_before_files() -> None:
    story = Watching.of()
    asks = Scripted(lambda _call: ["None"])
    lives: list[bool] = []

    class Noting(Scripted):
        async def ask(self, model: str, call: Call, *, live: bool = True, **more: Any) -> Any:
            lives.append(live)
            return await asks.ask(model, call, **more)

    async with story.running("detect.m", Detect("m", Noting(lambda _call: []))):
        for name, live in (("cam", True), ("file", False)):
            story.show(story.stream(SOCCER, "detect.m", name=name, live=live), 0)
        await story.until(lambda: len(story.records("detections")) == 2)
    assert sorted(lives) == [False, True]


async def test_the_observer_sees_cards_in_a_match_over_http() -> None:
    story = Watching.of()
    async with observed() as (pool, _), story.running("detect.m", Detect("m", pool)):
        source = story.stream(SOCCER, "detect.m")
        still, red, yellow = picture(), picture(patch=RED), picture(patch=YELLOW)
        story.put(
            window(source, 0, still), window(source, 1, red, red, red, red), window(source, 2, still, still, yellow)
        )
        found = await story.come("detections", 3)
    assert [d.outcome for d in found] == ["done"] * 3
    assert found[0].events == ()
    assert [e.label for e in found[1].events] == ["Red card"]
    seen = {e.label: e for e in found[2].events}
    assert "Yellow card" in seen
    assert seen["Yellow card"].time_ms == 6000, "since the first picture, as it was asked"


async def test_the_observer_answers_a_question_in_ones_own_words_over_http() -> None:
    story = Watching.of()
    said = task("any", detect={"question": "tell me when a red car passes"})
    async with observed() as (pool, _), story.running("detect.m", Detect("m", pool)):
        source = story.stream(said, "detect.m")
        story.put(window(source, 0), window(source, 1, *[picture(patch=RED)] * 4))
        found = await story.come("detections", 2)
    assert [[e.label for e in d.events] for d in found] == [[], ["a red car passes"]]


# options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"models": []}, "at least 1"),
        ({"models": ["Qwen 7B"]}, "should match pattern"),
        ({"prompt": "{lables}"}, "did you mean 'labels'"),
        ({"samples": 0}, "greater than or equal to 1"),
        ({"quetsion": "a"}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Options.model_validate({"models": ["m"]} | options)
