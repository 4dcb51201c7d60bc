"""Folders that are watched: each video in one becomes a stream, once, whatever the others are."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from streamproc.messages import Source
from streamproc.stages.decode import MARK, Decode
from streamproc.video.jobs import Glance
from streamproc.video.workers import Lost, Workers
from tests.stages.rig import Rig, source
from tests.video.files import SLOW, Kind, ffmpeg

MATCH = Kind("stage-match", "mp4", f"{SLOW} -g 25", seconds=20.2)
UNHEARD: Any = SimpleNamespace(in_force=lambda *_: None)
"""A pace that has heard of nothing."""


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(2, silence_s=60) as found:
        yield found


async def test_a_folder_becomes_a_stream_for_each_video_in_it_once(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    watched = tmp_path / "watched"
    (watched / "cup").mkdir(parents=True)
    for name in ("first.mp4", "cup/second.mp4", "notes.txt"):
        (watched / name).write_bytes(MATCH.make(folder).read_bytes())
    async with Rig.on(tmp_path / "bus.db") as rig:
        await rig.source(watched, stream="games", sampling={"fps": None, "every": 10, "window_s": None})
        async with rig.running("decode", Decode(workers, settled_s=0.1)):
            found = await rig.until(lambda records: sum(r.ended for r in records) == 2)
        async with rig.running("decode", Decode(workers, settled_s=0.1)):
            (watched / "third.mp4").write_bytes(MATCH.make(folder).read_bytes())
            found = await rig.until(lambda records: sum(r.ended for r in records) == 3)
        sources = {source.stream: source for source in await rig.records("sources")}
        versions = len(await rig.records("sources"))
    assert {r.stream for r in found} == {"games/first", "games/cup/second", "games/third"}
    assert {r.count for r in found if r.ended} == {51}
    assert versions == 4, "each is said once, after a restart too"
    first = sources["games/first"]
    assert (first.uri, first.live, first.grid.step) == (str(watched / "first.mp4"), False, "2/5")
    assert first.task == sources["games"].task


class Dying(Workers):
    """A decoder that dies whenever it looks at a file of that name."""

    async def one(self, job: Any) -> Any:
        if isinstance(job, Glance) and job.address.target.endswith("dies.mp4"):
            raise Lost("decoder died (signal 11)")
        return await super().one(job)


async def test_a_video_that_nobody_can_lay_a_grid_for_keeps_no_other_of_its_folder_from_becoming_a_stream(
    folder: Path, tmp_path: Path
) -> None:
    ffmpeg(f"-f lavfi -i testsrc=s=64x64:r=25 -frames:v 1 {SLOW}", tmp_path / "a-still.ts")
    for name in ("b-dies.mp4", "c-good.mp4"):
        (tmp_path / name).write_bytes(MATCH.make(folder).read_bytes())
    games = source(tmp_path, stream="games", sampling={"fps": None, "every": 10, "window_s": None})
    steps: dict[str, str] = {}
    async with Dying(1) as workers, aclosing(Decode(workers, settled_s=0).run(games, None, UNHEARD)) as said:
        while len(steps) < 3:
            [child], _ = await anext(said)
            assert isinstance(child, Source)
            steps[child.stream] = child.grid.step
    assert steps == {"games/a-still": "1", "games/b-dies": "1", "games/c-good": "2/5"}


def long_ago(path: Path) -> None:
    """Written then, so nothing more is to come."""
    path.write_text("<html>" * 100)
    os.utime(path, (1_000_000_000, 1_000_000_000))


class Marks(bytes):
    """Says how often it was looked into."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        type(self).looks += 1
        return super().__getitem__(at)


async def test_a_run_reads_what_has_become_of_a_folder_once_however_many_of_its_videos_it_finds_again(
    workers: Workers, tmp_path: Path
) -> None:
    stage, folder, count = Decode(workers, settled_s=0), source(tmp_path, stream="games"), 100
    for i in [*range(count), "later"]:
        long_ago(tmp_path / f"{i}.mp4")
    later = (tmp_path / "later.mp4").rename(tmp_path / "later")
    async with aclosing(stage.run(folder, None, UNHEARD)) as steps:
        while len((step := await anext(steps))[1].taken) < count * MARK:
            pass
    later.rename(tmp_path / "later.mp4")
    cursor = replace(step[1], taken=Marks(step[1].taken))
    async with aclosing(stage.run(folder, cursor, UNHEARD)) as steps:
        (said, *others), behind = await anext(steps)
    assert (said.stream, others) == ("games/later", [])
    assert len(behind.taken) == (count + 1) * MARK
    assert Marks.looks <= count


async def test_a_copy_that_stalls_becomes_a_stream_when_it_is_whole(
    workers: Workers, folder: Path, tmp_path: Path
) -> None:
    """The index of an MP4 comes last: until then nothing of it can be read."""
    watched, film = tmp_path / "watched", MATCH.make(folder).read_bytes()
    watched.mkdir()
    (watched / "stalls.mp4").write_bytes(film[: len(film) // 2])
    async with Rig.on(tmp_path / "bus.db") as rig:
        await rig.source(watched, stream="games")
        async with rig.running("decode", Decode(workers, settled_s=0.1)):
            (watched / "whole.mp4").write_bytes(film)
            await rig.until(lambda records: any(r.ended for r in records))
            assert {s.stream for s in await rig.records("sources")} == {"games", "games/whole"}
            (watched / "stalls.mp4").write_bytes(film)
            found = await rig.until(lambda records: sum(r.ended for r in records) == 2)
    assert [r.outcome for r in found if r.stream == "games/stalls" and not r.ended] == ["done"] * 21


async def test_what_nobody_has_written_to_for_long_is_taken_for_what_it_is(workers: Workers, tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    long_ago(watched / "page.mp4")
    async with Rig.on(tmp_path / "bus.db") as rig:
        await rig.source(watched, stream="games")
        async with rig.running("decode", Decode(workers, settled_s=0.1)):
            found = await rig.until(lambda records: any(r.ended for r in records))
    assert [(r.stream, r.outcome) for r in found if not r.ended] == [("games/page", "failed")]
