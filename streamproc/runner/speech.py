"""How a service speaks: outcomes in its own name, with ids that nothing but their place decides; and dead letters."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from streamproc import wire
from streamproc.errors import Rejected, TooLarge
from streamproc.messages import Coverage, Record, record_id
from streamproc.topics import DLQ, topic
from streamproc.wire import TRACEPARENT, Entry, Stored


class Speech:
    """Turns what a stage answers into entries of the bus."""

    def __init__(
        self, service: str, *, partitions: int, now: Callable[[], float], rng: random.Random, oversized: bool = False
    ) -> None:
        self.service, self.partitions, self._now, self._rng = service, partitions, now, rng
        self._oversized = oversized
        """There is a store for claim checks: a record may be larger than its topic allows."""
        self._second, self._time = 0, ""

    def time(self) -> str:
        """Now, to the second, ISO 8601; made once a second."""
        second = int(self._now())
        if second != self._second:
            self._second, self._time = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self._time

    def coverage(self, record: Coverage, *, sub: tuple[str, ...]) -> Entry:
        return wire.encode(record, partitions=self.partitions, time=self.time(), sub=sub)

    def say(
        self, record: Record, *, root: str, index: int, until: int, parent: str | None, sub: tuple[str, ...] = ()
    ) -> Entry:
        """The record in this service's name, under the number given."""
        identity = record_id(self.service, root, record.stream, record.generation, index)
        whole = replace(
            record,
            id=identity,
            service=self.service,
            root=root,
            index=index,
            until_index=None if until == index + 1 else until,
        )
        entry = wire.encode(
            whole, partitions=self.partitions, time=self.time(), sub=sub, traceparent=self.below(parent, identity)
        )
        return self.check(entry)

    def limit(self, name: str) -> int:
        """The largest entry of a topic that may leave as it is."""
        return topic(name).max_bytes

    def check(self, entry: Entry) -> Entry:
        """TooLarge, here and now, where a landing would meet it later and could not say whose fault it is."""
        limit = self.limit(entry.topic)
        if entry.size > limit and not self._oversized:
            raise TooLarge(f"{entry.topic}: larger than the {limit} bytes that a record may have there")
        return entry

    def below(self, parent: str | None, identity: str) -> str:
        def root() -> int:
            """The same for the same outcome, whoever comes to it."""
            return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=16).digest()) or 1

        return wire.child_of(parent, trace=root, span=self._rng.getrandbits(64) or 1)

    def dead(self, stored: Stored, error: Exception) -> Entry:
        """The input as it came, with what became of it in the headers."""
        headers = (
            *stored.headers,
            ("error", str(error)[:4096].encode(errors="replace")),
            ("error-class", type(error).__name__.encode()),
            ("attempts", str(getattr(error, "attempts", 1)).encode()),
            ("source-topic", stored.topic.encode()),
            ("source-partition", str(stored.partition).encode()),
            ("source-offset", str(stored.offset).encode()),
            ("service", self.service.encode()),
        )
        return Entry(stored.topic + DLQ, stored.partition, stored.key, stored.value, headers)


def parent_of(stored: Entry | None) -> str | None:
    found = stored.header(TRACEPARENT) if stored is not None else None
    return found.decode(errors="replace") if found else None


def bare(writes: str, place: Any, **fields: Any) -> Record:
    """An outcome of the type a topic holds, with nothing but its place and `fields`."""
    kind = topic(writes).record
    if kind is None or not issubclass(kind, Record):
        raise Rejected(f"{writes} holds no outcomes")
    return kind.of(place, **fields)
