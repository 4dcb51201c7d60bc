"""Keyed state of one lease, as it lies in its changelog partition; and the record that says which landing was the last.

That record holds the serial *and* the progress of the landing. So progress and state lie in one partition, and a broker
that tears a transaction apart (KAFKA-20734) cannot tear these two. The group's committed offsets say the same, for the
tools of operators and for lag; where they differ the record is believed and the difference is reported.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from streamproc.bus.kafka.insides import EARLIEST, LATEST, Client, TopicPartition
from streamproc.bus.kafka.mapping import at
from streamproc.errors import Corrupt, Unreachable
from streamproc.wire import Entry

log = logging.getLogger(__name__)

SERIAL = b"\0serial"
"""Before any key of a stream: no stream's name has a control character."""

LOAD_BYTES = 4 * 2**20


class Last(msgspec.Struct, frozen=True):
    """The last landing: its number, where it left progress, and who landed it."""

    serial: int = 0
    progress: dict[str, int] = {}
    owner: str = ""
    """Of the lease, drawn when it was taken. Numbers alone could be another's, who held the lease in between."""


@dataclass(slots=True)
class Loaded:
    last: Last = field(default_factory=Last)
    state: dict[str, bytes] = field(default_factory=dict)


def changes(topic: str, partition: int, state: Mapping[str, bytes | None], last: Last) -> list[Entry]:
    """A landing's state as records of the changelog."""
    written = [Entry(topic, partition, key.encode(), value) for key, value in state.items()]
    return [*written, Entry(topic, partition, SERIAL, msgspec.json.encode(last))]


async def load(client: Client, place: TopicPartition) -> Loaded:
    """Everything that has landed in a changelog partition. To be read behind the fence: nobody writes it meanwhile."""
    hop = f"state topic {place.topic}[{place.partition}]"
    found = Loaded()
    with at(hop):
        offset = (await client.offsets({place: EARLIEST}))[place]
        end = (await client.offsets({place: LATEST}))[place]
        while offset < end:
            answer = await client.fetch_one(place, offset, size=LOAD_BYTES, lane=f"state {place.partition % 4}")
            if answer.records is None or answer.records.end <= offset:
                raise Unreachable(hop, f"reading stops at {offset} of {end}", remedy="Look at the brokers' logs.")
            for stored in answer.records:
                if stored.key == SERIAL:
                    found.last = _last(stored.value, hop)
                elif stored.value is None:
                    found.state.pop(stored.key.decode(), None)
                else:
                    found.state[stored.key.decode()] = stored.value
            offset = answer.records.end
    return found


def _last(value: bytes | None, hop: str) -> Last:
    try:
        return msgspec.json.decode(value or b"", type=Last)
    except msgspec.MsgspecError as e:
        raise Corrupt(f"{hop}: the record of the last landing cannot be read: {e}") from e


def compare(whose: str, last: Last, committed: Mapping[str, int], topics: Iterable[str]) -> None:
    """The two accounts of progress. Corrupt where state is gone; a difference is reported, the landed record believed."""
    if not last.serial and committed:
        raise Corrupt(
            f"{whose}: offsets are committed ({_said(committed)}), but its state topic holds nothing: it was deleted or made "
            "anew. Bring it back, or reset the group's offsets to begin again from the start"
        )
    for topic in topics:
        offset = last.progress.get(topic, 0)
        if (other := committed.get(topic)) != offset and (offset or other):
            log.error(
                "%s: %s has landed up to %d, but the group's committed offset is %s (%s); going on from %d",
                whose,
                topic,
                offset,
                "gone" if other is None else other,
                "expired: raise offsets.retention.minutes" if other is None else "reset by hand, or torn by the broker",
                offset,
            )


def _said(committed: Mapping[str, int]) -> str:
    return ", ".join(f"{topic} {offset}" for topic, offset in sorted(committed.items()))
