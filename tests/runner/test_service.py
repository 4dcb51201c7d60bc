"""A service whose bus is away: told at the start, waited for later; and what it shares with others of its process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streamproc.errors import Unreachable
from streamproc.messages import Detection, Window
from streamproc.stage import Each, Look
from tests.bus.memory import MemoryBus, MemoryLog, MemoryMembership
from tests.runner.rig import Rig, told


class Detect(Each):
    reads, writes = ("windows",), ("detections",)

    async def handle(self, record: Window, look: Look) -> Detection:
        return Detection.of(record, events=())


class Away(MemoryBus):
    """A bus that turns away those who join, some of the times."""

    def __init__(self, log: MemoryLog, *turns: bool) -> None:
        super().__init__(log)
        self.turns = list(turns)

    @asynccontextmanager
    async def join(self, *asked: Any, **how: Any) -> AsyncIterator[MemoryMembership]:
        if self.turns and not self.turns.pop(0):
            raise Unreachable("broker", "is away", remedy="Wait")
        async with super().join(*asked, **how) as member:
            yield member


@told
async def test_at_the_start_an_unreachable_bus_is_the_callers_to_know() -> None:
    rig = Rig.of()
    with pytest.raises(ExceptionGroup) as group:
        await rig.service("detect.a", Detect(), bus=Away(rig.log, False)).run()
    assert [type(e) for e in group.value.exceptions] == [Unreachable]


@told
async def test_where_others_of_the_process_have_been_at_work_it_is_waited_for() -> None:
    """One added a moment before its broker is restarted would take all of them with it."""
    rig = Rig.of()
    source = rig.source("m", "detect.a", count=3)
    rig.windows(source, *range(4))
    bus = Away(rig.log, False, False)
    async with rig.running("detect.a", Detect(), bus=bus, patient=True):
        await rig.until(lambda: len(rig.said("detections")) == 4)
    assert bus.turns == []


@told
async def test_a_source_is_parsed_once_for_all_services_of_a_process() -> None:
    rig = Rig.of(partitions=1)
    rig.source("m", "detect.a", "detect.b", count=10)
    bus = MemoryBus(rig.log)
    async with rig.running("detect.a", Detect(), bus=bus) as one, rig.running("detect.b", Detect(), bus=bus) as two:
        await rig.until(lambda: bool(one.runners and two.runners))
        a, b = (s.runners[0].look.find("m", 0, 0) for s in (one, two))
        assert a is not None
        assert a is b
        one.runners[0].look.forget({"m"})
        assert two.runners[0].look.find("m", 0, 0) == a
