"""Dead letters done again: as a stream of their own, `match1@dlq-1`, beside the one they come from.

What failed has had its one outcome, and that stands. So the inputs are said once more under another name, at the numbers
and times they had, with everything between them a counted gap; the service that could not do them does them there, and the
services behind it go on from what it says. The stream ends behind its last letter, and is complete as any other. It lands
at once: a stream of half of its letters is never to be seen.

The payload is the letter's own, so nothing has to be there any more of what it came from. What other services said of the
same numbers is not said again, but by describers, who are asked once more where ensemble was the one that failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

from msgspec.structs import replace

from streamproc import wire
from streamproc.bus.claims import Claims
from streamproc.bus.contract import Bus
from streamproc.errors import Rejected
from streamproc.messages import Context, Grid, Record, Source, record_id
from streamproc.pipeline import streams
from streamproc.pipeline.letters import Letter
from streamproc.pipeline.parts import PARTS, plan_of, readers
from streamproc.runner.cover import Cover, sub_key
from streamproc.stage import Fold
from streamproc.stages.ensemble.stage import judged
from streamproc.topics import partition_of, topic
from streamproc.wire import Entry

REASON = "not-replayed"
"""Of what lies between the letters."""
MOST_BYTES = 256 * 2**20
"""Of one stream's letters: they land in one transaction."""


@dataclass(frozen=True, slots=True)
class Again:
    """A stream that letters have become."""

    stream: str
    of: str
    services: tuple[str, ...]
    letters: int


async def again(bus: Bus, chosen: Sequence[Letter], *, claims: Claims) -> list[Again]:
    """One stream for each stream, revision of it and service that failed. Nothing is published where any of them cannot be."""
    there = await streams.newest(bus)
    taken = set(there)
    ready: list[tuple[Again, list[Entry]]] = []
    for (stream, revision, service), some in (await _grouped(chosen, claims)).items():
        name = _free(stream, taken)
        taken.add(name)
        first = some[0]
        if isinstance(first, Source):
            made = _anew(first, name)
            ready.append((Again(name, stream, made.services, 1), [_source_entry(made, bus.partitions)]))
            continue
        source = await _under(bus, stream, first.generation, revision)
        made = derived(source, name, service, first)
        said = _spoken(made, service, some, source)
        entries = [
            _source_entry(made, bus.partitions),
            *await _contexts(bus, source, made, service),
            *_entries(said, made, bus),
        ]
        checked = [await claims.check_in(e, topic(e.topic).max_bytes) for e in entries]
        if (size := sum(e.size for e in checked)) > MOST_BYTES:
            raise Rejected(f"{stream}: letters of {size >> 20} MiB, and {MOST_BYTES >> 20} go at once; name fewer")
        ready.append((Again(name, stream, made.services, len(some)), checked))
    for _, entries in ready:
        await bus.publish(entries)
    return [told for told, _ in ready]


# what is chosen -----------------------------------------------------------------------------------------------------


async def _grouped(chosen: Sequence[Letter], claims: Claims) -> dict[tuple[str, int, str], list[Any]]:
    """(stream, revision, service) → records, each once, by number."""
    groups: dict[tuple[str, int, str], dict[str, Any]] = {}
    for letter in chosen:
        try:
            record = wire.decode(topic(letter.topic), await claims.check_out(letter.stored))
        except Rejected as e:
            raise Rejected(f"dead letter {letter.id} cannot be done again, for it cannot be read: {e}") from e
        if not letter.service:
            raise Rejected(f"dead letter {letter.id} does not say which service could not do it")
        key = (f"{record.stream}", record.revision, letter.service)
        groups.setdefault(key, {}).setdefault(record.id, record)
    return {key: sorted(some.values(), key=lambda r: (r.index, r.service)) for key, some in groups.items()}


def _free(stream: str, taken: set[str]) -> str:
    """`@` parts a name once: a replay's letters go on behind it with a hyphen."""
    mark = "-" if "@" in stream.rpartition("/")[2] else "@"
    return next(name for n in count(1) if (name := f"{stream}{mark}dlq-{n}") not in taken)


async def _under(bus: Bus, stream: str, generation: int, revision: int) -> Source:
    """The revision that the letters were made under."""
    known = await streams.revisions(bus, stream, generation)
    if (found := next((s for s in known if s.revision == revision), None)) is None:
        raise Rejected(
            f"stream '{stream}' has no revision {revision} of life {generation} any more: its task is not known"
        )
    return found


# the stream ---------------------------------------------------------------------------------------------------------


def _anew(source: Source, name: str) -> Source:
    """A source that could not be read is read from its beginning."""
    grid = Grid(root=source.grid.root, origin="0", step=source.grid.step, first=0)
    return replace(_first(source, name), grid=grid)


def _first(source: Source, name: str) -> Source:
    return replace(
        source,
        id=record_id(streams.CLI, streams.CLI, name, 0, 0),
        service=streams.CLI,
        root=streams.CLI,
        stream=name,
        generation=0,
        revision=0,
        index=0,
        state="active",
        from_index=0,
    )


def derived(source: Source, name: str, service: str, letter: Record) -> Source:
    """The source of a stream made of letters: the service that failed, and all that stand behind it. It is no feed: what
    there is of it is there."""
    services = _behind(source, service)
    joined = [letter.service] if letter.service == judged(source) else _joined(source, service)
    plans = [plan_of(s) for s in (*joined, *services)]
    made = replace(
        _first(source, name),
        live=False,
        lag="block",
        join_wait_s=None,
        services=tuple(dict.fromkeys(p.service for p in plans)),
        readers=readers([*plans, plan_of(letter.service)]),
    )
    judges = [s for s in made.services if _stage(s) == "ensemble"]
    if judges and judged(source) not in (*made.services, letter.service):  # what it judges is not said again
        others = tuple(s for s in made.services if s not in judges)
        return replace(made, services=others, readers=_without(made.readers, judges))
    return made


def _without(reads: Mapping[str, tuple[str, ...]], services: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return {name: left for name, some in reads.items() if (left := tuple(s for s in some if s not in services))}


def _stage(service: str) -> str:
    return service.partition(".")[0]


def _behind(source: Source, service: str) -> list[str]:
    """The service, and whoever reads what it writes, and so on, in the order of the flow."""
    reached = {service}
    if _stage(service) == "ensemble":
        reached |= {s for s in source.services if _stage(s) == "describe"}
    while True:
        written = {name for s in reached for name in PARTS[_stage(s)].kind.writes}
        more = {s for s in source.services if not written.isdisjoint(PARTS[_stage(s)].kind.reads)} - reached
        if not more:
            return [s for s in source.services if s in reached] or [service]
        reached |= more


def _joined(source: Source, service: str) -> list[str]:
    """Of a fold: services whose words make its rows, which are said again, or passed over in a gap."""
    prefix = {"dedup": "detect.", "locate": "caption."}.get(_stage(service))
    if prefix is None:
        return [judged(source)] if _stage(service) == "ensemble" else []
    return [s for s in source.services if s.startswith(prefix)]


# records ------------------------------------------------------------------------------------------------------------


def _spoken(made: Source, service: str, some: Sequence[Record], source: Source) -> dict[str, list[Record]]:
    """Speaker → all it says in the stream: letters, gaps between them, the end."""
    fold = issubclass(PARTS[_stage(service)].kind, Fold)
    if _stage(service) == "ensemble":  # describers are asked again
        some = [r for r in some if r.service == judged(source)] or some
    speakers = dict.fromkeys(r.service for r in some)
    if fold and _stage(service) in ("dedup", "locate"):
        speakers |= dict.fromkeys(_joined(source, service))
    until = max(r.until for r in some)
    end_ms = max(r.end_ms for r in some)
    return {s: list(_filled(made, s, [r for r in some if r.service == s], some[0], until, end_ms)) for s in speakers}


def _filled(
    made: Source, speaker: str, letters: Sequence[Record], like: Record, until: int, end_ms: int
) -> Iterator[Record]:
    at, at_ms = 0, 0
    root = like.root

    def place(index: int, until_index: int | None, start_ms: int, last_ms: int, **fields: Any) -> Record:
        bare = type(like).of(
            made, index=index, until_index=until_index, start_ms=start_ms, end_ms=max(start_ms, last_ms), **fields
        )
        return replace(bare, id=record_id(speaker, root, made.stream, 0, index), service=speaker, root=root)

    def gap(lo: int, hi: int, hi_ms: int) -> Record:
        start_ms, last_ms = (
            (made.grid.starts_ms(lo), made.grid.starts_ms(hi)) if _on_grid(made, root) else (at_ms, hi_ms)
        )
        return place(lo, hi if hi > lo + 1 else None, start_ms, last_ms, outcome="skipped", reason=REASON)

    for letter in letters:
        if letter.index > at:
            yield gap(at, letter.index, letter.start_ms)
        yield replace(
            letter,
            id=record_id(speaker, root, made.stream, 0, letter.index),
            stream=made.stream,
            generation=0,
            revision=0,
        )
        at, at_ms = letter.until, letter.end_ms
    if at < until:
        yield gap(at, until, end_ms)
    yield place(until, None, end_ms, end_ms, count=until)


def _on_grid(made: Source, root: str) -> bool:
    return made.grid.root == root


def _entries(said: Mapping[str, Sequence[Record]], made: Source, bus: Bus) -> Iterator[Entry]:
    """The records, and coverage of those who have said all they will, where the stream names them."""
    for speaker, records in said.items():
        cover = Cover(records[0].root, made.stream, 0)
        for record in records:
            cover.add(record, record.outcome, made)
            yield wire.encode(record, partitions=bus.partitions, time=_now())
        if speaker in made.services:
            for hour in sorted(cover.hours):
                told = cover.record(speaker, hour)
                yield wire.encode(told, partitions=bus.partitions, time=_now(), sub=sub_key(told))


async def _contexts(bus: Bus, source: Source, made: Source, service: str) -> list[Entry]:
    """What was known of the original, known of this one too; context itself finds out anew."""
    if "context" not in source.task or _stage(service) == "context":
        return []
    table = await bus.follow("contexts", partition_of(source.stream, bus.partitions))
    found: list[Entry] = []
    for stored in table.under(source.stream.encode() + b"\0"):
        record: Context | None = wire.row(stored)
        if record and record.generation == source.generation and not record.ended:
            identity = record_id(record.service, record.root, made.stream, 0, record.index)
            copy = replace(record, id=identity, stream=made.stream, generation=0, revision=0)
            found.append(wire.encode(copy, partitions=bus.partitions, time=_now(), sub=(f"0.{record.from_}",)))
    return found


def _source_entry(made: Source, partitions: int) -> Entry:
    return wire.encode(made, partitions=partitions, time=_now(), sub=("0.0",))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
