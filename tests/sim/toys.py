"""A small pipeline as stage authors would write it: decode, context, detect.A, detect.B, dedup, describe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from streamproc.errors import NotYet
from streamproc.messages import (
    Context,
    Description,
    Detection,
    Event,
    Grid,
    Life,
    Record,
    Sighting,
    Source,
    Vote,
    Window,
    record_id,
)
from streamproc.stage import Each, Fold, Follow, Look, Pace, Row

Ask = Callable[[str, Any], Awaitable[list[str]]]
"""(service, what it asks about) → labels. May raise Retryable or Rejected."""

GRID = Grid(root="decode", origin="0", step="2", first=0)
AHEAD = 12


def source(
    stream: str,
    *,
    services: Sequence[str],
    count: int,
    gaps: dict[int, int] | None = None,
    generation: int = 0,
    revision: int = 0,
    from_index: int = 0,
    live: bool = False,
    join_wait_s: float | None = None,
    state: Any = "active",
    pace: int = AHEAD,
) -> Source:
    """A stream of `count` windows of 4 s every 2 s, some of them lost in gaps."""
    return Source(
        id=record_id("cli", "cli", stream, generation, revision),
        service="cli",
        root="cli",
        stream=stream,
        generation=generation,
        revision=revision,
        index=revision,
        start_ms=0,
        end_ms=0,
        outcome="done",
        uri=f"toy:{stream}",
        live=live,
        state=state,
        from_index=from_index,
        grid=GRID,
        task={"count": count, "gaps": {str(k): v for k, v in (gaps or {}).items()}, "ahead": pace},
        services=tuple(services),
        readers={"windows": tuple(s for s in services if s == "context" or s.startswith("detect."))},
        lag="block",
        join_wait_s=join_wait_s,
    )


class Decode(Follow):
    reads, writes = ("sources",), ("windows",)
    Cursor = int

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self.work = work

    async def run(self, source: Source, cursor: int | None, look: Pace) -> AsyncIterator[tuple[list[Record], int]]:
        count, gaps = source.task["count"], {int(k): v for k, v in source.task["gaps"].items()}
        index = cursor or 0
        if source.state == "removed":
            if index <= count:
                yield [window(source, index, index + 1, index)], count + 1
            return
        while index <= count:
            of = look.in_force(source.stream, source.generation, index)
            assert of is not None
            await look.room(of, index, ahead=source.task["ahead"])
            await self.work()
            until = min(gaps.get(index, index + 1), count) if index < count else index + 1
            yield [window(of, index, until, count)], until
            index = until


def window(of: Source, index: int, until: int, count: int) -> Window:
    ended, gap = index == count, until > index + 1
    start = GRID.starts_ms(index)
    return Window(
        id="",
        service="",
        root="",
        stream=of.stream,
        generation=of.generation,
        revision=of.revision,
        index=index,
        until_index=until if gap else None,
        start_ms=start if not ended else start + 2000,
        end_ms=start + 4000 if not gap and not ended else start + 2000 if ended else GRID.starts_ms(until),
        outcome="skipped" if gap else "done",
        reason="gap" if gap else None,
        count=count if ended else None,
    )


class Contexts(Fold):
    """One call on the third window, or where the stream ends before."""

    reads, writes = ("windows",), ("contexts",)
    State = int | None

    def __init__(self, ask: Ask) -> None:
        self.ask = ask

    def joins(self, source: Source) -> tuple[str, ...]:
        return ("decode",)

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[list[Record], Any]:
        seen = (state or 0) + 1
        if seen != 3 and not (row.ended and seen < 3):
            return [], seen
        labels = await self.ask("context", row.of["decode"])
        return [Context.of(row, until_index=None, fields={"scene": labels}, from_=0)], seen

    def otherwise(self, row: Row, state: Any, outcome: Any, reason: str) -> tuple[list[Record], Any]:
        return [Context.of(row, until_index=None, fields={"scene": "none"}, from_=0)], (state or 0) + 1


class Detect(Each):
    reads, writes, tables = ("windows",), ("detections",), ("contexts",)

    def __init__(self, service: str, ask: Ask, *, patience_s: float | None) -> None:
        self.service, self.ask, self.patience_s = service, ask, patience_s

    async def handle(self, record: Window, look: Look) -> Detection:
        if self.patience_s is not None and not look.get("contexts", record.stream, f"{record.generation}.0"):
            raise NotYet(
                "no context", topic="contexts", key=f"{record.stream}\0{record.generation}.0", within_s=self.patience_s
            )
        labels = await self.ask(self.service, record)
        return Detection.of(record, events=tuple(Sighting(label=label) for label in labels))


class Alive(Struct, array_like=True):
    event: int
    last: int
    votes: list[tuple[str, int]]


class Lives(Struct, array_like=True):
    next: int
    alive: dict[str, Alive]


class Dedup(Fold):
    reads, writes = ("detections",), ("events",)
    State = Lives | None

    def joins(self, source: Source) -> tuple[str, ...]:
        return tuple(s for s in source.services if s.startswith("detect."))

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[list[Record], Any]:
        return fold_lives(row, state)


def fold_lives(row: Row, state: Lives | None) -> tuple[list[Record], Lives]:
    state = state or Lives(0, {})
    told: list[Record] = []

    def tell(label: str, alive: Alive, what: Any) -> None:
        life = Life(
            id=f"{row.stream}/e{alive.event}",
            revision=len(alive.votes),
            state=what,
            label=label,
            start_ms=0,
            end_ms=row.end_ms,
            time_ms=GRID.starts_ms(alive.last),
            votes=tuple(Vote(model=m, index=i) for m, i in alive.votes),
        )
        told.append(Event.of(row, until_index=None, event=life))

    for label, alive in sorted(state.alive.items()):
        if row.ended or row.index - alive.last > 2:
            tell(label, alive, "close")
            del state.alive[label]
    said = [(e.label, s) for s, r in row.of.items() if isinstance(r, Detection) for e in r.events or ()]
    for label, model in sorted(said):
        alive = state.alive.get(label) or Alive(state.next, row.index, [])
        new = label not in state.alive
        state.next += new
        alive.last, alive.votes = row.index, [*alive.votes, (model, row.index)]
        state.alive[label] = alive
        tell(label, alive, "open" if new else "update")
    return told, state


class Describe(Each):
    reads, writes = ("events",), ("descriptions",)

    def __init__(self, ask: Ask) -> None:
        self.ask = ask

    async def handle(self, record: Event, look: Look) -> Description:
        if record.event is None or record.event.state != "close":
            return Description.of(record, outcome="skipped", reason="not closed")
        return Description.of(record, fields={"labels": await self.ask("describe", record)})
