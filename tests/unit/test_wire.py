"""Records as bytes and back; what cannot be read says why, and whose it was as far as anything still tells."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamproc import wire
from streamproc.errors import Unparseable
from streamproc.messages import Caption, Record, Sequence, parse_id, record_id
from streamproc.topics import all_topics, partition_of, topic
from streamproc.wire import Entry, decode, encode, identify, topic_of
from tests.topics import golden

TIME = "2026-03-01T20:45:00Z"
RECORDS = [pytest.param(g, id=f"{g.name}") for g in golden.everything()]
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


def caption(stream: str = "match1", **fields: Any) -> Caption:
    said: dict[str, Any] = {
        "generation": 1,
        "index": 3,
        "revision": 1,
        "start_ms": 0,
        "end_ms": 1,
        "outcome": "done",
    } | fields
    identity = record_id("caption", "decode", stream, said["generation"], said["index"])
    return Caption(id=identity, service="caption", root="decode", stream=stream, **said)


def with_header(entry: Entry, name: str, value: bytes | None) -> Entry:
    kept = tuple(h for h in entry.headers if h[0] != name)
    return replace(entry, headers=kept if value is None else (*kept, (name, value)))


@pytest.mark.parametrize("made", RECORDS)
def test_what_is_decoded_is_what_was_encoded(made: golden.Golden) -> None:
    entry = made.entry()
    assert decode(topic(entry.topic), entry) == made.record
    assert entry.topic == topic_of(type(made.record)).name


@given(NAMES, st.text(max_size=200), st.integers(1, 64))
def test_any_stream_and_any_text_come_back_and_lie_in_the_streams_partition(stream: str, text: str, n: int) -> None:
    record = caption(stream, text=text, reason=text or None)
    entry = encode(record, partitions=n, time=TIME)
    assert decode(topic("captions"), entry) == record
    assert entry.partition == partition_of(stream, n)
    assert entry.key == stream.encode()


def test_headers_are_a_cloud_event_in_binary_mode() -> None:
    entry = encode(caption(), partitions=16, time=TIME, traceparent=golden.TRACE)
    assert dict(entry.headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"streamproc.captions.v1",
        "ce_source": b"/streamproc/caption",
        "content-type": b"application/json",
        "ce_id": b"caption/decode/match1/1/3",
        "ce_subject": b"match1",
        "ce_time": TIME.encode(),
        "traceparent": golden.TRACE.encode(),
    }


def test_pictures_travel_as_raw_bytes_each_once() -> None:
    window = next(g for g in golden.everything() if g.name == "windows.done.msgpack")
    value = window.entry().value
    assert value is not None
    assert value.count(golden.JPEG) == 4


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda e: with_header(e, "ce_type", None), "no header ce_type"),
        (lambda e: with_header(e, "ce_id", None), "no header ce_id"),
        (
            lambda e: with_header(e, "ce_type", b"streamproc.captions.v2"),
            "'streamproc.captions.v2' where streamproc.captions.v1",
        ),
        (lambda e: with_header(e, "ce_type", b"\xff"), "where streamproc.captions.v1 is known"),
        (lambda e: with_header(e, "ce_id", b"caption/decode/match1/1/4"), "ce_id 'caption/decode/match1/1/4' and id"),
        (lambda e: replace(e, value=None), "no value"),
        (lambda e: replace(e, value=b""), "value is no Caption"),
        (lambda e: replace(e, value=b"{"), "value is no Caption"),
        (lambda e: replace(e, value=b"\xff\xfe"), "value is no Caption"),
        (lambda e: replace(e, value=b"[" * 100_000), "value is no Caption"),
        (lambda e: replace(e, value=e.value.replace(b'"index":3', b'"index":-3')), "value is no Caption"),
        (lambda e: replace(e, value=e.value.replace(b'"done"', b'"fine"')), "value is no Caption"),
        (lambda e: replace(e, key=b"match2"), "key and stream 'match1' differ"),
        (lambda e: replace(e, key=b"match10"), "key and stream 'match1' differ"),
    ],
)
def test_what_is_no_record_of_its_topic_says_why(spoil: Any, why: str) -> None:
    with pytest.raises(Unparseable) as caught:
        decode(topic("captions"), spoil(encode(caption(), partitions=16, time=TIME)))
    assert why in str(caught.value)


def test_a_sub_key_behind_the_stream_is_still_the_streams() -> None:
    coverage = next(g for g in golden.everything() if g.name == "coverage.done.json")
    entry = coverage.entry()
    assert entry.key.split(b"\0")[0].decode() == coverage.record.stream
    assert decode(topic("coverage"), entry) == coverage.record


@given(
    st.binary(max_size=300),
    st.lists(st.tuples(st.sampled_from(["ce_type", "ce_id", "x"]), st.binary(max_size=40)), max_size=4),
)
def test_any_bytes_are_a_record_or_unparseable_and_nothing_else(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    for each in all_topics().values():
        entry = Entry(each.name, 0, b"match1", value, (("ce_type", f"streamproc.{each.name}.v1".encode()), *headers))
        with suppress(Unparseable):
            decode(each, entry)
        identify(entry)


def test_unknown_fields_of_a_later_version_are_passed_over() -> None:
    entry = encode(caption(), partitions=16, time=TIME)
    assert entry.value is not None
    later = replace(entry, value=entry.value[:-1] + b',"mood":"good"}')
    assert decode(topic("captions"), later) == caption()


def test_what_cannot_be_parsed_is_still_known_by_its_header_or_its_first_bytes() -> None:
    whose = (Sequence("caption", "decode", "match1", 1), 3)
    broken = replace(encode(caption(), partitions=16, time=TIME), value=b'{"id":"caption/decode/match1/1/3","ser')
    assert identify(broken) == whose
    assert identify(with_header(broken, "ce_id", None)) == whose
    assert identify(with_header(replace(broken, value=b"?"), "ce_id", None)) is None
    assert identify(with_header(replace(broken, value=b"?"), "ce_id", b"x")) is None


def test_a_foreign_streams_name_in_a_broken_record_is_not_believed() -> None:
    broken = replace(encode(caption(), partitions=16, time=TIME), value=b"{", key=b"match2")
    assert identify(broken) is None


@given(NAMES, st.integers(0, 2**40), st.integers(0, 2**40))
def test_an_id_says_whose_number_it_is(stream: str, generation: int, index: int) -> None:
    text = record_id("detect.qwen2.5-vl-7b", "decode", stream, generation, index)
    assert parse_id(text) == (Sequence("detect.qwen2.5-vl-7b", "decode", stream, generation), index)


def test_a_record_answers_for_its_place_in_anothers_name() -> None:
    asked = caption(index=7, until_index=9, start_ms=14, end_ms=18)
    told = Record.of(asked, outcome="failed", reason="unreadable")
    assert (told.stream, told.index, told.until, told.start_ms, told.end_ms) == ("match1", 7, 9, 14, 18)
    assert (told.id, told.service, told.outcome) == ("", "", "failed")


# tracing ------------------------------------------------------------------------------------------------------------


def test_a_trace_goes_on_below_the_one_given() -> None:
    assert (
        wire.child_of(golden.TRACE, trace=lambda: 1, span=2)
        == "00-0af7651916cd43dd8448eb211c80319c-0000000000000002-01"
    )


@pytest.mark.parametrize("broken", [None, "", "00-xyz", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_a_trace_that_cannot_be_read_starts_anew(broken: str | None) -> None:
    assert wire.child_of(broken, trace=lambda: 1, span=2) == f"00-{1:032x}-{2:016x}-01"


def test_bytes_hold_no_more_than_what_is_there() -> None:
    entry = encode(caption(text=None), partitions=16, time=TIME)
    assert set(msgspec.json.decode(entry.value or b"")) == {
        "id", "service", "root", "stream", "generation", "revision", "index", "start_ms", "end_ms", "outcome",
    }  # fmt: skip
