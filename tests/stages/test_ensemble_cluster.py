"""The majority cluster: what is asked, how answers are read, and what happens to those that break the rules."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.messages import Tokens
from streamproc.models.call import Answer, Call
from streamproc.models.reply import Finish, Reply, Sample
from streamproc.stages.ensemble.cluster import Asked, Decision, clustered, prompt_of, sentences, words
from streamproc.stages.ensemble.stage import Options
from tests.stages.test_golden_prompts import GOLDEN, shown
from tests.stages.watching import task

ROWS = [
    {"start_frame": 431, "before": "A crossing.", "reason": "A van cuts in from the right."},
    {"start_frame": 389, "before": "A red light.", "reason": "A van cuts in from the right lane."},
    {"start_frame": 12, "before": "A tunnel.", "reason": "A dog runs over the road."},
    {"start_frame": 389, "before": "Cars wait.", "reason": "A vehicle cuts in, forcing the ego-car to brake."},
]


def said(frame: Any = 389, before: str = "A red light.", reason: str = "A van cuts in.", **more: Any) -> str:
    return orjson.dumps(
        {"members": [1, 2, 4], "start_frame": frame, "before": before, "reason": reason} | more
    ).decode()


class Script:
    """Answers as written, in turn."""

    def __init__(self, *texts: str, finish: Finish = "stop") -> None:
        self.texts, self.finish, self.calls = list(texts), finish, list[Call]()

    async def __call__(self, call: Call) -> Answer:
        self.calls.append(call)
        sample = Sample(text=self.texts.pop(0), finish=self.finish)
        return Answer(
            model="m",
            prompt=call.prompt.digest,
            reply=Reply(samples=(sample,), model="m", tokens=None),
            tokens=Tokens(into=10, out=5),
            queued_s=0.0,
            served_s=0.1,
            attempts=1,
            money=0.0,
        )


def decide(script: Script, rows: Sequence[Mapping[str, Any]] = ROWS, **asked: Any) -> Decision:
    return asyncio.run(clustered(rows, Asked(**asked), script))[0]


def test_one_call_gives_the_smallest_frame_and_the_sentences_of_the_largest_group() -> None:
    """Row 1: ensemble of 6 submissions."""
    decision = decide(script := Script(said()))
    assert decision.fields == {"start_frame": 389, "before": "A red light.", "reason": "A van cuts in."}
    assert decision.members == (0, 1, 3)
    assert len(script.calls) == 1
    assert "frame of no input" not in decision.how


def test_the_frame_is_the_smallest_of_the_group_whichever_of_its_frames_was_said() -> None:
    assert decide(Script(said(431))).fields["start_frame"] == 389


@pytest.mark.parametrize("members", [[], [0, 9, -3], "no list"])
def test_without_a_group_that_there_is_the_frame_that_was_said_stands(members: Any) -> None:
    decision = decide(Script(said(431, members=members)))
    assert (decision.fields["start_frame"], decision.members) == (431, ())


def test_a_frame_that_no_input_has_gives_way_to_the_most_frequent_and_of_several_to_the_smallest() -> None:
    """Row 1: a frame that no input has → mode, ties to the smallest."""
    decision = decide(Script(said(400)))
    assert (decision.fields["start_frame"], decision.how) == (389, "json, frame of no input")
    assert decide(Script(said(400)), ROWS[:3]).fields["start_frame"] == 12


def test_too_many_words_are_asked_for_once_more_and_say_how_many_there_were() -> None:
    script = Script(said(reason=" ".join(["word"] * 28)), said())
    assert decide(script).fields["reason"] == "A van cuts in."
    assert script.calls[1].prompt.question.startswith(script.calls[0].prompt.question), "a server keeps the beginning"
    assert "31 words" in script.calls[1].prompt.question


def test_where_they_stay_too_many_the_groups_own_sentences_stand() -> None:
    long = said(reason=" ".join(["word"] * 40))
    decision = decide(Script(long, long))
    own = {"before": "A crossing.", "reason": "A van cuts in from the right."}
    assert decision.fields == {"start_frame": 389, **own}, "of the line that is most like the others"
    assert "too many words" in decision.how


@pytest.mark.parametrize("text", ["I cannot tell.", "", "{}", '{"start_frame": 389}', said(before=""), said("soon")])
def test_what_cannot_be_read_is_asked_once_more_and_then_decides_nothing(text: str) -> None:
    script = Script(text, text)
    decision = decide(script)
    assert (decision.fields, decision.members, decision.how) == ({}, (), "unreadable")
    assert len(script.calls) == 2


def test_a_refusal_is_no_answer_whatever_it_says() -> None:
    assert decide(Script(said(), said(), finish="refused")).fields == {}


def test_an_answer_that_was_cut_off_and_lacks_a_sentence_is_none() -> None:
    cut = said().partition('"reason"')[0]
    assert decide(Script(cut, said(431, members=[]), finish="length")).fields["start_frame"] == 431


def test_all_answers_are_returned_so_that_what_they_cost_is_known() -> None:
    _, answers = asyncio.run(clustered(ROWS, Asked(again=2), Script("?", "?", said())))
    assert len(answers) == 3


def test_the_prompt_of_the_dashcam_task_is_the_one_that_is_pinned() -> None:
    asked = Options.model_validate(task("dashcam")["ensemble"] | {"rule": "cluster"}).asked()
    assert shown(prompt_of(ROWS, asked)) == (GOLDEN / "dashcam.ensemble.txt").read_text()


@given(st.text(max_size=200))
def test_whatever_a_model_says_the_rules_hold(text: str) -> None:
    odd: list[Sequence[Mapping[str, Any]]] = [ROWS, [{"reason": "x"}], [{}, {}]]
    for rows in odd:
        decision = decide(Script(text, text), rows)
        assert not decision.fields or words(decision.fields) <= 30


@given(
    frame=st.integers(-5, 500) | st.none() | st.just("389"),
    members=st.lists(st.integers(-2, 6), max_size=5),
    reason=st.text("ab ", max_size=90),
)
def test_whatever_json_it_is_the_frame_is_one_of_the_inputs(frame: Any, members: list[int], reason: str) -> None:
    text = orjson.dumps({"members": members, "start_frame": frame, "before": "b", "reason": reason}).decode()
    decision = decide(Script(text, text))
    if decision.fields:
        assert decision.fields["start_frame"] in {12, 389, 431}
        assert words(decision.fields) <= 30


def test_the_sentences_that_stand_are_those_most_like_the_others_if_they_are_short_enough() -> None:
    long = {"before": "A road.", "reason": "A van cuts in from the right " + "and " * 30}
    assert sentences([*ROWS, long], 30)["before"] in ("A crossing.", "A red light.")
    pair = [{"before": "b " * 25, "reason": "r"}, {"before": "b", "reason": "r " * 29}]
    assert sentences(pair, 10) == {"before": "b", "reason": "r"}, "one of each"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=4), st.integers(2, 40))
def test_they_never_have_too_many_words(lengths: list[tuple[int, int]], most: int) -> None:
    rows = [{"before": "b " * before, "reason": "r " * reason} for before, reason in lengths]
    own = sentences(rows, most)
    assert words(own) <= most
    if all(words(row) > most for row in rows) and len(rows) == 1:
        assert words(own) == most, "cut, and no more than needed"
