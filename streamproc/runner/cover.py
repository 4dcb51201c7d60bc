"""Coverage: what one service has accounted for in one sequence, by the hour of stream time.

Kept in two ways, because two readers need it: by number (pacing, joins: exact) and by time (people). An hour that is
settled, with every number below its end taken, is final: it stays in the topic and leaves the state.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from streamproc.messages import Coverage, Outcome, Record, Source
from streamproc.ranges import Ranges
from streamproc.stage import Row

HOUR_MS = 3_600_000

Pairs = list[tuple[int, int]]


class HourState(Struct, array_like=True, frozen=True):
    """One hour as it is kept in the state."""

    done: Pairs
    failed: Pairs
    skipped: Pairs
    taken: Pairs
    ended: int | None
    settled: int
    end_ms: int = 0


class Hour:
    """One hour of one sequence."""

    __slots__ = ("by_outcome", "count", "end_ms", "hour", "taken")

    def __init__(self, hour: int, state: HourState | None = None) -> None:
        self.hour = hour
        self.by_outcome: dict[Outcome, Ranges] = {
            "done": Ranges(state.done if state else ()),
            "failed": Ranges(state.failed if state else ()),
            "skipped": Ranges(state.skipped if state else ()),
        }
        self.taken = Ranges(state.taken if state else ())
        self.count = state.ended if state else None
        self.end_ms = state.end_ms if state else 0
        """Of the stream, where its end was heard in this hour."""

    def state(self, settled: int) -> HourState:
        by = self.by_outcome
        times = (by["done"].pairs(), by["failed"].pairs(), by["skipped"].pairs())
        return HourState(*times, self.taken.pairs(), self.count, settled, self.end_ms)


class Cover:
    """All of one sequence (service, root, stream, generation) that is not settled."""

    __slots__ = ("count", "end_ms", "generation", "hours", "on_grid", "root", "settled", "stream", "touched")

    def __init__(self, root: str, stream: str, generation: int) -> None:
        self.root, self.stream, self.generation = root, stream, generation
        self.hours: dict[int, Hour] = {}
        self.touched: set[int] = set()
        self.settled = 0
        self.count: int | None = None
        self.end_ms = 0
        self.on_grid = True
        """Numbers stand for stretches of time, without holes. Those of events do not: between two of them nothing is missing."""

    def load(self, hour: int, state: HourState) -> None:
        self.hours[hour] = Hour(hour, state)
        self.settled = max(self.settled, state.settled)
        if state.ended is not None:
            self.count, self.end_ms = state.ended, state.end_ms

    @property
    def end(self) -> int:
        """One past the last number that has an outcome."""
        return max([self.settled, *(hour.taken.end for hour in self.hours.values())])

    def untaken(self, index: int, until: int) -> list[tuple[int, int]]:
        """The parts of [index, until) that have no outcome so far."""
        taken = Ranges([(0, self.settled)])
        for hour in self.hours.values():
            taken |= hour.taken
        return taken.missing(index, until)

    def owes_from(self, first: int) -> None:
        """Numbers below `first` are nobody's business: the service was not named there."""
        if not self.hours and first > self.settled:
            self.settled = first

    def add(self, place: Record | Row, outcome: Outcome, source: Source | None) -> None:
        """`place` has its one outcome now."""
        count = next((r.count for r in place.of.values() if r.ended), None) if isinstance(place, Row) else place.count
        grid = source.grid if source is not None and source.grid.root == place.root else None
        self.on_grid = grid is not None or source is None
        low = grid.starts_ms(place.index) if grid else place.start_ms
        high = grid.starts_ms(place.until) if grid else place.end_ms
        if count is not None:
            self.count, self.end_ms, high = count, place.end_ms, low
            self._reach_the_end(low)
            self._end_early(low)
        elif place.until == self.count:
            high = self.end_ms or place.end_ms  # the last one accounts for everything to its end
        hour = self._hour(low)
        hour.taken.add(place.index, place.until)
        while low < high:
            cut = min(high, (low // HOUR_MS + 1) * HOUR_MS)
            self._hour(low).by_outcome[outcome].add(low, cut)
            low = cut
        if count is not None:
            hour.count, hour.end_ms = count, self.end_ms

    def _reach_the_end(self, last_ms: int) -> None:
        """The last window came before `ended`: what it accounts for reaches to the end of the stream."""
        if not (self.end_ms > last_ms > 0) or not (hour := self.hours.get((last_ms - 1) // HOUR_MS)):
            return
        for outcome, ranges in hour.by_outcome.items():
            if ranges.has(last_ms - 1, last_ms):
                self._hour(last_ms).by_outcome[outcome].add(last_ms, self.end_ms)
                return

    def _end_early(self, last_ms: int) -> None:
        """The last window came before `ended`, and its step reaches beyond the end of the stream."""
        for number in range(self.end_ms // HOUR_MS, (last_ms - 1) // HOUR_MS + 1):
            if self.end_ms and (hour := self.hours.get(number)):
                for ranges in hour.by_outcome.values():
                    ranges.remove(self.end_ms, last_ms)
                self.touched.add(number)

    def _hour(self, ms: int) -> Hour:
        number = ms // HOUR_MS
        self.touched.add(number)
        if not (hour := self.hours.get(number)):
            hour = self.hours[number] = Hour(number)
        return hour

    def settle(self, unowed: Callable[[int, int], bool]) -> list[int]:
        """Hours that are final: every number up to the beginning of a later hour is taken, or `unowed`. They may be forgotten."""
        numbers = sorted(self.hours)
        forgotten: list[int] = []
        for i, number in enumerate(numbers[:-1]):
            taken = self.hours[number].taken
            begins = next((t.pairs()[0][0] for n in numbers[i + 1 :] if (t := self.hours[n].taken)), None)
            if number in self.touched or begins is None or begins < taken.end:
                break  # it is spoken of in this landing, and the next one forgets it
            if not all(unowed(lo, hi) for lo, hi in taken.missing(self.settled, begins)):
                break  # something is still out
            self.settled = max(self.settled, begins)
            forgotten.append(number)
        for number in forgotten:
            del self.hours[number]
        return forgotten

    def record(self, service: str, number: int) -> Coverage:
        hour = self.hours[number]
        by = hour.by_outcome
        said = by["done"] | by["failed"] | by["skipped"]
        return Coverage(
            id=f"{service}/{self.root}/{self.stream}/{self.generation}/{number}",
            stream=self.stream,
            service=service,
            root=self.root,
            generation=self.generation,
            hour=number,
            ended=hour.count is not None,
            count=hour.count,
            done=tuple(by["done"].pairs()),
            failed=tuple(by["failed"].pairs()),
            skipped=tuple(by["skipped"].pairs()),
            missing=tuple(said.missing(min((lo for lo, _ in said), default=0), said.end)) if self.on_grid else (),
            taken=tuple(hour.taken.pairs()),
        )


def sub_key(record: Coverage) -> tuple[str, ...]:
    """The rest of a coverage record's key behind the stream."""
    return (record.service, record.root, str(record.generation), str(record.hour))


class Accounted:
    """All hours of one service and stream taken together, as readers see them."""

    def __init__(self) -> None:
        self.taken = Ranges()
        self.count: int | None = None

    def hear(self, record: Coverage) -> None:
        for lo, hi in record.taken:
            self.taken.add(lo, hi)
        if record.count is not None:
            self.count = record.count

    @property
    def complete(self) -> bool:
        """Every number, the end included, has its outcome."""
        return self.count is not None and self.taken.has(0, self.count + 1)
