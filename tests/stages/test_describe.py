"""describe: which pictures, which questions in which order, what the samples come to, and what cannot be told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import jsonschema
import msgspec
import numpy as np
import orjson
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from streamproc import wire
from streamproc.errors import Rejected, Retryable
from streamproc.messages import (
    Context,
    Description,
    Event,
    Frame,
    Grid,
    Incident,
    Life,
    Record,
    Source,
    Vote,
    record_id,
)
from streamproc.models.call import Call
from streamproc.runner.look import source_key
from streamproc.stages.asking import RAW_MOST
from streamproc.stages.describe.presets import KNOWN, Preset, around
from streamproc.stages.describe.rounds import Case, Round, SoFar, heard, left, next_call
from streamproc.stages.describe.shown import Shown
from streamproc.stages.describe.stage import Describe, Options
from streamproc.stages.reasons import NOT_CLOSED, UNREADABLE
from streamproc.video.jobs import Reach
from streamproc.video.keep import UNREACHABLE
from tests.models.corpus.fuzz import strings
from tests.runner.rig import Rig, told
from tests.sim import toys
from tests.stages.scripted import Scripted, Texts
from tests.stages.watching import observed

PRESET = "2-1-10"
FACTS = {"incident": 1, "label": "crash", "vehicles": 2}
TEXTS = {"start_frame": 151, "before": "A car waits.", "reason": "It is hit from behind."}
ROUNDS: list[dict[str, Any]] = [
    {
        "name": "facts",
        "prompt": "Count. {fields}",
        "fields": {
            "incident": {"enum": [1, 0, -1]},
            "label": {"enum": ["crash", "near miss", "none"]},
            "vehicles": {"type": "integer", "minimum": 0},
        },
    },
    {
        "name": "texts",
        "prompt": "Known:\n{said}\nTell of {event}, in {frames}.",
        "fields": {
            "start_frame": {"type": "integer", "minimum": 1},
            "before": {"type": "string"},
            "reason": {"type": "string"},
        },
    },
    {
        "name": "reconcile",
        "prompt": "Put it together:\n{said}",
        "fields": {"label": {"enum": ["crash", "near miss", "none"]}, "reason": {"type": "string"}},
    },
]
TOGETHER = {"label": "near miss", "reason": "It is nearly hit."}


@cache
def jpeg(shade: int = 0) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.full((16, 16, 3), shade % 256, np.uint8)))


@dataclass
class Album:
    """Footage of a stream: so many frames a second, with numbers or without."""

    frames: int | None = 300
    begin_s: float = 0.0
    end_s: float = 10.0
    asked: list[Sequence[float]] = field(default_factory=list)
    lost: Exception | None = None

    async def reach(self, source: Source) -> Reach:
        if self.lost:
            raise self.lost
        return Reach(self.begin_s, self.end_s, 30.0, self.frames)

    async def numbered(self, source: Source, numbers: Sequence[int], *, longest: int | None) -> Sequence[Frame]:
        self.asked.append(numbers)
        return [Frame(t_ms=round((n - 1) / 30 * 1000), frame=n, jpeg=jpeg(n)) for n in numbers]

    async def timed(self, source: Source, times_s: Sequence[float], *, longest: int | None) -> Sequence[Frame]:
        self.asked.append(times_s)
        return [Frame(t_ms=round(t * 1000), jpeg=jpeg(round(t))) for t in times_s]


class Story(Rig):
    @classmethod
    def of(cls, partitions: int = 2) -> Story:
        return cls(Rig.of(partitions).log)

    def clip(self, *, live: bool = False, sampling: Any = None, **options: Any) -> Source:
        services = ("locate.m", "dedup", f"describe.m.{PRESET}")
        made = toys.source("clip", services=services, count=30)
        known = options.pop("known", None)
        options = {"models": ["m"], "presets": [PRESET], "rounds": ROUNDS} | options
        task = {
            "sampling": sampling or {"every": 10},
            "labels": {"names": ["crash"]},
            "describe": options,
            **({"context": known} if known else {}),
        }
        made = replace(made, task=task, live=live, grid=Grid(root="decode", origin="0", step="1/3", first=0))
        self.log.put(made, sub=source_key("clip", 0, 0).split("\0")[1:])
        return made

    def placed(self, index: int) -> Any:
        return toys.window(toys.source("clip", services=(), count=30), index, index + 1, 30)

    def incident(self, index: int = 0, **fields: Any) -> None:
        self._say(Incident, "locate.m", index, {"frame": 151, "time_ms": 5000} | fields)

    def event(self, index: int, state: Any, *, time_ms: int = 5000) -> None:
        life = Life(
            id=f"clip/e{index}", revision=index, state=state, label="crash", team="home", start_ms=4000, end_ms=6000,
            time_ms=time_ms, votes=(Vote(model="m", index=3),), details="two cars",
        )  # fmt: skip
        self._say(Event, "dedup", index, {"event": life})

    def _say(self, kind: type[Record], service: str, index: int, fields: dict[str, Any]) -> None:
        whole: dict[str, Any] = {
            "id": record_id(service, service, "clip", 0, index), "service": service, "root": service, "stream": "clip",
            "generation": 0, "revision": 0, "index": index, "start_ms": 0, "end_ms": 10_000, "outcome": "done",
        }  # fmt: skip
        made = kind(**(whole | fields))
        self.log.append([wire.encode(made, partitions=self.log.partitions, time="")])

    def descriptions(self) -> list[Description]:
        return sorted(self.records("descriptions"), key=lambda r: (r.root, r.index))

    async def told(self, models: Scripted, album: Album | None = None, *, count: int = 1) -> list[Description]:
        async with self.running(f"describe.m.{PRESET}", Describe("m", PRESET, models, album or Album())):
            await self.until(lambda: len(self.records("descriptions")) == count)
        return self.descriptions()


def by_round(facts: Texts = (FACTS,), texts: Texts = (TEXTS,), together: Texts = (TOGETHER,)) -> Scripted:
    """Four samples of each, or those that are told."""

    def says(call: Call) -> Texts:
        said = {"Count.": facts, "Known:": texts, "Put it": together}[call.prompt.question[:6]]
        return said if len(said) > 1 else [*said] * 4

    return Scripted(says)


# pictures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("6-5-rows", range(200 - 60, 200 + 51, 10)),
        ("11-2-6", range(200 - 66, 200 + 13, 6)),
        ("6-5-10", range(200 - 60, 200 + 51, 10)),
        ("12-11-6", range(200 - 72, 200 + 67, 6)),
        ("6-5-8", range(200 - 48, 200 + 41, 8)),
    ],
)
def test_the_five_presets_show_pictures_before_and_after_at_their_step(name: str, numbers: range) -> None:
    assert name in KNOWN
    assert around(200, of=600, preset=Preset.named(name), rows=10) == tuple(numbers)


@pytest.mark.parametrize(
    ("place", "of", "numbers"),
    [
        (1, 600, range(1, 112, 10)),
        (13, 600, range(3, 114, 10)),
        (600, 600, range(490, 601, 10)),
        (595, 600, range(485, 596, 10)),
        (9999, 600, range(490, 601, 10)),
        (-4, 600, range(1, 112, 10)),
        (50, 100, range(2, 91, 8)),
        (20, 40, range(2, 36, 3)),
        (7, 12, range(1, 13)),
        (3, 5, range(1, 6)),
        (1, 1, range(1, 2)),
    ],
)
def test_pictures_shift_at_the_edges_and_move_together_on_short_clips(place: int, of: int, numbers: range) -> None:
    shown = around(place, of=of, preset=Preset.named("6-5-10"), rows=10)
    assert shown[-1] <= of
    assert shown == tuple(numbers), shown


@given(
    st.integers(-10, 2000),
    st.integers(0, 1500),
    st.builds(Preset, st.integers(0, 40), st.integers(0, 23), st.none() | st.integers(1, 60)),
    st.integers(1, 60),
)
def test_the_place_is_among_its_pictures_and_as_many_are_shown_as_there_can_be(
    place: int, of: int, preset: Preset, rows: int
) -> None:
    shown = around(place, of=of, preset=preset, rows=rows)
    assert len(shown) == min(of, preset.before + 1 + preset.after)
    assert len({b - a for a, b in pairwise(shown)}) <= 1
    if of:
        assert min(max(place, 1), of) in shown
        assert 1 <= shown[0] <= shown[-1] <= of


@pytest.mark.parametrize(
    ("name", "told_"), [("6-5-row", "did you mean '6-5-rows'"), ("60-5-1", "64 pictures"), ("6-5-0", "one frame apart"), ("6-5", "it looks like")]
)  # fmt: skip
def test_a_preset_that_cannot_be_is_told_by_name(name: str, told_: str) -> None:
    with pytest.raises(ValidationError, match=told_):
        Options(presets=(name,))


# rounds --------------------------------------------------------------------------------------------------------------


@told
async def test_three_prompts_by_four_samples_each_see_what_was_concluded_before() -> None:
    story = Story.of()
    story.clip()
    story.incident()
    models = by_round()
    (found,) = await story.told(models)
    assert found.fields == FACTS | TEXTS | TOGETHER
    assert (found.agreement, found.preset, found.model, found.attempts) == (1.0, PRESET, "m", 3)
    assert found.samples == (TOGETHER,) * 4
    assert found.tokens is not None
    assert found.tokens.into == 300
    assert [c.samples for c in models.calls] == [4, 4, 4]
    counted, asked, together = (c.prompt.question for c in models.calls)
    assert "incident: one of 1, 0, -1" in counted
    assert asked == "Known:\nincident: 1\nlabel: crash\nvehicles: 2\nTell of frame 151 (5 s), in 131, 141, 151, 161."
    assert "before: A car waits." in together
    assert len(orjson.loads(found.raw or "")) == 12


@told
async def test_all_rounds_begin_alike_so_that_a_server_keeps_the_pictures() -> None:
    story = Story.of()
    story.clip()
    story.incident()
    models = by_round()
    await story.told(models)
    assert len({(c.prompt.system, c.prompt.context, c.prompt.pictures, c.prompt.clips) for c in models.calls}) == 1
    assert [p.before for p in models.calls[0].prompt.pictures] == [f"Frame {n}:" for n in (131, 141, 151, 161)]


@told
async def test_choices_by_mode_counts_by_rounded_median_texts_of_the_sample_that_agrees_most() -> None:
    story = Story.of()
    story.clip()
    story.incident()
    facts = [FACTS, FACTS | {"vehicles": 9}, FACTS | {"vehicles": 3, "label": "none"}, "it is a crash"]
    texts = [TEXTS | {"start_frame": n, "reason": f"R{n}"} for n in (100, 151, 151, 400)]
    (found,) = await story.told(by_round(facts, texts, [TOGETHER] * 3 + [{"label": "none"}]))
    assert found.fields is not None
    assert (found.fields["label"], found.fields["vehicles"], found.fields["start_frame"]) == ("near miss", 3, 151)
    assert found.fields["reason"] == TOGETHER["reason"]
    assert found.agreement is not None
    assert 0.5 < found.agreement < 1.0
    assert found.samples == (TOGETHER, TOGETHER, TOGETHER, {"label": "none"})


@told
async def test_an_empty_field_is_asked_again_with_the_penalty_raised_by_a_tenth_up_to_one_and_a_half() -> None:
    story = Story.of()
    story.clip()
    story.incident()
    models = by_round(texts=[TEXTS | {"reason": " "}] * 4)
    (found,) = await story.told(models)
    penalties = [c.params.get("repetition_penalty") for c in models.calls]
    assert penalties == [None, None, 1.1, 1.2, 1.3, 1.4, 1.5, None]
    assert found.outcome == "done"
    assert found.fields == FACTS | TEXTS | TOGETHER, "what the last round says fills the hole"
    assert found.attempts == 8


@told
async def test_the_penalty_is_raised_from_what_the_models_card_says() -> None:
    story = Story.of()
    story.clip()
    story.incident()
    models = by_round(texts=[TEXTS | {"reason": " "}] * 4)
    models.card = {"repetition_penalty": 1.2, "temperature": 0.1}
    await story.told(models)
    assert [c.params.get("repetition_penalty") for c in models.calls] == [None, None, 1.3, 1.4, 1.5, None]


async def test_what_a_card_says_of_sampling_is_known_of_its_model() -> None:
    async with observed(card="phi-3.5-vision") as (pool, _):
        assert pool.sampling("m")["repetition_penalty"] == 1.2
        assert pool.sampling("nobody") == {}


@told
async def test_what_was_said_first_stays_when_a_hole_is_asked_for_again() -> None:
    story = Story.of()
    story.clip(repetition_penalty=1.2)
    story.incident()
    answers = iter([[FACTS | {"label": "?"}] * 4, [{"label": "none", "vehicles": 7}] * 4])
    models = Scripted(lambda call: next(answers) if call.prompt.question.startswith("Count") else by_round().says(call))
    (found,) = await story.told(models)
    assert found.fields == FACTS | TEXTS | TOGETHER
    assert [c.params["repetition_penalty"] for c in models.calls] == [1.2, 1.3, 1.2, 1.2]


@told
async def test_a_round_without_fields_of_its_own_answers_for_all_before_it() -> None:
    story = Story.of()
    story.clip(rounds=[*ROUNDS[:2], {"name": "reconcile", "prompt": "Put it together:\n{said}\n{fields}"}])
    story.incident()
    models = by_round(together=[FACTS | TEXTS | {"vehicles": 3}])
    (found,) = await story.told(models)
    assert found.fields == FACTS | TEXTS | {"vehicles": 3}
    wanted = models.calls[2].prompt.schema
    assert wanted is not None
    assert wanted["required"] == [*FACTS, *TEXTS]
    assert "before: text" in models.calls[2].prompt.question


@told
async def test_a_server_that_refuses_the_penalty_leaves_what_was_said() -> None:
    story = Story.of()
    story.clip()
    story.incident()

    def says(call: Call) -> Texts | Exception:
        if "repetition_penalty" in call.params:
            return Rejected("unknown parameter")
        return [{"vehicles": 2}] if call.prompt.question.startswith("Count") else by_round().says(call)

    (found,) = await story.told(Scripted(says))
    assert found.fields == {"vehicles": 2} | TEXTS | TOGETHER
    assert not story.dead("incidents")


@told
async def test_what_nobody_can_read_is_unreadable_with_the_text_kept() -> None:
    story = Story.of()
    story.clip(penalty_most=1.1)
    story.incident()
    models = Scripted(lambda _call: ["I am sorry"] * 4)
    (found,) = await story.told(models)
    assert (found.outcome, found.reason, found.fields, found.samples) == ("failed", UNREADABLE, None, None)
    assert orjson.loads(found.raw or "") == ["I am sorry"] * 24
    assert found.preset == PRESET


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_a_model_says_has_fields_by_the_schema_or_is_unreadable(seed: int) -> None:
    texts = strings(seed, 10_000)
    wanted = {name: schema for one in ROUNDS for name, schema in one["fields"].items()}

    @told
    async def story() -> None:
        story = Story.of()
        story.clip(penalty_most=1.1)
        for index in range(60):
            story.incident(index)
        models = Scripted(lambda _call: [next(texts) for _ in range(4)])
        for found in await story.told(models, count=60):
            assert (found.outcome == "done") == bool(found.fields)
            for name, value in (found.fields or {}).items():
                jsonschema.validate(value, wanted[name])
            assert found.agreement is None or 0 <= found.agreement <= 1
        assert len(models.calls) <= 60 * 6

    story()


CASE = Case(
    rounds=[Round.model_validate(r) for r in ROUNDS], pictures=(), system=None, context=None,
    values={"event": "it", "frames": "1"}, samples=4, max_tokens=100, params={}, penalty_most=1.5,
)  # fmt: skip


def test_what_is_known_between_two_calls_is_plain_and_goes_on_where_it_was() -> None:
    models, so_far, questions = by_round(), SoFar(), []

    def kept(known: SoFar) -> SoFar:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(known), type=SoFar)

    while call := next_call(CASE, so_far):
        questions.append(call.prompt.question)
        assert next_call(CASE, kept(so_far)) == call
        so_far = kept(heard(CASE, so_far, answered(models, call)))
    assert len(questions) == len(ROUNDS)
    assert so_far.fields == FACTS | TEXTS | TOGETHER
    assert left(SoFar(found={"a": 1})).fields == {"a": 1}


@told
async def test_of_very_long_texts_a_record_carries_as_much_as_fits_and_says_how_much_is_left_out() -> None:
    story = Story.of()
    story.clip()
    story.incident()
    long = "so be it " * 10_000
    asked = by_round()
    models = Scripted(lambda call: [f"{orjson.dumps(said).decode()}\n{long}" for said in asked.says(call)])  # type: ignore[union-attr]  # it raises nothing
    (found,) = await story.told(models)
    assert found.fields == FACTS | TEXTS | TOGETHER
    texts = orjson.loads(found.raw or "")
    assert len(texts) == 12
    assert RAW_MOST - 12 < sum(map(len, texts)) <= RAW_MOST
    assert all(text.startswith("{") for text in texts)
    assert re.search(r"; raw cut to 65,532 of 1,08\d,\d{3} characters$", found.how or "")


def test_what_was_said_is_bounded_between_two_calls_too() -> None:
    so_far, models = SoFar(), Scripted(lambda _call: ["x" * RAW_MOST] * 4)
    while call := next_call(CASE, so_far):
        so_far = heard(CASE, so_far, answered(models, call))
        assert sum(map(len, so_far.texts)) <= RAW_MOST
    assert so_far.said == 4 * len(models.calls) * RAW_MOST


def answered(models: Scripted, call: Call) -> Any:
    """The answer of a model that waits for nothing."""
    coroutine = models.ask("m", call, stream="clip")
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


# pictures from round to round ----------------------------------------------------------------------------------------


def frame(size_bytes: int) -> Frame:
    return Frame(t_ms=0, jpeg=bytes(size_bytes))


def test_pictures_of_many_records_are_bounded_by_their_bytes_and_the_oldest_go_first() -> None:
    shown = Shown(most_bytes=100)
    for record in ("a", "b", "c"):
        shown.keep(record, [frame(20), frame(20)])
    assert shown.pop("a") is None
    assert len(shown.pop("b") or ()) == 2
    shown.keep("large", [frame(1000)])
    assert shown.pop("c") is None
    assert len(shown.pop("large") or ()) == 1, "its call holds them anyway"
    shown.keep("d", [frame(100)])
    assert len(shown.pop("d") or ()) == 1, "what has gone counts no more"


async def test_pictures_of_a_record_that_failed_are_let_go() -> None:
    story, album = Story.of(), Album()
    source = story.clip()
    story.incident()
    (record,) = story.records("incidents")
    stage = Describe("m", PRESET, by_round(), album)
    look: Any = SimpleNamespace(source=lambda _record: source)
    known = await stage.round(record, None, look)
    assert isinstance(known, SoFar)
    await stage.round(record, known, look)
    assert len(album.asked) == 1
    stage.otherwise(record, "failed", "refused")
    await stage.round(record, known, look)
    assert len(album.asked) == 2


# what comes in -------------------------------------------------------------------------------------------------------


@told
async def test_an_event_is_described_when_it_closes_and_not_before() -> None:
    story = Story.of()
    story.clip(presets=[PRESET])
    for index, state in enumerate(("open", "update", "close")):
        story.event(index, state)
    models = by_round()
    found = await story.told(models, count=3)
    assert [(d.root, d.index, d.outcome, d.reason) for d in found] == [
        ("dedup", 0, "skipped", NOT_CLOSED),
        ("dedup", 1, "skipped", NOT_CLOSED),
        ("dedup", 2, "done", None),
    ]
    assert "'crash' of team home at 5 s (from 4 s to 6 s: two cars)" in models.calls[1].prompt.question


@told
async def test_incidents_that_failed_and_the_end_pass_without_a_call_and_each_sequence_has_its_own_numbers() -> None:
    story = Story.of()
    story.clip()
    story.incident(0, outcome="failed", reason="unreadable", frame=None, time_ms=None)
    story.incident(1)
    story.incident(2, frame=None, time_ms=None, count=2)
    story.event(0, "close")
    models = by_round()
    found = await story.told(models, count=4)
    assert [(d.root, d.index, d.outcome, d.count) for d in found] == [
        ("dedup", 0, "done", None),
        ("locate.m", 0, "failed", None),
        ("locate.m", 1, "done", None),
        ("locate.m", 2, "done", 2),
    ]
    assert len(models.calls) == 6
    assert len({d.id for d in found}) == 4


@told
async def test_pictures_that_are_out_of_reach_fail_by_that_name() -> None:
    story = Story.of()
    story.clip()
    story.incident()
    models = by_round()
    (found,) = await story.told(models, Album(lost=Rejected(UNREACHABLE)))
    assert (found.outcome, found.reason, found.preset) == ("failed", "footage-unreachable", PRESET)
    assert not models.calls
    assert len(story.dead("incidents")) == 1


@told
async def test_a_round_that_fails_for_now_is_asked_again_and_those_before_it_are_not() -> None:
    story = Story.of()
    story.clip()
    story.incident()
    models = Scripted(lambda call: Retryable("busy") if len(models.calls) in (1, 3, 4) else by_round().says(call))
    (found,) = await story.told(models)
    assert found.fields == FACTS | TEXTS | TOGETHER
    assert [call.prompt.question[:6] for call in models.calls] == ["Count.", "Count.", *["Known:"] * 3, "Put it"]
    assert found.attempts == 3


@told
async def test_pictures_of_a_feed_are_those_around_a_time() -> None:
    story = Story.of()
    story.clip(live=True, sampling={"fps": "3"})
    story.incident(frame=None)
    album = Album(frames=None, begin_s=2.0, end_s=60.0)
    models = by_round()
    await story.told(models, album)
    (times,) = album.asked
    assert [round(t, 3) for t in times] == [4.333, 4.667, 5.0, 5.333]
    assert [p.before for p in models.calls[0].prompt.pictures] == [f"Picture {n}:" for n in (1, 2, 3, 4)]


@told
async def test_a_time_in_a_file_whose_frames_nobody_counted_becomes_a_number() -> None:
    story = Story.of()
    story.clip(sampling={"fps": "3"})
    story.incident(frame=None, time_ms=2000)
    album = Album()
    await story.told(by_round(), album)
    assert album.asked == [(41, 51, 61, 71)]


@told
async def test_an_incident_at_the_edge_is_shown_with_what_there_is() -> None:
    story = Story.of()
    story.clip()
    story.incident(frame=1, time_ms=0)
    album = Album(frames=3, end_s=0.1)
    await story.told(by_round(), album)
    assert album.asked == [(1, 2, 3)]


# options -------------------------------------------------------------------------------------------------------------


@told
async def test_what_is_known_of_the_stream_stands_before_the_pictures_and_is_named() -> None:
    story = Story.of()
    known = {"every_s": 2.0}
    story.clip(context="The street:\n{context}", system="Labels:\n{labels}", known=known)
    held = Context.of(story.placed(6), fields={"street": "wet", "cars": 3}, from_=6)
    held = replace(held, id="context.m/context/clip/0/1", service="context.m", root="context")
    story.log.put(held, sub=("0.12",))
    story.incident()
    models = by_round()
    (found,) = await story.told(models)
    assert found.context == held.id
    assert {c.prompt.context for c in models.calls} == {"The street:\nstreet: wet\ncars: 3"}
    assert {c.prompt.system for c in models.calls} == {"Labels:\n- crash"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rounds": [ROUNDS[0] | {"prompt": "{evnt}"}]}, "round 'facts': no variable '.evnt.'; did you mean 'event'"),
        ({"rounds": []}, "at least 1 item"),
        ({"rounds": [ROUNDS[0] | {"fields": {}}]}, "round 'facts': it has no fields, and there is no round before it"),
        ({"rounds": [ROUNDS[0] | {"fields": {"a": {"typ": "string"}}}]}, "did you mean 'type'"),
        ({"context": "{said}"}, "context: it stands before every round"),
        ({"system": "{fields}"}, "system: it stands before every round"),
        ({"penalty_most": 3}, "less than or equal to 2"),
    ],
)
def test_options_that_cannot_be_say_what_is_wrong(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Options.model_validate(options)
