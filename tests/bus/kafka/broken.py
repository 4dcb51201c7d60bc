"""What goes wrong on the broker's side, brought about by asking the broker for it."""

from __future__ import annotations

from typing import Any

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.client import CoordinationType
from aiokafka.protocol.admin import DeleteGroupsRequest

from streamproc.bus.kafka import Kafka
from tests.bus.kafka.world import eventually


async def _admin(bus: Kafka) -> Any:
    admin = AIOKafkaAdminClient(bootstrap_servers=bus.bootstrap)
    await admin.start()
    return admin


async def delete_records(bus: Kafka, topic: str, partition: int, *, before: int) -> None:
    """As retention does, now."""
    admin = await _admin(bus)
    try:
        await admin.delete_records({bus.names.at(topic, partition): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


async def delete_topic(bus: Kafka, topic: str) -> None:
    admin = await _admin(bus)
    try:
        await admin.delete_topics([bus.names.topic(topic)])
    finally:
        await admin.close()

    async def gone() -> bool:
        return topic not in await bus.topics()

    await eventually(gone)


async def delete_group(bus: Kafka, service: str) -> None:
    """A group that nobody has used for long: its offsets expire."""
    group = bus.names.group(service)
    node = await bus.client.inner.coordinator_lookup(CoordinationType.GROUP, group)
    ((_, code),) = (await bus.client.inner.send(node, DeleteGroupsRequest([group]))).results
    assert errors.for_code(code) is errors.NoError
