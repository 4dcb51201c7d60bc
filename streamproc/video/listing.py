"""The frames that a rule chooses from a file, in shown order, decoded by worker processes that run ahead of what is taken.

No windows and no stream here: those are `decode`'s, which cuts files in the same way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from fractions import Fraction

from av.video.frame import VideoFrame

from streamproc.errors import Rejected
from streamproc.video import sampling
from streamproc.video.address import Address
from streamproc.video.choice import Chosen, Rate, Rule
from streamproc.video.container import Opened, opened
from streamproc.video.jobs import SLICE_S
from streamproc.video.limits import Limits
from streamproc.video.look import Jpeg, Look
from streamproc.video.picture import Painter
from streamproc.video.picture import digest as md5
from streamproc.video.sampling import Span
from streamproc.video.slices import Cuts, Slice
from streamproc.video.slicing import BATCH
from streamproc.video.table import Table
from streamproc.video.tasks import ending_together
from streamproc.video.windows import Cut, Sampling
from streamproc.video.workers import Lost, Workers

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Of one slice, before the file is given up."""
PICTURES = 256
"""Of one slice: so many times the workers, and one, are held at most."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which frames, and what is made of each."""

    rule: Rule
    span: Span = sampling.ALL
    look: Look | None = None
    """None: no picture."""
    digest: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    chosen: Chosen
    time_base: Fraction
    jpeg: Jpeg | None
    md5: str | None
    """Of the picture as it was decoded."""


@dataclass(frozen=True, slots=True)
class Outlined:
    slices: tuple[Slice, ...] | None
    """None: the packets do not tell, everything must be decoded."""
    damage: str | None


@dataclass(frozen=True, slots=True)
class Outline:
    """A job: read the packets and cut the file into slices. Answer: Outlined."""

    address: Address
    limits: Limits
    wish: Wish
    workers: int

    def run(self) -> Iterator[Outlined]:
        with opened(self.address, self.limits) as video:
            table = sampling.index(video)
            if not table.regular:
                yield Outlined(None, table.damage)
                return
            found = sampling.wanted(table, self.wish.rule, self.wish.span)
            first, until = (found[0][1].k, found[-1][1].k + 1) if found else (0, 0)
            cut = _a_sample_a_window(table, self.wish.rule)
            slice_s = min(SLICE_S, PICTURES * float(cut.sampling.step_s))
            slices, _ = Cuts(cut, table, found).slices(first, until, slice_s=slice_s, workers=self.workers)
            yield Outlined(slices, table.damage)


@dataclass(frozen=True, slots=True)
class List:
    """A job: the frames of one slice, or without one those that a decode of everything finds. Answers: lists of them;
    for a whole file then why it ended early, or None."""

    address: Address
    limits: Limits
    wish: Wish
    part: Slice | None

    def run(self) -> Iterator[list[Listed] | str | None]:
        rule = self.wish.rule
        with opened(self.address, self.limits) as video:
            if self.part:
                yield from self._made(video, sampling.planned(video, rule, self.part.chosen, self.part.stretches))
                return
            yield from self._made(video, sampling.within(self.wish.span, sampling.sequential(video, rule)))
            yield video.damage

    def _made(self, video: Opened, frames: Iterable[tuple[Chosen, VideoFrame]]) -> Iterator[list[Listed]]:
        painter = Painter(self.wish.look, video.stream.sample_aspect_ratio) if self.wish.look else None
        batch: list[Listed] = []
        for chosen, frame in frames:
            jpeg = painter.jpeg(frame) if painter else None
            batch.append(Listed(chosen, video.time_base, jpeg, md5(frame) if self.wish.digest else None))
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


@dataclass(slots=True)
class Listing:
    """One file that is listed."""

    workers: Workers
    address: Address
    wish: Wish
    limits: Limits = field(default_factory=Limits)
    damage: str | None = None
    """Why the file ended early, once all is listed."""

    async def frames(self) -> AsyncGenerator[Listed]:
        """In shown order. Rejected where nothing can be read, or where a decoder cannot go on."""
        outlined = await self._outlined()
        self.damage = outlined.damage
        steps = self._one_by_one() if outlined.slices is None else self._ahead(outlined.slices)
        async with aclosing(steps):
            async for listed in steps:
                yield listed

    async def _outlined(self) -> Outlined:
        job = Outline(self.address, self.limits, self.wish, self.workers.size)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self.workers.one(job)  # type: ignore[no-any-return]  # what an Outline answers
            except Lost as e:
                self._lost(e, attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _ahead(self, slices: tuple[Slice, ...]) -> AsyncGenerator[Listed]:
        """As many slices ahead as there are workers and one more, so that none waits for us."""
        ahead: deque[asyncio.Task[list[Listed]]] = deque()
        todo = iter(slices)
        async with ending_together() as tasks:
            while True:
                while len(ahead) <= self.workers.size and (part := next(todo, None)):
                    ahead.append(tasks.start(self._slice(part)))
                if not ahead:
                    return
                for listed in await ahead.popleft():
                    yield listed

    async def _slice(self, part: Slice) -> list[Listed]:
        return [listed async for listed in self._tried(part)]

    async def _one_by_one(self) -> AsyncGenerator[Listed]:
        async with aclosing(self._tried(None)) as steps:
            async for listed in steps:
                yield listed

    async def _tried(self, part: Slice | None) -> AsyncGenerator[Listed]:
        """Of a slice, or of everything; a worker lost is an attempt, and what it had answered stands."""
        job, last = List(self.address, self.limits, self.wish, part), -1
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with aclosing(self.workers.ask(job)) as answers:
                    async for answer in answers:
                        if not isinstance(answer, list):
                            self.damage = answer
                            continue
                        for listed in answer:
                            if listed.chosen.k > last:
                                last = listed.chosen.k
                                yield listed
            except Lost as e:
                self._lost(e, attempt)
            else:
                return

    def _lost(self, error: Lost, attempt: int) -> None:
        if attempt == ATTEMPTS:
            raise Rejected(f"{self.address.shown}: {error}, {ATTEMPTS} times") from error
        log.warning("%s: %s (attempt %d)", self.address.shown, error, attempt)


def _a_sample_a_window(table: Table, rule: Rule) -> Cut:
    """The grid by which a list is cut."""
    if isinstance(rule, Rate):
        step_s = 1 / rule.per_s
    else:
        frames = len(table.pts) - len(table.hidden)
        step_s = rule.n * (table.shown_s / frames or Fraction(1, 25))
    return Cut(Sampling(rule, step_s, step_s))
