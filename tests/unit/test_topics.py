"""Topics as their files say, keys, and the partition that Kafka's own clients would choose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc import topics
from streamproc.errors import Misconfigured
from streamproc.topics import all_topics, key_of, murmur2, partition_of, state_topic, stream_of, topic

CONTRACT = {
    "sources", "contexts", "coverage", "windows", "captions", "detections", "incidents", "events", "descriptions", "verdicts",
}  # fmt: skip


def test_all_topics_of_the_contract_are_there_each_with_its_record() -> None:
    assert set(all_topics()) == CONTRACT
    records = [t.record for t in all_topics().values()]
    assert None not in records
    assert len(set(records)) == len(records), "a record says which topic it belongs to"


def test_tables_are_compacted_and_kept_for_ever_and_all_else_expires() -> None:
    for each in all_topics().values():
        assert each.compacted == (each.name in {"sources", "contexts", "coverage"})
        assert bool(each.retention_hours) != each.compacted


def test_only_windows_travel_as_messagepack() -> None:
    assert {t.name for t in all_topics().values() if t.content_type == "application/msgpack"} == {"windows"}


def test_dead_letters_stand_beside_their_topic_and_are_never_compacted() -> None:
    for each in all_topics().values():
        dead = topic(f"{each.name}.dlq")
        assert dead == each.dlq
        assert not dead.compacted
        assert dead.max_bytes == each.max_bytes, "what came in goes out"


def test_the_state_of_a_service_is_a_compacted_topic_of_its_own() -> None:
    assert topic("state.detect.qwen2.5-vl-7b") == state_topic("detect.qwen2.5-vl-7b")
    assert topic("state.dedup").compacted


@pytest.mark.parametrize("name", ["", "window", "windows.dlq.dlq.x", "State.dedup"])
def test_an_unknown_topic_is_an_error_that_says_which_there_are(name: str) -> None:
    with pytest.raises(Misconfigured, match=r"no topic '.*'; there are captions, .*windows"):
        topic(name)


@pytest.mark.parametrize("text", ["about = ", 'record = "Nobody"', 'record = "Caption"\nwriters = []\ncolour = 1', ""])
def test_a_broken_topic_file_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "captions.toml"
    file.write_text(text)
    with pytest.raises(Misconfigured, match=r"captions\.toml"):
        topics._load(file)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [  # from the tests of Kafka's own client
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_kafkas_default_partitioner(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed & 0xFFFFFFFF


@given(st.binary(max_size=100), st.integers(1, 64))
def test_the_partition_is_the_one_aiokafka_chooses(key: bytes, n: int) -> None:
    from aiokafka.partitioner import murmur2 as theirs

    assert (murmur2(key) & 0x7FFFFFFF) % n == (theirs(key) & 0x7FFFFFFF) % n


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
)
def test_a_sub_key_changes_neither_the_stream_nor_its_partition(stream: str, sub: list[str]) -> None:
    key = key_of(stream, *sub)
    assert stream_of(key) == stream
    assert key.split(b"\0", 1)[0] == stream.encode()
    assert partition_of(stream_of(key), 16) == partition_of(stream, 16)
