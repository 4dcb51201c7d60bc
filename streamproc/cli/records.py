"""Records as the command line shows them: which are meant, in which order, as JSON or as a line for people."""

from __future__ import annotations

import asyncio
import heapq
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from streamproc.cli.frame import Patience, plain, say
from streamproc.cli.times import Time
from streamproc.errors import Expired, StreamprocError
from streamproc.topics import DLQ, Topic, stream_of, topic

if TYPE_CHECKING:
    from streamproc.bus.claims import Claims
    from streamproc.bus.contract import Bus
    from streamproc.wire import Stored

POLL_S = 0.2
BATCH = 500
BATCH_BYTES = 2 * 2**20
"""Of every partition so much is held, to bring them into one order."""
CLOCKS_DIFFER_MS = 60_000
"""At most, between a camera's clock and the bus's."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are meant. A time is in a feed by its clock, in a file from its beginning."""

    stream: str | None
    begin: Time | None
    end: Time | None

    def has(self, shown: dict[str, Any], stored: Stored) -> bool:
        name = stream_of(stored.key)
        if self.stream is not None and name != self.stream:
            return False
        if any(
            time and time.half and not name.rpartition("/")[2].startswith(f"{time.half}_")
            for time in (self.begin, self.end)
        ):
            return False  # a game's halves are its streams 1_… and 2_…
        record = shown["record"] or {}
        return not (
            (self.begin and self._place(self.begin, record, stored, "end_ms") <= self._moment(self.begin, record))
            or (self.end and self._place(self.end, record, stored, "start_ms") >= self._moment(self.end, record))
        )

    @staticmethod
    def _by_clock(time: Time, record: dict[str, Any]) -> bool:
        return time.wall is not None and (time.stream_ms is None or "utc" in record)

    def _moment(self, time: Time, record: dict[str, Any]) -> float:
        return time.by_clock().timestamp() * 1000 if self._by_clock(time, record) else time.in_stream()

    def _place(self, time: Time, record: dict[str, Any], stored: Stored, edge: str) -> float:
        """Where the record begins or ends; by the clock that is when it landed, for what knows no better."""
        if not self._by_clock(time, record):
            return float(record.get(edge, 0))
        if "utc" not in record:
            return stored.time_ms + (edge == "end_ms")
        start_ms = datetime.fromisoformat(record["utc"]).timestamp() * 1000
        return start_ms + (int(record["end_ms"]) - int(record["start_ms"]) if edge == "end_ms" else 0)


async def records(
    log: Bus, asked: Topic, parts: list[int], wanted: Wanted, *, last: int | None, follow: bool
) -> AsyncIterator[Stored]:
    """By the time they landed, over all partitions; then what comes, also from a bus that was away meanwhile."""
    patience = Patience() if follow else nullcontext
    places: dict[int, int] = {}
    for p in parts:
        span = await log.span(asked.name, p)
        places[p] = span.begin
        if wanted.begin and wanted.begin.wall and wanted.begin.stream_ms is None:  # nothing lands before it happens
            from_ms = int(wanted.begin.wall.timestamp() * 1000) - CLOCKS_DIFFER_MS
            places[p] = max(span.begin, await log.offset_at(asked.name, p, from_ms))
        if last is not None:
            places[p] = max(places[p], span.end - last)
    while True:
        heads: list[tuple[int, int, int, Stored]] = []
        waiting: dict[int, list[Stored]] = {p: [] for p in parts}

        async def head(p: int, heads: list[Any] = heads, waiting: dict[int, list[Stored]] = waiting) -> None:
            if not waiting[p]:
                with patience():
                    waiting[p] = (await _read(log, asked.name, p, places))[::-1]
            if waiting[p]:
                stored = waiting[p].pop()
                heapq.heappush(heads, (stored.time_ms, p, stored.offset, stored))

        for p in parts:
            await head(p)
        while heads:
            _, p, _, stored = heapq.heappop(heads)
            yield stored
            await head(p)
        if not follow:
            return
        await asyncio.sleep(POLL_S)


async def _read(log: Bus, name: str, p: int, places: dict[int, int]) -> list[Stored]:
    try:
        found = await log.read(name, p, places[p], max_records=BATCH, max_bytes=BATCH_BYTES)
    except Expired as e:
        say(str(e))
        places[p] = e.begin
        return await _read(log, name, p, places)
    if found:
        places[p] = found[-1].offset + 1
    return found


async def as_json(asked: Topic, stored: Stored, claims: Claims) -> dict[str, Any]:
    """A record with its place and headers, as JSON has it; what cannot be read says why."""
    from streamproc import wire
    from streamproc.messages import plain

    shown: dict[str, Any] = {
        "topic": stored.topic,
        "partition": stored.partition,
        "offset": stored.offset,
        "landed_ms": stored.time_ms,
        "key": stored.key.decode(errors="replace"),
        "headers": {name: value.decode(errors="replace") for name, value in stored.headers},
        "record": None,
    }
    of = topic(asked.name.removesuffix(DLQ))
    if stored.value is None or of.record is None:
        return shown | {"bytes": len(stored.value) if stored.value is not None else None}
    try:
        return shown | {"record": plain(wire.decode(of, await claims.check_out(stored)))}
    except StreamprocError as e:
        return shown | {"bytes": len(stored.value), "error": str(e)}


# showing ------------------------------------------------------------------------------------------------------------

ENVELOPE = (
    "id",
    "service",
    "root",
    "stream",
    "generation",
    "revision",
    "start_ms",
    "end_ms",
    "index",
    "until_index",
    "outcome",
)


def for_people(shown: dict[str, Any]) -> str:
    """Place, stretch, outcome, and what is left of the record."""
    import msgspec

    at = f"{shown['partition']}:{shown['offset']}"
    record = shown["record"]
    if record is None:
        said = (
            shown.get("error")
            or shown["headers"].get("error")
            or ("deleted" if shown["bytes"] is None else f"{shown['bytes']} bytes")
        )
        return f"{at:10} {shown['key'].partition(chr(0))[0]}  {plain(said)}"
    rest = plain(msgspec.json.encode(without_pictures({k: v for k, v in record.items() if k not in ENVELOPE})).decode())
    if "start_ms" not in record:
        return f"{at:10} {record['stream']}  {record['service']}  {rest}"
    until = f"–{record['until_index'] - 1}" if "until_index" in record else ""
    stretch = f"{record['start_ms'] / 1000:.1f}–{record['end_ms'] / 1000:.1f} s"
    headers = shown["headers"]
    dead = plain(f"  {headers['error-class']}: {headers['error']}") if "error-class" in headers else ""
    return f"{at:10} {record['stream']}  #{record['index']}{until}  {stretch}  {record['outcome']}  {rest}{dead}"


def without_pictures(value: Any) -> Any:
    """The same without pictures: how large they are instead."""
    if isinstance(value, dict):
        return {k: f"<{len(b64decode(v))} bytes>" if k == "jpeg" else without_pictures(v) for k, v in value.items()}
    return [without_pictures(v) for v in value] if isinstance(value, list | tuple) else value
