"""Hundreds of seeds of the real runner in bad weather; and that each promise is really watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest

from streamproc.bus.contract import Landing
from streamproc.runner import book as book_module
from streamproc.runner import runner as runner_module
from streamproc.runner import service as service_module
from streamproc.runner.book import Book
from streamproc.runner.guards import Guards
from streamproc.runner.runner import Runner
from streamproc.runner.tail import Tail
from tests.bus.memory import MemoryBus, MemoryLease
from tests.sim.simulate import simulate
from tests.sim.world import Weather

SMALL = Weather(streams=2, windows=12, kills=5)
HARSH = Weather(streams=2, windows=16, kills=10, zombies=0.4, hand_over_s=2.0)
SLEEPY = replace(HARSH, windows=32, kills=20, zombies=0.6)
"""Many who wake up with work in hand that others have done by then."""
COMING_AND_GOING = Weather(streams=2, windows=16, kills=8, zombies=0.0, drains=0.3, joins=0.7, abrupt=0.0)
TORN_AND_REMOVED = Weather(streams=3, windows=16, kills=10, torn=0.1, lives=0.7)

WEATHERS = {
    "kills, zombies and drains": SMALL,
    "mostly zombies, and ends that nobody sees": replace(SMALL, zombies=0.6, unseen=0.1),
    "many who join, and some of them die": replace(SMALL, joins=0.6, drains=0.0),
    "tables that hear late": replace(SMALL, table_lag_s=0.5),
    "torn landings, as a broken broker makes them": replace(SMALL, torn=0.03),
    "torn landings, and streams that are removed": TORN_AND_REMOVED,
    "streams that are removed and added again": replace(SMALL, lives=0.7, table_lag_s=0.3),
    "a bus that often does not answer": replace(SMALL, away=0.1),
    "contexts that come too late": replace(SMALL, impatient=True),
    "a longer run with many kills": Weather(streams=3, windows=24, kills=15),
}


def seeds(numbers: range, weather: Weather) -> None:
    for seed in numbers:
        simulate(seed, weather)


@pytest.mark.parametrize("weather", WEATHERS.values(), ids=WEATHERS.keys())
def test_nothing_is_lost_or_doubled_and_no_landed_call_is_repeated(weather: Weather) -> None:
    seeds(range(40), weather)


def test_the_same_seed_takes_the_same_way() -> None:
    one, other = (simulate(7, WEATHERS["kills, zombies and drains"]) for _ in range(2))
    assert one.asked == other.asked
    assert one.allowed == other.allowed


def test_without_kills_no_call_is_repeated_at_all() -> None:
    for seed in range(20):
        assert simulate(seed, Weather(streams=2, windows=16, kills=0)).repeated == 0


def test_joins_leaves_and_drains_repeat_no_call() -> None:
    for seed in range(40):
        world = simulate(seed, COMING_AND_GOING)
        assert world.allowed.total() == 0
        assert world.repeated == 0


# planted bugs: each promise is watched ------------------------------------------------------------------------------


class NoGuard(Guards):
    """Forgets which numbers were taken: what is read again after a takeover is done again."""

    def taken(self, sequence: object, index: int, until: int) -> bool:
        return False

    def untaken(self, sequence: object, index: int, until: int) -> list[tuple[int, int]]:
        return [(index, until)]


class ParkedInMemoryOnly(Book):
    """A parked record counts as read, and is not in the state."""

    def park(self, at, stream, parked) -> None:  # type: ignore[no-untyped-def]
        self.parked[at] = parked


class LostOutput(MemoryLease):
    """A send that nobody waits for: refused, while the progress lands."""

    def apply(self, landing: Landing) -> None:
        if landing.serial % 3 == 0 and landing.outputs:
            landing.outputs.pop()
        super().apply(landing)


class ReadBeforeFenced(MemoryLease):
    """Progress and state are read while the owner before can still land: it lands once more, and then it is fenced."""

    seen: ClassVar[dict[tuple[str, int], tuple[dict[str, bytes], dict[str, int]]]] = {}

    def apply(self, landing: Landing) -> None:
        self.seen[self.service, self.partition] = dict(self.ledger.state), dict(self.ledger.progress)
        super().apply(landing)

    def load(self) -> None:
        super().load()
        self.state, self.progress = self.seen.get((self.service, self.partition), (self.state, self.progress))


class StateOutside(MemoryLease):
    """State lands in a step of its own, and a crash can come between."""

    def apply(self, landing: Landing) -> None:
        state, landing.state = landing.state, {}
        super().apply(landing)

        def later() -> None:
            for key, value in state.items():
                if value is None:
                    self.ledger.state.pop(key, None)
                else:
                    self.ledger.state[key] = value

        self.bus.later(0.5, later)


class NeverFenced(MemoryLease):
    """Results land after the lease was lost."""

    async def land(self, landing: Landing) -> None:
        await self.bus.breath(self.log.landing_s)
        self.apply(landing)
        self.serial = landing.serial


class TakenAtOnce(MemoryLease):
    """What another should have is taken from an owner who is alive."""

    def want(self) -> bool:
        return False


class Hasty(Runner):
    """Releases without waiting for what is under way."""

    async def _finish(self) -> None:
        self.way.stop()


class Deaf(Runner):
    """Does not hear that its lease is wanted."""

    async def _until_wanted(self) -> None:
        await asyncio.Event().wait()


def _book(planted: type[Book]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(runner_module, "Book", planted)


def _guards(planted: type[Guards]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(book_module, "Guards", planted)


def _lease(planted: type[MemoryLease]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(MemoryBus, "lease_type", planted)


def _runner(planted: type[Runner]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(service_module, "Runner", planted)


PLANTED = {
    "the guard is off": _guards(NoGuard),
    "a parked record is not in the state": _book(ParkedInMemoryOnly),
    "an un-awaited send": _lease(LostOutput),
    "progress is read before fencing": _lease(ReadBeforeFenced),
    "state landed outside the transaction": _lease(StateOutside),
    "results landed after the lease was lost": _lease(NeverFenced),
    "a wanted lease is taken at once": _lease(TakenAtOnce),
    "a wanted lease is released with calls under way": _runner(Hasty),
    "nobody listens whether a lease is wanted": _runner(Deaf),
}


def harsh() -> None:
    seeds(range(60), HARSH)
    seeds(range(20), SLEEPY)


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_bug_is_caught(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    ReadBeforeFenced.seen.clear()
    with pytest.raises(AssertionError):  # a promise of the oracle, or Stuck
        harsh()


def test_an_owner_that_does_not_look_what_a_torn_landing_has_left_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def blind(self: Tail) -> None:
        pass

    monkeypatch.setattr(Tail, "adopt", blind)
    with pytest.raises(AssertionError):
        seeds(range(40), TORN_AND_REMOVED)


def test_what_catches_the_planted_bugs_passes_without_them() -> None:
    harsh()
