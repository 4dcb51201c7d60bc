"""`streamproc status`: who works, what is still to do, what is accounted for, and what waits for what.

All of it is read off the bus, so it tells of every process, and needs none of them to answer. Endpoints are those of this
process's settings, and of the streams as far as it knows them; others may reach what it cannot.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Container, Iterable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from streamproc.cli.frame import BusOption, JsonOption, Patience, emit, line, opened, run, settings, table
from streamproc.errors import Expired
from streamproc.messages import Source
from streamproc.topics import topic

if TYPE_CHECKING:
    from streamproc.bus.contract import Bus
    from streamproc.pipeline.progress import Progress
    from streamproc.settings import Settings

EVERY_S = 2.0
REACHABLE = {True: "yes", False: "no", None: "not asked"}
COUNTED = ("events", "incidents", "descriptions")
"""Topics whose records are numbered as they come: who answers them has numbers that are no times."""


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
    behind_s: float | None
    """How much further the service is that is the furthest with this stream; None of one whose numbers are no times, as
    those of events: its lag in records says it."""
    complete: bool
    asked: bool = True
    """Somebody works in it, or it has said something of the stream."""


class Stream(Struct, frozen=True):
    stream: str
    generation: int
    state: str
    accounts: list[Account]


class Endpoint(Struct, frozen=True):
    endpoint: str
    reachable: bool | None
    """None where nobody was asked."""
    seen: str


class Status(Struct, frozen=True):
    services: list[Service]
    streams: list[Stream]
    waits: list[str]
    """What stands still, and for want of whom."""
    endpoints: list[Endpoint] = []


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
            patience = Patience() if watch else nullcontext
            while True:
                with patience():
                    found = await look(log, told)
                    if watch and not json and sys.stdout.isatty():
                        sys.stdout.write("\x1b[H\x1b[2J")
                    emit(found) if json else _show(found)
                if not watch:
                    return
                sys.stdout.flush()
                await asyncio.sleep(EVERY_S)

    run(work())


# looking ------------------------------------------------------------------------------------------------------------


async def look(bus: Bus, told: Settings | None = None) -> Status:
    """As things stand on the bus now; of endpoints, where settings say which there are."""
    from streamproc.pipeline import checkup
    from streamproc.pipeline.progress import followed

    there = await bus.topics()
    sources = await checkup.table(bus)
    if "coverage" not in there:
        return Status([], [], [])
    async with followed(bus) as progress:
        speaking = {name for source in sources.values() for name in progress.services(source)}
        kept = set(await bus.services())
        reads = _reads(sources.values(), speaking)
        for name in [n for n in reads if n not in kept and _through(n, sources.values(), progress)]:
            del reads[name]  # it has done its part and was forgotten
        reads |= {name: set() for name in kept - reads.keys()}
        services = await asyncio.gather(*(_service(bus, name, reads[name], there) for name in sorted(reads)))
        at_work = {s.service for s in services if s.members}
        streams = [_stream(source, progress, at_work) for _, source in sorted(sources.items())]
        waits = [*_waits(services, streams, sources), *await _left(bus, services, streams)]
    endpoints = await _endpoints(told, sources) if told else []
    return Status(list(services), streams, waits, endpoints)


async def _endpoints(told: Settings, sources: Mapping[str, Source]) -> list[Endpoint]:
    """Whether each answers, by the cheapest question there is."""
    from streamproc.cli.doctor import known
    from streamproc.cli.endpoints import environ

    served, found = known(told, sources)
    if served:
        from streamproc.pipeline.checkup_models import answers  # half a second, for the client of the models

        found = [*found, *await answers(served, environ(told))]
    return [
        Endpoint(f.hop.removeprefix("endpoint "), None if f.verdict == "note" else f.verdict == "ok", f.seen)
        for f in found
    ]


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
    lag = sum(await asyncio.gather(*(_behind(bus, t, p, progress.get((t, p), 0)) for t, p in places)))
    return Service(name, {m: sorted(held) for m, held in sorted(members.items())}, read, lag)


async def _behind(bus: Bus, name: str, partition: int, done: int) -> int:
    """Records of a partition that are not done. Its end alone does not tell: Kafka's markers stand behind the last record,
    and nobody ever reads them."""
    span = await bus.span(name, partition)
    base = max(span.begin, done)
    if base >= span.end:
        return 0
    try:
        there = await bus.read(name, partition, base, max_records=1, max_bytes=1)
    except Expired:  # while we looked
        return span.end - base
    return span.end - base if there else 0


def _stream(source: Source, progress: Progress, at_work: Container[str]) -> Stream:
    spoken = progress.services(source)
    # Of one that was removed the tables let go in the end: nobody is asked any more.
    names = sorted({*source.services, *spoken}) if spoken or source.state != "removed" else []
    counted = {name for read in COUNTED for name in source.readers.get(read, ())}
    on_grid = set(names) - counted
    front_ms = max((progress.of(source, name).front_ms for name in on_grid), default=0)
    accounts = []
    for name in names:
        said = progress.of(source, name)
        behind_s = max(0, front_ms - said.front_ms) / 1000 if name in on_grid else None
        accounts.append(
            Account(
                name,
                done_s=said.seconds("done"),
                failed_s=said.seconds("failed"),
                skipped_s=said.seconds("skipped"),
                missing_s=said.seconds("missing") if name in on_grid else 0.0,
                behind_s=behind_s,
                complete=said.complete(),
                asked=name in spoken or name in at_work,
            )
        )
    return Stream(source.stream, source.generation, source.state, accounts)


def _waits(services: Iterable[Service], streams: Iterable[Stream], sources: dict[str, Source]) -> list[str]:
    idle = {s.service for s in services if not s.members}
    said = [
        f"{s.service} has {s.lag} records to do, and nobody works in it" for s in services if s.lag and not s.members
    ]
    for stream in streams:
        if not stream.accounts:
            continue
        complete = {a.service for a in stream.accounts if a.complete}
        for read, readers in sorted(sources[stream.stream].readers.items()):
            writers = [w for w in idle - complete if w.partition(".")[0] in topic(read).writers]
            waiting = [r for r in readers if r not in idle | complete]
            said += [
                f"{stream.stream}: {r} waits for {w}, and nobody works in it" for r in waiting for w in sorted(writers)
            ]
    return said


def _through(service: str, sources: Iterable[Source], progress: Progress) -> bool:
    """It has spoken, and no stream names it that it is not through with."""
    named = [s for s in sources if service in s.services or service in progress.services(s)]
    return bool(named) and all(progress.complete(s, [service]) for s in named if s.state != "removed")


async def _left(bus: Bus, services: Iterable[Service], streams: Iterable[Stream]) -> list[str]:
    """Those for whom records are kept that they have not read, though no stream is left for them to look at."""
    open_ = {a.service for s in streams if s.state != "removed" for a in s.accounts if not a.complete}
    idle = [s for s in services if s.lag and not s.members and s.service not in open_]
    return [
        f"{s.service} has records to read and no stream to look at; if it will not come back: streamproc forget {s.service}"
        for s in idle
        if await _any_unread(bus, s.service)
    ]


async def _any_unread(bus: Bus, service: str) -> bool:
    """The ends of a log do not tell: Kafka's markers stand behind the last record."""
    for (name, partition), base in (await bus.progress(service)).items():
        span = await bus.span(name, partition)
        at = max(base, span.begin)
        if at < span.end and await bus.read(name, partition, at, max_records=1, max_bytes=1):
            return True
    return False


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
        [s.stream, s.state, a.service, *("" if x is None else f"{x:.1f}" for x in (a.done_s, a.failed_s, a.skipped_s, a.missing_s, a.behind_s)), "yes" if a.complete else "" if a.asked else "not asked so far"]
        for s in found.streams
        for a in s.accounts
    ]  # fmt: skip
    table(["stream", "state", "service", "done s", "failed s", "skipped s", "missing s", "behind s", "complete"], told)
    if found.endpoints:
        line("")
        rows = [[e.endpoint, REACHABLE[e.reachable], e.seen] for e in found.endpoints]
        table(["endpoint", "reachable", "seen"], rows)
    for wait in found.waits:
        line("")
        line(wait)
