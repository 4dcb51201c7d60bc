"""Results made elsewhere, put on the bus as if services of ours had said them; what is left of the stream's services goes on
from there as always.

An imported stream's address says what it is made of: `import:MODEL=DIGEST,…`. Brought once more, nothing is said twice: ids
come from places, and what is there already stays. Another model's results of the same stream begin another life of it, in
which both have spoken, so that dedup and ensemble hear them together; the life before stays as it was.

What a file says is `importing_files`'; how it is told from the command line, the command line's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import msgspec

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.errors import Misconfigured, Rejected, TooLarge
from streamproc.messages import Answer, Record, Source, record_id
from streamproc.pipeline import importing_files as files
from streamproc.pipeline import streams
from streamproc.pipeline.importing_files import Brought
from streamproc.pipeline.job import Entered
from streamproc.pipeline.newcomers import Newcomers
from streamproc.pipeline.parts import Plan, plan_of, planned, readers
from streamproc.pipeline.progress import Progress
from streamproc.pipeline.streams import Wanted
from streamproc.runner.cover import Cover, sub_key
from streamproc.stages.replay import Original, is_replay
from streamproc.topics import topic
from streamproc.wire import Entry

SCHEME = "import:"
GO_ON = ("dedup", "ensemble")
"""Stages that imported results go through."""
SHOWN = 5
"""Options that differ and are told."""
CHUNK = 500


def is_import(uri: str) -> bool:
    return uri.startswith(SCHEME)


def owed(source: Source) -> tuple[str, ...]:
    """Services of a stream that somebody has to work in: all, but those that have spoken by an import, or by a replay."""
    if is_replay(source.uri):
        said = Original.parse(source.uri).said
        return tuple(s for s in source.services if s not in said)
    if not is_import(source.uri):
        return source.services
    return tuple(s for s in source.services if s.partition(".")[0] in GO_ON)


def voices(uri: str) -> dict[str, str]:
    """Model → digest of the files that spoke for it, in the order in which they came."""
    pairs = (part.partition("=") for part in uri.removeprefix(SCHEME).split(",") if part)
    return {model: digest for model, _, digest in pairs}


async def bring(bus: Bus, progress: Progress, brought: Sequence[Brought], *, chunk: int = CHUNK) -> Entered:
    """All of it, as far as it is not there. Nothing is written where any of the streams cannot be what it would have to be.

    `chunk`: entries that are published at once.
    """
    there = await streams.newest(bus)
    placed = [_placed(one, there.get(one.stream), progress) for one in brought]
    await streams.publish(bus, [p.source for p in placed if not p.known])
    said = await _said(bus, [p.source for p in placed])
    copies = await _copies(bus, progress, [p for p in placed if p.copied])
    entries = (entry for p in placed for entry in p.entries(bus.partitions, copies.get(p.source.stream, {}), said))
    while some := list(islice(entries, chunk)):
        await bus.publish(some)
        await asyncio.sleep(0)  # a large file is many chunks, and services work meanwhile
    return Entered(tuple(p.source for p in placed), frozenset(p.source.stream for p in placed if p.known))


# places -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placed:
    """One stream that is brought, and the life of it that it is brought into."""

    brought: Brought
    source: Source
    known: bool
    """It is in the table already."""
    own: tuple[str, ...]
    """Services that speak from the files."""
    copied: tuple[str, ...]
    """Services that say again what they said in the life before."""

    def entries(self, partitions: int, copies: Mapping[str, Sequence[Answer]], said: frozenset[str]) -> Iterator[Entry]:
        """Records, the end, and coverage, of every service whose words these are; without those that have been said."""
        spoken = {s: self.brought.said[s] for s in self.own} | dict(copies)
        count = max(map(len, spoken.values()), default=0)
        for service, answers in spoken.items():
            whole = [*answers, *(self._silent(i) for i in range(len(answers), count))]
            yield from _spoken(self.source, service, whole, partitions, said)

    def _silent(self, index: int) -> Answer:
        return files.silent(self.source.stream, index, self.brought.task, self.source.grid)


def _placed(one: Brought, there: Source | None, progress: Progress) -> Placed:
    if there is None or there.state == "removed":
        made = _source(one, {one.model: one.digest}, there.generation + 1 if there else 0)
        return Placed(one, made, known=False, own=files.services(one.format, [one.model]), copied=())
    spoken = voices(there.uri) if is_import(there.uri) else {}
    before = files.services(one.format, list(spoken))
    if not spoken or set(before) != {s for s in there.services if s not in owed(there)}:
        raise Misconfigured(
            f"stream '{one.stream}' is there already, and is no import of this kind; --as names another"
        )
    if spoken.get(one.model, one.digest) != one.digest:
        raise Misconfigured(
            f"stream '{one.stream}' has other results of '{one.model}' already. --as names another stream, --model another "
            "model beside it; `streamproc sources remove` makes room for a new one of this name"
        )
    _same_task(there, _source(one, spoken, there.generation))
    if one.model in spoken:
        return _again(one, there, spoken, progress)
    _complete(there, before, progress)
    source = _source(one, spoken | {one.model: one.digest}, there.generation + 1)
    return Placed(one, source, known=False, own=_of_last(one, source), copied=before)


def _again(one: Brought, there: Source, spoken: Mapping[str, str], progress: Progress) -> Placed:
    """Brought once more, after a kill or for nothing: what this life was begun with is said to its end."""
    *earlier, last = spoken
    copied = files.services(one.format, earlier) if earlier else ()
    if one.model == last:
        return Placed(one, there, known=True, own=_of_last(one, there), copied=copied)
    _complete(there, tuple(s for s in files.services(one.format, [last]) if s not in copied), progress)
    return Placed(one, there, known=True, own=(), copied=copied)


def _of_last(one: Brought, source: Source) -> tuple[str, ...]:
    """Services that only the model which came last has brought."""
    *earlier, last = voices(source.uri)
    return tuple(
        s for s in files.services(one.format, [last]) if not earlier or s not in files.services(one.format, earlier)
    )


def _complete(source: Source, services: Iterable[str], progress: Progress) -> None:
    for service in services:
        if not progress.of(source, service).complete():
            raise Misconfigured(
                f"stream '{source.stream}': the import of '{service}' was stopped in the middle. Call it once more first"
            )


def _same_task(there: Source, wanted: Source) -> None:
    others = streams.differs(there, wanted)
    if not others:
        return
    another = f"the task '{there.task['name']}'" if "task.name" in others else f"another {', '.join(others[:SHOWN])}"
    raise Misconfigured(
        f"stream '{there.stream}' was imported with {another}; results are only joined under one task. --as names another "
        "stream"
    )


def _source(one: Brought, spoken: Mapping[str, str], generation: int) -> Source:
    task = files.with_models(one.task, one.format, list(spoken))
    uri = SCHEME + ",".join(f"{model}={digest}" for model, digest in spoken.items())
    wanted = Wanted(name=one.stream, uri=uri, live=False, grid=one.grid, task=task)
    plans = [plan_of(s) for s in files.services(one.format, list(spoken))] + left(one)
    return msgspec.structs.replace(
        streams.first(wanted, generation=generation),
        services=tuple(p.service for p in plans),
        readers=readers(plans),
    )


def left(one: Brought) -> list[Plan]:
    """Services that go on from what is brought."""
    return [plan for plan in planned(one.task) if plan.stage in GO_ON]


# records ------------------------------------------------------------------------------------------------------------


def _spoken(
    source: Source, service: str, answers: Sequence[Answer], partitions: int, said: frozenset[str]
) -> Iterator[Entry]:
    root = service if service == "locate" else "locate" if service.startswith("describe.") else source.grid.root
    end_ms = max((a.end_ms for a in answers), default=0)
    cover = Cover(root, source.stream, source.generation)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kind = topic(_writes(service)).record
    assert kind is not None, "stages write records"
    at_end = {"index": len(answers), "start_ms": end_ms, "end_ms": end_ms, "count": len(answers)}
    ended = kind.of(source, **at_end)  # type: ignore[union-attr]  # coverage is no stage's to write
    for answer in (*answers, ended):
        record = msgspec.structs.replace(
            answer,
            id=record_id(service, root, source.stream, source.generation, answer.index),
            service=service,
            root=root,
            generation=source.generation,
            revision=source.revision,
        )
        cover.add(record, record.outcome, source)
        if record.id not in said:
            yield _checked(wire.encode(record, partitions=partitions, time=now), record)
    for hour in sorted(cover.hours):
        record_of = cover.record(service, hour)
        yield wire.encode(record_of, partitions=partitions, time=now, sub=sub_key(record_of))


def _checked(entry: Entry, record: Record) -> Entry:
    most = topic(entry.topic).max_bytes
    if entry.size > most:
        raise TooLarge(
            f"{record.stream} at {record.start_ms / 1000:g} s: {entry.size} bytes of text where {most} are allowed"
        )
    return entry


def _writes(service: str) -> str:
    return {"locate": "incidents", "describe": "descriptions", "detect": "detections"}[service.partition(".")[0]]


WRITTEN = ("detections", "incidents", "descriptions")


async def _said(bus: Bus, sources: Sequence[Source]) -> frozenset[str]:
    """Ids of what has been said in these lives."""
    return frozenset(r.id for _, r in await Newcomers(bus, WRITTEN, sources).come()) if sources else frozenset()


async def _copies(bus: Bus, progress: Progress, placed: Sequence[Placed]) -> dict[str, dict[str, list[Answer]]]:
    """Stream → service → what it said in the life before, from 0 on without a hole; what has expired cannot be said again."""
    lives = {
        p.source.stream: (await streams.revisions(bus, p.source.stream, p.source.generation - 1))[-1] for p in placed
    }
    found: dict[str, dict[str, dict[int, Answer]]] = {p.source.stream: {s: {} for s in p.copied} for p in placed}
    for _, record in await Newcomers(bus, WRITTEN, list(lives.values())).come() if lives else ():
        if not record.ended and record.service in found[record.stream]:
            found[record.stream][record.service][record.index] = record
    for stream, of in found.items():
        for service, records in of.items():
            if len(records) != progress.of(lives[stream], service).count:
                raise Rejected(
                    f"stream '{stream}': what '{service}' said is no longer there; import all models anew under another --as"
                )
    return {
        stream: {service: [records[i] for i in sorted(records)] for service, records in of.items()}
        for stream, of in found.items()
    }
