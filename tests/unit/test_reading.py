"""Topics read by those who only look: what has expired, and what cannot be read, keeps nobody from the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from streamproc import wire
from streamproc.bus.claims import Claims, Folder
from streamproc.bus.embedded import Embedded
from streamproc.messages import Detection, Record
from streamproc.pipeline.newcomers import Newcomers
from streamproc.pipeline.reading import record_of, stored_in
from streamproc.topics import deployment, stream_of
from tests.sim import toys
from tests.unit.clock import Clock

HOUR_S = 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bus(tmp_path: Path, clock: Clock) -> AsyncIterator[Embedded]:
    bus = await Embedded.open(str(tmp_path / "log.db"), partitions=1, clock=clock)
    await bus.create(deployment())
    yield bus
    await bus.close()


def detection(index: int) -> wire.Entry:
    of = toys.source("s", services=("detect.m",), count=10)
    place = Detection.of(of, index=index, start_ms=0, end_ms=1000, events=())
    whole = replace(place, id=f"detect.m/decode/s/0/{index}", service="detect.m", root="decode")
    return wire.encode(whole, partitions=1, time="")


async def test_a_claim_whose_payload_is_gone_is_passed_over_and_all_others_come_once(
    bus: Embedded, tmp_path: Path
) -> None:
    source = toys.source("s", services=("detect.m",), count=10)
    kept, lost = Claims(Folder(tmp_path / "kept")), Claims(Folder(tmp_path / "lost"))
    (tmp_path / "kept").mkdir()
    await bus.publish([detection(0), await lost.check_in(detection(1), 10), await kept.check_in(detection(2), 10)])
    newcomers = Newcomers(bus, ["detections"], [source], claims=kept)
    assert [r.index for _, r in await newcomers.come()] == [0, 2]
    await bus.publish([detection(3)])
    assert [r.index for _, r in await newcomers.come()] == [3]


async def test_what_is_read_begins_behind_what_has_expired_and_ends_where_it_should(
    bus: Embedded, clock: Clock
) -> None:
    await bus.publish([detection(i) for i in range(5)])
    clock.now += 721 * HOUR_S
    await bus.publish([detection(i) for i in range(5, 10)])
    await bus.trim()
    read = [await record_of(s, None) async for s in stored_in(bus, "detections", 0, 0, 8, first=1)]
    assert [r.index for r in read if isinstance(r, Record)] == [5, 6, 7]
    assert [s.offset async for s in stored_in(bus, "detections", 0, 8)] == [8, 9]


def test_a_key_that_is_no_text_belongs_to_no_stream_and_breaks_nothing() -> None:
    assert stream_of(b"match1\0dedup\0\xff") == "match1"
    assert stream_of(b"\xffmatch1") != "match1"
