"""A file as windows, slice by slice and in order, decoded by worker processes that run ahead of what is taken.

No runner: whoever asks gives the source and the last cursor, and gets records and the cursor behind them. What a
decoder cannot do after some attempts, or a file does not hold though it says so, is a counted gap; then time goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from fractions import Fraction
from typing import Any

from streamproc.errors import Rejected
from streamproc.messages import Source, Window
from streamproc.video.address import Address
from streamproc.video.jobs import SLICE_S, DecodeAll, DecodeSlice, DecodeStack, Extent, Survey, Surveyed
from streamproc.video.limits import Limits
from streamproc.video.slices import Slice
from streamproc.video.tasks import ending_together
from streamproc.video.windows import UNREADABLE, Cut, Picture, ended, gap, windows
from streamproc.video.workers import Lost, Workers

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Of one slice, before it is given up."""

Step = tuple[list[Window], int]
"""Records, and the number of the next window."""


async def decode(
    workers: Workers,
    source: Source,
    address: Address,
    cut: Cut,
    *,
    cursor: int | None = None,
    limits: Limits | None = None,
    slice_s: float = SLICE_S,
) -> AsyncGenerator[Step]:
    """All windows of a file from the cursor on, then `ended`. Raises Rejected where nothing of the file can be read."""
    job = _survey(workers, address, cut, cursor=cursor, limits=limits, slice_s=slice_s)
    begin, limits = job.begin, job.limits
    if address.under:
        steps = _in_one_go(workers, source, DecodeStack(address, limits, cut, begin), None)
        async with aclosing(steps):
            async for step in steps:
                yield step
        return
    try:
        surveyed: Surveyed = await _again(workers, job)
    except Lost as e:
        raise Rejected(f"{address.shown}: {e}, {ATTEMPTS} times") from e
    if surveyed.at_once or surveyed.extent is None:
        whole = DecodeAll(address, limits, cut, begin, surveyed.slices[0] if surveyed.slices else None)
        steps = _in_one_go(workers, source, whole, surveyed.extent)
    else:
        steps = _slice_by_slice(workers, source, job, surveyed)
    async with aclosing(steps):
        async for step in steps:
            yield step


def begin_with(workers: Workers, address: Address, cut: Cut) -> None:
    """Before anybody asks for its windows. Of a long file the survey and the first slice take a second or two, in which
    whoever will ask has other things to load."""
    job = _survey(workers, address, cut)
    workers.ahead(job, lambda surveyed: _sliced(job, surveyed.slices[0]) if _in_slices(surveyed) else None)


def _survey(
    workers: Workers,
    address: Address,
    cut: Cut,
    *,
    cursor: int | None = None,
    limits: Limits | None = None,
    slice_s: float = SLICE_S,
) -> Survey:
    begin = cut.first if cursor is None else cursor
    return Survey(address, limits or Limits(), cut, begin, slice_s, workers.size)


def _in_slices(surveyed: Surveyed) -> bool:
    return not surveyed.at_once and bool(surveyed.slices)


def _sliced(job: Survey, part: Slice) -> DecodeSlice:
    return DecodeSlice(job.address, job.limits, job.cut, part)


async def _slice_by_slice(workers: Workers, source: Source, survey: Survey, surveyed: Surveyed) -> AsyncGenerator[Step]:
    """Slices in order, as many ahead as there are workers and one more, so that none waits for us; where many files are
    decoded at once, as far as there are places to spare."""
    cut, extent = survey.cut, surveyed.extent
    assert extent, "a file that was cut has been read to its end"
    ahead: deque[tuple[Slice, asyncio.Task[list[Picture] | None], bool]] = deque()
    """With whether it has a place to spare: only one that is waited for needs none."""
    todo = deque(surveyed.slices)
    async with ending_together() as tasks:
        try:
            while todo or ahead:
                while todo and len(ahead) <= workers.size and (not ahead or workers.spare.take()):
                    part, spared = todo.popleft(), bool(ahead)
                    ahead.append((part, tasks.start(_pictures(workers, _sliced(survey, part))), spared))
                part, task, _ = ahead[0]
                pictures = await task
                if ahead.popleft()[2]:
                    workers.spare.give()
                yield made(source, cut, part.begin, part.until, pictures, extent.end_s)
        finally:
            for *_, spared in ahead:
                if spared:
                    workers.spare.give()
    yield _end(source, survey.address, cut, extent)


async def _in_one_go(
    workers: Workers, source: Source, job: DecodeAll | DecodeStack, extent: Extent | None
) -> AsyncGenerator[Step]:
    """One worker decodes everything; windows leave when a sample behind their end has come: so none is cut short by
    an end of the file that nobody has seen yet, wherever this run began."""
    cut, begin, failures = job.cut, job.begin, 0
    held: dict[int, Picture] = {}
    while True:
        came = False
        try:
            async with aclosing(workers.ask(replace(job, begin=begin), long=True)) as parts:
                async for part in parts:
                    if isinstance(part, Extent):
                        extent = part
                        continue
                    held |= {picture.chosen.k: picture for picture in part}
                    until = passed(cut, part[-1].chosen.k)
                    if until > begin:
                        yield made(source, cut, begin, until, held.values(), None)
                        held = {k: p for k, p in held.items() if k >= cut.samples(until, until + 1)[0]}
                        begin, came = until, True
            break
        except Lost as e:
            failures = 1 if came else failures + 1
            log.warning("%s: %s, from window %d on (attempt %d)", job.address.shown, e, begin, failures)
            if failures == ATTEMPTS:
                break
    if extent is None:  # nobody knows how far it goes
        raise Rejected(f"{job.address.shown}: cannot be decoded beyond window {begin}")
    if failures < ATTEMPTS and begin < extent.count:
        yield made(source, cut, begin, extent.count, held.values(), extent.end_s)
    elif begin < extent.count:
        yield [gap(cut, source, begin, extent.count, UNREADABLE, "failed")], extent.count
    yield _end(source, job.address, cut, extent)


async def _pictures(workers: Workers, job: DecodeSlice) -> list[Picture] | None:
    """Of one slice; None where no worker can decode it."""
    try:
        return await _again(workers, job) if job.part.chosen else []
    except (Lost, Rejected) as e:
        log.warning("%s: windows %d to %d: %s", job.address.shown, job.part.begin, job.part.until - 1, e)
        return None


async def _again(workers: Workers, job: Survey | DecodeSlice) -> Any:
    """A worker lost is one attempt."""
    for attempt in range(1, ATTEMPTS):
        try:
            return await workers.one(job)
        except Lost as e:
            log.warning("%s: %s (attempt %d)", job.address.shown, e, attempt)
    return await workers.one(job)


def made(
    source: Source, cut: Cut, begin: int, until: int, pictures: Iterable[Picture] | None, end_s: Fraction | None
) -> Step:
    if pictures is None:
        return [gap(cut, source, begin, until, UNREADABLE, "failed")], until
    by_number = {picture.chosen.k: picture for picture in pictures}
    return list(windows(cut, source, by_number, begin, until, end_s)), until


def passed(cut: Cut, last: int) -> int:
    """The first window that does not end before the sample `last`."""
    return max(cut.first, cut.at(last * cut.sampling.sample_s - cut.sampling.length_s) + 1)


def whole(cut: Cut, last: int) -> int:
    """The first window that may still get a sample behind `last`."""
    until = max(cut.first, cut.at((last + 1) * cut.sampling.sample_s - cut.sampling.length_s))
    while cut.samples(until, until + 1)[1] <= last + 1:
        until += 1
    return until


def _end(source: Source, address: Address, cut: Cut, extent: Extent) -> Step:
    """What the file says it has and does not hold, then the record behind the last window."""
    records = []
    end_s = extent.end_s
    if extent.declared > extent.count:
        why = extent.damage or "it ends earlier than it says"
        log.warning("%s: windows %d to %d are missing: %s", address.shown, extent.count, extent.declared - 1, why)
        records.append(gap(cut, source, extent.count, extent.declared, UNREADABLE, "failed"))
        end_s = cut.start_s(extent.declared)
    records.append(ended(cut, source, extent.declared, end_s))
    return records, extent.declared
