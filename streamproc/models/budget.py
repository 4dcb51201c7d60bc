"""What may be spent: calls a minute and a day as a provider allows them, and tokens, calls and money as their owner does.

A quota makes a call wait, and says until when. A budget makes calls smaller first and then stops them, in declared steps;
whoever asks gets the step in the answer's notes. Counts live as long as the process: each begins at nothing, and a
provider's own 429 corrects them.

    from 80 % on    one sample where several were asked for
    from 90 % on    every second frame
    spent           no call: its input is left out, `skipped` with the reason `budget`
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from streamproc.errors import LeftOut, Misconfigured
from streamproc.models.call import Call
from streamproc.models.prompt import thinned

SKIPPED: Final = "budget"
"""The reason of what is left out."""


class OverBudget(LeftOut):
    """The budget of a source or task is spent."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the budget of '{name}' is spent", reason=SKIPPED)


class Quota:
    """Calls that a provider allows. Minutes slide; days end at midnight UTC, as most providers' do."""

    def __init__(self, *, per_minute: int | None = None, per_day: int | None = None) -> None:
        for name, value in (("per_minute", per_minute), ("per_day", per_day)):
            if value is not None and value < 1:
                raise Misconfigured(f"{name} is {value}; a quota of nothing is no endpoint: leave it out")
        self.per_minute, self.per_day = per_minute, per_day
        self._minute, self._day, self._today = deque[float](), "", 0
        self._each = 1

    def wait_s(self, now: float, wall: float) -> float:
        """0, or how long until the next ask may start: one that takes as many calls as the last."""
        if self.per_day is not None:
            self._turn(wall)
            if self._today + min(self._each, self.per_day) > self.per_day:
                return until_midnight_s(wall)
        if self.per_minute is not None:
            while self._minute and now - self._minute[0] >= 60:
                self._minute.popleft()
            if (too_many := len(self._minute) + min(self._each, self.per_minute) - self.per_minute) > 0:
                return 60 - (now - self._minute[too_many - 1])
        return 0.0

    def started(self, now: float, wall: float, *, calls: int) -> None:
        """An ask that is known to take so many."""
        self._each = calls
        for _ in range(calls):
            self.another(now, wall)

    def another(self, now: float, wall: float) -> None:
        """A call more."""
        if self.per_minute is not None:
            self._minute.append(now)
        self._turn(wall)
        self._today += 1

    def _turn(self, wall: float) -> None:
        if (day := datetime.fromtimestamp(wall, UTC).date().isoformat()) != self._day:
            self._day, self._today = day, 0


def until_midnight_s(wall: float) -> float:
    now = datetime.fromtimestamp(wall, UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()


# budgets ------------------------------------------------------------------------------------------------------------

ONE_SAMPLE_AT: Final = 0.8
HALF_FRAMES_AT: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one source or task. None: no limit."""

    tokens: int | None = None
    calls: int | None = None
    money: float | None = None
    """In dollars, by the prices of the cards."""


@dataclass(slots=True)
class Spent:
    tokens: int = 0
    calls: int = 0
    money: float = 0.0
    answered: int = 0
    """Asks that had an answer, however many calls each of them took."""
    under_way: int = 0
    smaller: int = 0
    """Asks that were made with fewer samples or frames."""
    left_out: int = 0
    """Asks that were not made."""

    def with_what_is_under_way(self) -> tuple[float, float, float]:
        """Tokens, calls, money. What is under way will cost what others have: else a crowd that begins together would
        spend all before anybody has looked. Of the first nobody knows but that it is a call."""
        more = 1 + self.under_way / self.answered if self.answered else 1.0
        return self.tokens * more, self.calls + self.under_way, self.money * more


class Budgets:
    """Limits by name (`source:NAME`, `task:NAME`), and what of them is spent. A call may be on several names."""

    def __init__(self, limits: Mapping[str, Limits] | None = None) -> None:
        self._limits = dict(limits or {})
        self.spent: dict[str, Spent] = {name: Spent() for name in self._limits}

    def share(self, name: str) -> float:
        """Of the limit that is nearest: 0 is untouched, 1 spent."""
        if name not in self._limits:
            return 0.0
        limits = self._limits[name]
        tokens, calls, money = self.spent[name].with_what_is_under_way()
        pairs = ((tokens, limits.tokens), (calls, limits.calls), (money, limits.money))
        return max((have / most if most else 1.0 for have, most in pairs if most is not None), default=0.0)

    def within(self, call: Call, names: Iterable[str]) -> tuple[Call, tuple[str, ...]]:
        """The call as far as its budgets go, and what was left out. Raises OverBudget where they go nowhere."""
        if not (known := [n for n in names if n in self._limits]):
            return call, ()
        name = max(known, key=self.share)
        share, notes = self.share(name), list[str]()
        if share >= 1:
            self.spent[name].left_out += 1
            raise OverBudget(name)
        if share >= ONE_SAMPLE_AT and call.samples > 1:
            notes.append(f"1 of {call.samples} samples: {share:.0%} of the budget of '{name}' is spent")
            call = replace(call, samples=1)
        if share >= HALF_FRAMES_AT and (frames := len(call.prompt.pictures)) > 1:
            notes.append(f"{(frames + 1) // 2} of {frames} frames: {share:.0%} of the budget of '{name}' is spent")
            call = replace(call, prompt=thinned(call.prompt, (frames + 1) // 2))
        self.spent[name].smaller += bool(notes)
        return call, tuple(notes)

    def begin(self, names: Iterable[str]) -> None:
        """An ask is under way; `end` follows, whatever becomes of it."""
        for spent in self._of(names):
            spent.under_way += 1

    def end(self, names: Iterable[str], *, tokens: int, calls: int, money: float) -> None:
        for spent in self._of(names):
            spent.under_way, spent.answered = spent.under_way - 1, spent.answered + (tokens > 0)
            spent.tokens, spent.calls, spent.money = spent.tokens + tokens, spent.calls + calls, spent.money + money

    def _of(self, names: Iterable[str]) -> list[Spent]:
        return [self.spent[name] for name in names if name in self.spent]
