"""What `doctor` sees that takes minutes to come about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import msgspec

from streamproc import wire
from streamproc.bus.embedded import Embedded
from streamproc.messages import Frame, Source, record_id
from streamproc.pipeline import checkup
from streamproc.topics import deployment
from tests.sim import toys

TAKEN = datetime(2026, 1, 1, 12, tzinfo=UTC)
CAMERA = "rtsp://admin:s3cret@10.0.0.7/1"


def camera(stream: str, **fields: object) -> Source:
    made = toys.source(stream, services=("decode",), count=9, live=True)
    return msgspec.structs.replace(made, uri=CAMERA, **fields)


@asynccontextmanager
async def decoding(folder: Path, *pictured: Source) -> AsyncIterator[Embedded]:
    """Somebody decodes; of these feeds a picture was taken then."""
    bus = await Embedded.open(folder / "bus.db", partitions=1)
    try:
        await bus.create(deployment())
        for source in pictured:
            made = msgspec.structs.replace(
                toys.window(source, 0, 1, 9),
                id=record_id("decode", "decode", source.stream, 0, 0),
                service="decode",
                root="decode",
                utc=TAKEN.isoformat(),
                frames=(Frame(t_ms=0, jpeg=b"jpeg"),),
            )
            await bus.publish([wire.encode(made, partitions=1, time="")])
        async with bus.join("decode", ["sources"], weights=lambda: [1]) as membership:
            await anext(aiter(membership.leases()))
            yield bus
    finally:
        await bus.close()


async def looked_at(
    folder: Path, *sources: Source, pictured: tuple[Source, ...], after_s: float
) -> list[tuple[str, ...]]:
    async with decoding(folder, *pictured) as bus:
        now = TAKEN + timedelta(seconds=after_s)
        found = await checkup.feeds(bus, {s.stream: s for s in sources}, now=now)
    assert "s3cret" not in str(found)
    return [(f.hop, f.verdict, f.seen) for f in found]


async def test_a_feed_of_which_nothing_comes_any_more_is_named(tmp_path: Path) -> None:
    door = camera("door")
    found = await looked_at(tmp_path, door, pictured=(door,), after_s=600)
    assert found == [("feed door", "failed", "its last picture is 600 s old")]


async def test_a_feed_that_has_just_begun_is_let_be_and_one_that_brings_pictures_is_well(tmp_path: Path) -> None:
    door, yard = camera("door"), camera("yard")
    found = await looked_at(tmp_path, door, yard, pictured=(yard,), after_s=5)
    assert found == [
        ("feed door", "note", "no picture among its last windows"),
        ("feeds", "ok", "pictures come from 1 of 2"),
    ]


async def test_a_feed_that_is_paused_has_no_pictures_to_bring(tmp_path: Path) -> None:
    assert await looked_at(tmp_path, camera("door", state="paused"), pictured=(), after_s=600) == []


async def test_topics_of_others_on_the_same_cluster_are_nobodys_business() -> None:
    there = {t.name: 16 for t in deployment()} | {
        "zz.captions": 4,
        "zz.captions.dlq": 4,
        "orders": 1,
        "state.dedup": 16,
    }
    shared: Any = SimpleNamespace(partitions=16, topics=AsyncMock(return_value=there))
    assert [f.verdict for f in await checkup.topics(shared)] == ["ok"]
    there["captions.dlq"] = 4
    (found,) = await checkup.topics(shared)
    assert (found.verdict, "captions.dlq has 4 partitions" in found.seen) == ("failed", True)
