"""Dead letters: inputs that a service could not do, as they came, with what became of them in their headers.

A letter is known by the id of the `failed` outcome that stands in its place, `SERVICE/ROOT/STREAM/GENERATION/NUMBER`; one
of which not even that can be told, by where it lies: `TOPIC.dlq/PARTITION/OFFSET`. A fold that could not do a row has one
letter an input, all of one id. Nothing here changes anything: doing a letter's input again is `letters_again`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from streamproc.bus.contract import Bus
from streamproc.messages import parse_id, record_id
from streamproc.pipeline.reading import stored_in
from streamproc.topics import DLQ, all_topics, partition_of, stream_of
from streamproc.wire import Stored


@dataclass(frozen=True, slots=True)
class Letter:
    """One of them, as its headers tell; the payload is left in `stored`."""

    id: str
    stored: Stored
    topic: str
    """What it came from."""
    stream: str
    generation: int | None
    index: int | None
    service: str
    """Who could not do it."""
    error_class: str
    error: str
    attempts: int
    died: datetime

    @property
    def place(self) -> str:
        return f"{self.stored.topic}/{self.stored.partition}/{self.stored.offset}"


def letter(stored: Stored) -> Letter:
    """What the headers say; whatever wrote them, nothing here fails on it."""
    service = _header(stored, "service")
    said = parse_id(_header(stored, "ce_id"))
    sequence, index = said or (None, None)
    place = f"{stored.topic}/{stored.partition}/{stored.offset}"
    if sequence is not None and index is not None and service:
        name = record_id(service, sequence.root, sequence.stream, sequence.generation, index)
    else:
        name = place
    attempts = _header(stored, "attempts")
    return Letter(
        id=name,
        stored=stored,
        topic=stored.topic.removesuffix(DLQ),
        stream=stream_of(stored.key),
        generation=sequence.generation if sequence else None,
        index=index,
        service=service,
        error_class=_header(stored, "error-class"),
        error=_header(stored, "error"),
        attempts=int(attempts) if attempts.isdecimal() else 1,
        died=datetime.fromtimestamp(stored.time_ms / 1000, UTC),
    )


async def letters(bus: Bus, stream: str | None = None) -> AsyncIterator[Letter]:
    """All that have not expired, topic by topic; of one stream, or of all."""
    there = await bus.topics()
    for name in (t + DLQ for t in all_topics()):
        count = there.get(name, 0)
        for p in range(count) if stream is None else [partition_of(stream, bus.partitions)]:
            if p >= count:
                continue
            async for stored in stored_in(bus, name, p, *await bus.span(name, p)):
                if (found := letter(stored)) and stream in (None, found.stream):
                    yield found


def _header(stored: Stored, name: str) -> str:
    """The last of that name: a letter that came of a letter has them twice."""
    found = [value for key, value in stored.headers if key == name]
    return found[-1].decode(errors="replace") if found else ""
