"""ensemble on the real runner: a verdict on every event and incident, by its rule, and the reason where there is none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import ValidationError

from streamproc import wire
from streamproc.errors import Rejected
from streamproc.messages import Description, Event, Incident, Record, Source, Verdict, record_id
from streamproc.models.call import Answer
from streamproc.models.card import served
from streamproc.models.observer import running
from streamproc.models.opening import model_of
from streamproc.models.pool import Pool
from streamproc.models.transport import AiohttpTransport
from streamproc.runner.look import source_key
from streamproc.stage import Each, Look
from streamproc.stages.dedup import Dedup
from streamproc.stages.ensemble.stage import Ensemble, Options
from tests.runner.rig import told
from tests.sim import toys
from tests.stages.test_dedup import Story, foul, goal
from tests.stages.test_ensemble_cluster import Script, said

LOCATE = "locate.text"
Fields = Mapping[str, Any] | str | None
"""What a describer says: fields, or the reason why it says nothing."""


class Describer(Each):
    """Says of each number what it was told to."""

    reads, writes = ("incidents", "events"), ("descriptions",)

    def __init__(self, told: Callable[[Record], Fields]) -> None:
        self.told = told

    async def handle(self, record: Record, look: Look) -> Description:
        fields = self.told(record)
        if fields is None:
            return Description.of(record, outcome="skipped", reason="not-closed")
        if isinstance(fields, str):
            raise Rejected(fields)
        return Description.of(record, fields=dict(fields), agreement=1.0)


class Trial(Story):
    """A stream whose incidents or events are judged."""

    @classmethod
    def of(cls, partitions: int = 2) -> Trial:
        return cls(Story.of(partitions).log)

    def judge(self, *services: str, task: Mapping[str, Any] | None = None, count: int = 60, **options: Any) -> Source:
        made = toys.source("m", services=services, count=count)
        made.task.update({"ensemble": options, **(task or {})})
        self.log.put(made, sub=source_key("m", 0, 0).split("\0")[1:])
        return made

    def incidents(self, of: Source, *frames: int | str, ended: bool = True) -> None:
        """One a frame; a word is the reason why there is none."""
        for number, frame in enumerate(frames):
            missing = isinstance(frame, str)
            place = toys.window(of, number, number + 1, of.task["count"])
            fields: dict[str, Any] = {"outcome": "failed", "reason": frame} if missing else {"frame": frame}
            self.put(Incident.of(place, **fields, time_ms=None if missing else 100 * int(frame)), LOCATE, number)
        if ended:
            self.put(Incident.of(toys.window(of, 0, 1, 1), count=len(frames)), LOCATE, len(frames))

    def put(self, record: Record, service: str, number: int) -> None:
        identity = record_id(service, service, record.stream, record.generation, number)
        whole = replace(record, id=identity, service=service, root=service, index=number)
        self.log.append([wire.encode(whole, partitions=self.log.partitions, time="")])

    async def verdicts(self, *, stage: Ensemble | None = None, **by: Callable[[Record], Fields]) -> list[Verdict]:
        """All of them, in order, once the stream has ended: dedup, describers and ensemble at work together."""
        name = f"ensemble.{stage.model}" if stage and stage.model else "ensemble"
        async with asyncio.TaskGroup() as tasks:
            services = [self.service("dedup", Dedup()), self.service(name, stage or Ensemble())]
            services += [self.service(f"describe.{n.replace('_', '.')}", Describer(d)) for n, d in by.items()]
            for service in services:
                tasks.create_task(service.run())
            await self.until(lambda: any(r.ended for r in self.records("verdicts")))
            for service in services:
                await service.drain()
        found: list[Verdict] = sorted(self.records("verdicts"), key=lambda r: r.index)
        assert [v.index for v in found] == list(range(len(found)))
        assert found[-1].count == len(found) - 1
        return found[:-1]


def done(verdicts: list[Verdict]) -> list[Verdict]:
    return [v for v in verdicts if v.outcome == "done"]


def described(fields: Fields) -> Callable[[Record], Fields]:
    """Of incidents, and of events once they close."""

    def told(record: Record) -> Fields:
        return None if isinstance(record, Event) and (not record.event or record.event.state != "close") else fields

    return told


# events -------------------------------------------------------------------------------------------------------------


@told
async def test_an_event_has_a_verdict_when_it_closes_and_a_reason_before() -> None:
    rig = Trial.of()
    of = rig.judge("detect.a", "detect.b", "dedup", "ensemble")
    rig.says(of, "a", {20: [goal(0.9, team="home")], 21: [goal(0.8)], 40: [foul(0.5)]})
    rig.says(of, "b", {21: [goal(0.7)]})
    verdicts = await rig.verdicts()
    events = {r.index: r for r in rig.records("events")}
    assert [(v.index, v.reason) for v in verdicts if v.outcome != "done"] == [
        (i, "not-closed") for i, e in sorted(events.items()) if e.event and e.event.state != "close"
    ]
    both, one = done(verdicts)
    assert (both.label, both.time_ms, both.rule) == ("Goal", 44_000, "vote")
    assert (both.found_by, both.confidence) == (("a", "b"), 0.8)
    assert both.fields == {"team": "home", "found": "by all", "disagreement": [], "absent": []}
    assert both.inputs == (events[both.index].id,)
    assert (one.label, one.found_by, one.confidence) == ("Foul", ("a",), 0.25)
    assert one.fields == {"found": "by one", "disagreement": ["b"], "absent": []}


@told
async def test_a_model_that_failed_is_absent_and_speaks_against_nothing() -> None:
    rig = Trial.of()
    of = rig.judge("detect.a", "detect.b", "dedup", "ensemble")
    rig.says(of, "a", {20: [goal(0.9)]})
    rig.says(of, "b", dict.fromkeys(range(60), "failed"))
    (one,) = done(await rig.verdicts())
    assert (one.fields, one.confidence) == ({"found": "by all", "disagreement": [], "absent": ["b"]}, 0.9)


@told
async def test_thresholds_calibration_and_how_many_must_have_seen_it_decide_what_is_believed() -> None:
    rig = Trial.of()
    line = {"method": "isotonic", "confidence": [0.0, 1.0], "probability": [0.0, 0.5]}
    of = rig.judge(
        "detect.a", "detect.b", "dedup", "ensemble", at_least=2, calibration=line, thresholds={"goal": 0.4, "Foul": 0.1}
    )  # fmt: skip
    rig.says(of, "a", {10: [goal(0.9)], 20: [goal(0.7)], 30: [foul(0.3)], 40: [foul(0.9)]})
    rig.says(of, "b", {10: [goal(0.9)], 20: [goal(0.7)], 30: [foul(0.3)]})
    closed = [v for v in await rig.verdicts() if v.reason != "not-closed"]
    assert [(v.label, v.confidence, v.outcome, v.reason) for v in closed] == [
        ("Goal", 0.45, "done", None),
        ("Goal", 0.35, "skipped", "below-threshold"),
        ("Foul", 0.15, "done", None),
        ("Foul", 0.225, "skipped", "too-few-models"),
    ]


@told
async def test_what_describers_say_of_an_event_is_put_to_the_vote() -> None:
    rig = Trial.of()
    rounds = [{"name": "r", "prompt": "?", "fields": {"players": {"type": "integer"}, "text": {"type": "string"}}}]
    of = rig.judge(
        "detect.a", "dedup", "describe.x.p", "describe.y.p", "describe.z.p", "ensemble",
        task={"describe": {"rounds": rounds}},
    )  # fmt: skip
    rig.says(of, "a", {20: [goal(0.9)]})
    (one,) = done(
        await rig.verdicts(
            x_p=described({"players": 2, "text": "a header"}),
            y_p=described({"players": 5, "text": "a header in"}),
            z_p=described("out of memory"),
        )
    )
    assert one.fields
    assert (one.fields["players"], one.fields["found"]) == (3, "by all"), "the rounded median of those that can be read"
    assert one.fields["text"].startswith("a header")
    assert one.inputs is not None
    assert [i.partition("/")[0] for i in one.inputs] == ["dedup", "describe.x.p", "describe.y.p"]


@told
async def test_a_verdict_waits_for_the_descriptions_of_its_event_and_stands_without_where_they_fail() -> None:
    rig = Trial.of()
    of = rig.judge("detect.a", "dedup", "describe.x.p", "ensemble")
    rig.says(of, "a", {20: [goal(0.9)]})
    async with rig.running("dedup", Dedup()), rig.running("ensemble", Ensemble()):
        await rig.until(lambda: any(r.ended for r in rig.records("events")))
        await asyncio.sleep(5)
        assert rig.records("verdicts") == []
    (one,) = done(await rig.verdicts(x_p=described("no footage")))
    assert (one.label, one.outcome) == ("Goal", "done")


# incidents ----------------------------------------------------------------------------------------------------------

HOLE = {"start_frame": 1, "incident": -1, "label": "unknown"}
CRASH = {
    "start_frame": 120,
    "incident": 1,
    "label": "crash",
    "vehicles": 2,
    "before": "A road.",
    "reason": "A van turns.",
}
ROUNDS = {
    "describe": {
        "rounds": [
            {"name": "a", "prompt": "?", "fields": {"vehicles": {"type": "integer"}, "label": {"enum": ["crash", "unknown"]}}},
            {"name": "b", "prompt": "?", "fields": {"before": {"type": "string"}, "reason": {"type": "string"}}},
        ]
    },
    "sampling": {"every": 10},
}  # fmt: skip


@told
async def test_an_incident_is_one_row_of_fields_by_vote() -> None:
    rig = Trial.of()
    of = rig.judge(LOCATE, "describe.x.p", "describe.x.q", "describe.y.p", "ensemble", task=ROUNDS)
    rig.incidents(of, 131)
    (one,) = await rig.verdicts(
        x_p=described(CRASH), x_q=described(CRASH | {"vehicles": 4, "start_frame": 131}), y_p=described(HOLE)
    )
    assert (one.outcome, one.rule, one.label) == ("done", "vote", "crash")
    assert one.fields
    assert {n: one.fields[n] for n in CRASH} == CRASH | {"vehicles": 3, "start_frame": 1}, "of three the smallest"
    assert one.found_by == ("x.p", "x.q"), "y saw nothing"
    assert (one.frame, one.time_ms) == (1, 0)
    assert one.confidence is not None
    assert 0 < one.confidence < 1


@told
async def test_a_hole_takes_the_next_describers_row() -> None:
    rig = Trial.of()
    of = rig.judge(LOCATE, "describe.y.p", "describe.x.p", "ensemble", rule="fill")
    rig.incidents(of, 131, 131)
    second = CRASH | {"start_frame": 131}

    def y(record: Record) -> Fields:
        return HOLE if record.index == 0 else second

    one, other = await rig.verdicts(y_p=y, x_p=described(CRASH))
    assert (one.fields, one.rule, one.frame) == (CRASH, "fill", 120)
    assert (other.fields, other.time_ms) == (second, 13_100), "the incident's own frame has its own time"


@told
async def test_what_is_located_but_not_described_says_so_and_what_is_not_located_says_why() -> None:
    rig = Trial.of()
    of = rig.judge(LOCATE, "describe.x.p", "ensemble")
    rig.incidents(of, 131, "unreadable")
    one, other = await rig.verdicts(x_p=described("footage-unreachable"))
    assert (one.outcome, one.reason, one.frame) == ("failed", "undescribed", 131)
    assert (other.outcome, other.reason) == ("failed", "unreadable")


@told
async def test_without_describers_the_place_is_the_verdict() -> None:
    rig = Trial.of()
    rig.incidents(rig.judge(LOCATE, "ensemble"), 131)
    (one,) = await rig.verdicts()
    assert (one.outcome, one.frame, one.time_ms, one.fields) == ("done", 131, 13_100, None)


@pytest.mark.parametrize(("over", "label"), [(None, "crash"), ("incidents", "crash"), ("events", "Goal")])
def test_where_a_task_has_events_and_incidents_one_of_them_is_judged_and_the_other_keeps_nobody(
    over: str | None, label: str
) -> None:
    @told
    async def story() -> None:
        rig = Trial.of()
        options: dict[str, Any] = {} if over is None else {"over": over}
        of = rig.judge("detect.a", "dedup", LOCATE, "describe.x.p", "ensemble", **options)
        rig.says(of, "a", {20: [goal()]})
        rig.incidents(of, 131)
        assert [v.label for v in done(await rig.verdicts(x_p=described(CRASH)))] == [label]
        async with rig.running("ensemble", Ensemble()) as service:
            await asyncio.sleep(1)
            assert all(not r.book.parked for r in service.runners.values()), "nothing waits for ever"

    story()


@told
async def test_the_same_verdicts_come_whatever_the_order_and_over_restarts() -> None:
    async def judged(seed: int | None) -> list[bytes | None]:
        rig = Trial.of(partitions=1)
        of = rig.judge(LOCATE, "describe.x.p", "describe.y.p", "ensemble", task=ROUNDS, rule="fill")
        rig.incidents(of, 131, "unreadable", 11, 400)
        x, y = Describer(described(HOLE)), Describer(described(CRASH))
        async with rig.running("describe.x.p", x), rig.running("describe.y.p", y):
            await rig.until(lambda: len(rig.records("descriptions")) == 10)
        entries = [s for name in ("incidents", "descriptions") for s in rig.records_at(name)]
        fresh = Trial.of(partitions=1)
        fresh.judge(LOCATE, "describe.x.p", "describe.y.p", "ensemble", task=ROUNDS, rule="fill")
        if seed is not None:
            random.Random(seed).shuffle(entries)
            in_order = iter(rig.records_at("incidents"))  # locate lands in order; describers do not
            entries = [next(in_order) if s.topic == "incidents" else s for s in entries]
        for begin in range(0, len(entries), 4):
            fresh.log.append(
                [wire.Entry(s.topic, s.partition, s.key, s.value, s.headers) for s in entries[begin : begin + 4]]
            )
            async with fresh.running("ensemble", Ensemble()):
                await asyncio.sleep(0.2)
        return [s.value for s in fresh.records_at("verdicts")]

    straight = await judged(None)
    assert len(straight) == 5
    for seed in range(5):
        assert await judged(seed) == straight


# cluster ------------------------------------------------------------------------------------------------------------


class Scripted:
    """Models that answer as a script says."""

    def __init__(self, *texts: str) -> None:
        self.script = Script(*texts)

    async def ask(self, model: str, call: Any, *, stream: str, live: bool = True, **more: Any) -> Answer:
        assert (model, stream, live) == ("text", "m", False)
        return await self.script(call)


@told
async def test_a_cluster_decides_frame_and_sentences_and_the_most_frequent_value_the_rest() -> None:
    rig = Trial.of()
    services = (LOCATE, "describe.x.p", "describe.x.q", "describe.y.p", "ensemble.text")
    rig.incidents(rig.judge(*services, rule="cluster", model="text"), 131)
    models = Scripted(said(120, before="A road.", reason="A van turned.", members=[1, 2]))
    (one,) = await rig.verdicts(
        stage=Ensemble("text", models),
        x_p=described(CRASH),
        x_q=described(CRASH | {"start_frame": 131}),
        y_p=described(HOLE),
    )
    assert one.fields == CRASH | {"reason": "A van turned."}
    assert (one.rule, one.frame, one.model, one.confidence) == ("cluster", 120, "m", round(2 / 3, 6))
    assert one.raw
    assert "A van turned." in one.raw
    assert one.tokens is not None
    assert one.tokens.out == 5


@told
async def test_a_cluster_that_cannot_be_read_leaves_the_verdict_to_the_vote_and_keeps_what_was_said() -> None:
    rig = Trial.of()
    rig.incidents(rig.judge(LOCATE, "describe.x.p", "describe.y.p", "ensemble.text", rule="cluster", model="text"), 131)
    models = Scripted("Well …", "I cannot say.")
    (one,) = await rig.verdicts(stage=Ensemble("text", models), x_p=described(CRASH), y_p=described(CRASH))
    assert (one.outcome, one.rule, one.how, one.fields) == ("done", "vote", "unreadable", CRASH)
    assert one.raw == '["Well …","I cannot say."]'


@told
async def test_one_description_alone_needs_no_call() -> None:
    rig = Trial.of()
    rig.incidents(rig.judge(LOCATE, "describe.x.p", "describe.y.p", "ensemble.text", rule="cluster", model="text"), 131)
    (one,) = await rig.verdicts(
        stage=Ensemble("text", Scripted()), x_p=described(CRASH), y_p=described("out of memory")
    )
    assert (one.rule, one.fields) == ("vote", CRASH)


@told
async def test_descriptions_that_give_no_reason_are_not_compared_by_it() -> None:
    rig = Trial.of()
    services = ("detect.a", "dedup", "describe.x.p", "describe.y.p", "ensemble.text")
    of = rig.judge(*services, rule="cluster", model="text")
    rig.says(of, "a", {20: [goal(0.9)]})
    story = described({"text": "A header."})
    (one,) = done(await rig.verdicts(stage=Ensemble("text", Scripted()), x_p=story, y_p=story))
    assert (one.rule, one.fields and one.fields["text"]) == ("vote", "A header.")


@told
async def test_a_model_that_rejects_the_question_fails_the_verdict_with_its_words() -> None:
    class Refusing:
        async def ask(self, model: str, call: Any, **more: Any) -> Answer:
            raise Rejected("I do not talk about crashes")

    rig = Trial.of()
    rig.incidents(rig.judge(LOCATE, "describe.x.p", "describe.y.p", "ensemble.text", rule="cluster", model="text"), 131)
    (one,) = await rig.verdicts(stage=Ensemble("text", Refusing()), x_p=described(CRASH), y_p=described(CRASH))
    assert (one.outcome, one.reason) == ("failed", "I do not talk about crashes")


def test_the_observer_joins_descriptions_over_real_http() -> None:
    async def story() -> None:
        async with running() as (url, observer), AiohttpTransport() as transport:
            pool = Pool([model_of(served(f"observer@{url}"), environ={}, transport=transport)])
            rig = Trial.of()
            services = (LOCATE, "describe.x.p", "describe.y.p", "ensemble.observer")
            rig.incidents(rig.judge(*services, rule="cluster", model="observer"), 131, 131)
            stage = Ensemble("observer", pool)
            one, other = await rig.verdicts(
                stage=stage, x_p=described(CRASH), y_p=described(CRASH | {"start_frame": 131})
            )
            pool.close()
        assert observer.calls == 2
        for verdict in (one, other):
            assert (verdict.rule, verdict.model, verdict.frame) == ("cluster", "observer", 120)
            assert verdict.fields
            assert verdict.fields["reason"] == "A van turns."

    asyncio.run(story())


# options ------------------------------------------------------------------------------------------------------------


def test_a_rule_that_asks_has_a_model_and_one_that_does_not_has_none() -> None:
    assert Options.model_validate({"rule": "cluster"}).model == "observer"
    assert Options.model_validate({}).model is None
    with pytest.raises(ValidationError, match="rule 'fill' asks no model"):
        Options.model_validate({"rule": "fill", "model": "qwen3-next-80b-a3b-instruct"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": "majority"},
        {"thresholds": {"Goal": 1.5}},
        {"thresholds": [0.5]},
        {"prompt": "{input}"},
        {"at_least": 0},
        {"words": 0},
        {"over": "windows"},
    ],
)
def test_an_option_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(wrong)
