"""One record in the hands of a runner: where it stands, what number it has, and its bytes as long as they are needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streamproc.messages import Outcome, Record, Sequence, Source
from streamproc.runner.speech import parent_of
from streamproc.runner.state import At, Parked
from streamproc.runner.tracing import Handling
from streamproc.wire import Stored

INLINE_BYTES = 4096
"""Parked records up to this size are kept whole in the state; larger ones by topic and offset."""


@dataclass(slots=True, eq=False)
class Input:
    """A record that has been read and has no outcome so far."""

    at: At
    sequence: Sequence
    index: int
    until: int
    stored: Stored | None
    """None where the bytes were let go of; they are read again at `at`."""
    record: Any | None
    """The parsed record; the stored entry itself on topics of bare bytes; None where let go of, or never parseable."""
    place: Record | Place
    """Where it stands in its stream, known even when the record is not in hand."""
    size: int = 0
    parent: str | None = None
    """Its traceparent."""
    source: Source | None = None
    """The revision it was made under, once it was looked up."""
    deadline_ms: int | None = None
    """Until when it may wait for a table, by the wall clock."""
    so_far: bytes | None = None
    """What the calls before have brought, of a stage that makes several."""
    handling: Handling | None = None
    """What it takes, where anybody wants to know."""

    @classmethod
    def of(cls, stored: Stored, record: Record) -> Input:
        return cls(
            at=(stored.topic, stored.offset),
            sequence=record.sequence,
            index=record.index,
            until=record.until,
            stored=stored,
            record=record,
            place=record,
            size=stored.size,
            parent=parent_of(stored),
        )

    @classmethod
    def bare(cls, stored: Stored) -> Input:
        """Of a topic of bare bytes: its number is its offset."""
        sequence, offset = Sequence("", stored.topic, "", 0), stored.offset
        place = Place(sequence, offset)
        return cls((stored.topic, offset), sequence, offset, offset + 1, stored, stored, place, stored.size)

    @property
    def moves_only_time(self) -> bool:
        """Gaps, ended, failed, skipped: nothing to look at."""
        return self.place.outcome != "done" or self.place.ended

    def let_go(self) -> None:
        """Keep the place, free the bytes."""
        if self.stored is not None and self.size > INLINE_BYTES and self.record is not None:
            self.shelve()
            self.stored = None

    def shelve(self) -> None:
        """Until its turn comes the bytes will do: parsed, a window has its pictures a second time."""
        if self.stored is not None and self.size > INLINE_BYTES and self.record is not None:
            p = self.place
            self.place = Place(
                self.sequence,
                self.index,
                self.until,
                p.revision,
                p.start_ms,
                p.end_ms,
                p.utc,
                p.outcome,
                p.reason,
                p.count,
            )
            self.record = None

    def parked(self) -> Parked:
        stored = self.stored
        assert stored is not None, "parked before it is let go of"
        small = self.size <= INLINE_BYTES
        value = stored.value if small else None
        return Parked(stored.key, value, stored.headers, stored.time_ms, self.deadline_ms, self.so_far)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a stream without a record: of one that could not be parsed, has expired, or was let go of."""

    sequence: Sequence
    index: int
    until: int = field(default=-1)
    revision: int = 0
    start_ms: int = 0
    end_ms: int = 0
    utc: str | None = None
    outcome: Outcome = "done"
    reason: str | None = None
    count: int | None = None

    @property
    def root(self) -> str:
        return self.sequence.root

    @property
    def stream(self) -> str:
        return self.sequence.stream

    @property
    def generation(self) -> int:
        return self.sequence.generation

    @property
    def until_index(self) -> int | None:
        return None if self.until in (-1, self.index + 1) else self.until

    @property
    def ended(self) -> bool:
        return self.count is not None
