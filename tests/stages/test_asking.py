"""asking: what every result of a model carries."""

from __future__ import annotations

from dataclasses import replace

import orjson

from streamproc.messages import Context, Tokens
from streamproc.models.call import Answer
from streamproc.models.reply import Reply, Sample
from streamproc.stages.asking import RAW_MOST, context_part, spoken, told
from streamproc.stages.caption import Options
from tests.sim import toys
from tests.stages.watching import window


def answer(*texts: str, notes: tuple[str, ...] = ()) -> Answer:
    samples = tuple(Sample(text=text, finish="stop") for text in texts)
    return Answer(
        model="m", prompt="p", reply=Reply(samples=samples, model="m", tokens=None), tokens=Tokens(into=10, cached=4, out=2),
        queued_s=0.1, served_s=0.25, attempts=1, money=0.0, notes=notes,
    )  # fmt: skip


def test_one_answer_is_told_as_it_came() -> None:
    said = spoken(answer("None"), how="null")
    assert (said["raw"], said["how"], said["model"], said["prompt"], said["attempts"]) == ("None", "null", "m", "p", 1)


def test_several_are_one_with_all_their_texts_and_what_they_cost_together() -> None:
    said = spoken(answer("a", "b"), replace(answer("c\ud800"), attempts=3))
    assert orjson.loads(said["raw"]) == ["a", "b", "c?"]
    assert said["tokens"] == Tokens(into=20, cached=8, out=4)
    assert (said["seconds"].queued, said["seconds"].served, said["attempts"]) == (0.2, 0.5, 4)
    assert spoken(answer("a", "b"), sample=1)["raw"] == "b"


def test_what_a_call_was_made_without_is_never_left_out_in_silence() -> None:
    without = "10 of 16 frames: the model takes no more images"
    assert spoken(answer("a", notes=(without,)), answer("b", notes=(without,)), how="json")["how"] == f"json; {without}"
    assert spoken(answer("a"))["how"] is None


def test_of_a_text_without_end_a_record_carries_the_beginning_and_says_so() -> None:
    said = spoken(answer("x" * 5_000_000), how="json")
    assert (said["raw"], said["how"]) == ("x" * RAW_MOST, f"json; raw cut to {RAW_MOST:,} of 5,000,000 characters")
    several = spoken(answer("x" * RAW_MOST, "None"))
    assert [len(text) for text in orjson.loads(several["raw"])] == [RAW_MOST // 2, 4]


def test_what_is_known_of_a_stream_stands_a_line_each_and_nothing_where_nothing_is_known() -> None:
    place = window(toys.source("m", services=(), count=0), 0)
    known = Context.of(place, fields={"home": "Leeds", "away": None, "kits": ["white", "black"], "scene": ""})
    values = told(known)
    assert values["context"] == 'home: Leeds\nkits: ["white","black"]'
    assert context_part(Options(model="m", context="So:\n{context}"), values) == f"So:\n{values['context']}"
    assert context_part(Options(model="m"), told(None)) is None
    assert context_part(Options(model="m"), told(Context.of(place))) is None
