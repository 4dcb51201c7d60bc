"""Which numbers of a stream a replay is of, and on which grid they stand: a range that somebody asked for in times, as far as
the stream has come and as far as it is still there.

What is made of them is `replay`'s.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Final

from msgspec.structs import replace

from streamproc.errors import Misconfigured
from streamproc.messages import Grid, Source
from streamproc.pipeline.parts import DECODE, PARTS
from streamproc.pipeline.progress import Progress
from streamproc.pipeline.replay_archive import Archive
from streamproc.stages.options import Stretches
from streamproc.stages.replay import FOOTAGE, Original, is_replay
from streamproc.task import Task
from streamproc.video.keep import Keep, segments
from streamproc.video.recipe import grid_of

WINDOWS: Final = "windows"
MOST: Final = 1 << 40
"""Numbers that no stream comes to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody asks for. Times are in stream time already; `asked` is how they were said."""

    stream: str
    name: str
    at: str
    begin_ms: int | None
    until_ms: int | None
    asked: str
    task: Callable[[Source], Task]
    """What to look for now, given what was looked for then."""
    changed: Sequence[str] = ()
    """Sections of the task that are spoken of."""


class Lives:
    """The life of a stream that is replayed, and whatever has the name already."""

    def __init__(self, revisions: Sequence[Source], taken: Source | None) -> None:
        self.revisions, self.taken, self.newest = revisions, taken, revisions[-1]
        self.warnings: list[str] = []

    def in_force(self, index: int) -> Source:
        return max((s for s in self.revisions if s.from_index <= index), key=lambda s: s.revision)

    def starts_ms(self, index: int) -> int:
        return self.in_force(index).grid.starts_ms(index)

    def number(self, ms: int, until: int) -> int:
        """The first of all below `until` that begins then or later."""
        return bisect_left(range(until), ms, key=self.starts_ms)


def numbers(lives: Lives, progress: Progress, services: Sequence[str], wish: Wish) -> tuple[int, int]:
    """Windows that begin in the range asked for, as far as all that is said again has come."""
    old = lives.newest
    front = min((_front(progress, old, s) for s in services if _by_windows(s)), default=None)
    if front is None:
        front = _front(progress, old, DECODE)
    if not front:
        raise Misconfigured(f"'{wish.stream}' has nothing to replay at {wish.at} so far")
    begin = 0 if wish.begin_ms is None else lives.number(wish.begin_ms, front)
    until = front if wish.until_ms is None else lives.number(wish.until_ms, front)
    first_s, last_s = lives.starts_ms(0) / 1000, lives.starts_ms(front) / 1000
    if begin >= until:
        raise Misconfigured(f"no window of '{wish.stream}' begins in {wish.asked}; it has {first_s:g} to {last_s:g} s")
    if wish.until_ms is not None and wish.until_ms > lives.starts_ms(front):
        lives.warnings.append(f"{wish.stream} has come to {last_s:g} s so far; that is where its replay ends")
    return begin, until


def those_of(lives: Lives, original: Original) -> tuple[int, int]:
    """The original's numbers that a replay is of. Of footage on another grid its own count says nothing of those."""
    if original.at != FOOTAGE:
        return original.begin, original.until
    return original.begin, lives.number(original.end_ms, MOST)


def _by_windows(service: str) -> bool:
    """What it has accounted for is told by numbers of windows."""
    return service == DECODE or not {WINDOWS, "captions", "detections"}.isdisjoint(
        PARTS[service.partition(".")[0]].kind.reads
    )


def _front(progress: Progress, source: Source, service: str) -> int:
    account = progress.of(source, service)
    base = account.numbers.base()
    return base if account.count is None else min(base, account.count)


def end_ms(lives: Lives, progress: Progress, services: Sequence[str], until: int) -> int:
    """To its very end where the range goes so far: the last window accounts for what is left."""
    accounts = [progress.of(lives.newest, s) for s in (DECODE, *services)]
    whole = [a.front_ms for a in accounts if a.count == until]
    return max([lives.starts_ms(until), *whole])


async def in_stream_ms(archive: Archive, source: Source, wall: datetime) -> int:
    """A moment by the wall clock, in the time of a feed, or of what was made of one."""
    zero_ms = await archive.finder(source).began_ms()
    if zero_ms is None:
        raise Misconfigured(f"'{source.stream}' knows no wall-clock time; say seconds, or 12:34, from its beginning")
    return round(wall.timestamp() * 1000 - zero_ms)


async def left(archive: Archive, lives: Lives, numbers: tuple[int, int]) -> tuple[int, int]:
    """Where in their topic to begin to read, and how many have expired."""
    (begin, until), old = numbers, lives.newest
    first, offset = await archive.first_window(old.stream, old.generation)
    again = f"; --at {FOOTAGE} makes them again of {_pictures(old)}" if has_pictures(old) else ""
    if first is None or first.index >= until:
        there = f"; those from {first.start_ms / 1000:g} s on are left" if first else ""
        raise Misconfigured(
            f"the windows of '{old.stream}' from {lives.starts_ms(begin) / 1000:g} s on have expired{there}{again}"
        )
    expired = max(0, first.index - begin)
    if expired:
        lives.warnings.append(
            f"{expired} of {until - begin} windows have expired and will be skipped; those from "
            f"{first.start_ms / 1000:g} s on are left{again}"
        )
    if first.utc is not None and first.index < begin:
        zero_ms = datetime.fromisoformat(first.utc).timestamp() * 1000 - first.start_ms
        offset = max(offset, await archive.offset_at(old.stream, round(zero_ms + lives.starts_ms(begin))))
    return offset, expired


# footage ------------------------------------------------------------------------------------------------------------


def has_pictures(old: Source) -> bool:
    """Somebody keeps pictures of it: a file is there by itself, a feed where it was recorded."""
    return old.footage is not None or not (old.live or is_replay(old.uri))


def _pictures(old: Source) -> str:
    live = Original.parse(old.uri).footage_of[2] if is_replay(old.uri) else old.live
    return "its recording" if live else "the file"


def unrecorded(lives: Lives, footage_of: tuple[str, int, bool], begin: int, until: int) -> int:
    """How many of these begin before what is recorded. Where the pictures of a feed are on this machine, it is known how far
    back they go; elsewhere only a worker knows."""
    old, (stream, generation, live) = lives.newest, footage_of
    if not has_pictures(old):
        raise Misconfigured(
            f"nobody kept pictures of '{old.stream}': a feed is recorded where it was added with --footage DIR"
        )
    if not live or old.footage is None:
        return 0
    keep = Keep.parse(old.footage).of(replace(old, stream=stream, generation=generation))
    if keep.bucket is not None or not (kept := segments(keep.folder)):
        return 0
    first_ms = round(1000 * kept[0].start_s)
    if first_ms >= lives.starts_ms(until):
        raise Misconfigured(f"the recording of '{stream}' begins at {first_ms / 1000:g} s, behind what is asked for")
    if first_ms < lives.starts_ms(begin + 1):
        return 0
    lives.warnings.append(f"the recording of {stream} begins at {first_ms / 1000:g} s: what is before is skipped")
    return lives.number(first_ms, until) - begin


# the grid -----------------------------------------------------------------------------------------------------------


def pieces(lives: Lives, begin: int, until: int, task: Task, wish: Wish) -> list[tuple[int, Grid, Task]]:
    """From which number of ours on which grid and task hold: another piece where the original's grid or sampling changed."""
    found: list[tuple[int, Grid, Task]] = []
    starts = sorted({begin, *(s.from_index for s in lives.revisions if begin < s.from_index < until)})
    for start in starts:
        was = lives.in_force(start)
        grid = _moved(was, begin)
        own = task
        if wish.at == FOOTAGE:
            grid = _anew(task, was, grid)
        else:
            own = task.model_copy(update={"sampling": Task.model_validate(was.task).sampling})
        if not found or (found[-1][1].step, found[-1][2].sampling) != (grid.step, own.sampling):
            found.append((start - begin, grid, own))
    if wish.at == FOOTAGE and len(found) > 1:
        raise Misconfigured(
            "the step changed within the range: footage is decoded again on one grid; ask for either part"
        )
    return found


def _moved(was: Source, begin: int) -> Grid:
    """The original's grid where ours begins at its number `begin`: the same times, and the same stretches of context."""
    count = 1
    every_s = Stretches.model_validate(was.task.get("context") or {}).every_s
    if every_s:
        count = max(1, round(Fraction(every_s) / Fraction(was.grid.step)))
    first = was.grid.first - begin
    if first < 0:
        first %= count
    origin = Fraction(was.grid.origin) + (begin + first - was.grid.first) * Fraction(was.grid.step)
    return Grid(root=was.grid.root, origin=str(origin), step=was.grid.step, first=first)


def _anew(task: Task, was: Source, moved: Grid) -> Grid:
    """Of footage: another step begins where the range does."""
    sampling = task.sampling.model_dump()
    if (task.sampling.every is None) != ((was.task.get("sampling") or {}).get("every") is None):
        raise Misconfigured("sampling: footage is looked at by fps, or by every, as it was")
    if task.sampling.every is not None:
        if task.sampling.every != was.task["sampling"]["every"]:
            raise Misconfigured("sampling.every: frames are counted as they were; `streamproc run --again` begins anew")
        return moved
    step = grid_of(sampling).step
    if Fraction(step) == Fraction(moved.step):
        return moved
    origin = Fraction(moved.origin) - moved.first * Fraction(moved.step)
    return Grid(root=moved.root, origin=str(origin), step=step, first=0)


def shifted(
    held: Sequence[tuple[int, Grid, Task]], begin: int, until: int, until_ms: int, wish: Wish
) -> tuple[int, int]:
    """[begin, until) in steps of ours: of footage on another grid they are others."""
    if wish.at != FOOTAGE:
        return begin, until
    grid = held[0][1]
    first_ms = grid.starts_ms(0)
    step_ms = max(1, grid.starts_ms(1) - first_ms)
    count = (until_ms - first_ms) // step_ms
    while grid.starts_ms(count) < until_ms:
        count += 1
    return begin, begin + count
