"""Bad days of the disk: full, foreign, removed, exchanged, locked. Each has its own error, and what is there stays readable."""

# ruff: noqa: ASYNC240 - a test may block its own loop for a file

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from streamproc.bus.contract import Landing
from streamproc.bus.embedded import Embedded
from streamproc.bus.embedded.place import file_system
from streamproc.errors import Corrupt, DiskFull, Misconfigured, NewerState, Unreachable
from tests.bus.embedded.conftest import LARGE, Worker, entry, leased, topic

Open = Callable[..., Awaitable[Embedded]]
Workers = Callable[..., Awaitable[Worker]]


# full -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def small_disk(tmp_path: Path) -> AsyncIterator[Path]:
    """A disk of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    there = tmp_path / "disk"
    there.mkdir()
    if await _run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", there):
        pytest.skip("this system does not let us mount")
    yield there
    assert not await _run("umount", there)


async def _run(*words: object) -> int:
    return await (await asyncio.create_subprocess_exec(*map(str, words))).wait()


@pytest.mark.parametrize("size", [LARGE, 4_000], ids=["in segments", "in rows"])
@pytest.mark.parametrize("floor_bytes", [2**20, 0], ids=["with a floor", "to the last byte"])
async def test_on_a_full_disk_nothing_lands_all_is_readable_and_landing_goes_on_once_there_is_room(
    small_disk: Path, size: int, floor_bytes: int
) -> None:
    bus = await Embedded.open(small_disk / "bus.db", partitions=2, floor_bytes=floor_bytes, session_s=3600)
    await bus.create([topic("in"), topic("out")])
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * 2 * 2**20)
    async with leased(bus) as lease:
        landed = 0

        async def land() -> None:
            outputs = [entry("out", b"x" * size) for _ in range(4)]
            await lease.land(Landing(landed + 1, outputs, {"n": b"%d" % (landed + 1)}, {"in": 0}))

        async def fill() -> None:
            nonlocal landed
            while True:
                await land()
                landed += 1

        for _ in range(3):
            with pytest.raises(DiskFull):
                await fill()
        assert landed > 0
        assert await bus.span("out", 0) == (0, 4 * landed)
        records = await bus.read("out", 0, 0, max_records=10**6, max_bytes=2**30)
        assert [len(r.value or b"") for r in records] == [size] * 4 * landed
        filler.unlink()
        await land()
        assert await bus.span("out", 0) == (0, 4 * landed + 4)
        await lease.renew()
        assert (lease.serial, lease.state) == (landed + 1, {"n": b"%d" % (landed + 1)})
    await bus.close()


async def test_a_full_disk_can_be_trimmed(small_disk: Path) -> None:
    now_s = 1_000_000.0
    bus = await Embedded.open(small_disk / "bus.db", partitions=1, floor_bytes=2**20, clock=lambda: now_s)
    await bus.create([topic("out", hours=1)])

    async def fill() -> None:
        while True:
            await bus.publish([entry("out", b"x" * LARGE), entry("out", b"x" * 5_000)])

    with pytest.raises(DiskFull):
        await fill()
    now_s += 2 * 3600
    await bus.trim()
    assert (await bus.span("out", 0)).begin == (await bus.span("out", 0)).end
    await bus.publish([entry("out", b"x" * LARGE) for _ in range(20)])
    await bus.close()


# foreign --------------------------------------------------------------------------------------------------------------


async def test_another_number_of_partitions_is_refused_and_none_means_what_is_there(opened: Open) -> None:
    await opened(partitions=3)
    assert (await opened(partitions=None)).partitions == 3
    with pytest.raises(Misconfigured, match="has 3 partitions, not 4"):
        await opened(partitions=4)


async def test_a_newer_schema_is_refused_by_its_number(path: Path) -> None:
    await (await Embedded.open(path)).close()
    _pragma(path, "user_version=2")
    with pytest.raises(NewerState, match="has schema 2, this version knows 1"):
        await Embedded.open(path)


async def test_an_older_schema_is_refused_by_its_number(path: Path) -> None:
    await (await Embedded.open(path)).close()
    _pragma(path, "user_version=0")
    with pytest.raises(Misconfigured, match="has schema 0"):
        await Embedded.open(path)


def _pragma(path: Path, pragma: str) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA {pragma}")
    db.close()


async def test_another_programs_database_is_left_alone(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE mine(a)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(Misconfigured, match="no bus of streamproc"):
        await Embedded.open(path)
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_bytes(b"my holiday pictures" * 1000)
    with pytest.raises(Corrupt, match="is damaged"):
        await Embedded.open(path)
    assert path.read_bytes() == b"my holiday pictures" * 1000


async def test_a_path_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="Name a path that can be written"):
        await Embedded.open(tmp_path / "file" / "bus.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(Misconfigured, match="cannot be opened"):
        await Embedded.open(tmp_path / "folder")


def test_a_network_disk_is_found_by_the_mount_nearest_to_the_path() -> None:
    mounts = (
        "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        "30 22 0:45 / /mnt/two\\040words rw - nfs4 server:/export rw,vers=4.2\n"
        "31 30 0:46 / /mnt/two\\040words/local rw - xfs /dev/sdb rw\n"
        "32 22 0:47 / /data rw shared:7 master:2 - ext4 /dev/sdc rw\n"
        "33 32 0:48 / /data rw - cifs //server/share rw\n"
    )
    assert file_system(Path("/home/me"), mounts) == "ext4"
    assert file_system(Path("/mnt/two words/here"), mounts) == "nfs4"
    assert file_system(Path("/mnt/two words/local/here"), mounts) == "xfs"
    assert file_system(Path("/data/here"), mounts) == "cifs"
    assert file_system(Path("/database"), mounts) == "ext4"


# removed, exchanged -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["bus.db", "bus.db-wal"])
async def test_a_file_removed_while_open_stops_landing_at_once_and_stays_readable(
    bus: Embedded, path: Path, what: str
) -> None:
    await bus.publish([entry("in", b"before")])
    path.with_name(what).unlink()
    with pytest.raises(Corrupt, match=f"{what} was removed while it was open"):
        await bus.publish([entry("in", b"after")])
    assert [r.value for r in await bus.read("in", 0, 0, max_records=9, max_bytes=9**9)] == [b"before"]


async def test_a_file_replaced_while_open_is_noticed_by_those_who_only_wait(bus: Embedded, path: Path) -> None:
    async def wait() -> None:
        async with leased(bus) as lease:
            path.rename(path.with_name("moved.db"))
            path.write_bytes(b"something else")
            await lease.fetch(max_records=1, max_bytes=1, wait_s=60)

    with pytest.raises(Corrupt, match="was replaced while it was open"):
        await wait()


@pytest.mark.parametrize("how", ["emptied", "removed"])
async def test_a_file_gone_between_two_runs_is_not_begun_anew_silently(path: Path, how: str) -> None:
    await (await Embedded.open(path)).close()
    path.write_bytes(b"") if how == "emptied" else path.unlink()
    with pytest.raises(Corrupt, match=f"{how}.*remove .*bus.db.d to begin anew"):
        await Embedded.open(path)


async def test_a_link_leads_to_the_same_bus(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    one, two = await Embedded.open(link), await Embedded.open(path)
    assert one.place.folder == two.place.folder
    await one.close()
    await two.close()


async def test_a_file_and_a_folder_of_two_buses_do_not_go_together(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    await (await Embedded.open(path)).close()
    await (await Embedded.open(other)).close()
    other.rename(path)
    with pytest.raises(Corrupt, match="one of the two was exchanged"):
        await Embedded.open(path)


# locked ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["hold_gate", "hold_transaction"])
async def test_a_stopped_process_that_holds_a_lock_is_named_and_landing_goes_on_without_it(
    opened: Open, path: Path, workers: Workers, what: str
) -> None:
    bus = await opened(busy_s=0.2)
    await bus.create([topic("in")])
    holder = await workers(what, path)
    holder.signal(signal.SIGSTOP)
    with pytest.raises(Unreachable, match=rf"locked for more than 0.2 s by process {holder.pid} \(stopped\)"):
        await bus.publish([entry("in", b"one")])
    assert await bus.span("in", 0) == (0, 0)
    await holder.kill()
    await bus.publish([entry("in", b"one")])
    assert await bus.span("in", 0) == (0, 1)


async def test_a_lock_that_keeps_us_from_opening_is_named_too(path: Path, opened: Open, workers: Workers) -> None:
    await opened()
    holder = await workers("hold_gate", path)
    with pytest.raises(Unreachable, match=f"by process {holder.pid}"):
        await opened(busy_s=0.2)
