"""What waits keeps nobody else waiting, and nothing grows without a bound."""

from __future__ import annotations

import asyncio
from collections import Counter

from streamproc.errors import NotBegun, NotYet, Retryable
from streamproc.messages import Detection, Frame, Window
from streamproc.runner import Backoff, Bounds
from streamproc.runner.each import EachWay
from streamproc.runner.inputs import INLINE_BYTES
from streamproc.stage import Each, Look
from streamproc.topics import partition_of
from tests.runner.rig import Rig, told
from tests.runner.test_ends import Clock
from tests.runner.test_orders import named
from tests.sim import toys


class Patient(Each):
    """One window of one stream waits for what never comes."""

    reads, writes, tables = ("windows",), ("detections",), ("contexts",)

    async def handle(self, record: Window, look: Look) -> Detection:
        if (record.stream, record.index) == ("s7", 0):
            raise NotYet("no context", topic="contexts", key="s7\0" + "0", within_s=3600)
        await asyncio.sleep(0.1)
        return Detection.of(record, events=())


@told
async def test_one_record_that_is_not_yet_for_an_hour_keeps_no_stream_of_a_thousand_waiting() -> None:
    rig = Rig.of(partitions=16)
    sources = [rig.source(f"s{i}", "detect.a", count=3) for i in range(1000)]
    async with rig.running(
        "detect.a", Patient(), bounds=Bounds(calls=64, window=128, unlanded=200, batch=50)
    ) as service:
        for source in sources:
            rig.windows(source, 0, 1, 2, 3)
        await rig.until(lambda: service.shared.counts.landed == 3999, within_s=60)
        assert len(rig.log.state_keys("park")) == 1, "what waits is one record of state"
        assert service.shared.load.bytes == 0, "and no bytes in hand"
        runner = service.runners[partition_of("s7", 16)]
        assert runner.book.progress["windows"].base == rig.log.span("windows", partition_of("s7", 16)).end
        await rig.until(lambda: service.shared.counts.landed == 4000, within_s=4000, every_s=60)
    said = rig.said("detections")
    assert (said["s7", 0].outcome, said["s7", 0].reason) == ("skipped", "no context")


class Slow(Each):
    """Remembers in what order partitions were served."""

    reads, writes = ("windows",), ("detections",)

    def __init__(self) -> None:
        self.served: list[int] = []

    async def handle(self, record: Window, look: Look) -> Detection:
        self.served.append(partition_of(record.stream, 4))
        await asyncio.sleep(0.1)
        return Detection.of(record, events=())


@told
async def test_no_ready_partition_waits_more_than_twice_its_fair_share() -> None:
    rig = Rig.of(partitions=4)
    by_partition: dict[int, str] = {}
    for i in range(100):
        by_partition.setdefault(partition_of(f"m{i}", 4), f"m{i}")
    for partition, name in by_partition.items():
        source = rig.source(name, "detect.a", count=5000)
        rig.windows(source, *range([1000, 200, 200, 200][partition]))
    stage = Slow()
    async with rig.running("detect.a", stage, bounds=Bounds(calls=4, batch=100)) as service:
        await rig.until(lambda: service.shared.counts.landed >= 600)
    early = stage.served[:600]
    shares = Counter(early)
    assert min(shares.values()) >= 600 / 4 / 2, shares
    for start in range(0, 560, 40):
        assert len(set(early[start : start + 40])) == 4, "nobody is left out for long"


@told
async def test_no_more_calls_than_slots_are_in_flight_over_all_partitions() -> None:
    in_flight = most = 0

    class Count(Each):
        reads, writes = ("windows",), ("detections",)

        async def handle(self, record: Window, look: Look) -> Detection:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0.05)
            in_flight -= 1
            return Detection.of(record, events=())

    rig = Rig.of(partitions=4)
    for i in range(8):
        rig.windows(rig.source(f"m{i}", "detect.a", count=500), *range(50))
    async with rig.running("detect.a", Count(), bounds=Bounds(calls=10, batch=50)) as service:
        await rig.until(lambda: service.shared.counts.landed == 400)
    assert most == 10


@told
async def test_bytes_in_hand_stay_within_their_bound_and_one_large_record_still_passes() -> None:
    rig = Rig.of()
    source = rig.source("m", "detect.a", count=500)
    large = [rig.window(source, i, frames=(), reason=None) for i in range(40)]
    rig.log.append(large)
    seen: list[int] = []

    class Hold(Each):
        reads, writes = ("windows",), ("detections",)

        async def handle(self, record: Window, look: Look) -> Detection:
            seen.append(service.shared.load.bytes)
            await asyncio.sleep(0.05)
            return Detection.of(record, events=())

    size = large[0].size
    async with rig.running("detect.a", Hold(), bounds=Bounds(calls=64, batch=4, in_flight_bytes=8 * size)) as service:
        await rig.until(lambda: service.shared.counts.landed == 40)
        assert service.shared.load.bytes == 0
    assert max(seen) <= 13 * size, "a fetch more than the bound at the most"
    async with rig.running("detect.a", Hold(), bounds=Bounds(calls=64, batch=4, in_flight_bytes=1)) as service:
        rig.log.append([rig.window(source, i) for i in range(40, 45)])
        await rig.until(lambda: service.shared.counts.landed == 5)


@told
async def test_all_leases_together_fetch_little_more_than_the_bound() -> None:
    rig = Rig.of(partitions=16)
    most = 0

    class Hold(Each):
        reads, writes = ("windows",), ("detections",)

        async def handle(self, record: Window, look: Look) -> Detection:
            nonlocal most
            most = max(most, service.shared.load.bytes)
            await asyncio.sleep(1)
            return Detection.of(record, events=())

    streams = [named(p, 16)[0] for p in range(16)]
    for name in streams:
        source = rig.source(name, "detect.a", count=500)
        rig.log.append([rig.window(source, i, frames=(Frame(t_ms=i, jpeg=bytes(10_000)),)) for i in range(60)])
    bound = 200 * 10_000
    async with rig.running("detect.a", Hold(), bounds=Bounds(calls=64, in_flight_bytes=bound)) as service:
        await rig.until(lambda: service.shared.counts.landed == 16 * 60)
    assert bound // 2 < most < 1.5 * bound


@told
async def test_windows_that_wait_have_their_pictures_once_and_are_whole_when_their_turn_comes() -> None:
    rig = Rig.of(partitions=1)
    source = rig.source("m", "detect.a", count=500)
    picture = bytes(2 * INLINE_BYTES)
    seen: list[bytes] = []

    class Shown(Each):
        reads, writes = ("windows",), ("detections",)

        async def handle(self, record: Window, look: Look) -> Detection:
            seen.extend(frame.jpeg for frame in record.frames)
            await asyncio.sleep(1)
            return Detection.of(record, events=())

    rig.log.append([rig.window(source, i, frames=(Frame(t_ms=i, jpeg=picture),)) for i in range(40)])
    async with rig.running("detect.a", Shown(), bounds=Bounds(calls=4, batch=50)) as service:
        await rig.until(lambda: len(seen) == 4)
        way = service.runners[0].way
        assert isinstance(way, EachWay)
        waiting = [given for _, _, given in way._queue._queue]  # type: ignore[attr-defined]  # its heap
        assert len(waiting) == 36
        assert all(given.record is None and given.stored is not None for given in waiting)
        await rig.until(lambda: service.shared.counts.landed == 40)
    assert seen == [picture] * 40


@told
async def test_an_outage_stops_intake_and_drains_no_topic_into_dead_letters() -> None:
    calls: list[float] = []

    class Out(Each):
        reads, writes = ("windows",), ("detections",)

        async def handle(self, record: Window, look: Look) -> Detection:
            now = asyncio.get_running_loop().time()
            calls.append(now)
            await asyncio.sleep(0.05)
            if now < 600:
                raise Retryable("refused")
            return Detection.of(record, events=())

    rig = Rig.of()
    source = rig.source("m", "detect.a", count=500)
    rig.windows(source, *range(300))
    bounds, backoff = Bounds(calls=16, batch=16), Backoff(first_s=0.1, most_s=5.0)
    async with rig.running("detect.a", Out(), bounds=bounds, backoff=backoff) as service:
        await rig.until(lambda: service.shared.counts.landed == 300, within_s=700)
    assert not rig.dead("windows")
    during = [t for t in calls if 5 < t < 600]
    assert len(during) <= 600, "at most one call a second while it is out"
    assert {r.outcome for r in rig.records("detections")} == {"done"}


@told
async def test_a_drain_repeats_no_call_and_what_it_had_not_begun_is_left_to_the_next() -> None:
    asked: Counter[int] = Counter()

    class Ask(Each):
        reads, writes = ("windows",), ("detections",)

        async def handle(self, record: Window, look: Look) -> Detection:
            asked[record.index] += 1
            await asyncio.sleep(0.5)
            return Detection.of(record, events=())

    rig = Rig.of()
    rig.windows(rig.source("m", "detect.a", count=500), *range(100))
    for _ in range(5):
        async with rig.running("detect.a", Ask(), bounds=Bounds(calls=8, batch=100)):
            await asyncio.sleep(1.7)
    async with rig.running("detect.a", Ask(), bounds=Bounds(calls=8, batch=100)):
        await rig.until(lambda: len(rig.said("detections")) == 100)
    assert set(asked.values()) == {1}


@told
async def test_a_drain_gives_up_on_what_hangs_within_its_deadline() -> None:
    class Hang(Each):
        reads, writes = ("windows",), ("detections",)

        async def handle(self, record: Window, look: Look) -> Detection:
            await asyncio.sleep(1e6 if record.index == 1 else 0.1)
            return Detection.of(record, events=())

    rig = Rig.of()
    rig.windows(rig.source("m", "detect.a", count=500), 0, 1, 2)
    loop = asyncio.get_running_loop()
    async with rig.running("detect.a", Hang(), bounds=Bounds(drain_s=3.0)):
        await rig.until(lambda: len(rig.said("detections")) == 2)
        began = loop.time()
    assert 3.0 <= loop.time() - began < 4.0


@told
async def test_a_drain_waits_for_calls_and_not_for_the_end_of_an_outage() -> None:
    asked: Counter[int] = Counter()

    class Out(Each):
        reads, writes = ("windows",), ("detections",)
        out = True

        async def handle(self, record: Window, look: Look) -> Detection:
            asked[record.index] += 1
            await asyncio.sleep(0.05 if self.out else 2.0)
            if self.out:
                raise Retryable("refused")
            return Detection.of(record, events=())

    rig, loop, stage = Rig.of(), asyncio.get_running_loop(), Out()
    rig.windows(rig.source("m", "detect.a", count=500), *range(20))
    for during in (0.3, 60.0):  # between two attempts, and with nobody trying
        async with rig.running("detect.a", stage):
            await asyncio.sleep(during)
            began = loop.time()
        assert loop.time() - began < 1.0
    assert rig.said("detections") == {}
    assert not rig.dead("windows")
    stage.out = False
    asked.clear()
    async with rig.running("detect.a", stage):
        await asyncio.sleep(1.0)
    async with rig.running("detect.a", stage):
        await rig.until(lambda: len(rig.said("detections")) == 20)
    assert set(asked.values()) == {1}, "a call under way is waited for as ever"


@told
async def test_a_drain_leaves_a_call_that_was_not_begun_to_the_next_owner() -> None:
    asked: Counter[int] = Counter()

    class Ask(Each):
        """As a pool does it: two calls have been sent when it is told to stop, the others wait for a place."""

        reads, writes = ("windows",), ("detections",)
        places, drained = 2, asyncio.Event()

        async def handle(self, record: Window, look: Look) -> Detection:
            if record.index >= self.places:
                await self.drained.wait()
                raise NotBegun("we are to stop")
            asked[record.index] += 1
            await asyncio.sleep(2.0)
            return Detection.of(record, events=())

    rig, loop, stage = Rig.of(), asyncio.get_running_loop(), Ask()
    rig.windows(rig.source("m", "detect.a", count=500), *range(20))
    async with rig.running("detect.a", stage):
        await asyncio.sleep(1.0)
        began = loop.time()
        stage.drained.set()
    assert 1.0 <= loop.time() - began < 2.0, "what has been sent is waited for, and nothing else"
    assert {index for _, index in rig.said("detections")} == {0, 1}
    stage.places = 20
    async with rig.running("detect.a", stage):
        await rig.until(lambda: len(rig.said("detections")) == 20)
    assert set(asked.values()) == {1}
    assert not rig.dead("windows")


@told
async def test_the_disk_being_full_stops_landing_and_nothing_else() -> None:
    class Quick(Each):
        reads, writes = ("windows",), ("detections",)

        async def handle(self, record: Window, look: Look) -> Detection:
            return Detection.of(record, events=())

    rig = Rig.of()
    source = rig.source("m", "detect.a", count=500)
    async with rig.running("detect.a", Quick(), bounds=Bounds(unlanded=20, batch=10)):
        rig.windows(source, 0)
        await rig.until(lambda: len(rig.said("detections")) == 1)
        rig.windows(source, *range(1, 60))
        rig.log.disk_full = True
        await asyncio.sleep(20)
        assert len(rig.said("detections")) <= 1 + 20
        rig.log.disk_full = False
        await rig.until(lambda: len(rig.said("detections")) == 60)


class Never(Each):
    """Has begun, and does not end."""

    reads, writes = ("windows",), ("detections",)

    async def handle(self, record: Window, look: Look) -> Detection:
        await asyncio.sleep(1e6)
        return Detection.of(record, events=())


@told
async def test_a_wall_clock_that_is_set_back_lets_no_writer_run_away_from_who_joins() -> None:
    rig = Rig.of(partitions=1)
    rig.source("m", "decode", "detect.a", count=1000, pace=4)
    wall = Clock()
    async with rig.running("decode", toys.Decode(lambda: asyncio.sleep(1)), now=wall):
        await rig.until(lambda: len(rig.records("windows")) > 10)
        wall.ahead_s = -3600
        async with rig.killed("detect.a", Never()):
            await asyncio.sleep(10)
            there = len(rig.records("windows"))
            await asyncio.sleep(300)
            assert len(rig.records("windows")) == there
