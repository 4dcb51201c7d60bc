"""What the arguments of `streamproc run` stand for: every file looked at before anything is entered, and its grid laid."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from streamproc.cli.frame import say
from streamproc.errors import Rejected, Retryable

if TYPE_CHECKING:
    from streamproc.cli.run import Asked
    from streamproc.pipeline.forecast import Look
    from streamproc.pipeline.means import Means
    from streamproc.pipeline.streams import Wanted
    from streamproc.video.sources import Found


@dataclass(slots=True)
class Streams:
    """What the arguments stand for."""

    wanted: list[Wanted] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Stream → why nothing of it can be looked at."""
    finished: list[str] = field(default_factory=list)
    """Streams whose results are complete in the output folder."""
    looks: dict[str, Look] = field(default_factory=dict)
    """Stream → what its file tells beforehand."""


async def looked_at(arguments: Sequence[str], asked: Asked, has: Means, *, name: str | None) -> Streams:
    """Every stream that is to run, its file looked at and its grid laid."""
    from streamproc.pipeline import outputs
    from streamproc.video.sources import found

    there = found(arguments, name=name)
    if asked.out is not None:
        outputs.check(asked.out)
    streams, gate = Streams(), asyncio.Semaphore(2 * has.workers.size)

    async def look(one: Found, *, soon: bool) -> Wanted | None:
        async with gate:
            return await _wanted(one, asked, has, streams, soon=soon)

    async with asyncio.TaskGroup() as tasks:
        looks = [tasks.create_task(look(one, soon=i < has.workers.size)) for i, one in enumerate(there)]
    streams.wanted = [w for w in (look.result() for look in looks) if w is not None]
    for stream, why in streams.unreadable.items():
        say(f"{stream}: {why}")
    if not streams.wanted and not streams.finished:
        raise Rejected("none of the sources can be read")
    return streams


async def _wanted(one: Found, asked: Asked, has: Means, streams: Streams, *, soon: bool) -> Wanted | None:
    """None where there is nothing to do: it cannot be read, or it is done. `soon`: among the first to be decoded."""
    from streamproc.pipeline import outputs
    from streamproc.pipeline.forecast import Look
    from streamproc.pipeline.streams import Wanted
    from streamproc.video import address
    from streamproc.video.decode import begin_with
    from streamproc.video.jobs import Glance
    from streamproc.video.limits import Limits
    from streamproc.video.look import LARGEST, shown_size
    from streamproc.video.recipe import grid_of, sampling_of
    from streamproc.video.windows import Cut

    sampling = asked.task.sampling.model_dump()
    place, glanced = address.parse(one.uri), None
    try:
        if not one.live:
            glanced = await has.workers.one(Glance(place, Limits()))
        grid = grid_of(sampling, glanced)
    except (Rejected, Retryable) as e:  # a worker that died of it is Retryable; the file is none the better for it
        streams.unreadable[one.name] = str(e)
        return None
    cut = Cut.on(grid, sampling_of(sampling, grid))
    if glanced and glanced.duration_s:
        frames = min(cut.samples(0, 1)[1], cut.sampling.frames or LARGEST)
        width, height = shown_size(glanced.width, glanced.height, Fraction(1), cut.sampling.look.longest)
        streams.looks[one.name] = Look(cut.count(glanced.duration_s), frames, width, height)
    wanted = Wanted(name=one.name, uri=one.uri, live=one.live, grid=grid, task=asked.task)
    if asked.out and not asked.again and await asyncio.to_thread(outputs.finished, asked.out, wanted):
        streams.finished.append(one.name)
        return None
    if soon and not one.live and not asked.only and not place.under:
        begin_with(has.workers, place, cut)
    return wanted
