"""`streamproc topics`: make them, list them, describe one, and read records with their pictures left out or not."""

from __future__ import annotations

import asyncio
import heapq
import sys
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli.frame import BusOption, JsonOption, emit, line, opened, run, say, settings, table
from streamproc.cli.times import Time, parse
from streamproc.errors import Expired, Misconfigured, Unparseable, did_you_mean
from streamproc.topics import Topic, all_topics, partition_of, stream_of, topic

if TYPE_CHECKING:
    from streamproc.bus.claims import Claims
    from streamproc.bus.contract import Bus
    from streamproc.wire import Stored

POLL_S = 0.2
BATCH = 500
BATCH_BYTES = 8 * 2**20
app = typer.Typer(name="topics", help="Make, list, describe and read topics.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app)


@app.command(epilog="Example: streamproc topics create --bus kafka://localhost:9092 --partitions 32 --replication 3")
def create(
    bus: BusOption = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Of every topic, fixed for life; 16 if nothing says.")
    ] = None,
    replication: Annotated[
        int | None, typer.Option(min=1, help="Copies on a cluster; 3 where it has three brokers.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and make nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Make the topics that are missing, dead letters too. What is there is left as it is."""
    told = settings(bus=bus, partitions=partitions, replication=replication)

    async def work() -> tuple[list[str], list[str]]:
        if dry_run and not _is_there(told.bus):
            return [], [t.name for t in _all()]
        async with opened(told, make=not dry_run) as log:
            there = await log.topics()
            missing = [t for t in _all() if t.name not in there]
            if not dry_run:
                await log.create(missing)
            return [t.name for t in _all() if t.name in there], [t.name for t in missing]

    there, missing = run(work())
    if json:
        emit({"made" if not dry_run else "missing": missing, "there": there})
    else:
        for name in missing:
            line(f"{name}  {'would be made' if dry_run else 'made'}")
        say(f"{len(there)} of {len(there) + len(missing)} topics were there")


@app.command("list", epilog="Example: streamproc topics list --bus embedded:./streamproc.db")
def list_(bus: BusOption = None, json: JsonOption = False) -> None:
    """Topics, how many records they hold at most (compaction and commits leave holes), and what they are for."""
    told = settings(bus=bus)

    async def work() -> list[dict[str, Any]]:
        async with opened(told) as log:
            there = await log.topics()
            known = {t.name: t for t in _all()}
            known |= {name: topic(name) for name in sorted(there) if name.startswith("state.")}
            return [await _summary(log, t, there.get(t.name)) for t in known.values()]

    found = run(work())
    if json:
        for each in found:
            emit(each)
        return
    columns = ["topic", "partitions", "records", "kept", "about"]
    table(
        columns,
        [[f["topic"], f["partitions"] or "missing", f["records"], _kept(topic(f["topic"])), f["about"]] for f in found],
    )


@app.command(epilog="Example: streamproc topics describe windows --json")
def describe(
    name: Annotated[str, typer.Argument(metavar="TOPIC")], bus: BusOption = None, json: JsonOption = False
) -> None:
    """One topic's settings, and the offsets of its partitions."""
    told, asked = settings(bus=bus), _topic(name)

    async def work() -> dict[str, Any]:
        async with opened(told) as log:
            count = await _count(log, asked)
            spans = await asyncio.gather(*(log.span(asked.name, p) for p in range(count)))
            return {
                "topic": asked.name,
                "about": asked.about,
                "record": asked.record.__name__ if asked.record else None,
                "content_type": asked.content_type,
                "compacted": asked.compacted,
                "retention_hours": asked.retention_hours or None,
                "max_bytes": asked.max_bytes,
                "writers": asked.writers,
                "partitions": [{"partition": p, "begin": s.begin, "end": s.end} for p, s in enumerate(spans)],
            }

    found = run(work())
    if json:
        emit(found)
        return
    for key, value in found.items():
        if key != "partitions":
            line(f"{key:16}{', '.join(value) if isinstance(value, tuple) else value}")
    line("")
    table(["partition", "begin", "end"], [list(each.values()) for each in found["partitions"]])


@app.command(epilog="Example: streamproc topics tail captions --stream match1 --from 12:30 --to 14:00 --json")
def tail(
    name: Annotated[str, typer.Argument(metavar="TOPIC")],
    stream: Annotated[str | None, typer.Option(help="Only this stream's records.")] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Seconds or 12:34[.5] of a file; ISO 8601 or 20:45 of a feed."),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to this time, exclusive.")] = None,
    last: Annotated[
        int | None, typer.Option(min=1, help="Begin about so many records before the end of each partition.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    bus: BusOption = None,
    json: JsonOption = False,
) -> None:
    """Records of a topic, oldest first: a line each. Pictures are left out on a terminal, and base64 in a pipe."""
    told, asked = settings(bus=bus), _topic(name)
    now = datetime.now().astimezone()
    wanted = Wanted(stream, parse(from_, now=now) if from_ else None, parse(to, now=now) if to else None)

    async def work() -> None:
        from streamproc.settings import open_claims

        claims = open_claims(told)
        async with opened(told) as log:
            count = await _count(log, asked)
            parts = [partition_of(stream, count)] if stream else list(range(count))
            async for stored in _records(log, asked, parts, wanted, last=last, follow=follow):
                shown = await _shown(asked, stored, claims)
                if not wanted.has(shown, stored):
                    continue
                if json:
                    emit(_spared(shown) if sys.stdout.isatty() else shown)
                else:
                    line(_for_people(shown))
                    sys.stdout.flush()

    run(work())


# reading ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are meant. A time is in a feed by its clock, in a file from its beginning."""

    stream: str | None
    begin: Time | None
    end: Time | None

    def has(self, shown: dict[str, Any], stored: Stored) -> bool:
        if self.stream is not None and stream_of(stored.key) != self.stream:
            return False
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


async def _records(
    log: Bus, asked: Topic, parts: list[int], wanted: Wanted, *, last: int | None, follow: bool
) -> AsyncIterator[Stored]:
    """By the time they landed, over all partitions; then what comes."""
    places: dict[int, int] = {}
    for p in parts:
        span = await log.span(asked.name, p)
        places[p] = span.begin
        if wanted.begin and wanted.begin.wall and wanted.begin.stream_ms is None:  # nothing lands before it happens
            places[p] = max(span.begin, await log.offset_at(asked.name, p, int(wanted.begin.wall.timestamp() * 1000)))
        if last is not None:
            places[p] = max(places[p], span.end - last)
    while True:
        heads: list[tuple[int, int, int, Stored]] = []
        waiting: dict[int, list[Stored]] = {p: [] for p in parts}

        async def head(p: int, heads: list[Any] = heads, waiting: dict[int, list[Stored]] = waiting) -> None:
            if not waiting[p]:
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


async def _shown(asked: Topic, stored: Stored, claims: Claims) -> dict[str, Any]:
    """A record with its place and headers, as JSON has it; what cannot be read says why."""
    from streamproc import wire
    from streamproc.errors import StreamprocError
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
    of = topic(asked.name.removesuffix(".dlq"))
    if stored.value is None or of.record is None:
        return shown | {"bytes": len(stored.value) if stored.value is not None else None}
    try:
        return shown | {"record": plain(wire.decode(of, await claims.check_out(stored)))}
    except (Unparseable, StreamprocError) as e:
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


def _for_people(shown: dict[str, Any]) -> str:
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
        return f"{at:10} {shown['key'].partition(chr(0))[0]}  {said}"
    rest = msgspec.json.encode(_spared({k: v for k, v in record.items() if k not in ENVELOPE})).decode()
    if "start_ms" not in record:
        return f"{at:10} {record['stream']}  {record['service']}  {rest}"
    until = f"–{record['until_index'] - 1}" if "until_index" in record else ""
    stretch = f"{record['start_ms'] / 1000:.1f}–{record['end_ms'] / 1000:.1f} s"
    dead = (
        f"  {shown['headers']['error-class']}: {shown['headers']['error']}" if "error-class" in shown["headers"] else ""
    )
    return f"{at:10} {record['stream']}  #{record['index']}{until}  {stretch}  {record['outcome']}  {rest}{dead}"


def _spared(value: Any) -> Any:
    """The same without pictures: how large they are instead."""
    if isinstance(value, dict):
        return {k: f"<{len(b64decode(v))} bytes>" if k == "jpeg" else _spared(v) for k, v in value.items()}
    return [_spared(v) for v in value] if isinstance(value, list | tuple) else value


# topics -------------------------------------------------------------------------------------------------------------


def _all() -> list[Topic]:
    return [each for t in all_topics().values() for each in (t, t.dlq)]


def _topic(name: str) -> Topic:
    try:
        return topic(name)
    except Misconfigured:
        known = [t.name for t in _all()]
        near = did_you_mean(name, known)
        raise Misconfigured(f"no topic '{name}'{near or '; there are ' + ', '.join(all_topics())}") from None


async def _count(log: Bus, asked: Topic) -> int:
    count = (await log.topics()).get(asked.name)
    if count is None:
        raise Misconfigured(f"topic '{asked.name}' is not on this bus: streamproc topics create makes it")
    return count


async def _summary(log: Bus, asked: Topic, partitions: int | None) -> dict[str, Any]:
    spans = await asyncio.gather(*(log.span(asked.name, p) for p in range(partitions or 0)))
    records = sum(s.end - s.begin for s in spans) if partitions else None
    return {
        "topic": asked.name,
        "partitions": partitions,
        "records": records,
        "compacted": asked.compacted,
        "about": asked.about,
    }


def _kept(asked: Topic) -> str:
    if asked.compacted:
        return "newest of a key"
    return f"{asked.retention_hours / 24:g} days" if asked.retention_hours else "for ever"


def _is_there(bus: str) -> bool:
    """Whether there is anything to open: an embedded bus that nobody made yet is none."""
    from streamproc.settings import EmbeddedAt, parse_bus

    at = parse_bus(bus)
    return not isinstance(at, EmbeddedAt) or at.path.exists()
