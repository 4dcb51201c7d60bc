"""`streamproc topics`: make them, list them, describe one, and read it (`records` does the reading)."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamproc.cli.frame import BusOption, JsonOption, emit, line, opened, run, say, settings, table
from streamproc.cli.records import Wanted, as_json, for_people, records, without_pictures
from streamproc.cli.times import parse
from streamproc.errors import Misconfigured, did_you_mean
from streamproc.topics import STATE, Topic, all_topics, deployment, partition_of, topic

if TYPE_CHECKING:
    from streamproc.bus.contract import Bus

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
            return [], [t.name for t in deployment()]
        async with opened(told, make=not dry_run) as log:
            there = await log.topics()
            missing = [t for t in deployment() if t.name not in there]
            if not dry_run:
                await log.create(missing)
            return [t.name for t in deployment() if t.name in there], [t.name for t in missing]

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
            known = {t.name: t for t in deployment()}
            known |= {name: topic(name) for name in sorted(there) if name.startswith(STATE)}
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
    now = datetime.now()
    wanted = Wanted(stream, parse(from_, now=now) if from_ else None, parse(to, now=now) if to else None)

    async def work() -> None:
        from streamproc.settings import open_claims

        claims = open_claims(told)
        async with opened(told) as log:
            count = await _count(log, asked)
            parts = [partition_of(stream, count)] if stream else list(range(count))
            async for stored in records(log, asked, parts, wanted, last=last, follow=follow):
                shown = await as_json(asked, stored, claims)
                if not wanted.has(shown, stored):
                    continue
                if json:
                    emit(without_pictures(shown) if sys.stdout.isatty() else shown)
                else:
                    line(for_people(shown))
                    sys.stdout.flush()

    run(work())


# topics -------------------------------------------------------------------------------------------------------------


def _topic(name: str) -> Topic:
    try:
        return topic(name)
    except Misconfigured:
        known = [t.name for t in deployment()]
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
