"""One suite on every bus: `bus_world` is each of them in turn."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import brokers
from tests.bus.worlds import EmbeddedWorld, KafkaWorld, MemoryWorld, World


def a_broker() -> str:
    """A missing Kafka is a gap on a laptop, and a failure where all tests are to run."""
    if (why := brokers.missing()) and not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return brokers.shared()


@pytest.fixture(params=["memory", "embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def bus_world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    world: World
    match request.param:
        case "memory":
            world = MemoryWorld()
        case "embedded":
            world = EmbeddedWorld(tmp_path)
        case _:
            world = KafkaWorld(a_broker())
    try:
        yield world
    finally:
        await world.close()
