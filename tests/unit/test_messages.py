"""What records say of themselves."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc import messages
from streamproc.messages import Caption, Context, Grid, Record, Sequence, Tokens, parse_id, plain, record_id
from streamproc.topics import all_topics
from tests.topics import golden


def caption(**said: Any) -> Caption:
    place: dict[str, Any] = {
        "stream": "match1",
        "generation": 1,
        "revision": 2,
        "index": 3,
        "start_ms": 6000,
        "end_ms": 10_000,
    }
    identity = {"id": "caption/decode/match1/1/3", "service": "caption", "root": "decode", "outcome": "done"}
    return Caption(**(place | identity | said))


def test_a_record_answers_for_one_number_and_a_gap_for_many() -> None:
    assert (caption().index, caption().until) == (3, 4)
    assert caption(until_index=9).until == 9


def test_ended_is_the_record_that_counts() -> None:
    assert caption(count=9).ended
    assert caption(count=0).ended, "a stream of no windows has ended too"
    assert not caption().ended


def test_a_record_belongs_to_the_sequence_of_its_service_root_stream_and_generation() -> None:
    assert caption().sequence == Sequence("caption", "decode", "match1", 1)


def test_an_answer_stands_where_the_question_stood() -> None:
    told = Context.of(caption(utc=golden.TIME, until_index=5), outcome="failed", reason="unreadable")
    assert (told.stream, told.generation, told.revision, told.root) == ("match1", 1, 2, "decode")
    assert (told.index, told.until, told.start_ms, told.end_ms, told.utc) == (3, 5, 6000, 10_000, golden.TIME)
    assert (told.id, told.service, told.outcome, told.reason) == ("", "", "failed", "unreadable")


def test_what_has_its_default_is_not_in_the_bytes_and_null_is_never_written() -> None:
    written = msgspec.json.decode(msgspec.json.encode(caption(text=None)))
    assert "text" not in written
    assert "until_index" not in written
    assert None not in written.values()


def test_names_that_python_keeps_for_itself_are_written_as_the_contract_says() -> None:
    assert plain(Tokens(into=3, out=2)) == {"in": 3, "out": 2}
    context = Context.of(caption(), from_=0, until_=9)
    assert {"from", "until"} <= set(plain(context))


@pytest.mark.parametrize("name", ["id", "stream", "generation", "revision", "index", "start_ms", "end_ms", "outcome"])
def test_every_record_of_a_stage_has_what_the_contract_asks_of_all(name: str) -> None:
    for topic in all_topics().values():
        assert topic.record
        if issubclass(topic.record, Record):
            required = {f.name for f in msgspec.structs.fields(topic.record) if f.required}
            assert name in required, topic.name


def test_records_are_frozen() -> None:
    for name, found in vars(messages).items():
        if isinstance(found, type) and issubclass(found, msgspec.Struct) and found is not msgspec.Struct:
            assert found.__struct_config__.frozen, name


@pytest.mark.parametrize("text", ["", "a/b/c", "a/b/c/1/x", "A/b/c/1/2", "a/b//1/2", "a/b/c/-1/2", "a b/c/d/1/2"])
def test_what_is_no_id_of_ours_is_none(text: str) -> None:
    assert parse_id(text) is None


def test_an_id_bears_slashes_and_line_ends_in_the_streams_name() -> None:
    stream = "league/2026/match 1\n(2)"
    assert parse_id(record_id("detect.m", "decode", stream, 0, 7)) == (Sequence("detect.m", "decode", stream, 0), 7)


@given(
    st.fractions(0, 10_000, max_denominator=1001),
    st.fractions(Fraction(1, 100), 60, max_denominator=1001),
    st.integers(0, 1000),
    st.integers(0, 10**7),
)
def test_a_grid_is_exact_however_far_it_reaches(origin: Fraction, step: Fraction, first: int, further: int) -> None:
    grid = Grid(root="decode", origin=str(origin), step=str(step), first=first)
    exact_ms = 1000 * (origin + further * step)
    assert abs(grid.starts_ms(first + further) - exact_ms) <= Fraction(1, 2)
