"""What workers do to have single pictures out of a file, by number: exactly the frames wanted are decoded, as `sampling` does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Final

from av.video.frame import VideoFrame

from streamproc.messages import Frame
from streamproc.video import sampling
from streamproc.video.address import Address
from streamproc.video.choice import Chosen, Every
from streamproc.video.container import Opened, opened
from streamproc.video.jobs import Measure, Pick, Reach
from streamproc.video.limits import Limits
from streamproc.video.look import Jpeg
from streamproc.video.picture import Painter
from streamproc.video.plan import plan
from streamproc.video.stack import Stacker
from streamproc.video.table import Table

TABLES: Final = 2
"""A long match has one of 15 MB."""


def measure(job: Measure) -> Iterator[Reach]:
    found = [_measured(address, job.limits) for address in (job.address, job.address.under) if address]
    yield min(found, key=lambda reach: reach.frames or 0)


def pick(job: Pick) -> Iterator[list[Frame]]:
    with ExitStack() as stack:
        video = stack.enter_context(opened(job.address, job.limits))
        if job.address.under:
            below = stack.enter_context(opened(job.address.under, job.limits))
            yield list(_pairs(job, video, below))
            return
        painter = Painter(job.look, video.stream.sample_aspect_ratio)
        yield [_frame(chosen, painter.jpeg(frame)) for chosen, frame in frames(video, job.numbers)]


def _pairs(job: Pick, top: Opened, bottom: Opened) -> Iterator[Frame]:
    """Both give the same numbers, in the same order, until the shorter ends."""
    stacker = Stacker(job.look, (top, bottom))
    for (chosen, above), (_, below) in zip(frames(top, job.numbers), frames(bottom, job.numbers), strict=False):
        yield _frame(chosen, stacker.jpeg(above, below))


def frames(video: Opened, numbers: frozenset[int]) -> Iterator[tuple[Chosen, VideoFrame]]:
    table = _table(video)
    if table.regular:
        found = _found(table, numbers)
        stretches = list(plan(table, (packet for packet, _ in found)))
        decoded = sampling.planned(video, Every(1), [chosen for _, chosen in found], stretches)
    else:
        decoded = sampling.sequential(video, Every(1))
    last = max(numbers, default=0)
    for chosen, frame in decoded:
        if chosen.number in numbers:
            yield chosen, frame
        if chosen.number >= last:
            return


def _found(table: Table, numbers: frozenset[int]) -> list[tuple[int, Chosen]]:
    """Packets, each with what it is chosen for."""
    shown = table.shown()
    found = []
    for number in sorted(n for n in numbers if 1 <= n <= len(shown)):
        packet = shown[number - 1]
        time_s = Fraction(table.pts[packet] - table.pts[shown[0]]) * table.time_base
        found.append((packet, Chosen(number - 1, time_s, number, table.pts[packet], time_s)))
    return found


def _frame(chosen: Chosen, jpeg: Jpeg) -> Frame:
    return Frame(t_ms=round(1000 * chosen.time_s), frame=chosen.number, jpeg=jpeg.data)


def _measured(address: Address, limits: Limits) -> Reach:
    with opened(address, limits) as video:
        table = _table(video)
        if table.regular:
            shown, shown_s = len(table.shown()), table.shown_s
        else:
            count = sampling.Count()
            for _ in sampling.sequential(video, Every(1), count=count):
                pass
            shown, shown_s = count.samples, count.ticks * video.time_base
    return Reach(0.0, float(shown_s), float(shown / shown_s) if shown_s else 1.0, shown)


_TABLES: Final[OrderedDict[tuple[str, int, int], Table]] = OrderedDict()
"""In a worker, of the files last asked for: to read a match's packets takes longer than to decode the pictures of one event."""


def _table(video: Opened) -> Table:
    if not video.address.is_file:
        return sampling.index(video)
    file = Path(video.address.target).stat()
    key = (video.address.target, file.st_size, file.st_mtime_ns)
    if key not in _TABLES:
        _TABLES[key] = sampling.index(video)
        if len(_TABLES) > TABLES:
            _TABLES.popitem(last=False)
    return _TABLES[key]
