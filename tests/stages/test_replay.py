"""Replay on the real runner: what the archive no longer has is counted, what a kill has cut goes on, and nobody runs ahead."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from msgspec.structs import replace

from streamproc.errors import Misconfigured, Rejected
from streamproc.messages import Frame, Grid, Source, Window
from streamproc.stages.decode import Decode
from streamproc.stages.replay import Original, Replay
from streamproc.video.jobs import Reach
from streamproc.video.lag import Lag, left_out
from streamproc.video.workers import Workers
from tests.stages.rig import READER, Reader, Rig, ended, in_order
from tests.video.files import SLOW, Kind
from tests.video.rtsp import Camera

STEP_MS = 1000
CAMERA = Kind("stage-camera", "ts", f"{SLOW} -g 10 -bf 0 -x264-params repeat-headers=1", seconds=6)


def original(begin: int, until: int, **more: Any) -> Original:
    told: dict[str, Any] = {
        "stream": "was",
        "generation": 3,
        "at": "windows",
        "ranges": {"decode": (begin, until)},
        "end_ms": until * STEP_MS,
    }
    return Original(**(told | more))


def window(index: int, until: int | None = None, **more: Any) -> Window:
    told: dict[str, Any] = {
        "id": f"decode/decode/was/3/{index}",
        "service": "decode",
        "root": "decode",
        "stream": "was",
        "generation": 3,
        "revision": 2,
        "index": index,
        "until_index": until,
        "start_ms": index * STEP_MS,
        "end_ms": (index + 1 if until is None else until) * STEP_MS + (700 if until is None else 0),
        "outcome": "done",
        "frames": (Frame(t_ms=index * STEP_MS, jpeg=b"%d" % index),) if until is None else (),
    }
    return Window(**(told | more))


class Kept:
    """An archive of what is given, by the offset behind each."""

    def __init__(self, records: Sequence[Window], *, at_once: int = 2) -> None:
        self.records, self.at_once = records, at_once
        self.read_from: list[int] = []

    async def windows(self, of: Original, offset: int) -> AsyncGenerator[tuple[Sequence[Window], int]]:
        assert (of.stream, of.generation) == ("was", 3)
        self.read_from.append(offset)
        for at in range(offset, len(self.records), self.at_once):
            behind = min(at + self.at_once, len(self.records))
            yield self.records[at:behind], behind


class Recording:
    """Footage of a feed: a picture a time that is asked for, from then on where it begins, but where nothing was recorded."""

    def __init__(self, begin_s: float = 0, *, hole: tuple[float, float] = (0, 0)) -> None:
        self.begin_s, self.hole = begin_s, hole

    async def reach(self, source: Source) -> Reach:
        if self.begin_s < 0:
            raise Rejected("footage-unreachable")
        return Reach(self.begin_s, 1000, 25)

    async def timed(self, source: Source, times_s: Sequence[float], *, longest: int | None) -> Sequence[Frame]:
        lo, hi = self.hole
        there = [t for t in times_s if t >= self.begin_s and not lo <= t < hi]
        if not there:
            raise Rejected("footage-unreachable")
        return [Frame(t_ms=round(1000 * t) + 20, jpeg=PICTURE) for t in there]


NOBODY = Recording(-1)
PICTURE = simplejpeg.encode_jpeg(np.zeros((32, 64, 3), np.uint8))


async def replayed(
    path: Path, kept: Kept, of: Original, *, recording: Recording | None = None, **options: Any
) -> list[Window]:
    grid = Grid(root="decode", origin=str(of.begin), step="1", first=0)
    async with (
        Workers(1) as workers,
        Rig.on(path / "b.db") as rig,
        rig.running("decode", Replay(Decode(workers), kept, recording or NOBODY)),
    ):
        await rig.source(of.uri, grid=grid, **options)
        return in_order(await rig.until(ended))


async def test_a_range_is_said_again_under_its_own_numbers_with_its_times(tmp_path: Path) -> None:
    kept = Kept([window(i) for i in range(10)] + [window(10, count=10)])
    found = await replayed(tmp_path, kept, original(4, 8))
    assert [(w.index, w.start_ms, w.end_ms) for w in found[:-1]] == [
        (i, (i + 4) * 1000, (i + 5) * 1000 + 700) for i in range(4)
    ]
    assert [w.frames[0].jpeg for w in found[:-1]] == [b"4", b"5", b"6", b"7"]
    assert (found[-1].count, found[-1].start_ms) == (4, 8000)
    assert {(w.stream, w.generation, w.revision) for w in found} == {("m", 0, 0)}


async def test_what_has_expired_at_the_beginning_within_and_at_the_end_is_a_counted_gap(tmp_path: Path) -> None:
    found = await replayed(tmp_path, Kept([window(i) for i in (3, 4, 7)]), original(1, 10))
    gaps = [(w.index, w.until, w.start_ms, w.end_ms) for w in found if w.reason == "expired"]
    assert gaps == [(0, 2, 1000, 3000), (4, 6, 5000, 7000), (7, 9, 8000, 10_000)]
    assert {w.outcome for w in found if w.reason} == {"skipped"}


async def test_a_gap_of_the_original_is_cut_to_the_range_and_keeps_its_reason(tmp_path: Path) -> None:
    kept = Kept(
        [
            window(0, 5, outcome="skipped", reason="missing"),
            window(5),
            window(6, 20, outcome="failed", reason="unreadable"),
        ]
    )
    found = await replayed(tmp_path, kept, original(2, 9))
    assert [(w.index, w.until, w.outcome, w.reason) for w in found[:-1]] == [
        (0, 3, "skipped", "missing"),
        (3, 4, "done", None),
        (4, 7, "failed", "unreadable"),
    ]
    assert [(w.start_ms, w.end_ms) for w in (found[0], found[2])] == [(2000, 5000), (6000, 9000)]


async def test_what_a_torn_writer_said_twice_is_said_once(tmp_path: Path) -> None:
    kept = Kept([window(i) for i in (0, 1, 0, 1, 2, 2, 3)], at_once=3)
    found = await replayed(tmp_path, kept, original(0, 4))
    assert [w.index for w in found] == [0, 1, 2, 3, 4]


async def test_a_restart_goes_on_where_the_last_landing_was(tmp_path: Path) -> None:
    kept, of = Kept([window(i) for i in range(40)]), original(0, 40)
    grid = Grid(root="decode", origin="0", step="1", first=0)
    paced = {"readers": {"windows": ("detect.none",)}, "task": {"ahead": 4}}
    async with Workers(1) as workers, Rig.on(tmp_path / "b.db") as rig:
        async with rig.running("decode", Replay(Decode(workers), kept, NOBODY)):
            await rig.source(of.uri, grid=grid, **paced)
            await rig.until(lambda records: len(records) >= 8)
        async with rig.running("decode", Replay(Decode(workers), kept, NOBODY)):
            found = in_order(await rig.until(ended))
    assert [w.index for w in found] == list(range(41))


async def test_what_is_accounted_for_has_the_times_of_the_revision_that_each_number_has(tmp_path: Path) -> None:
    """Of a replay all revisions are there from the first, and on the grid of the last the first lie before the beginning."""
    kept = Kept([window(i) for i in range(4)] + [window(i, start_ms=4000 + 3000 * (i - 4)) for i in range(4, 8)])
    of = original(0, 8, end_ms=16_000)
    async with (
        Workers(1) as workers,
        Rig.on(tmp_path / "b.db") as rig,
    ):
        await rig.source(of.uri, grid=Grid(root="decode", origin="0", step="1", first=0))
        await rig.source(of.uri, grid=Grid(root="decode", origin="4", step="3", first=4), revision=1, from_index=4)
        async with rig.running("decode", Replay(Decode(workers), kept, NOBODY)):
            found = in_order(await rig.until(ended))
            covered = await rig.until(lambda hours: any(hour.ended for hour in hours), "coverage")
    assert [w.revision for w in found] == [0] * 4 + [1] * 5
    assert {hour.hour for hour in covered} == {0}
    assert covered[-1].done == ((0, 16_000),)


async def test_a_replay_that_is_removed_ends_where_it_is(tmp_path: Path) -> None:
    of = original(0, 5)
    grid = Grid(root="decode", origin="0", step="1", first=0)
    async with (
        Workers(1) as workers,
        Rig.on(tmp_path / "b.db") as rig,
        rig.running("decode", Replay(Decode(workers), Kept([window(i) for i in range(5)]), NOBODY)),
    ):
        await rig.source(of.uri, grid=grid, state="paused")
        await rig.source(of.uri, grid=grid, state="removed", revision=1)
        found = await rig.until(ended)
    assert [(w.index, w.count) for w in found] == [(0, 0)]


# the footage of a feed


def of_feed(begin: int, until: int) -> Original:
    return original(begin, until, at="footage", footage_of=("was", 3, True), began_ms=1_700_000_000_000)


async def test_a_recorded_feed_is_looked_at_again_at_another_rate_at_its_own_times(tmp_path: Path) -> None:
    sampling = {"fps": "4", "window_s": "2", "step_s": "1"}
    found = await replayed(tmp_path, Kept([]), of_feed(3, 6), recording=Recording(), sampling=sampling)
    assert [(w.index, w.start_ms, w.end_ms) for w in found[:-1]] == [
        (i, (i + 3) * 1000, (i + 5) * 1000) for i in range(3)
    ]
    assert [f.t_ms for f in found[0].frames] == [3020 + 250 * k for k in range(8)]
    assert (found[0].width, found[0].height, found[0].utc) == (64, 32, "2023-11-14T22:13:23.000+00:00")
    assert (found[-1].count, found[-1].start_ms, found[-1].utc) == (3, 6000, "2023-11-14T22:13:26.000+00:00")


async def test_where_nothing_is_recorded_any_more_or_was_is_a_counted_gap(tmp_path: Path) -> None:
    found = await replayed(
        tmp_path, Kept([]), of_feed(0, 200), recording=Recording(65, hole=(70, 80)), sampling={"window_s": "1"}
    )
    gaps = [(w.index, w.until, w.outcome, w.reason) for w in found if w.reason]
    assert gaps == [(0, 60, "skipped", "expired"), (60, 65, "skipped", "expired"), (70, 80, "skipped", "missing")]
    assert found[-1].count == 200


async def test_a_recording_that_is_not_there_fails_the_range_and_the_replay_ends(tmp_path: Path) -> None:
    found = await replayed(tmp_path, Kept([]), of_feed(2, 9), recording=NOBODY)
    assert [(w.index, w.until, w.outcome, w.reason, w.count) for w in found] == [
        (0, 7, "failed", "footage-unreachable", None),
        (7, 8, "done", None, 7),
    ]
    assert (found[0].start_ms, found[0].end_ms) == (2000, 9000)


@pytest.mark.parametrize(
    "of",
    [
        original(0, 5),
        original(2, 9, stream="a b/ü@x?y=1&z", said=("detect.a", "dedup"), asked="20:45..", offset=7),
        original(0, 1, footage_of=("was", 3, True), began_ms=1_700_000_000_123),
        original(0, 1, at="events", left=2, ranges={"decode": (0, 1), "dedup": (3, 9)}),
        original(0, 1, footage_of=("a:b/c", 2, True), ranges={"decode": (0, 1), "locate.m": (3, 9)}),
    ],
)
def test_an_address_says_all_of_it(of: Original) -> None:
    assert Original.parse(of.uri) == of


@pytest.mark.parametrize("uri", ["replay:", "replay:a", "replay:a?at=windows&generation=x", "replay:a?ranges=1"])
def test_an_address_that_says_no_replay_is_rejected(uri: str) -> None:
    with pytest.raises(Rejected, match="says no replay"):
        Original.parse(uri)


# lag ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "behind", "kept"),
    [
        ("block", 1000, [0, 1, 2, 3, 4, 5]),
        ("skip-older-than=10", 5, [0, 1, 2, 3, 4, 5]),
        ("skip-older-than=10", 6, []),
        ("sample=3", 3, [0, 1, 2, 3, 4, 5]),
        ("sample=3", 4, [0, 3]),
    ],
)
def test_what_is_left_out_depends_on_how_far_the_slowest_is_behind(policy: str, behind: int, kept: list[int]) -> None:
    lag = Lag.parse(policy)
    assert [i for i in range(6) if lag.keeps(i, behind=behind, step_s=2.0)] == kept


async def test_of_a_feed_whose_reader_stands_still_one_window_in_three_leaves_and_every_number_is_answered(
    folder: Path, tmp_path: Path
) -> None:
    reader = Reader()
    async with (
        Camera(CAMERA.make(folder)) as camera,
        Workers(1) as workers,
        Rig.on(tmp_path / "b.db") as rig,
        rig.running(READER, reader),
        rig.running("decode", Decode(workers)),
    ):
        feed: dict[str, Any] = {
            "live": True,
            "lag": "sample=3",
            "grid": Grid(root="decode", origin="0", step="1/5", first=0),
            "sampling": {"window_s": "1/5", "step_s": "1/5"},
            "services": ("decode", READER),
            "readers": {"windows": (READER,)},
        }
        await rig.source(camera.url, **feed)
        found = await rig.until(lambda records: sum(r.reason == "lag" for r in records) >= 8)
        reader.go.set()
        await rig.source(camera.url, **feed, revision=1, state="removed")
        found = in_order(await rig.until(ended))
        answers = await rig.until(lambda records: any(r.ended for r in records), "detections")
    left_out_of = [w.index for w in found if w.reason == "lag"]
    assert all(i % 3 for i in left_out_of)
    assert min(left_out_of) > 3  # until then nobody was as far behind
    assert not {w.index for w in found if w.reason == "lag" and w.frames}
    assert {a.index for a in answers if a.reason == "lag"} == set(left_out_of)


def test_a_window_that_is_left_out_keeps_its_place_and_has_no_picture() -> None:
    was = window(3)
    assert left_out(was) == replace(was, frames=(), outcome="skipped", reason="lag")


@pytest.mark.parametrize(
    "text",
    ["", "blok", "block=1", "skip-older-than", "skip-older-than=-1", "skip-older-than=inf", "sample=0", "sample=2.5"],
)
def test_a_policy_that_is_none_says_what_there_is(text: str) -> None:
    with pytest.raises(Misconfigured, match="sample=N"):
        Lag.parse(text)
