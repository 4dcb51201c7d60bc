"""The table of sources, as those who add to it see it: what runs under which task, and the next revision of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from msgspec.structs import replace

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.messages import Grid, Source, record_id
from streamproc.pipeline.parts import planned, readers
from streamproc.task import Task
from streamproc.topics import partition_of
from streamproc.video.sources import natural
from streamproc.wire import Stored

CLI = "cli"
"""Whoever changes the table by hand speaks under this name."""

State = Literal["active", "paused", "removed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A stream that somebody asks for."""

    name: str
    uri: str
    live: bool
    grid: Grid
    task: Task
    lag: str = "block"
    footage: str | None = None


def first(wanted: Wanted, *, generation: int = 0) -> Source:
    """The first revision of a stream, or of another life of its name."""
    services = planned(wanted.task)
    return Source(
        id=record_id(CLI, CLI, wanted.name, generation, 0),
        service=CLI,
        root=CLI,
        stream=wanted.name,
        generation=generation,
        revision=0,
        index=0,
        start_ms=0,
        end_ms=0,
        outcome="done",
        uri=wanted.uri,
        live=wanted.live,
        state="active",
        from_index=0,
        grid=wanted.grid,
        task=wanted.task.resolved(),
        services=tuple(p.service for p in services),
        readers=readers(services),
        lag=wanted.lag,
        join_wait_s=wanted.task.join_wait_s if wanted.live else None,
        footage=wanted.footage,
    )


def changed(source: Source, **fields: Any) -> Source:
    """The next revision."""
    revision = source.revision + 1
    return replace(
        source,
        id=record_id(CLI, CLI, source.stream, source.generation, revision),
        revision=revision,
        index=revision,
        **fields,
    )


def differs(there: Source, wanted: Source) -> list[str]:
    """What somebody asks for otherwise than it runs, by name."""
    named = [n for n in ("uri", "live") if getattr(there, n) != getattr(wanted, n)]
    if (there.grid.origin, there.grid.step) != (wanted.grid.origin, wanted.grid.step):
        named.append("step")
    return named + [f"task.{name}" for name in differing(there.task, wanted.task)]


def differing(there: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Options of two tasks that are not the same, by name."""
    found: list[str] = []
    for name in dict.fromkeys((*there, *wanted)):
        one, other = there.get(name), wanted.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += differing(one, other, f"{prefix}{name}.")
        elif one != other:
            found.append(prefix + name)
    return found


async def publish(bus: Bus, sources: Iterable[Source]) -> None:
    """Each a microsecond behind the one before, so that the table tells in which order they came."""
    now = datetime.now(UTC)
    entries = [
        wire.encode(s, partitions=bus.partitions, time=_told(now, n), sub=(f"{s.generation}.{s.revision}",))
        for n, s in enumerate(sources)
    ]
    if entries:
        await bus.publish(entries)


def _told(now: datetime, number: int) -> str:
    return (now + timedelta(microseconds=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def newest(bus: Bus) -> dict[str, Source]:
    """Stream → its newest revision, of all that there are."""
    found: dict[str, Source] = {}
    async for _, source in _all(bus):
        if (known := found.get(source.stream)) is None or version(source) > version(known):
            found[source.stream] = source
    return found


async def in_order(bus: Bus) -> list[Source]:
    """The same, in the order in which streams were first added."""
    added: dict[str, str] = {}
    async for stored, source in _all(bus):
        said = (stored.header("ce_time") or b"").decode(errors="replace")
        added[source.stream] = min(said, added.get(source.stream, said))
    there = await newest(bus)
    return [there[name] for name in sorted(added, key=lambda name: (added[name], natural(name.split("/"))))]


async def revisions(bus: Bus, stream: str, generation: int) -> list[Source]:
    """Of one life of a stream, oldest first."""
    found = [s async for _, s in _all(bus, stream) if (s.stream, s.generation) == (stream, generation)]
    return sorted(found, key=version)


async def _all(bus: Bus, stream: str | None = None) -> AsyncIterator[tuple[Stored, Source]]:
    """Every revision that can be read; of all streams, or of one."""
    for p in range(bus.partitions) if stream is None else [partition_of(stream, bus.partitions)]:
        table = await bus.follow("sources", p)
        await table.caught_up()
        for stored in table.under(stream.encode() if stream else b""):
            if (source := wire.row(stored)) is not None:  # `topics tail sources` shows one that cannot be read, and why
                yield stored, source


def version(source: Source) -> tuple[int, int]:
    return source.generation, source.revision
