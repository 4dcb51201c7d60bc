"""What the author of a stage writes. No bus, no loop, no retry, no clock: the runner owns those.

How a stage works is the class it inherits:

    Each     every record by itself, many at once, in any order
    Rounds   the same by several calls, one after the other; what each of them has brought lands
    Fold     one row after the other per stream, in index order, with keyed state
    Follow   one run per stream of the newest version of its record in a table

What a class here leaves to its author raises NotImplementedError: it is no hole, but the part of the contract that only a
stage can fill. Handlers answer, or raise by class: `Retryable`, `Rejected`, `Fatal`; or `NotYet`, when a table has no such key so far.
Records are built with `Caption.of(window, text=…)`: the place comes from the input, who speaks is filled in by the runner.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from streamproc.messages import Outcome, Record, Source


class Look(Protocol):
    """What a handler may look up: tables, as far as this process has heard of them."""

    def source(self, record: Record | Row) -> Source:
        """Exactly the revision that the record was made under."""

    def get(self, topic: str, stream: str, *sub: str) -> Any | None:
        """The newest record of a key of a table that the stage names in `tables`."""

    def expect(self, topic: str, stream: str, *sub: str, within_s: float) -> Any | None:
        """The same, but the record in hand waits for it; None once one has waited `within_s` in vain."""


class Pace(Look, Protocol):
    """What a `Follow` may wait for, and what it must know of a source's revisions."""

    def in_force(self, stream: str, generation: int, index: int) -> Source | None:
        """The revision that an index is made under: a function of the table, not of who heard of it when."""

    def room(self, source: Source, index: int, *, ahead: int) -> Awaitable[None]:
        """Back when no running service that reads what we write is `ahead` or more behind index."""

    def behind(self, source: Source, index: int) -> Awaitable[int]:
        """How many numbers before index the slowest running service that reads what we write has still to answer."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Row:
    """What every named service says of [index, until) of a stream. Failed, skipped and gap rows are rows: time moves.

    All attempts at a row are given the same one, and so is `otherwise`: a stage may know it again for as long as it is there.
    """

    root: str
    stream: str
    generation: int
    revision: int
    index: int
    until: int
    start_ms: int
    end_ms: int
    utc: str | None
    of: Mapping[str, Record]
    """Service → its record, in the order of names."""

    @property
    def until_index(self) -> int | None:
        return None if self.until == self.index + 1 else self.until

    @property
    def ended(self) -> bool:
        return any(r.ended for r in self.of.values())

    @property
    def outcome(self) -> Outcome:
        """Done where one service is, else failed where one is, else skipped."""
        said = {r.outcome for r in self.of.values()}
        return "done" if "done" in said else "failed" if "failed" in said else "skipped"


class Stage:
    """What every stage says of itself."""

    reads: ClassVar[tuple[str, ...]]
    """Topics."""
    writes: ClassVar[tuple[str, ...]]
    """Topics; the first is where its outcomes go."""
    tables: ClassVar[tuple[str, ...]] = ()
    """Topics it looks things up in, beside `sources`."""
    version: ClassVar[int] = 1
    """Of its keyed state. State of a newer version is refused, so that upgrades can roll."""


class Each(Stage):
    """Every record by itself, many at once, in any order.

    `handle` is a coroutine where there is something to wait for; a plain function costs less where there is not.
    Of a topic that holds no records (bare bytes) the handler gets the stored entry and answers with an entry.
    """

    def handle(self, record: Any, look: Look) -> Any:
        """The outcome, or an awaitable of it."""
        raise NotImplementedError

    def otherwise(self, record: Any, outcome: Outcome, reason: str) -> Record | None:  # noqa: ARG002  # for authors to override
        """What to say where `handle` could not; None: an outcome with the reason and nothing else."""
        return None


class Rounds(Each):
    """An `Each` that makes several calls for one record. What is known after a call lands, so that a kill repeats one call
    and not all before it.
    """

    SoFar: ClassVar[Any] = Any
    """Of this type; msgspec packs it. It changes with `version`, as a fold's state does."""

    async def round(self, record: Any, so_far: Any, look: Look) -> Any:
        """One call: the outcome, or what is known now, and the next round begins with that. None is known at first."""
        raise NotImplementedError

    async def handle(self, record: Any, look: Look) -> Any:
        """All rounds at once, for those who have no runner."""
        so_far: Any = None
        while not isinstance(so_far, Record):
            so_far = await self.round(record, so_far, look)
        return so_far


class Fold(Stage):
    """One row after the other per stream, in index order, with state.

    State is whatever msgspec packs, of type `State`; the same rows give the same records, however they came.
    """

    State: ClassVar[Any] = Any

    def joins(self, source: Source) -> tuple[str, ...]:
        """Services whose records make a row, of those that `source` names."""
        raise NotImplementedError

    def counts(self, source: Source, root: str) -> bool:  # noqa: ARG002  # for authors to override
        """Whether the numbers of `root` are those it goes by, where joined services speak of several sequences."""
        return True

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[Sequence[Record], Any]:
        """Records to write (the runner numbers them) and the state after the row. State is None at a stream's beginning."""
        raise NotImplementedError

    def otherwise(self, row: Row, state: Any, outcome: Outcome, reason: str) -> tuple[Sequence[Record], Any]:  # noqa: ARG002  # for authors to override
        """What to write where `fold` could not."""
        return [], state

    def sub(self, record: Any, number: int) -> str:  # noqa: ARG002  # for authors to override
        """Where it writes a table: the key of a record behind the generation, by which others look it up."""
        return str(number)


class Follow(Stage):
    """One run per stream of the newest version of its source; numbers its records itself, from 0.

    What is yielded lands together: records and the cursor behind them. A newer version, a restart or an error begins
    a run again at the last cursor; a new generation begins at None. The run that returns is over until the next version.
    """

    Cursor: ClassVar[Any] = Any

    def run(self, source: Source, cursor: Any, look: Pace) -> AsyncIterator[tuple[Sequence[Record], Any]]:
        raise NotImplementedError

    def otherwise(self, source: Source, cursor: Any, reason: str) -> tuple[Sequence[Record], Any]:  # noqa: ARG002  # for authors to override
        """What to write where a run was rejected for good, before it is over."""
        return [], cursor

    def silent_s(self) -> Mapping[str, float]:
        """Stream → since when the feed that is followed here now has brought nothing; for whoever watches the process."""
        return {}
