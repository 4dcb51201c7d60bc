"""caption: what a window shows, in words or in fields, and what is asked again."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from pydantic import ValidationError

from streamproc.errors import Rejected
from streamproc.messages import Caption, Frame, Grid
from streamproc.models.call import Call
from streamproc.models.observer import Settings
from streamproc.stages.asking import RAW_MOST
from streamproc.stages.caption import Captioner, Options, prompt_of
from streamproc.stages.context import Contextualiser
from streamproc.stages.form import schema
from streamproc.stages.options import Labels
from tests.models.corpus.fuzz import strings
from tests.runner.rig import told
from tests.sim import toys
from tests.stages.scripted import Scripted, Texts
from tests.stages.watching import RED, Watching, observed, picture, task, window

DASHCAM = task("dashcam")
FRAME = {
    "scene": "A wet road at night.",
    "hazards": "A dog near the kerb.",
    "gaze": "not shown",
    "incident": 0,
    "severity": "0. No Crash",
    "ego_involved": 0,
    "label": "animal on the road",
    "cyclists": 0,
    "animals": 1,
    "pedestrians": 0,
    "vehicles": 2,
}
SUBMISSIONS = Path(__file__).parents[3] / "shared" / "fixtures" / "2coool"
WORDS = task("any", labels=None, detect=None)
THREE = {"colour": {"type": "string"}, "count": {"type": "integer", "minimum": 0}, "kind": {"enum": ["a", "b"]}}


def answers(*texts: Any) -> Scripted:
    """One text, or the samples of one answer, a call; the last for all that follow."""
    left = [t if isinstance(t, list) else [t] for t in texts]
    return Scripted(lambda _call: left.pop(0) if len(left) > 1 else left[0])


async def captioned(models: Scripted, said: dict[str, Any]) -> Caption:
    story = Watching.of()
    source = story.stream(said, "caption.m")
    async with story.running("caption.m", Captioner("m", models)):
        story.show(source, 0)
        (caption,) = await story.come("captions", 1)
    assert isinstance(caption, Caption)
    return caption


def fields(**options: Any) -> dict[str, Any]:
    return {"caption": {"model": "m", "fields": THREE, **options}}


# a row of systems.md, 1 ---------------------------------------------------------------------------------------------


async def test_a_caption_of_every_tenth_frame_schema_checked_and_enums_enforced() -> None:
    story = Watching.of()
    every_tenth = Grid(root="decode", origin="0", step="1/3", first=0)
    async with observed() as (pool, observer), story.running("caption.m", Captioner("m", pool)):
        source = story.stream(DASHCAM, "caption.m", grid=every_tenth)
        for i in range(6):
            at_ms = every_tenth.starts_ms(i)
            frame = Frame(t_ms=at_ms, frame=1 + 10 * i, jpeg=picture(patch=RED) if i == 3 else picture())
            story.put(window(source, i, frames=(frame,), clips=((0, 0),), end_ms=every_tenth.starts_ms(i + 1)))
        story.end(source, 6)
        captions = await story.come("captions", 7)
    assert observer.calls == 6
    for caption in captions[:6]:
        assert caption.outcome == "done"
        jsonschema.validate(caption.fields, schema(DASHCAM["caption"]["fields"]))
    assert "red" in captions[3].fields["scene"]
    assert captions[6].count == 6


def test_its_schema_has_scene_clues_gaze_incident_severity_ego_19_labels_and_4_counts() -> None:
    said = DASHCAM["caption"]["fields"]
    assert list(said) == list(FRAME)
    assert said["incident"]["enum"] == [1, 0, -1]
    assert len(said["label"]["enum"]) == 19
    assert [name for name, wanted in said.items() if "minimum" in wanted] == [
        "cyclists",
        "animals",
        "pedestrians",
        "vehicles",
    ]
    jsonschema.validate(FRAME, schema(said))


@pytest.mark.skipif(not SUBMISSIONS.is_dir(), reason="the submissions of the predecessors are not here")
def test_every_label_and_severity_of_the_predecessors_submissions_is_one_of_them() -> None:
    said, labels, severities = DASHCAM["caption"]["fields"], set[str](), set[str]()
    for file in SUBMISSIONS.glob("*.csv"):
        rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()))
        labels |= {row["Label"] for row in rows}
        severities |= {row["Crash Severity"] for row in rows}
    assert labels == set(said["label"]["enum"])
    assert severities == set(said["severity"]["enum"])


@told
async def test_a_label_outside_of_the_list_is_refused_and_asked_for_again() -> None:
    models = answers(FRAME | {"label": "spaceship lands"}, FRAME | {"scene": "another"})
    caption = await captioned(models, DASHCAM)
    assert caption.fields == FRAME, "what was said first stays"
    assert caption.how == "json; json"
    assert models.calls[1].prompt.question.endswith("Left out, or answered with what is not allowed there, was: label.")
    assert models.calls[1].prompt.question.startswith(models.calls[0].prompt.question)


async def test_a_server_that_knows_no_schemas_is_told_in_words_and_read_all_the_same() -> None:
    story, simple = Watching.of(), Settings(model="default", honours=frozenset({"max_tokens"}))
    async with (
        observed(card="openai-compatible", settings=simple) as (pool, _),
        story.running("caption.m", Captioner("m", pool)),
    ):
        source = story.stream(DASHCAM, "caption.m")
        story.show(source, 0, 1)
        captions = await story.come("captions", 2)
    for caption in captions:
        jsonschema.validate(caption.fields, schema(DASHCAM["caption"]["fields"]))


# fields -------------------------------------------------------------------------------------------------------------


@told
async def test_what_is_asked_again_and_missing_still_stays_missing() -> None:
    models = answers({"colour": "red"}, {"kind": "b"}, {"count": 1})
    caption = await captioned(models, fields())
    assert (caption.outcome, caption.fields) == ("done", {"colour": "red", "kind": "b"})
    assert caption.how == "json; json; without count"
    assert len(models.calls) == 2
    assert [orjson.loads(t) for t in orjson.loads(caption.raw or "")] == [{"colour": "red"}, {"kind": "b"}]
    assert caption.tokens is not None
    assert (caption.tokens.into, caption.tokens.out, caption.attempts) == (200, 20, 2)


@told
async def test_it_is_asked_again_as_often_as_the_task_says() -> None:
    never, often = answers({"colour": "red"}), answers("hm", "hm", {"colour": "red", "count": 3, "kind": "a"})
    once = await captioned(never, fields(again=0))
    thrice = await captioned(often, fields(again=4))
    assert (len(never.calls), len(often.calls)) == (1, 3)
    assert (once.fields, thrice.fields) == ({"colour": "red"}, {"colour": "red", "count": 3, "kind": "a"})


@told
async def test_what_an_answer_may_lack_is_not_asked_for() -> None:
    models = answers({"colour": "red"})
    caption = await captioned(models, fields(optional=["count", "kind"]))
    assert (len(models.calls), caption.how) == (1, "json")


@told
async def test_where_nothing_can_be_read_it_is_no_caption() -> None:
    for said in ("", "I cannot see anything.", '{"col', "[]", "{}"):
        caption = await captioned(answers(said), fields())
        assert (caption.outcome, caption.reason, caption.fields, caption.text) == ("failed", "unreadable", None, None)
        assert orjson.loads(caption.raw or "") == [said, said]


@told
async def test_a_field_called_text_is_the_text() -> None:
    said = {"caption": {"model": "m", "fields": {"text": {"type": "string"}, "cars": {"type": "integer"}}}}
    caption = await captioned(answers({"text": "A road.", "cars": 2}), said)
    assert (caption.text, caption.fields) == ("A road.", {"cars": 2})


@told
async def test_of_several_samples_each_field_is_voted_for() -> None:
    samples: list[Any] = [
        {"colour": "red", "count": 2, "kind": "a"}, {"colour": "dark red", "count": 3, "kind": "b"},
        {"colour": "red", "count": 9, "kind": "b"}, "hm",
    ]  # fmt: skip
    caption = await captioned(answers(samples), fields(samples=4))
    assert caption.fields == {"colour": "dark red", "count": 3, "kind": "b"}, "the text of the sample that agrees most"
    assert caption.how == "3 of 4 votes"


@pytest.mark.parametrize("seed", range(2))
def test_any_text_gives_fields_of_the_schema_or_none(seed: int) -> None:
    @told
    async def story() -> None:
        story = Watching.of()
        source = story.stream(DASHCAM | {"caption": DASHCAM["caption"] | {"again": 0}}, "caption.m")
        texts = list(strings(seed, 150))
        models = Scripted(lambda call: [texts[call.prompt.pictures[0].t_ms // 2000]])
        async with story.running("caption.m", Captioner("m", models)):
            story.show(source, *range(len(texts)))
            captions = await story.come("captions", len(texts))
        free = schema(DASHCAM["caption"]["fields"], optional=list(FRAME))
        unbounded = orjson.loads(orjson.dumps(free).replace(b"maxLength", b"$comment_"))
        for caption in captions:
            assert (caption.outcome == "done") == bool(caption.fields)
            jsonschema.validate(caption.fields or {}, _without(unbounded, "$comment_"))

    story()


def _without(said: Any, word: str) -> Any:
    if isinstance(said, dict):
        return {name: _without(value, word) for name, value in said.items() if name != word}
    return said


# words --------------------------------------------------------------------------------------------------------------


@told
async def test_without_fields_it_is_the_models_own_words() -> None:
    caption = await captioned(answers("<think>What is it?</think>A dog runs over the road."), WORDS)
    assert (caption.text, caption.fields, caption.how) == ("A dog runs over the road.", None, "thoughts, text")


@told
async def test_words_that_are_none_are_no_caption() -> None:
    for said in ("", "  \n", "<think>hm</think>"):
        caption = await captioned(answers(said), WORDS)
        assert (caption.outcome, caption.reason, caption.text) == ("failed", "unreadable", None)


@told
async def test_of_several_texts_the_one_most_like_the_others_is_taken() -> None:
    told_ = ["A dog runs.", "A dog runs over the road.", "A dog runs over a road.", "Nothing."]
    caption = await captioned(answers(told_), task("any", labels=None, detect=None, caption={"samples": 4}))
    assert caption.text in ("A dog runs over the road.", "A dog runs over a road.")
    assert caption.how == "4 of 4 votes"


@told
async def test_words_that_were_cut_say_so() -> None:
    models = Scripted(lambda _call: ["A dog runs over"], finish="length")
    caption = await captioned(models, WORDS)
    assert (caption.text, caption.how) == ("A dog runs over", "text, cut")


# on the runner ------------------------------------------------------------------------------------------------------


@told
async def test_gaps_failures_and_the_end_are_passed_on_and_cost_no_call() -> None:
    story = Watching.of()
    source = story.stream(WORDS, "caption.m")
    models = answers("A road.")
    async with story.running("caption.m", Captioner("m", models)):
        story.show(source, 0)
        story.gap(source, 1, 2, "unreadable", "failed")
        story.gap(source, 2, 5)
        story.put(window(source, 5, frames=(), clips=()))
        story.end(source, 6)
        found = await story.come("captions", 5)
    assert len(models.calls) == 1
    assert [(c.index, c.until, c.outcome, c.reason, c.text, c.count) for c in found] == [
        (0, 1, "done", None, "A road.", None),
        (1, 2, "failed", "unreadable", None, None),
        (2, 5, "skipped", "missing", None, None),
        (5, 6, "skipped", "no-pictures", None, None),
        (6, 7, "done", None, None, 6),
    ]


@told
async def test_whoever_takes_over_asks_nothing_that_has_landed_and_a_rejected_window_fails_alone() -> None:
    story = Watching.of()
    source = story.stream(WORDS, "caption.m")

    def says(call: Call) -> Texts | Exception:
        return Rejected("refused") if call.prompt.pictures[0].t_ms == 8000 else ["A road."]

    first, second = Scripted(says), Scripted(says)
    async with story.running("caption.m", Captioner("m", first)):
        story.show(source, *range(10))
        await story.come("captions", 10)
    story.show(source, *range(6, 16))
    async with story.running("caption.m", Captioner("m", second)):
        found = await story.come("captions", 16)
    assert (len(first.calls), len(second.calls)) == (10, 6)
    assert [c.index for c in found if c.outcome != "done"] == [4]


@told
async def test_what_is_known_of_the_stream_stands_before_the_pictures_once_it_is_known() -> None:
    story = Watching.of()
    said = WORDS | {"context": {"model": "m", "opening_s": 4, "frames": 2}}
    source = story.stream(said, "context.m", "caption.m")
    models = answers("A road.")
    async with (
        story.running("caption.m", Captioner("m", models)),
        story.running("context.m", Contextualiser("m", answers({"scene": "a harbour"}))),
    ):
        story.show(source, 0, 1, 2)
        captions = await story.come("captions", 3)
    assert {call.prompt.context for call in models.calls} == {"What is known of this video:\nscene: a harbour"}
    assert {c.context for c in captions} == {"context.m/context.m/m/0/0"}


async def test_the_observer_captions_in_words_over_http() -> None:
    story = Watching.of()
    async with observed() as (pool, _), story.running("caption.m", Captioner("m", pool)):
        source = story.stream(WORDS, "caption.m")
        story.show(source, 0)
        (caption,) = await story.come("captions", 1)
    assert "4 frames" in (caption.text or "")
    assert caption.outcome == "done"


# options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fields": {"a": {"type": "integr"}}}, "did you mean 'integer'"),
        ({"fields": {"a": {"type": "integer", "minium": 1}}}, "did you mean 'minimum'"),
        ({"fields": {"a": {}}}, "it has a type"),
        ({"fields": {"a": {"type": "array", "items": {"type": "strin"}}}}, "did you mean 'string'"),
        ({"fields": THREE, "optional": ["color"]}, "did you mean 'colour'"),
        ({"again": 9}, "less than or equal to 4"),
        ({"prompt": "{feilds}"}, "did you mean 'fields'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Options.model_validate({"model": "m"} | options)


def test_a_task_with_fields_and_no_prompt_asks_for_its_fields() -> None:
    options = Options.model_validate({"model": "m", "fields": THREE})
    again = Options.model_validate(options.model_dump())
    assert "{fields}" in options.prompt
    assert again == options, "what is written into a source reads the same"


@told
async def test_an_answer_without_end_is_cut_to_what_a_record_carries_and_says_so() -> None:
    story = Watching.of()
    source = story.stream(WORDS, "caption.m")
    models = Scripted(lambda call: ["a" * (3_000_000 if call.prompt.pictures[0].t_ms == 0 else 3)])
    async with story.running("caption.m", Captioner("m", models)):
        story.show(source, 0, 1)
        found = await story.come("captions", 2)
    assert [c.outcome for c in found] == ["done", "done"]
    assert [len(c.raw or "") for c in found] == [RAW_MOST, 3]
    assert f"raw cut to {RAW_MOST:,} of 3,000,000 characters" in (found[0].how or "")


def test_a_prompt_tells_what_fields_mean_since_a_server_held_to_a_schema_does_not() -> None:
    options = Options.model_validate({"model": "m", "fields": THREE, "prompt": "{fields}"})
    of = window(toys.source("m", services=(), count=0), 0)
    lines = prompt_of(options, Labels(), of, None).question.splitlines()
    assert lines == ["colour: text", "count: a whole number, 0 or more", 'kind: one of "a", "b"']
