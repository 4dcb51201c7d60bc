"""What services have accounted for, put together from the coverage table as it comes."""

from __future__ import annotations

import asyncio

import pytest

from streamproc import wire
from streamproc.messages import Coverage, Source
from streamproc.pipeline.parts import rooted
from streamproc.pipeline.progress import Progress
from streamproc.wire import Stored
from tests.sim import toys

SERVICES = ("decode", "caption.m", "detect.m", "dedup", "locate.m", "describe.m.6-5-10", "ensemble")
DESCRIBE = "describe.m.6-5-10"


def heard(progress: Progress, service: str, root: str, *, taken: tuple[int, int], count: int | None) -> None:
    record = Coverage(
        id=f"{service}/{root}/s/0/0",
        stream="s",
        service=service,
        root=root,
        generation=0,
        hour=0,
        ended=count is not None,
        count=count,
        done=((0, 1000 * taken[1]),),
        failed=(),
        skipped=(),
        missing=(),
        taken=(taken,),
    )
    entry = wire.encode(record, partitions=1, time="", sub=(service, root, "0", "0"))
    told = Stored(entry.topic, 0, entry.key, entry.value, entry.headers, offset=0, time_ms=0)
    progress.hear(told)


@pytest.fixture
def source() -> Source:
    return toys.source("s", services=SERVICES, count=10)


@pytest.mark.parametrize("first", ["dedup", "locate.m"])
def test_who_describes_incidents_and_events_is_through_when_both_have_ended(source: Source, first: str) -> None:
    progress = Progress()
    second = {"dedup": "locate.m", "locate.m": "dedup"}[first]
    heard(progress, DESCRIBE, first, taken=(0, 2), count=1)
    assert not progress.complete(source, [DESCRIBE]), "of the other kind nothing has been heard"
    heard(progress, DESCRIBE, second, taken=(0, 5), count=None)
    assert not progress.complete(source, [DESCRIBE])
    heard(progress, DESCRIBE, second, taken=(0, 13), count=12)
    assert progress.complete(source, [DESCRIBE])
    account = progress.of(source, DESCRIBE)
    assert account.count is not None
    assert account.answered == account.count + 1 == 2 + 13


async def test_what_was_heard_between_two_waits_is_not_waited_for() -> None:
    progress = Progress()
    heard(progress, "caption.m", "decode", taken=(0, 1), count=None)
    async with asyncio.timeout(20):  # who asks may have been busy with the results of the one before
        await progress.moved(within_s=3600)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await progress.moved(within_s=3600)


def test_what_lacks_a_number_in_either_sequence_is_not_through(source: Source) -> None:
    progress = Progress()
    heard(progress, DESCRIBE, "dedup", taken=(0, 13), count=12)
    heard(progress, DESCRIBE, "locate.m", taken=(1, 2), count=1)
    assert not progress.complete(source, [DESCRIBE])
    heard(progress, DESCRIBE, "locate.m", taken=(0, 1), count=1)
    assert progress.complete(source, [DESCRIBE])


def test_whose_numbers_a_service_answers() -> None:
    assert rooted(DESCRIBE, SERVICES) == ("dedup", "locate.m")
    assert rooted(DESCRIBE, ("decode", "detect.m", "dedup", DESCRIBE)) == ("dedup",)
    assert rooted("caption.m", SERVICES) == ("decode",)
    assert rooted("dedup", SERVICES) == ()  # a fold numbers what it says itself
    assert rooted("somebody.else", SERVICES) == ()
