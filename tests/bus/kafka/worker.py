"""A process at work in service "svc": copies topic "in" to "out", each record once. For tests that stop or kill it.

`python -m tests.bus.kafka.worker BOOTSTRAP PREFIX PARTITIONS SESSION_S`; says on stdout what it does, a line each, and
leaves in order on SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from streamproc.bus.contract import Landing
from streamproc.bus.kafka import Kafka
from streamproc.bus.kafka.lease import KafkaLease
from streamproc.errors import Fenced, Retryable, UnseenEnd
from streamproc.wire import Entry, Stored


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def copy(lease: KafkaLease, stop: asyncio.Event) -> None:
    """Until the lease is lost, or `stop`."""
    say("taken", lease.partition, lease.serial)
    while not stop.is_set() and not lease.lost.is_set():
        got = await lease.fetch(max_records=20, max_bytes=2**20, wait_s=0.2)
        if got and lease.fresh():  # nothing is begun that another may have begun
            try:
                await land(lease, got)
            except Fenced:
                break
        elif got:
            say("stale", lease.partition)
            break
    say("ended", lease.partition)
    await lease.release()


async def land(lease: KafkaLease, got: list[Stored]) -> None:
    outputs = [Entry("out", lease.partition, s.key, s.value) for s in got]
    landing = Landing(lease.serial + 1, outputs, {"count": b"%d" % (got[-1].offset + 1)}, {"in": got[-1].offset + 1})
    while True:
        try:
            await lease.land(landing)
        except UnseenEnd as e:
            say("unseen", lease.partition, e)
            while True:
                try:
                    await lease.renew()
                    break
                except Retryable:
                    await asyncio.sleep(0.2)
            if lease.serial == landing.serial - 1:
                continue
            assert lease.serial == landing.serial
            say("had landed", lease.partition)
        except Retryable:
            await asyncio.sleep(0.2)
            continue
        say("landed", lease.partition, len(got))
        return


async def main(bootstrap: str, prefix: str, partitions: str, session_s: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    bus = await Kafka.open(
        bootstrap, prefix=prefix, partitions=int(partitions), session_s=float(session_s), landing_s=3 * float(session_s)
    )
    async with bus.join("svc", ["in"], weights=lambda: [0] * bus.partitions) as member, asyncio.TaskGroup() as tasks:
        say("joined")

        async def take() -> None:
            async for lease in member.leases():
                tasks.create_task(copy(lease, stop))

        taking = tasks.create_task(take())
        await stop.wait()
        await member.leave()
        await taking
    await bus.close()
    say("left")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
