"""Topics on the broker: made with our settings, and checked. All topics of a deployment have one number of partitions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streamproc.bus.contract import PARTITIONS
from streamproc.bus.kafka.connections import unhurried
from streamproc.bus.kafka.mapping import at, mapped
from streamproc.bus.kafka.names import Names
from streamproc.errors import Misconfigured
from streamproc.topics import Topic

HOUR_MS = 3_600_000
ENVELOPE_BYTES = 2**16
"""What a record may have around its value: key, headers, the batch."""


def settings(topic: Topic, *, replication: int) -> dict[str, str]:
    """A topic's settings in Kafka's words."""
    said = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "max.message.bytes": str(max(topic.max_bytes, 2**20) + ENVELOPE_BYTES),
        "min.insync.replicas": str(2 if replication >= 3 else 1),
        # When it was landed, by the bus's clock: `--from` and `--to` go by it.
        "message.timestamp.type": "LogAppendTime",
    }
    if topic.compacted:
        # Read whole at every start: what has been overwritten leaves within minutes, not when a gigabyte is full.
        said |= {"min.cleanable.dirty.ratio": "0.1", "segment.ms": "600000", "segment.bytes": str(64 * 2**20)}
    else:
        said["retention.ms"] = str(round(topic.retention_hours * HOUR_MS)) if topic.retention_hours else "-1"
    return said


def misfits(there: Mapping[str, int], wanted: Sequence[str], partitions: int) -> list[str]:
    return [f"{name} has {there[name]}" for name in wanted if there.get(name, partitions) != partitions]


def check(there: Mapping[str, int], wanted: Sequence[str], partitions: int) -> None:
    if found := misfits(there, wanted, partitions):
        raise Misconfigured(
            f"all topics of a deployment have {partitions} partitions, but {', '.join(found)}: use that number "
            "(`--partitions`), or another topic prefix; topics cannot be repartitioned"
        )


def agreed(ours: Mapping[str, int], wanted: int | None) -> int:
    """How many partitions all topics of the deployment have, or are to have; Misconfigured where they do not agree."""
    most = Counter(ours.values()).most_common(1)
    partitions = wanted or (most[0][0] if most else PARTITIONS)
    check(ours, list(ours), partitions)
    return partitions


async def create(
    bootstrap: str,
    options: Mapping[str, Any],
    names: Names,
    topics: Sequence[Topic],
    *,
    partitions: int,
    replication: int,
) -> None:
    """Make them. One that somebody else has just made is as good."""
    new = [
        NewTopic(
            names.topic(topic.name), partitions, replication, topic_configs=settings(topic, replication=replication)
        )
        for topic in topics
    ]
    async with _admin(bootstrap, options) as admin:
        response = await admin.create_topics(new, timeout_ms=30_000)
        for name, code, text in response.topic_errors:
            error = errors.for_code(code)
            if error not in (errors.NoError, errors.TopicAlreadyExistsError):
                raise mapped(error(text or ""), f"topic {name}")


async def delete(bootstrap: str, options: Mapping[str, Any], name: str) -> None:
    """With all that is in it. One that is gone already is as good."""
    async with _admin(bootstrap, options) as admin:
        response = await admin.delete_topics([name], timeout_ms=30_000)
        for _, code, *_ in response.topic_error_codes:
            error = errors.for_code(code)
            if error not in (errors.NoError, errors.UnknownTopicOrPartitionError):
                raise mapped(error(), f"topic {name}")


@asynccontextmanager
async def _admin(bootstrap: str, options: Mapping[str, Any]) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **options)
    opening = unhurried(admin.start())
    with at(f"broker {bootstrap}"):
        try:
            await asyncio.shield(opening)
            yield admin
        finally:
            await asyncio.wait([opening])
            await admin.close()
