"""What the topics say, read from their beginning when everything is over; and what the endpoint was asked.

Named invariants: each is shown in `tests/sim` to catch a planted bug.

    lost             numbers of a stream without an outcome, in detections or in the sums
    doubled          numbers with more than one
    inexact          sums of the fold that are not what the windows add up to
    went_back        progress that was smaller than it had been
    repeated         calls for what had been asked for before. Each must be for what a process had in hand that was killed
                     or stopped (or all, when their broker was): asked for, and not landed when that happened. So no kill
                     costs more than was under way in the one killed; and joins, leaves and drains cost nothing
    needless         of these, calls that no such harm explains
    in_hand          what all who were harmed had in hand; `in_flight` of it had no answer so far, the rest had not landed
    repeated_landed  of these, calls that began after the first answer's outcome had landed
    on_waking        of these again, calls that a stopped process had decided to make: it looked whether its lease was
                     fresh, was stopped, and the next thing it did, seconds later, was to send. Nothing between the look
                     and the wire can be made to vanish; one loop makes one call at a time, so it is one a stop at most.
                     They are told apart, and no more than that one is forgiven
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import TypeVar

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.errors import Expired
from streamproc.topics import topic
from streamproc.wire import Stored
from tests.chaos.endpoint import Call, Endpoint, Key
from tests.chaos.stages import rows
from tests.chaos.weather import Harm, Workers

K = TypeVar("K", bound=Hashable)


@dataclass
class Findings:
    lost: int = 0
    doubled: int = 0
    inexact: int = 0
    dead: int = 0
    went_back: int = 0
    repeated: int = 0
    needless: int = 0
    in_hand: int = 0
    in_flight: int = 0
    repeated_landed: int = 0
    on_waking: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, example: str) -> None:
        if len(self.examples) < 10:
            self.examples.append(example)

    @property
    def ok(self) -> bool:
        wrong = (self.lost, self.doubled, self.inexact, self.dead, self.went_back, self.repeated_landed, self.needless)
        return not any(wrong)


async def read_all(bus: Bus, name: str) -> list[Stored]:
    records: list[Stored] = []
    for partition in range(bus.partitions):
        offset = (await bus.span(name, partition)).begin
        while True:
            try:
                batch = await bus.read(name, partition, offset, max_records=2000, max_bytes=2**24)
            except Expired as e:
                offset = e.begin
                continue
            if not batch:
                break
            records += batch
            offset = batch[-1].offset + 1
    return records


async def check(bus: Bus, endpoint: Endpoint, streams: dict[str, int], workers: Workers) -> Findings:
    """`streams`: name → number of windows."""
    found = Findings()
    landed = await _detections(bus, streams, found)
    await _sums(bus, streams, found)
    found.dead = len(await read_all(bus, "windows.dlq")) + len(await read_all(bus, "detections.dlq"))
    asked(endpoint.calls, landed, workers.harms, workers.wakes, found)
    return found


async def _detections(bus: Bus, streams: dict[str, int], found: Findings) -> dict[Key, float]:
    said: Counter[Key] = Counter()
    landed: dict[Key, float] = {}
    for stored in await read_all(bus, "detections"):
        record = wire.decode(topic("detections"), stored)
        said[record.stream, record.index] += 1
        landed.setdefault((record.stream, record.index), stored.time_ms / 1000)
    for stream, count in streams.items():
        for index in range(count + 1):
            times = said[stream, index]
            if times == 0:
                found.lost += 1
                found.note(f"lost: detection {stream} {index}")
            elif times > 1:
                found.doubled += 1
                found.note(f"doubled: detection {stream} {index}")
    return landed


async def _sums(bus: Bus, streams: dict[str, int], found: Findings) -> None:
    events: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for stored in await read_all(bus, "events"):
        record = wire.decode(topic("events"), stored)
        if record.event is not None:
            events[record.stream].append((record.index, record.event.details))
    for stream, count in streams.items():
        expected, numbers = rows(count), [n for n, _ in events[stream]]
        found.lost += len(set(range(len(expected))) - set(numbers))
        found.doubled += len(numbers) - len(set(numbers))
        for (number, details), row in zip(sorted(events[stream]), expected, strict=False):
            seen = min(row + 1, count)
            if details != f"{seen} {seen * (seen - 1) // 2}":
                found.inexact += 1
                found.note(f"inexact: {stream} event {number}: {details} at row {row}")


WAKING_S = 0.5


def asked(
    asked_for: Mapping[K, Sequence[Call]],
    landed: Mapping[K, float],
    harms: Sequence[Harm],
    woken: Sequence[tuple[int, float]],
    found: Findings,
) -> None:
    """`asked_for`: key → calls in their order; `landed`: key → when its outcome did."""
    wakes = list(woken)
    for key, calls in asked_for.items():
        landed_at = landed.get(key, inf)
        found.repeated += len(calls) - 1
        for before, again in pairwise(calls):
            if landed_at < again.began:
                if wake := _deciding(wakes, again):
                    wakes.remove(wake)
                    found.on_waking += 1
                else:
                    found.repeated_landed += 1
                    found.note(f"repeated though landed: {key}: asked at {again.began}, landed at {landed_at}")
            elif not any(h.since <= again.began and _in_hand(h, before, landed_at) for h in harms):
                found.needless += 1
                found.note(f"repeated without need: {key}: {before}, then {again}; landed at {landed_at}")
        for harm in harms:
            mine = [call for call in calls if _in_hand(harm, call, landed_at)]
            found.in_hand += bool(mine)
            found.in_flight += any(call.answered > harm.since for call in mine)


def _in_hand(harm: Harm, call: Call, landed_at: float) -> bool:
    return harm.worker in (None, call.worker) and call.began <= harm.until and harm.since <= landed_at


def _deciding(wakes: list[tuple[int, float]], call: Call) -> tuple[int, float] | None:
    return next((w for w in wakes if w[0] == call.worker and 0 <= call.began - w[1] < WAKING_S), None)
