"""What the workers do: one call a window, and a fold that adds up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from streamproc.bus.contract import Bus
from streamproc.bus.embedded import Embedded
from streamproc.bus.kafka import Kafka
from streamproc.messages import Detection, Event, Life, Record, Sighting, Source, Window
from streamproc.stage import Each, Fold, Look, Row
from tests.chaos.endpoint import Caller

DETECT, SUM = "detect.stub", "dedup"
EVERY = 5
"""Rows between two events of the fold."""


class Detect(Each):
    reads, writes = ("windows",), ("detections",)

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    async def handle(self, record: Window, look: Look) -> Detection:
        await self.caller.ask(record.stream, record.index)
        return Detection.of(record, events=(Sighting(label=f"i{record.index}"),))


class Total(Struct, array_like=True):
    rows: int
    indexes: int


class Sum(Fold):
    """Keyed state that must be exact: how many rows, and the sum of what they said."""

    reads, writes = ("detections",), ("events",)
    State = Total | None

    def joins(self, source: Source) -> tuple[str, ...]:
        return (DETECT,)

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[Sequence[Record], Any]:
        total = state or Total(0, 0)
        said = row.of[DETECT]
        if isinstance(said, Detection) and said.events:
            total = Total(total.rows + 1, total.indexes + int(said.events[0].label[1:]))
        if not row.ended and row.index % EVERY:
            return [], total
        life = Life(
            id=f"{row.stream}/e{row.index}",
            revision=0,
            state="close",
            label="sum",
            start_ms=0,
            end_ms=0,
            time_ms=0,
            votes=(),
            details=f"{total.rows} {total.indexes}",
        )
        return [Event.of(row, until_index=None, event=life)], total


def rows(count: int) -> list[int]:
    """Of a stream with so many windows, those that the fold tells of, the end among them."""
    return [*range(0, count, EVERY), count]


async def open_bus(where: str, *, session_s: float) -> Bus:
    """`embedded:PATH`, or `kafka:PREFIX@BOOTSTRAP`."""
    kind, rest = where.split(":", 1)
    if kind == "embedded":
        return await Embedded.open(rest, partitions=8, session_s=session_s)
    prefix, bootstrap = rest.split("@", 1)
    return await Kafka.open(bootstrap, prefix=prefix, partitions=8, session_s=session_s)
