"""Processes that die, sleep or are asked to go; brokers that do. Every input comes out once, whatever happens."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError

from streamproc.bus.kafka import Kafka
from streamproc.bus.kafka.transactions import Transactions
from streamproc.errors import Unreachable, UnseenEnd
from streamproc.topics import Topic, state_topic
from tests import brokers
from tests.bus.kafka.conftest import Open
from tests.bus.kafka.world import (
    PATIENCE_S,
    SESSION_S,
    bare,
    entries,
    eventually,
    fetched,
    landing,
    leases,
    values,
    working,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
ROOT = Path(__file__).parents[3]


class Worker:
    """A process of worker.py. `said`: what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(line.decode().strip())

    async def says(self, what: str, times: int = 1) -> None:
        async def heard() -> bool:
            return sum(line.startswith(what) for line in self.said) >= times

        await eventually(heard)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading


Start = Callable[[], Awaitable[Worker]]


@pytest.fixture
async def start(bus: Kafka) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:
        yield lambda: _start(bus, stack)


async def _start(bus: Kafka, stack: AsyncExitStack) -> Worker:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bus.kafka.worker",
        bus.bootstrap, bus.names.prefix, str(bus.partitions), str(bus.session_s),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, env=os.environ,
    )  # fmt: skip
    worker = Worker(process)
    stack.push_async_callback(worker.end)
    await worker.says("joined")
    return worker


async def all_out(bus: Kafka, count: int) -> None:
    """Every input of every partition has come out, and each once."""

    async def out() -> bool:
        found = [await values(bus, "out", p) for p in range(bus.partitions)]
        return sum(map(len, found)) >= count * bus.partitions

    await eventually(out)
    wanted = Counter(b"%d" % i for i in range(count))
    for p in range(bus.partitions):
        assert Counter(await values(bus, "out", p)) == wanted


async def feed(bus: Kafka, first: int, count: int) -> None:
    for p in range(bus.partitions):
        await bus.publish(entries(count, partition=p, start=first))


async def test_a_killed_owner_is_followed_by_another_that_goes_on_where_it_landed(bus: Kafka, start: Start) -> None:
    first = await start()
    await feed(bus, 0, 200)
    await first.says("landed", 2)
    first.signal(signal.SIGKILL)
    await first.process.wait()
    second = await start()
    await feed(bus, 200, 100)
    await all_out(bus, 300)
    assert any(line.startswith("taken") for line in second.said)


async def test_a_zombie_begins_nothing_and_lands_nothing_and_does_not_fence_the_rightful_owner(
    bus: Kafka, start: Start
) -> None:
    zombie = await start()
    await feed(bus, 0, 60)
    await zombie.says("landed", 2)
    zombie.signal(signal.SIGSTOP)
    heir = await start()
    await feed(bus, 60, 60)
    await heir.says("taken", 2)
    await all_out(bus, 120)
    zombie.signal(signal.SIGCONT)
    await feed(bus, 120, 60)
    await all_out(bus, 180)
    await zombie.says("ended", 2)
    assert not [line for line in zombie.said if line.startswith(("had landed", "unseen"))]
    assert not [line for line in heir.said if line.startswith("unseen")], "nobody fenced the rightful owner"


async def test_who_is_asked_to_go_lands_releases_and_leaves_at_once(bus: Kafka, start: Start) -> None:
    first, second = await start(), await start()
    await feed(bus, 0, 100)
    await first.says("landed")
    first.signal(signal.SIGTERM)
    assert await asyncio.wait_for(first.process.wait(), PATIENCE_S) == 0
    await first.says("left")
    await feed(bus, 100, 50)
    await all_out(bus, 150)
    assert second.process.returncode is None


async def test_a_resumed_sleeper_is_not_fresh(bus: Kafka) -> None:
    """Its heartbeat is old by a clock that went on meanwhile; it has not heard yet that the lease is lost."""
    await bus.publish(entries(1))
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        assert lease.fresh()
        group = member._group
        assert group is not None
        group.beat_s -= SESSION_S
        assert not lease.fresh()

        async def fresh() -> bool:
            return lease.fresh()

        await eventually(fresh)


@pytest.fixture(scope="module")
def lone(own_brokers: None) -> Iterator[brokers.Brokers]:
    """One broker, to be stopped."""
    with brokers.start() as one:
        yield one


async def test_a_landing_whose_end_nobody_saw_is_found_or_landed_again_and_never_both(
    lone: brokers.Brokers, open_bus: Open
) -> None:
    """The broker stops in the midst of landings: whole or not at all, and the serial tells."""
    bus = await open_bus(lone.bootstrap, landing_s=1.0, session_s=6.0)
    await bus.create([bare("in"), bare("out")])
    await bus.publish(entries(50))
    node = lone.cluster.nodes[0].pid
    assert node is not None
    async with working(bus) as member:
        (lease,) = await leases(member, 1)
        unseen = 0
        for i in range(len(await fetched(lease, 6))):
            wanted = landing(lease, entries(1, topic="out", start=i), done=i + 1)
            under_way = asyncio.ensure_future(lease.land(wanted))
            if i % 2:
                await asyncio.sleep(0.002 * i)
                os.kill(node, signal.SIGSTOP)
            ended = (await asyncio.gather(under_way, return_exceptions=True))[0]
            os.kill(node, signal.SIGCONT)
            if ended is not None:
                assert isinstance(ended, UnseenEnd)
                unseen += 1
                await lease.renew()
                if lease.serial < wanted.serial:
                    await lease.land(wanted)
            assert (lease.serial, lease.progress) == (i + 1, {"in": i + 1})
        assert unseen

        async def whole() -> bool:
            return len(await values(bus, "out")) >= 6

        await eventually(whole)
        assert await values(bus, "out") == [b"%d" % i for i in range(6)]


async def test_a_producer_whose_broker_takes_nothing_more_ends_and_leaves_no_connection_open(
    lone: brokers.Brokers, open_bus: Open
) -> None:
    """Its last bytes are never sent; whoever waited for that would wait as long as the broker is stopped."""
    bus = await open_bus(lone.bootstrap, landing_s=1.0)
    await bus.create([bare("in")])
    node = lone.cluster.nodes[0].pid
    assert node is not None
    producer = bus.transactions("hanging")
    await producer.open()
    await producer.write(entries(1))
    writers = [conn._writer for conn in producer._producer.client._conns.values()]
    sockets = [writer.get_extra_info("socket") for writer in writers]
    assert all(socket.fileno() >= 0 for socket in sockets)
    os.kill(node, signal.SIGSTOP)
    try:
        for writer in writers:
            writer.write(bytes(32 * 2**20))  # more than the kernel takes in the broker's stead
        with pytest.raises(TimeoutError):
            await producer.write(entries(1))
        await asyncio.wait_for(producer.close(), PATIENCE_S)
        assert sockets
        assert [socket.fileno() for socket in sockets] == [-1] * len(sockets)
    finally:
        os.kill(node, signal.SIGCONT)


async def test_a_broker_that_goes_away_in_a_transaction_is_told_once_and_not_by_the_loop_too(
    lone: brokers.Brokers, open_bus: Open
) -> None:
    """Whoever reads the log of a restart would take aiokafka's tracebacks for a fault."""
    bus = await open_bus(lone.bootstrap, landing_s=2.0)
    await bus.create([bare("in")])
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(f"{what}"))
    producers = [bus.transactions(f"cut off {i}") for i in range(8)]
    await asyncio.gather(*(producer.open() for producer in producers))
    writing = asyncio.gather(*map(_again_and_again, producers), return_exceptions=True)
    await asyncio.to_thread(lone.stop, 0)
    ends = await writing
    assert all(isinstance(end, TimeoutError | KafkaError) for end in ends), ends
    await asyncio.gather(*(producer.close() for producer in producers))
    del producers, writing, ends
    gc.collect()
    await asyncio.sleep(0)
    try:
        assert told == []
    finally:
        await asyncio.to_thread(lone.start, 0)


async def _again_and_again(producer: Transactions) -> None:
    while True:
        await producer.write(entries(2000))


async def test_who_joins_while_the_broker_goes_away_is_told_of_the_hop(
    lone: brokers.Brokers, open_bus: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raw error would end a service that joins again; ours is waited out."""
    bus = await open_bus(lone.bootstrap)
    await bus.create([bare("in"), state_topic("work")])
    create = bus.create

    async def and_then_gone(topics: Sequence[Topic]) -> None:
        await create(topics)
        await asyncio.to_thread(lone.stop, 0)

    monkeypatch.setattr(bus, "create", and_then_gone)
    try:
        with pytest.raises(Unreachable):
            async with bus.join("work", ["in"], weights=lambda: [1] * bus.partitions):
                raise AssertionError("nobody is there to join")
    finally:
        await asyncio.to_thread(lone.start, 0)


async def test_work_goes_on_after_the_broker_was_restarted(lone: brokers.Brokers, open_bus: Open) -> None:
    bus = await open_bus(lone.bootstrap, session_s=3.0)
    await bus.create([bare("in"), bare("out")])
    async with AsyncExitStack() as stack:
        worker = await _start(bus, stack)
        await feed(bus, 0, 50)
        await worker.says("landed", 2)
        await lone.restart(0)
        await feed(bus, 50, 50)
        await all_out(bus, 100)


async def test_of_three_replicated_brokers_any_one_may_die(own_brokers: None, open_bus: Open) -> None:
    quick = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
    with brokers.start(3, settings=quick) as three:
        bus = await open_bus(three.bootstrap, session_s=3.0)
        await bus.create([bare("in"), bare("out")])
        async with AsyncExitStack() as stack:
            worker = await _start(bus, stack)
            await feed(bus, 0, 20)
            await asyncio.to_thread(three.kill, 0)
            await feed(bus, 20, 20)
            await all_out(bus, 40)
            await asyncio.to_thread(three.start, 0)
            await asyncio.to_thread(three.kill, 1)
            await feed(bus, 40, 20)
            await all_out(bus, 60)
            assert worker.process.returncode is None
