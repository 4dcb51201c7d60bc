"""Single pictures out of a file, by number: those around a moment that somebody wants to see again.

Workers decode exactly the frames wanted, as `sampling` does. `Files` is the footage of streams that are files. What cannot
be had is tried again until a deadline, since a file may be on a share that comes back; then it is `footage-unreachable`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, TypeVar

from av.video.frame import VideoFrame

from streamproc.errors import Rejected, Retryable
from streamproc.messages import Frame, Source
from streamproc.video import address, sampling
from streamproc.video.address import Address
from streamproc.video.choice import Chosen, Every
from streamproc.video.container import Limits, Opened, opened
from streamproc.video.picture import Jpeg, Look, Painter
from streamproc.video.plan import plan
from streamproc.video.stack import Stacker
from streamproc.video.table import Table
from streamproc.video.workers import Workers

log = logging.getLogger(__name__)

UNREACHABLE: Final = "footage-unreachable"
KEPT: Final = 1024
"""Files whose reach is remembered."""
TABLES: Final = 2
"""A long match has one of 15 MB."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reach:
    """Which pictures there are of a stream."""

    begin_s: float
    end_s: float
    rate: float
    """Frames a second, on the whole."""
    frames: int | None = None
    """How many, where they have numbers: in files."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How many frames a file shows; of a pair, those that both have. Answer: Reach."""

    address: Address
    limits: Limits

    def run(self) -> Iterator[Reach]:
        found = [_measured(address, self.limits) for address in (self.address, self.address.under) if address]
        yield min(found, key=lambda reach: reach.frames or 0)


@dataclass(frozen=True, slots=True)
class Pick:
    """The frames of these numbers, from 1, in shown order; numbers that the file does not have are left out. Answer: a list."""

    address: Address
    limits: Limits
    numbers: frozenset[int]
    look: Look

    def run(self) -> Iterator[list[Frame]]:
        with ExitStack() as stack:
            video = stack.enter_context(opened(self.address, self.limits))
            if self.address.under:
                below = stack.enter_context(opened(self.address.under, self.limits))
                yield list(self._pairs(video, below))
                return
            painter = Painter(self.look, video.stream.sample_aspect_ratio)
            yield [_frame(chosen, painter.jpeg(frame)) for chosen, frame in frames(video, self.numbers)]

    def _pairs(self, top: Opened, bottom: Opened) -> Iterator[Frame]:
        """Both give the same numbers, in the same order, until the shorter ends."""
        stacker = Stacker(self.look, (top, bottom))
        for (chosen, above), (_, below) in zip(frames(top, self.numbers), frames(bottom, self.numbers), strict=False):
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


class Files:
    """Footage of streams that are files: each is its own."""

    def __init__(
        self,
        workers: Workers,
        *,
        limits: Limits | None = None,
        secrets: Mapping[str, str] | None = None,
        within_s: float = 30.0,
        again_s: float = 1.0,
    ) -> None:
        self._workers, self._limits, self._secrets = workers, limits or Limits(), secrets
        self._within_s, self._again_s = within_s, again_s
        self._known: OrderedDict[tuple[str, int, str], Reach] = OrderedDict()

    async def reach(self, source: Source) -> Reach:
        key = (source.stream, source.generation, source.uri)
        if (known := self._known.get(key)) is None:
            job = Measure(self._address(source), self._limits)
            known = self._known[key] = await self._had(source, lambda: self._workers.one(job))
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return known

    async def numbered(self, source: Source, numbers: Sequence[int], *, longest: int | None) -> Sequence[Frame]:
        job = Pick(self._address(source), self._limits, frozenset(numbers), Look(longest))
        found: list[Frame] = await self._had(source, lambda: self._workers.one(job))
        return found

    async def timed(self, source: Source, times_s: Sequence[float], *, longest: int | None) -> Sequence[Frame]:
        """By the file's mean rate; who wants a frame exactly knows its number."""
        reach = await self.reach(source)
        numbers = [min(1 + round(t * reach.rate), reach.frames or 1) for t in times_s]
        return await self.numbered(source, numbers, longest=longest)

    def _address(self, source: Source) -> Address:
        if source.live:
            raise Rejected(UNREACHABLE)  # nobody recorded it
        return address.parse(source.uri, secrets=self._secrets)

    async def _had(self, source: Source, fetch: Callable[[], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._within_s
        while True:
            try:
                return await fetch()
            except (Rejected, Retryable) as e:
                if loop.time() + self._again_s > deadline:
                    log.warning("%s: its footage is out of reach: %s", source.stream, e)
                    raise Rejected(UNREACHABLE) from e
            await asyncio.sleep(self._again_s)
