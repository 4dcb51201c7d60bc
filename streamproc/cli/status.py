"""`streamproc status`: who works, what is still to do, what is accounted for, and what waits for what.

All of it is read off the bus, so it tells of every process, and needs none of them to answer.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct

from streamproc.cli.frame import BusOption, JsonOption, emit, line, opened, run, settings, table
from streamproc.errors import Unparseable
from streamproc.messages import Coverage, Source
from streamproc.ranges import Ranges
from streamproc.topics import topic

if TYPE_CHECKING:
    from streamproc.bus.contract import Bus

EVERY_S = 2.0


class Service(Struct, frozen=True):
    service: str
    members: dict[str, list[int]]
    """Process → the partitions it holds."""
    reads: list[str]
    lag: int
    """Records it has not done, at most: compaction and commits leave holes."""


class Account(Struct, frozen=True):
    """What one service has accounted for of one stream, in seconds of it."""

    service: str
    done_s: float
    failed_s: float
    skipped_s: float
    missing_s: float
    behind_s: float
    """How much further the service is that is the furthest with this stream."""
    complete: bool


class Stream(Struct, frozen=True):
    stream: str
    generation: int
    state: str
    accounts: list[Account]


class Status(Struct, frozen=True):
    services: list[Service]
    streams: list[Stream]
    waits: list[str]
    """What stands still, and for want of whom."""


def register(root: typer.Typer) -> None:
    root.command(epilog="Example: streamproc status --watch")(status)


def status(
    bus: BusOption = None,
    watch: Annotated[bool, typer.Option("--watch", help=f"Again every {EVERY_S:g} seconds, until Ctrl-C.")] = False,
    json: JsonOption = False,
) -> None:
    """Services and who works in them, their lag, and what they have accounted for of every stream."""
    told = settings(bus=bus)

    async def work() -> None:
        async with opened(told) as log:
            while True:
                found = await look(log)
                if watch and not json and sys.stdout.isatty():
                    sys.stdout.write("\x1b[H\x1b[2J")
                emit(found) if json else _show(found)
                if not watch:
                    return
                sys.stdout.flush()
                await asyncio.sleep(EVERY_S)

    run(work())


# looking ------------------------------------------------------------------------------------------------------------


async def look(bus: Bus) -> Status:
    """As things stand on the bus now."""
    there = await bus.topics()
    sources: dict[str, Source] = {}
    for source in await _newest(bus, "sources", there):
        if isinstance(source, Source) and _version(source) >= _version(sources.get(source.stream)):
            sources[source.stream] = source
    hours = [c for c in await _newest(bus, "coverage", there) if isinstance(c, Coverage)]
    reads = _reads(sources.values(), (c.service for c in hours))
    services = await asyncio.gather(*(_service(bus, name, reads[name], there) for name in sorted(reads)))
    streams = [_stream(source, hours) for _, source in sorted(sources.items())]
    return Status(list(services), streams, _waits(services, streams, sources))


async def _newest(bus: Bus, name: str, there: dict[str, int]) -> list[Any]:
    """The newest value of every key of a table, as far as it can be read."""
    from streamproc import wire

    tables = await asyncio.gather(*(bus.follow(name, p) for p in range(there.get(name, 0))))
    found = []
    for stored in (s for t in tables for s in t.under(b"")):
        try:
            found.append(wire.decode(topic(name), stored))
        except Unparseable:  # `topics tail` shows it, with the reason
            continue
    return found


def _version(source: Source | None) -> tuple[int, int]:
    return (source.generation, source.revision) if source else (-1, -1)


def _reads(sources: Iterable[Source], speaking: Iterable[str]) -> dict[str, set[str]]:
    """Service → topics it reads: of all that a source names, and all that have spoken."""
    reads: dict[str, set[str]] = {name: set() for name in speaking}
    for source in sources:
        for name in source.services:
            reads.setdefault(name, set())
        for read, names in source.readers.items():
            for name in names:
                reads.setdefault(name, set()).add(read)
    return reads


async def _service(bus: Bus, name: str, reads: set[str], there: dict[str, int]) -> Service:
    members, progress = await asyncio.gather(bus.members(name), bus.progress(name))
    read = sorted(t for t in reads | {t for t, _ in progress} if t in there)
    places = [(t, p) for t in read for p in range(there[t])]
    spans = await asyncio.gather(*(bus.span(t, p) for t, p in places))
    lag = sum(max(0, s.end - max(s.begin, progress.get(at, 0))) for at, s in zip(places, spans, strict=True))
    return Service(name, {m: sorted(held) for m, held in sorted(members.items())}, read, lag)


def _stream(source: Source, hours: Iterable[Coverage]) -> Stream:
    by: dict[str, list[Coverage]] = defaultdict(list)
    for hour in hours:
        if (hour.stream, hour.generation) == (source.stream, source.generation):
            by[hour.service].append(hour)
    furthest = {
        name: max((hi for h in said for _, hi in (*h.done, *h.failed, *h.skipped)), default=0)
        for name, said in by.items()
    }
    front = max(furthest.values(), default=0)
    for name in source.services:
        by.setdefault(name, [])
    accounts = [_account(name, by[name], (front - furthest.get(name, 0)) / 1000) for name in sorted(by)]
    return Stream(source.stream, source.generation, source.state, accounts)


def _account(service: str, hours: list[Coverage], behind_s: float) -> Account:
    def seconds(kind: str) -> float:
        return Ranges(pair for hour in hours for pair in getattr(hour, kind)).total / 1000

    taken = Ranges(pair for hour in hours for pair in hour.taken)
    count = next((hour.count for hour in hours if hour.count is not None), None)
    return Account(
        service,
        done_s=seconds("done"),
        failed_s=seconds("failed"),
        skipped_s=seconds("skipped"),
        missing_s=seconds("missing"),
        behind_s=behind_s,
        complete=count is not None and taken.base() >= count,
    )


def _waits(services: Iterable[Service], streams: Iterable[Stream], sources: dict[str, Source]) -> list[str]:
    idle = {s.service for s in services if not s.members}
    said = [
        f"{s.service} has {s.lag} records to do, and nobody works in it" for s in services if s.lag and not s.members
    ]
    for stream in streams:
        complete = {a.service for a in stream.accounts if a.complete}
        for read, readers in sorted(sources[stream.stream].readers.items()):
            writers = [w for w in idle - complete if w.partition(".")[0] in topic(read).writers]
            waiting = [r for r in readers if r not in idle | complete]
            said += [
                f"{stream.stream}: {r} waits for {w}, and nobody works in it" for r in waiting for w in sorted(writers)
            ]
    return said


# showing ------------------------------------------------------------------------------------------------------------


def _show(found: Status) -> None:
    if not found.services:
        line("nothing to do: no sources, and no service has spoken")
        return
    rows = [
        [s.service, len(s.members), sum(map(len, s.members.values())), s.lag, ", ".join(s.reads)]
        for s in found.services
    ]
    table(["service", "members", "partitions held", "lag", "reads"], rows)
    line("")
    told = [
        [s.stream, s.state, a.service, *(f"{x:.1f}" for x in (a.done_s, a.failed_s, a.skipped_s, a.missing_s, a.behind_s)), "yes" if a.complete else ""]
        for s in found.streams
        for a in s.accounts
    ]  # fmt: skip
    table(["stream", "state", "service", "done s", "failed s", "skipped s", "missing s", "behind s", "complete"], told)
    for wait in found.waits:
        line("")
        line(wait)
