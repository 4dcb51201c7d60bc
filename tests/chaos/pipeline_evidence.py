"""What a run of the pipeline left behind: everything that was said, from the topics alone, and what the endpoint was asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import msgspec
import orjson

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.messages import Coverage, Source, Window
from streamproc.topics import topic
from streamproc.wire import Stored
from tests.chaos.check import read_all
from tests.chaos.endpoint import Call
from tests.chaos.pipeline_truth import number_of
from tests.chaos.pipeline_weather import DESCRIBE as DESCRIBER
from tests.chaos.pipeline_weather import A, B, Services
from tests.chaos.weather import Harm

TOPICS = ("windows", "contexts", "captions", "detections", "incidents", "events", "descriptions", "verdicts")
SEQUENCES = (
    ("windows", "decode", "decode"),
    ("contexts", "context.c", "context.c"),
    ("captions", "caption.c", "decode"),
    ("detections", A, "decode"),
    ("detections", B, "decode"),
    ("incidents", "locate.c", "locate.c"),
    ("events", "dedup", "dedup"),
    ("descriptions", DESCRIBER, "dedup"),
    ("descriptions", DESCRIBER, "locate.c"),
    ("verdicts", "ensemble", "ensemble"),
)
"""Topic, who speaks, whose numbers."""
Place = tuple[str, str, str]
"""Service, root, stream."""
Key = tuple[str, str, str]
"""Kind and model, stream, number."""


@dataclass(frozen=True, slots=True)
class Said:
    """A record without its pictures, whose numbers are read off them."""

    record: Any
    pictures: tuple[int, ...]
    landed_at: float


@dataclass
class Evidence:
    """All that is looked at; plain, so that a test can spoil it."""

    sources: dict[str, Source]
    windows_of: dict[str, int]
    """Stream → how many it must have; of one that was removed, as many as it says it has."""
    said: dict[Place, list[Said]]
    coverage: dict[Place, Coverage]
    dead: list[tuple[str, str]]
    """(service, id of what it could not do), of all topics."""
    calls: dict[Key, list[Call]]
    harms: Sequence[Harm] = ()
    wakes: Sequence[tuple[int, float]] = ()

    def windows(self) -> int:
        return sum(self.windows_of.values())

    def of(self, service: str, root: str, stream: str) -> list[Said]:
        return self.said.get((service, root, stream), [])


async def gathered(
    bus: Bus, calls: bytes, sources: dict[str, Source], removed: set[str], length: int, services: Services
) -> Evidence:
    """Everything that was said, from the topics alone; and what the endpoint was asked."""
    said: dict[Place, list[Said]] = defaultdict(list)
    for name in TOPICS:
        for stored in await read_all(bus, name):
            if stored.value is not None:
                one = _slim(name, stored)
                said[one.record.service, one.record.root, one.record.stream].append(one)
    coverage: dict[Place, Coverage] = {}
    for stored in await read_all(bus, "coverage"):
        if stored.value is not None:
            record: Coverage = wire.decode(topic("coverage"), stored)
            coverage[record.service, record.root, record.stream] = record  # streams are shorter than an hour
    dead = [_letter(s) for name in ("sources", *TOPICS) for s in await read_all(bus, f"{name}.dlq")]
    windows_of = {
        stream: _ended(said.get(("decode", "decode", stream), []))
        if stream in removed
        else 1
        if "/no-such" in s.uri
        else length
        for stream, s in sources.items()
    }
    return Evidence(sources, windows_of, dict(said), coverage, dead, _calls(calls), services.harms, services.wakes)


def _slim(name: str, stored: Stored) -> Said:
    record: Any = wire.decode(topic(name), stored)
    pictures: tuple[int, ...] = ()
    if isinstance(record, Window):
        pictures = tuple(number_of(frame.jpeg) for frame in record.frames)
        record = msgspec.structs.replace(record, frames=())
    return Said(record, pictures, stored.time_ms / 1000)


def _letter(stored: Stored) -> tuple[str, str]:
    headers = dict(stored.headers)
    return headers["service"].decode(), headers["ce_id"].decode()


def _ended(windows: Sequence[Said]) -> int:
    return max((s.record.count for s in windows if s.record.ended), default=0)


def _calls(lines: bytes) -> dict[Key, list[Call]]:
    calls: dict[Key, list[Call]] = defaultdict(list)
    for line in lines.splitlines():
        (kind, stream, number), worker, began, answered = orjson.loads(line)
        calls[kind, stream, number].append(Call(worker, began, inf if answered is None else answered))
    for of_one in calls.values():
        of_one.sort(key=lambda call: call.began)
    return dict(calls)
