"""A broker for all tests, a fresh prefix for each; buses that are opened in a test are closed behind it."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamproc.bus.kafka import Kafka
from tests import brokers
from tests.bus.kafka.world import SESSION_S, bare

Open = Callable[..., Awaitable[Kafka]]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def _real_kafka() -> None:
    """A missing Kafka is a gap on a laptop, and a failure where all tests are to run."""
    if (why := brokers.missing()) and not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


@pytest.fixture(scope="session")
def bootstrap(_real_kafka: None) -> str:
    return brokers.shared()


@pytest.fixture(scope="session")
def own_brokers(_real_kafka: None) -> None:
    """For tests that stop or configure brokers of their own."""
    if why := brokers.missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


@pytest.fixture
def prefix() -> str:
    """A topic made again under an old name can meet old offsets: never the same twice."""
    return f"t{next(_numbers)}-{uuid.uuid4().hex[:8]}."


@pytest.fixture
async def open_bus(prefix: str, request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Opens a bus as another process would: under the same prefix, with connections of its own."""
    async with AsyncExitStack() as stack:

        async def open_(at: str | None = None, **options: Any) -> Kafka:
            said: dict[str, Any] = {"prefix": prefix, "partitions": 2, "session_s": SESSION_S} | options
            bus = await Kafka.open(at or request.getfixturevalue("bootstrap"), **said)
            stack.push_async_callback(bus.close)
            return bus

        yield open_


@pytest.fixture
async def bus(bootstrap: str, open_bus: Open) -> Kafka:
    """With topics `in` and `out`, and a table."""
    opened = await open_bus(bootstrap)
    await opened.create([bare("in"), bare("out"), bare("table", compacted=True)])
    return opened
