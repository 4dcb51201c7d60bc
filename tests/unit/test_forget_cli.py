"""`streamproc forget` on a real bus: nothing is left of a service that will not come back, and nobody else is touched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from streamproc.bus.contract import Bus, Landing
from streamproc.bus.embedded import Embedded
from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.cli.status import Status, look
from streamproc.topics import all_topics, partition_of
from streamproc.wire import Entry
from tests.unit.test_status_cli import PARTITIONS, coverage, source, window

HOME = partition_of("match1", PARTITIONS)
WINDOWS = 5


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")


def streamproc(*arguments: str) -> int:
    return exit_code(build(), list(arguments))


def on_a_bus(work: Callable[[Bus], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        bus = await Embedded.open("streamproc.db", partitions=PARTITIONS)
        try:
            await bus.create([t for each in all_topics().values() for t in (each, each.dlq)])
            return await work(bus)
        finally:
            await bus.close()

    return asyncio.run(opened())


def worked(*services: str, done: int = 2, said: Iterable[Entry] = ()) -> None:
    """Each has done so many windows, and works no more."""

    async def work(bus: Bus) -> None:
        await bus.publish([*said, *(window(i) for i in range(WINDOWS))])
        for service in services:
            async with bus.join(service, ["windows"], weights=lambda: [1] * PARTITIONS) as membership:
                async for lease in membership.leases():
                    if lease.partition == HOME:
                        await lease.land(Landing(1, state={"match1\0guard": b""}, progress={"windows": done}))
                        break

    on_a_bus(work)


def known() -> Status:
    found: Status = on_a_bus(look)
    return found


def kept() -> list[str]:
    found: list[str] = on_a_bus(lambda bus: bus.services())
    return found


def test_what_was_kept_for_a_service_goes_and_others_stay(capsys: pytest.CaptureFixture[str]) -> None:
    worked("detect.old", "detect.m")
    assert streamproc("forget", "detect.old", "--json") == Code.DONE
    assert json.loads(capsys.readouterr().out) == {
        "service": "detect.old",
        "unread": WINDOWS - 2,
        "named_by": [],
        "forgotten": True,
    }
    assert kept() == ["detect.m"]


def test_a_dry_run_says_the_same_and_forgets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    worked("detect.old")
    assert streamproc("forget", "detect.old", "--dry-run") == Code.DONE
    assert capsys.readouterr().out == "detect.old  would be forgotten, 3 records unread\n"
    assert kept() == ["detect.old"]


def test_a_name_that_nobody_has_is_refused_with_the_nearest_and_then_nothing_is_forgotten(
    capsys: pytest.CaptureFixture[str],
) -> None:
    worked("detect.old", "dedup")
    assert streamproc("forget", "dedup", "detect.odl") == Code.USAGE
    assert "detect.old" in capsys.readouterr().err
    assert kept() == ["dedup", "detect.old"]


def test_a_service_at_work_is_not_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    worked("detect.old")

    async def work(bus: Bus) -> int:
        async with bus.join("detect.old", ["windows"], weights=lambda: [1] * PARTITIONS):
            return await asyncio.to_thread(streamproc, "forget", "detect.old")

    assert on_a_bus(work) == Code.USAGE
    assert "is at work" in capsys.readouterr().err
    assert kept() == ["detect.old"]


def test_streams_that_still_wait_for_it_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    worked("detect.m", said=[source()])
    assert streamproc("forget", "detect.m") == Code.DONE
    assert "detect.m is still to look at match1; others wait for it there" in capsys.readouterr().err


def test_status_tells_of_what_is_kept_for_nobody_and_not_of_what_was_forgotten() -> None:
    through = coverage("detect.m", ended=True, count=1, done=[(0, 2000)], taken=[(0, 2)])
    worked("detect.m", "detect.old", said=[source(), through])
    waits = known().waits
    for name in ("detect.m", "detect.old"):
        assert any(w.endswith(f"streamproc forget {name}") for w in waits), "no stream is left for it to look at"
        assert streamproc("forget", name) == Code.DONE
    found = known()
    assert not {s.service for s in found.services} & {"detect.m", "detect.old"}
    assert not [w for w in found.waits if "forget" in w]
    (stream,) = found.streams
    assert "detect.m" in {a.service for a in stream.accounts if a.complete}, "what it has accounted for stays"
