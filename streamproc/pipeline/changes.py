"""Changes of streams while they run: the next revision of one, in force from a window that nobody has made so far.

Which services owe an answer for a number is a function of the table alone, so a revision must never begin below what has
been made under the one before. A feed's begins some seconds ahead of it. A file is decoded as fast as there is room, so it
is paused until the decoder has heard of that; then nobody is ahead of anything.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from streamproc.bus.contract import Bus
from streamproc.errors import Misconfigured, Unreachable
from streamproc.messages import Grid, Source
from streamproc.pipeline import streams
from streamproc.pipeline.importing import is_import
from streamproc.pipeline.parts import DECODE, check_fed, planned, readers
from streamproc.pipeline.progress import Progress
from streamproc.stages.replay import is_replay
from streamproc.task import Task
from streamproc.topics import key_of, partition_of

MARGIN_S = 5.0
"""Stream time of a feed between a change and the window from which it holds: it must be heard of before that comes."""
HEARD_WITHIN_S = 60.0
LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a stream shall be from some window on."""

    uri: str
    live: bool
    task: Task
    lag: str
    footage: str | None
    step: str
    """Of the grid that the task asks for."""


def differs(source: Source, change: Change) -> list[str]:
    """What changes, by name."""
    named = [n for n in ("uri", "live", "lag", "footage") if getattr(source, n) != getattr(change, n)]
    return named + [f"task.{name}" for name in streams.differing(source.task, change.task.resolved())]


def check(source: Source, progress: Progress) -> None:
    """It can be changed at all."""
    if is_replay(source.uri) or is_import(source.uri):
        raise Misconfigured(
            f"'{source.stream}' is made of what was said once and stays as it is; replay it under another name"
        )
    if (count := progress.of(source, DECODE).count) is not None:
        raise Misconfigured(
            f"'{source.stream}' has been decoded to its end, all {count} windows; `streamproc replay {source.stream}` does "
            "them again"
        )


async def change(bus: Bus, progress: Progress, source: Source, wanted: Change) -> Source:
    """The revision that was made of it, which is in the table."""
    check(source, progress)
    if wanted.live != source.live:
        kinds = ("a file", "a feed")
        raise Misconfigured(
            f"'{source.stream}' is {kinds[source.live]}, and stays one; add another stream for {wanted.uri}"
        )
    plans = planned(wanted.task)
    check_fed(plans)
    if source.live or source.state == "paused":
        return await _publish(bus, source, wanted, await _ahead(bus, progress, source))
    held = streams.changed(source, state="paused", from_index=progress.of(source, DECODE).numbers.end)
    await streams.publish(bus, [held])
    await _heard(bus, held)
    if progress.of(source, DECODE).count is not None:  # it came to its end while it was told to stop
        check(source, progress)
    return await _publish(bus, held, wanted, progress.of(source, DECODE).numbers.end, state=source.state)


async def _ahead(bus: Bus, progress: Progress, source: Source) -> int:
    """A number that decode will not have come to before it has heard of this."""
    end = progress.of(source, DECODE).numbers.end
    if source.state == "paused" or not await bus.members(DECODE):
        return max(end, source.from_index)
    return max(end + ceil(MARGIN_S / float(Fraction(source.grid.step))) + 1, source.from_index)


async def _publish(bus: Bus, source: Source, wanted: Change, from_index: int, *, state: str | None = None) -> Source:
    plans = planned(wanted.task)
    made = streams.changed(
        source,
        uri=wanted.uri,
        lag=wanted.lag,
        footage=wanted.footage,
        task=wanted.task.resolved(),
        services=tuple(p.service for p in plans),
        readers=readers(plans),
        join_wait_s=wanted.task.join_wait_s if source.live else None,
        grid=_grid(source, wanted, from_index),
        from_index=from_index,
        state=state or source.state,
    )
    await streams.publish(bus, [made])
    return made


def _grid(source: Source, wanted: Change, from_index: int) -> Grid:
    """Another step begins a grid of its own, at the window from which it holds."""
    old = source.grid
    if Fraction(wanted.step) == Fraction(old.step):
        return old
    origin = Fraction(old.origin) + (from_index - old.first) * Fraction(old.step)
    return Grid(root=old.root, origin=str(origin), step=wanted.step, first=from_index)


async def _heard(bus: Bus, revision: Source) -> None:
    """Back once whoever decodes has taken note of a revision, and what was made before has landed; or nobody decodes."""
    p = partition_of(revision.stream, bus.partitions)
    table = await bus.follow("sources", p)
    await table.caught_up()
    stored = table.get(key_of(revision.stream, f"{revision.generation}.{revision.revision}"))
    assert stored is not None, "it has been published"
    try:
        async with asyncio.timeout(HEARD_WITHIN_S):
            while await bus.members(DECODE):
                if (await bus.progress(DECODE)).get(("sources", p), 0) > stored.offset:
                    break
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        raise Unreachable(
            DECODE,
            f"it has not heard of a change of '{revision.stream}' within {HEARD_WITHIN_S:g} s",
            remedy=f"The stream is paused; see `streamproc status`, then `streamproc sources resume {revision.stream}`",
        ) from None
    coverage = await bus.follow("coverage", p)
    await coverage.caught_up()
