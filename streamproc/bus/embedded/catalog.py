"""Which topics there are. Topics are never removed, so what is known here stays true; what is not is looked up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from streamproc.bus.embedded.log import Part
from streamproc.bus.embedded.writer import Tx
from streamproc.errors import Misconfigured
from streamproc.topics import DLQ, Topic


class Known(NamedTuple):
    id: int
    name: str
    """With the deployment's prefix."""
    compacted: bool
    retention_hours: float
    max_bytes: int


class Catalog:
    def __init__(self, *, prefix: str, partitions: int) -> None:
        self.prefix, self.partitions = prefix, partitions
        self._known: dict[str, Known] = {}
        """Names without the prefix: what the outside says."""
        self._parts: dict[tuple[str, int], Part] = {}

    def __contains__(self, topic: str) -> bool:
        return topic in self._known

    def __getitem__(self, topic: str) -> Known:
        return self._known[topic]

    def part(self, topic: str, partition: int) -> Part:
        """Of a topic that is known."""
        try:
            return self._parts[topic, partition]
        except KeyError:
            pass
        if not 0 <= partition < self.partitions:
            raise Misconfigured(f"{topic}[{partition}]: there are {self.partitions} partitions, from 0")
        known = self._known[topic]
        part = Part(topic, partition, known.id * self.partitions + partition, known.compacted)
        self._parts[topic, partition] = part
        return part

    def learn(self, everything: Iterable[Known]) -> None:
        for known in everything:
            if known.name.startswith(self.prefix):
                self._known[known.name.removeprefix(self.prefix)] = known

    def names(self) -> list[str]:
        return sorted(self._known)

    def creating(self, topics: Iterable[Topic]) -> Creating:
        return Creating(self, list(topics))

    def dead_letters(self, name: str) -> Topic | None:
        """The settings of `TOPIC.dlq` where TOPIC is known: those are made as they are needed."""
        if not name.endswith(DLQ) or (base := self._known.get(name.removesuffix(DLQ))) is None:
            return None
        return Topic(
            name=name.removesuffix(DLQ),
            about="",
            record=None,
            content_type="",
            compacted=base.compacted,
            retention_hours=base.retention_hours,
            max_bytes=base.max_bytes,
        ).dlq


class Creating:
    """Work of the writer: make what is missing; settings of what is there follow the ones given."""

    size_bytes = 0

    def __init__(self, catalog: Catalog, topics: list[Topic]) -> None:
        self._catalog, self._topics = catalog, topics

    def stow(self, segments: object) -> None:
        pass

    def apply(self, tx: Tx) -> None:
        n = self._catalog.partitions
        for topic in self._topics:
            name = self._catalog.prefix + topic.name
            found = tx.db.execute("SELECT compacted FROM topic WHERE name = ?", (name,)).fetchall()
            if found and bool(found[0][0]) != topic.compacted:
                raise Misconfigured(
                    f"topic {name} is there and {'not ' if topic.compacted else ''}compacted. That is fixed for life: name another"
                )
            [[id_]] = tx.db.execute(
                "INSERT INTO topic(name, compacted, retention_hours, max_bytes) VALUES (?, ?, ?, ?) ON CONFLICT (name)"
                " DO UPDATE SET retention_hours = excluded.retention_hours, max_bytes = excluded.max_bytes RETURNING id",
                (name, topic.compacted, topic.retention_hours, topic.max_bytes),
            ).fetchall()
            if not found:
                tx.db.executemany("INSERT INTO part(tp) VALUES (?)", [(id_ * n + p,) for p in range(n)])


def load(db: sqlite3.Connection) -> list[Known]:
    rows = db.execute("SELECT id, name, compacted, retention_hours, max_bytes FROM topic").fetchall()
    return [Known(id_, name, bool(compacted), hours, size) for id_, name, compacted, hours, size in rows]
