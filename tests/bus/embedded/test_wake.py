"""Wake-ups between processes are hints: quick where they come, and nothing is missed where they do not."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streamproc.bus.embedded import Embedded
from streamproc.bus.embedded.place import SOCKET_PATH_BYTES, Place
from streamproc.bus.embedded.wake import Wake
from tests.bus.embedded.conftest import Worker, entry, leased, topic

Open = Callable[..., Awaitable[Embedded]]
Workers = Callable[..., Awaitable[Worker]]


async def test_a_process_that_waits_hears_of_every_record_another_one_publishes(
    bus: Embedded, path: Path, workers: Workers
) -> None:
    listener = await workers("listen", path)
    for n in range(20):
        await bus.publish([entry("in", b"%d" % n, partition=n % 2)])
        await listener.hear("heard")


async def test_without_any_wake_up_the_poll_finds_what_landed(opened: Open, bus: Embedded) -> None:
    deaf = await opened()
    asyncio.get_running_loop().remove_reader(deaf._wake.fileno())
    async with leased(deaf) as lease:
        waiting = asyncio.create_task(lease.fetch(max_records=1, max_bytes=1, wait_s=60))
        await bus.publish([entry("in", b"found")])
        assert [r.value for r in await waiting] == [b"found"]


async def test_a_byte_to_each_and_the_sockets_of_the_dead_are_cleared_away(tmp_path: Path) -> None:
    one, two = Wake(), Wake()
    one.bind(tmp_path)
    two.bind(tmp_path)
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(tmp_path / "dead.sock"))
    dead.close()
    one.others()
    assert two._socket.recv(9) == b"\0"
    assert not (tmp_path / "dead.sock").exists()
    for _ in range(10_000):  # more than any buffer holds: nobody blocks on somebody who does not listen
        one.others()
    two.drain()
    one.close()
    two.close()
    assert not os.path.exists(tmp_path)  # noqa: ASYNC240  # nothing else is at work here


async def test_a_path_too_long_for_a_socket_gets_its_sockets_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * SOCKET_PATH_BYTES) / "bus.db"
    one, two = await Embedded.open(deep, partitions=1), await Embedded.open(deep)
    assert one.place.wake == two.place.wake
    assert not one.place.wake.is_relative_to(tmp_path)
    await one.create([topic("in")])
    async with leased(two) as lease:
        waiting = asyncio.create_task(lease.fetch(max_records=1, max_bytes=1, wait_s=60))
        await one.publish([entry("in", b"heard")])
        assert await waiting
    await one.close()
    await two.close()
    assert not one.place.wake.exists(), "the last to leave takes it away"


def test_who_comes_while_the_last_one_leaves_has_a_folder_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "w"

    def come_and_go() -> None:
        for _ in range(300):
            wake = Wake()
            wake.bind(folder)
            assert (folder / wake._mine).exists()
            wake.close()

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(come_and_go) for _ in range(4)]:
            done.result()
    assert not folder.exists()


def test_every_process_finds_the_sockets_of_a_bus_in_the_same_place(tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("b")  # a short one: see `Place.wake`
    place = Place(tmp_path / "bus.db", floor_bytes=0)
    place.make()
    assert place.wake == tmp_path / "bus.db.d" / "wake"
