"""Records as bytes: CloudEvents headers in binary mode around JSON, or MessagePack where pictures travel.

`encode` and `decode` are inverse. This room knows what a record looks like outside; which bus carries it, it does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from streamproc.errors import Unparseable
from streamproc.messages import Coverage, Record, Sequence, parse_id
from streamproc.topics import Topic, all_topics, key_of, partition_of, stream_of

Headers = tuple[tuple[str, bytes], ...]

MESSAGEPACK = "application/msgpack"
TRACEPARENT = "traceparent"


class Entry(Struct, frozen=True, gc=False):
    """What is published: where it goes, and its bytes. A value of None deletes the key of a compacted topic."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        return len(self.key) + len(self.value or b"")

    def header(self, name: str) -> bytes | None:
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Stored(Entry, frozen=True, gc=False, kw_only=True):
    """What is read: an entry with its place in the log."""

    offset: int
    time_ms: int
    """When it was landed, by the bus's clock."""


_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


@cache
def _decoder(record: type[Any], content_type: str) -> msgspec.json.Decoder[Any] | msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(record) if content_type == MESSAGEPACK else msgspec.json.Decoder(record)


@cache
def topic_of(record: type[Record] | type[Coverage]) -> Topic:
    """The topic whose records these are."""
    return next(t for t in all_topics().values() if t.record is record)


@cache
def _ce_type(topic: str) -> bytes:
    return f"streamproc.{topic}.v1".encode()


@cache
def _constant(topic: str, service: str, content_type: str) -> Headers:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", _ce_type(topic)),
        ("ce_source", f"/streamproc/{service}".encode()),
        ("content-type", content_type.encode()),
    )


def encode(
    record: Record | Coverage, *, partitions: int, time: str, sub: tuple[str, ...] = (), traceparent: str | None = None
) -> Entry:
    """As the bus carries it. `time` is the moment of speaking, ISO 8601; `sub` the rest of the key in compacted topics."""
    topic = topic_of(type(record))
    content_type = topic.content_type
    subject = record.stream.encode()
    headers = (
        *_constant(topic.name, record.service, content_type),
        ("ce_id", record.id.encode()),
        ("ce_subject", subject),
        ("ce_time", time.encode()),
    )
    if traceparent is not None:
        headers = (*headers, (TRACEPARENT, traceparent.encode()))
    return Entry(
        topic.name,
        partition_of(record.stream, partitions),
        key_of(record.stream, *sub) if sub else subject,
        _msgpack.encode(record) if content_type == MESSAGEPACK else _json.encode(record),
        headers,
    )


def decode(topic: Topic, stored: Entry) -> Any:
    """The record that was encoded; raises Unparseable with the cause. `Any`: the topic's own struct, by `topic.record`."""
    assert topic.record is not None, f"{topic.name} holds no records"
    kind = ident = None
    for name, value in stored.headers:
        if name == "ce_type":
            kind = value
        elif name == "ce_id":
            ident = value
    if kind is None or ident is None:
        raise Unparseable(f"no header {'ce_type' if kind is None else 'ce_id'}")
    if kind != _ce_type(topic.name):
        raise Unparseable(f"type '{kind.decode(errors='replace')}' where {_ce_type(topic.name).decode()} is known")
    if stored.value is None:
        raise Unparseable("no value")
    try:
        record = _decoder(topic.record, topic.content_type).decode(stored.value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise Unparseable(f"value is no {topic.record.__name__}: {e}") from e
    if record.id.encode() != ident:
        raise Unparseable(f"ce_id '{ident.decode(errors='replace')}' and id '{record.id}' differ")
    stream = record.stream.encode()
    if stored.key != stream and not stored.key.startswith(stream + b"\0"):
        raise Unparseable(f"key and stream '{record.stream}' differ")
    return record


def row(stored: Stored) -> Any | None:
    """What a row of a table says. None for one that is deleted, or cannot be read: the runner that it is for reports that."""
    try:
        return decode(all_topics()[stored.topic], stored)
    except Unparseable:
        return None


def envelope(topic: Topic, stored: Entry) -> Record | None:
    """The place of a record that is not all it should be: headers missing, a body of another version or beyond repair."""
    try:
        place: Record = _decoder(Record, topic.content_type).decode(stored.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return place if place.service and _own(parse_id(place.id), stored) else None


def identify(stored: Entry) -> tuple[Sequence, int] | None:
    """Whose number a record is whose envelope cannot be read either, as far as anything in it still says so."""
    if ident := stored.header("ce_id"):
        return _own(parse_id(ident.decode(errors="replace")), stored)
    for found in re.findall(rb'"id":"([^"\\]+)"', (stored.value or b"")[:4096]):
        if whose := _own(parse_id(found.decode(errors="replace")), stored):
            return whose
    return None


def _own(whose: tuple[Sequence, int] | None, stored: Entry) -> tuple[Sequence, int] | None:
    """Only believed where the key agrees: an answer under a wrong stream would land in a foreign partition."""
    return whose if whose and whose[0].stream == stream_of(stored.key) else None


# tracing ------------------------------------------------------------------------------------------------------------

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def read_traceparent(traceparent: str | None) -> tuple[int, int, int] | None:
    """Trace, span and flags; None where it is none, or all zeros."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if not found:
        return None
    trace, span, flags = (int(part, 16) for part in found.groups())
    return (trace, span, flags) if trace and span else None


def child_of(traceparent: str | None, *, trace: Callable[[], int], span: int) -> str:
    """A W3C traceparent below the one given; the root of another trace where there is none that can be read."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found and found[1].strip("0") and found[2].strip("0"):
        return f"00-{found[1]}-{span:016x}-{found[3]}"
    return f"00-{trace():032x}-{span:016x}-01"
