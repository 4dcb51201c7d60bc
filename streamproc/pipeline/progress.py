"""What every service has accounted for of every stream, as the coverage table says. Whoever shows it decides what matters."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise, product

from streamproc import wire
from streamproc.bus.contract import Bus
from streamproc.errors import Unparseable
from streamproc.messages import Coverage, Source
from streamproc.pipeline.parts import rooted
from streamproc.ranges import Ranges
from streamproc.topics import topic
from streamproc.wire import Stored

KINDS = ("done", "failed", "skipped")
GRID = "decode"
"""Whose numbers are windows."""


class Account:
    """One service and one stream: all its hours taken together, of every sequence whose numbers it answers.

    Mostly that is one. A describer of incidents and events answers two, and is not through before both are.
    """

    def __init__(self, owes: Iterable[str] = ()) -> None:
        """`owes`: whose numbers it will answer, also those of which nothing has been heard."""
        self.owes = frozenset(owes)
        self.unowed = Ranges()
        """Windows that it answers for under no revision: it was named later, or for a while it was not."""
        self._taken: dict[str, Ranges] = {}
        self._counts: dict[str, int] = {}
        self._hours: dict[tuple[int, str], Coverage] = {}

    def hear(self, hour: Coverage) -> None:
        """An hour is said whole each time, and what it has only grows."""
        self._hours[hour.hour, hour.root] = hour
        taken = self._taken.setdefault(hour.root, Ranges())
        for first, until in hour.taken:
            taken.add(first, until)
        if hour.count is not None:
            self._counts[hour.root] = hour.count

    @property
    def numbers(self) -> Ranges:
        """Those that have an outcome; of several sequences those that have one in any."""
        found = Ranges()
        for taken in self._taken.values():
            found = found | taken
        return found

    @property
    def root(self) -> str | None:
        """Whose numbers they are; None where they are several services'."""
        return next(iter(self._taken)) if len(self._taken) == 1 else None

    @property
    def answered(self) -> int:
        """How many outcomes there are, ends included."""
        return sum(taken.total for taken in self._taken.values())

    @property
    def count(self) -> int | None:
        """How many numbers there are; None before every sequence has said so."""
        roots = self.owes | self._taken.keys()
        if not roots or not all(root in self._counts for root in roots):
            return None
        return sum(self._counts[root] + 1 for root in roots) - 1

    def complete(self, first: int = 0) -> bool:
        """Every number from the first that is owed, the end included, has its outcome."""
        return self.count is not None and all(self._whole(root, count, first) for root, count in self._counts.items())

    def _whole(self, root: str, count: int, first: int) -> bool:
        """Numbers that are no windows tell nothing of when they were: of those, all from the first that has an answer."""
        taken = self._taken[root]
        if self.unowed and root != GRID:
            return taken.has(min((lo for lo, _ in taken), default=0), count + 1)
        return (taken | self.unowed).has(first, count + 1)

    def times(self, kind: str) -> Ranges:
        """`done`, `failed`, `skipped` or `missing`, in stream time."""
        return Ranges(stretch for _, hour in sorted(self._hours.items()) for stretch in getattr(hour, kind))

    def seconds(self, kind: str) -> float:
        return self.times(kind).total / 1000

    @property
    def front_ms(self) -> int:
        """How far it has come in stream time."""
        return max((end for h in self._hours.values() for k in KINDS for _, end in getattr(h, k)), default=0)


class Progress:
    """Of all streams of a bus, followed. Made by `followed`."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, int], dict[str, Account]] = defaultdict(dict)
        self._revisions: dict[tuple[str, int], dict[int, tuple[int, frozenset[str]]]] = defaultdict(dict)
        """Revision → the first number it is in force for, and the services it names."""
        self._moved = asyncio.Event()

    def of(self, source: Source, service: str) -> Account:
        account = self._accounts[source.stream, source.generation].get(service) or Account()
        account.owes = frozenset(rooted(service, source.services))
        account.unowed = self._unowed(source, service)
        return account

    def _unowed(self, source: Source, service: str) -> Ranges:
        found = Ranges()
        revisions = sorted(self._revisions[source.stream, source.generation].items())
        for (_, (first, services)), (_, (until, _)) in pairwise(revisions):
            if service not in services:
                found.add(first, until)
        return found

    def services(self, source: Source) -> list[str]:
        """Those that have spoken."""
        return sorted(self._accounts[source.stream, source.generation])

    def complete(self, source: Source, services: Iterable[str]) -> bool:
        return all(self.of(source, service).complete() for service in services)

    async def moved(self, *, within_s: float) -> None:
        """Back when something has been heard since the last time, or after a while."""
        try:
            async with asyncio.timeout(within_s):
                await self._moved.wait()
        except TimeoutError:
            return
        self._moved.clear()

    def hear(self, stored: Stored) -> None:
        if stored.value is None:
            return
        try:
            hour: Coverage | Source = wire.decode(topic(stored.topic), stored)
        except Unparseable:
            return  # the one before stays in force; `topics tail` shows this one, with the reason
        if isinstance(hour, Source):
            there = self._revisions[hour.stream, hour.generation]
            there[hour.revision] = hour.from_index if hour.revision else 0, frozenset(hour.services)
            return
        accounts = self._accounts[hour.stream, hour.generation]
        accounts.setdefault(hour.service, Account()).hear(hour)
        self._moved.set()


@asynccontextmanager
async def followed(bus: Bus) -> AsyncIterator[Progress]:
    progress = Progress()
    stops = []
    for name, p in product(("sources", "coverage"), range(bus.partitions)):
        table = await bus.follow(name, p)
        for stored in table.under(b""):
            progress.hear(stored)
        stops.append(table.on_change(progress.hear))
    try:
        yield progress
    finally:
        for stop in stops:
            stop()
