"""What a replay is, before anything of it runs: which numbers of which life, under which task, which services anew.

A replay has a life, numbers and revisions of its own: number 0 is the first of the range, on the original's grid, so that
it is complete in itself, and nothing of months before it has to be accounted for. Times are the original's. What stands
before the point it begins at is as it was: those sections of the task too, and what services said there is theirs.

The range is `replay_range`'s, windows and footage are `stages.replay`'s; which results are said again is `replay_results`',
and how, `replay_said`'s; how many there are left, and what they will cost, `replay_forecast`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from streamproc.errors import Misconfigured, did_you_mean
from streamproc.messages import Context, Grid, Record, Source
from streamproc.pipeline import replay_range, streams
from streamproc.pipeline.parts import DECODE, PARTS, Plan, check_fed, plan_of, planned
from streamproc.pipeline.progress import Progress
from streamproc.pipeline.replay_archive import Archive
from streamproc.pipeline.replay_range import WINDOWS, Lives, Wish
from streamproc.pipeline.replay_results import Left, Results, results
from streamproc.pipeline.streams import Wanted
from streamproc.stages.replay import FOOTAGE, Original, is_replay
from streamproc.task import Task
from streamproc.topics import topic

POINTS: Final = (WINDOWS, "captions", "detections", "incidents", "events", "descriptions", FOOTAGE)
PICTURES: Final = (WINDOWS, FOOTAGE)
"""Points at which nothing has been said so far."""
FOR_EVER_MS: Final = 1 << 62
SHIFTED: Final = "@"
"""Stands before the name of a replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One stream as it will be, and what it is made of."""

    original: Original
    revisions: tuple[Source, ...]
    redone: tuple[Plan, ...]
    """Services that do their work anew, in the order of the flow."""
    results: Mapping[str, Sequence[Record]]
    """Topic → records of the original that are said again; none where windows are, which are read as they are needed."""
    left: Sequence[Left]
    """Events that are open where it ends."""
    contexts: Sequence[Context]
    expired: int
    """Windows of the range that are no longer there."""
    warnings: Sequence[str]
    known: bool
    """It is in the table, and goes on where it was."""

    @property
    def source(self) -> Source:
        return self.revisions[-1]

    @property
    def windows(self) -> int:
        return self.original.until - self.original.begin


def behind(plans: Sequence[Plan], at: str) -> tuple[Plan, ...]:
    """Services that read what stands at a point, or what comes of it."""
    topics, found = {WINDOWS if at == FOOTAGE else at}, list[Plan]()
    for plan in plans:
        kind = PARTS[plan.stage].kind
        if plan.stage != DECODE and not topics.isdisjoint(kind.reads):
            found.append(plan)
            topics |= set(kind.writes)
    return tuple(found)


# who was it ---------------------------------------------------------------------------------------------------------


def known(stream: str, there: Mapping[str, Source]) -> Source:
    if stream not in there:
        raise Misconfigured(f"no stream '{stream}'{did_you_mean(stream, there)}")
    return there[stream]


def check_name(stream: str, name: str) -> str:
    """`match1@trial`, of `trial` or the whole of it."""
    name = name.removeprefix(f"{stream}{SHIFTED}")
    wrong = any(c in name for c in "/@") or any(ord(c) < 32 or ord(c) == 127 for c in name)
    if not name or name != name.strip() or wrong:
        raise Misconfigured(
            f"--as {name.strip() or '(nothing)'}: a name without '/', '@' and blanks around it; the stream is {stream}@NAME"
        )
    return f"{stream}{SHIFTED}{name}"


async def made(archive: Archive, progress: Progress, lives: Lives, wish: Wish) -> Replay:
    """Misconfigured where it cannot be. Nothing is written here."""
    old, before = lives.newest, lives.taken
    task = wish.task(old)
    redoes = behind(planned(task), wish.at)
    if not redoes:
        raise Misconfigured(f"no stage of the task '{task.name}' stands behind {wish.at}: nothing would be done again")
    said = _said(old, redoes, wish.at)
    contexts = await archive.results("contexts", old.stream, old.generation) if "context" in old.task else []
    if contexts and _same_context(task, Task.model_validate(old.task)):
        redoes = tuple(p for p in redoes if p.stage != "context")
    task = _as_it_was(task, old, wish, {p.stage for p in redoes}, has_contexts=bool(contexts))
    if wish.at in PICTURES:
        check_fed(planned(task))
    if (ours := _same(before, old, wish)) is not None:  # it goes on as it began, whatever has become of the original
        begin, until = replay_range.those_of(lives, ours)
    else:
        begin, until = replay_range.numbers(lives, progress, said or (DECODE,), wish)
    pieces = replay_range.pieces(lives, begin, until, task, wish)
    end_ms = replay_range.end_ms(lives, progress, said or (DECODE,), until)
    to_the_end = any(progress.of(old, s).count == until for s in (DECODE, *said))
    told_ms = (lives.starts_ms(begin), FOR_EVER_MS if to_the_end else end_ms)  # at its end a stream tells what was open
    found = await results(
        archive, old, said, windows=(begin, until), times_ms=told_ms, ranges=ours.ranges if ours else None
    )
    offset, expired = 0, 0
    if wish.at == WINDOWS and ours is None:
        offset, expired = await replay_range.left(archive, lives, (begin, until))
    if wish.at == FOOTAGE and ours is None:
        expired = await asyncio.to_thread(replay_range.unrecorded, lives, _footage_of(old), begin, until)
    original = Original(
        stream=old.stream,
        generation=old.generation,
        at=wish.at,
        ranges=ours.ranges
        if ours
        else found.ranges | {DECODE: replay_range.shifted(pieces, begin, until, end_ms, wish)},
        left=ours.left if ours else len(found.left),
        said=said,
        end_ms=ours.end_ms if ours else end_ms,
        offset=ours.offset if ours else offset,
        asked=wish.asked,
        footage_of=_footage_of(old),
        began_ms=ours.began_ms if ours else await _began_ms(archive, old),
    )
    sources = _revisions(wish, original, pieces, [*map(plan_of, said or (DECODE,)), *redoes], old, before)
    is_known = before is not None and before.state != "removed"
    if is_known and before is not None and (others := streams.differs(before, sources[-1])):
        raise Misconfigured(
            f"stream '{wish.name}' is there already{' with another ' + ', '.join(others[:5]) if ours else ''}; nothing is "
            "overwritten: --as names another"
        )
    warnings = [*_warned(found, lives.starts_ms(begin)), *lives.warnings]
    return Replay(
        original=original,
        revisions=tuple(sources),
        redone=redoes,
        results=found.records,
        left=found.left[: original.left],
        contexts=_held(contexts, begin, until) if task.context else (),
        expired=expired,
        warnings=warnings,
        known=is_known,
    )


def _said(old: Source, redoes: Sequence[Plan], at: str) -> tuple[str, ...]:
    """Services of the original that speak again: of all that is read and not written anew."""
    if at == WINDOWS and DECODE not in old.services:
        here = sorted({name for s in old.services for name in PARTS[s.partition(".")[0]].kind.writes} & set(POINTS))
        raise Misconfigured(f"'{old.stream}' has no windows of its own; it has {', '.join(here)}")
    if at in PICTURES:
        return ()
    written = {name for p in redoes for name in PARTS[p.stage].kind.writes}
    needed = {name for p in redoes for name in PARTS[p.stage].kind.reads} - written
    speaks = {s: set(PARTS[s.partition(".")[0]].kind.writes) for s in old.services}
    if not any(at in writes for writes in speaks.values()):
        here = sorted({name for writes in speaks.values() for name in writes} & set(POINTS))
        raise Misconfigured(
            f"'{old.stream}' has written no {at}: its task has none of the stages {', '.join(topic(at).writers)}. "
            f"It has {', '.join(here) or 'nothing to begin at'}"
        )
    return tuple(s for s, writes in speaks.items() if writes & needed)


def _same(before: Source | None, old: Source, wish: Wish) -> Original | None:
    """The name is that of this very replay."""
    if before is None or before.state == "removed" or not is_replay(before.uri):
        return None
    told = Original.parse(before.uri)
    same = (told.stream, told.generation, told.at, told.asked) == (old.stream, old.generation, wish.at, wish.asked)
    return told if same else None


async def _began_ms(archive: Archive, old: Source) -> int | None:
    return await archive.finder(old).began_ms() if _footage_of(old)[2] else None


def _footage_of(old: Source) -> tuple[str, int, bool]:
    if is_replay(old.uri):
        return Original.parse(old.uri).footage_of
    return old.stream, old.generation, old.live


# the task -----------------------------------------------------------------------------------------------------------


def _same_context(task: Task, was: Task) -> bool:
    """What was known then answers what is to be known now."""
    return task.context is not None and (task.context, task.sampling) == (was.context, was.sampling)


def _as_it_was(task: Task, old: Source, wish: Wish, redone: set[str], *, has_contexts: bool) -> Task:
    """What stands before the point is as it was then; to speak of it is a mistake."""
    was = Task.model_validate(old.task)
    kept = {s: getattr(was, s) for s in PARTS if s in Task.model_fields and s not in redone and s != "context"}
    if wish.at != FOOTAGE:
        kept["sampling"] = was.sampling
    if wish.at not in PICTURES:
        kept["context"] = was.context if has_contexts else None  # nobody waits for what will not come
    for name in wish.changed:
        if name in kept:
            earlier = f"--at {FOOTAGE}" if name == "sampling" else f"--at {WINDOWS}, or --at {FOOTAGE},"
            raise Misconfigured(
                f"'{name}' stands before {wish.at}, and is said again as it was; {earlier} does it anew"
            )
    return task.model_copy(update=kept)


# what it is made of -------------------------------------------------------------------------------------------------


def _revisions(
    wish: Wish,
    original: Original,
    pieces: Sequence[tuple[int, Grid, Task]],
    plans: Sequence[Plan],
    old: Source,
    before: Source | None,
) -> list[Source]:
    names = tuple(p.service for p in plans)
    reads = {p.service: set(PARTS[p.stage].kind.reads) for p in plans if p.service not in original.said}
    written = {name for p in plans for name in PARTS[p.stage].kind.writes}
    read_by = {
        name: by for name in sorted(written) if (by := tuple(s for s, topics in reads.items() if name in topics))
    }
    (_, grid, task), *later = pieces
    footage = old.footage if old.live or is_replay(old.uri) else old.uri
    wanted = Wanted(name=wish.name, uri=original.uri, live=False, grid=grid, task=task, footage=footage)
    generation = before.generation + (before.state == "removed") if before else 0
    found = [replace(streams.first(wanted, generation=generation), services=names, readers=read_by)]
    for from_index, grid, task in later:
        found.append(streams.changed(found[-1], from_index=from_index, grid=grid, task=task.resolved()))
    return found


def _warned(found: Results, begin_ms: int) -> list[str]:
    """Of what is numbered by itself nobody knows how much of it there was."""
    said = []
    for records in found.records.values():
        roots = {r.root for r in records if r.service == r.root and r.root in found.ranges}
        for root in sorted(roots):
            lo, _ = found.ranges[root]
            first = min((r for r in records if r.service == root), key=lambda r: r.index)
            if begin_ms == 0 and lo > 0:
                said.append(f"what {root} said before {first.start_ms / 1000:g} s has expired")
    return said


def _held(contexts: Sequence[Context], begin: int, until: int) -> tuple[Context, ...]:
    """Those that hold for any of the range."""
    return tuple(
        c
        for c in contexts
        if not c.ended and c.from_ is not None and c.from_ < until and (c.until_ is None or c.until_ > begin)
    )
