"""Payloads of claim checks leave their folder once nothing that is still on the bus may speak of them, and not before."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from streamproc.bus.claims import Claims, Folder
from streamproc.bus.embedded import Embedded
from streamproc.errors import Unreachable
from streamproc.pipeline import sweeping
from streamproc.pipeline.means import means
from streamproc.pipeline.process import working
from streamproc.pipeline.sweeping import sweep
from streamproc.topics import deployment
from streamproc.video.workers import Workers
from tests.topics import golden
from tests.unit.clock import Clock

DAY_S = 24 * 3600.0
WINDOW = replace(next(g for g in golden.everything() if g.name == "windows.done.msgpack").entry(), partition=0)
OTHER = replace(WINDOW, value=bytes(2000))
SETTLES_S = 30


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Away(Embedded):
    """It does not answer so many times."""

    times = 0

    async def topics(self) -> dict[str, int]:
        if self.times:
            self.times -= 1
            raise Unreachable("broker", "it is away", remedy="Wait.")
        return await super().topics()


@pytest.fixture
async def bus(tmp_path: Path, clock: Clock) -> AsyncIterator[Away]:
    bus = await Away.open(str(tmp_path / "bus.db"), partitions=1, clock=clock)
    await bus.create(deployment())
    yield bus
    await bus.close()


@pytest.fixture
def claims(tmp_path: Path, clock: Clock) -> Claims:
    return Claims(Folder(tmp_path / "claims", now=clock))


async def test_a_payload_stays_as_long_as_any_topic_may_keep_what_speaks_of_it(
    bus: Away, claims: Claims, clock: Clock
) -> None:
    await claims.check_in(WINDOW, 1000)
    clock.now += 30 * DAY_S
    assert await sweep(bus, claims, now_s=clock.now) == 0
    clock.now += 2 * DAY_S
    fresh = await claims.check_in(OTHER, 1000)
    assert await sweep(bus, claims, now_s=clock.now) == 1
    await bus.publish([fresh])
    [stored] = await bus.read("windows", 0, 0, max_records=1, max_bytes=1)
    assert (await claims.check_out(stored)).value == OTHER.value


async def test_what_a_service_has_yet_to_read_keeps_its_payload_however_old(
    bus: Away, claims: Claims, clock: Clock
) -> None:
    async with bus.join("dedup", ["windows"], weights=lambda: [1]):
        pass
    await bus.publish([await claims.check_in(WINDOW, 1000)])
    clock.now += 400 * DAY_S
    await bus.trim()
    assert await sweep(bus, claims, now_s=clock.now) == 0
    await bus.forget("dedup")
    await bus.trim()
    assert await sweep(bus, claims, now_s=clock.now) == 1


async def test_a_process_sweeps_beside_its_work_and_outlives_what_goes_wrong_with_it(
    bus: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sweeping, "FIRST_S", 0.0)
    monkeypatch.setattr(sweeping, "EVERY_S", 0.01)
    claims = Claims(Folder(tmp_path / "claims"))
    await claims.check_in(WINDOW, 1000)
    [left] = payloads(tmp_path / "claims")
    os.utime(left, (0, 0))
    bus.times = 2
    async with (
        Workers(1) as workers,
        means(workers=workers) as has,
        working(bus, has, [], claims=claims),
        asyncio.timeout(SETTLES_S),
    ):
        there = [left]
        while there:
            await asyncio.sleep(0.01)
            there = payloads(tmp_path / "claims")
    assert sum("stay for now: broker: it is away" in r.getMessage() for r in caplog.records) == 2


def payloads(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]
