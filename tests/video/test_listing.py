"""The frames of a file by many workers are those of a full decode, whatever the workers go through meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path

import pytest

from streamproc.errors import Rejected
from streamproc.video import address
from streamproc.video.choice import Every, Rate, Rule
from streamproc.video.listing import Listed, Listing, Wish
from streamproc.video.look import Look
from streamproc.video.sampling import Span
from streamproc.video.workers import Workers
from tests.video.files import KINDS, SLOW, Kind
from tests.video.judge import judge

LONG = Kind("long-listed", "mp4", f"{SLOW} -g 60 -bf 3 -x264-params open-gop=1", size="64x48", seconds=45)
ODD = Kind("long-odd", "avi", f"{SLOW} -g 60 -bf 2", size="64x48", seconds=45)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(2, silence_s=60) as found:
        yield found


async def listed(workers: Workers, path: Path, wish: Wish) -> list[Listed]:
    async with aclosing(Listing(workers, address.parse(path), wish).frames()) as frames:
        return [one async for one in frames]


def told(frames: list[Listed]) -> list[tuple[int, int, str | None]]:
    return [(one.chosen.number, one.chosen.pts, one.md5) for one in frames]


@pytest.mark.parametrize("kind", [LONG, ODD], ids=["regular", "decoded-whole"])
@pytest.mark.parametrize("rule", [Every(1), Every(7), Rate(Fraction(3)), Rate(Fraction(1, 10))], ids=str)
async def test_many_slices_list_the_frames_of_a_full_decode(
    kind: Kind, rule: Rule, workers: Workers, folder: Path
) -> None:
    path = kind.make(folder)
    assert told(await listed(workers, path, Wish(rule, digest=True))) == judge(path).chosen(rule)


@pytest.mark.parametrize("name", ["h264-ts-cut", "hevc-cut", "h264-editlist", "vp9-alt", "h264-raw", "gif"])
async def test_files_of_many_kinds_are_listed(name: str, workers: Workers, folder: Path) -> None:
    path = next(k for k in KINDS if k.name == name).make(folder)
    assert told(await listed(workers, path, Wish(Every(2), digest=True))) == judge(path).chosen(Every(2))


@pytest.mark.parametrize("kind", [LONG, ODD], ids=["regular", "decoded-whole"])
async def test_a_span_is_that_part_of_the_whole(kind: Kind, workers: Workers, folder: Path) -> None:
    path = kind.make(folder)
    whole = await listed(workers, path, Wish(Rate(Fraction(5)), digest=True))
    for begin, end in ((0, 2), (7, 31), (44, 90)):
        span = Span(Fraction(begin), Fraction(end))
        part = await listed(workers, path, Wish(Rate(Fraction(5)), span, digest=True))
        assert part == [one for one in whole if begin <= one.chosen.t < end]
    assert await listed(workers, path, Wish(Rate(Fraction(5)), Span(Fraction(50)), digest=True)) == []


async def test_pictures_are_made_only_where_asked(workers: Workers, folder: Path) -> None:
    path = LONG.make(folder)
    bare, *_ = await listed(workers, path, Wish(Every(500)))
    assert (bare.jpeg, bare.md5) == (None, None)
    shown, *_ = await listed(workers, path, Wish(Every(500), look=Look(longest=32)))
    assert shown.jpeg
    assert (shown.jpeg.width, shown.jpeg.height) == (32, 24)


@pytest.mark.parametrize("kind", [LONG, ODD], ids=["regular", "decoded-whole"])
async def test_a_decoder_that_is_killed_costs_an_attempt_and_no_frame(
    kind: Kind, workers: Workers, folder: Path
) -> None:
    path, wish, found = kind.make(folder), Wish(Every(2), digest=True), list[Listed]()
    async with aclosing(Listing(workers, address.parse(path), wish).frames()) as frames:
        async for one in frames:
            if not found:
                for pid in workers.pids:
                    os.kill(pid, signal.SIGKILL)
            found.append(one)
    assert told(found) == judge(path).chosen(Every(2))


async def test_a_decoder_that_dies_each_time_is_an_error_that_names_the_file(folder: Path) -> None:
    path = LONG.make(folder)
    async with Workers(1, memory_bytes=2**20) as workers:
        with pytest.raises(Rejected, match=r"long-listed\.mp4: decoder died \(.*\), 3 times"):
            await listed(workers, path, Wish(Every(2)))
