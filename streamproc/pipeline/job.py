"""One run: streams in, every service of theirs that is asked for, until all of them are complete. Started again it goes on
where it was, because what has landed says how far it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from streamproc.bus.contract import Bus
from streamproc.errors import Misconfigured
from streamproc.messages import Source
from streamproc.pipeline import streams
from streamproc.pipeline.parts import DECODE, Plan, check_fed, planned
from streamproc.pipeline.progress import Progress
from streamproc.pipeline.streams import Wanted
from streamproc.task import Task

LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Entered:
    """Streams of a run, as they stand in the table."""

    sources: tuple[Source, ...]
    known: frozenset[str]
    """Those that ran before, and go on."""


async def enter(bus: Bus, wanted: Sequence[Wanted], *, again: bool, remedy: str | None = None) -> Entered:
    """Put streams into the table that are not there. `again` makes another beside what is there: `match1@2`. `remedy`: what
    to do about one that is there and another, where that is not a run's --again or --name."""
    there = await streams.newest(bus)
    sources: list[Source] = []
    known: set[str] = set()
    for one in wanted:
        if again:
            one = replace(one, name=_free(one.name, there))  # noqa: PLW2901  # another stream from here on
        before = there.get(one.name)
        if before is None or before.state == "removed":
            made = streams.first(one, generation=before.generation + 1 if before else 0)
            await streams.publish(bus, [made])
            sources.append(made)
            continue
        if others := streams.differs(before, streams.first(one)):
            beside = f"--again runs it beside what there is, as {_free(one.name, there)}; --name calls it otherwise"
            raise Misconfigured(f"stream '{one.name}' has run with another {', '.join(others)}. {remedy or beside}")
        sources.append(before)
        known.add(one.name)
    return Entered(tuple(sources), frozenset(known))


def _free(name: str, there: Iterable[str]) -> str:
    """`match1@2` for the second run of match1."""
    taken = set(there)
    if name not in taken:
        return name
    return next(f"{name}@{n}" for n in count(2) if f"{name}@{n}" not in taken)


def chosen(task: Task, only: Sequence[str]) -> tuple[Plan, ...]:
    """The services to run: all, or decode and those of the stages named."""
    plans = planned(task)
    check_fed(plans)
    if not only:
        return plans
    stages = dict.fromkeys(p.stage for p in plans)
    for name in only:
        if name not in stages:
            raise Misconfigured(f"--only {name}: the task '{task.name}' has no such stage; it has {', '.join(stages)}")
    return tuple(p for p in plans if p.stage in only or p.stage == DECODE)


@dataclass(slots=True)
class Watch:
    """Who is complete, as coverage comes in."""

    progress: Progress
    sources: Sequence[Source]
    services: Sequence[str]
    complete: set[str] = field(default_factory=set)

    def look(self) -> list[Source]:
        """Streams that have become complete since the last look."""
        fresh = [
            s
            for s in self.sources
            if s.stream not in self.complete
            and self.progress.complete(s, [n for n in self.services if n in s.services])
        ]
        self.complete |= {s.stream for s in fresh}
        return fresh

    @property
    def over(self) -> bool:
        return len(self.complete) == len(self.sources)
