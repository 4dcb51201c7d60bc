"""A run as people see it: how far every service is, what it costs, when it will be over; results as they come; a receipt.

On a terminal the state of things is drawn again and again below the results; in a pipe there are only results.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from streamproc.cli.frame import line, plain

if TYPE_CHECKING:
    from rich.live import Live

    from streamproc.messages import Source
    from streamproc.models.budget import Spent
    from streamproc.models.card import Price
    from streamproc.models.desk import Record
    from streamproc.pipeline.process import Process
    from streamproc.pipeline.progress import Progress

DECODE = "decode"
KINDS = ("done", "failed", "skipped", "missing")
RATE_OVER_S = 20.0


@dataclass(slots=True)
class Spending:
    """What this process has asked of its models."""

    prices: Mapping[str, Price]
    budgets: Mapping[str, Spent] = field(default_factory=dict)
    """By their names."""
    calls: int = 0
    again: int = 0
    """Calls that failed, or went twice."""
    tokens_in: int = 0
    tokens_out: int = 0
    money: float = 0.0

    def hear(self, record: Record) -> None:
        self.calls += record.calls
        self.again += record.calls if record.hedge or record.outcome != "done" else 0
        if record.tokens is not None:
            self.tokens_in += record.tokens.into
            self.tokens_out += record.tokens.out
            if price := self.prices.get(record.model):
                told = record.tokens
                self.money += price.of(into=told.into, cached=told.cached, out=told.out)

    def told(self) -> str:
        said = f"{self.calls:,} calls"
        if self.again:
            said += f" ({self.again:,} of them failed or went twice)"
        said += f", {self.tokens_in:,} tokens in, {self.tokens_out:,} out"
        return said + (f", ${self.money:.2f}" if self.money else "")

    @property
    def left_out(self) -> int:
        """Calls that were not made, because a budget was spent."""
        return sum(spent.left_out for spent in self.budgets.values())

    def short(self) -> str:
        """What budgets did to this run; nothing where there was enough."""
        return "".join(
            f"; budget of {name}: {s.left_out:,} calls not made, {s.smaller:,} made smaller"
            for name, s in self.budgets.items()
            if s.left_out or s.smaller
        )


@dataclass(slots=True)
class Board:
    """How far everybody is. `totals`: stream → windows, where that is known beforehand."""

    progress: Progress
    sources: Sequence[Source]
    services: Sequence[str]
    totals: Mapping[str, int]
    spending: Spending
    process: Process | None = None
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, int, int | None, float, int, int]]:
        """Service, done, of how many, a second, in flight, failed seconds."""
        now, flying = self.clock(), self.process.in_flight() if self.process else {}
        found = []
        for service in self.services:
            mine = [s for s in self.sources if service in s.services]
            accounts = [self.progress.of(s, service) for s in mine]
            done = sum(a.answered for a in accounts)
            totals = [
                a.count + 1 if a.count is not None else self._expected(s, service)
                for a, s in zip(accounts, mine, strict=True)
            ]
            total = sum(t for t in totals if t is not None) if all(t is not None for t in totals) else None
            seen = self._seen.setdefault(service, deque())
            seen.append((now, done))
            while seen[0][0] < now - RATE_OVER_S:
                seen.popleft()
            (then, before), rate = seen[0], 0.0
            if now > then:
                rate = (done - before) / (now - then)
            failed = round(sum(a.seconds("failed") for a in accounts))
            found.append((service, done, total, rate, flying.get(service, 0), failed))
        return found

    def _expected(self, source: Source, service: str) -> int | None:
        """Those that answer windows have as many numbers as there are windows."""
        total = self.totals.get(source.stream)
        by_windows = service == DECODE or service in source.readers.get("windows", ())
        return total + 1 if total is not None and by_windows else None

    def left(self, source: Source, service: str) -> int:
        """Windows that a service has before it, as far as the file tells beforehand."""
        return max(0, self.totals.get(source.stream, 0) - self.progress.of(source, service).numbers.total)

    def receipt(self, *, complete: int, unreadable: int) -> dict[str, Any]:
        """What there is to say at the end, in numbers. `covered` is the share of who has looked at least: on average over
        all, a model that answered nothing would pass for half of it."""
        windows, failed, shares = 0, dict[str, float](), list[float]()
        for service in self.services:
            whole, good = 0.0, 0.0
            for source in (s for s in self.sources if service in s.services):
                account = self.progress.of(source, service)
                there = sum(account.seconds(kind) for kind in KINDS)
                bad = account.seconds("failed") + account.seconds("missing")
                if service == DECODE:
                    bad += account.seconds("skipped")
                    windows += account.numbers.total - (account.count is not None)
                if account.seconds("failed"):
                    failed[service] = round(failed.get(service, 0.0) + account.seconds("failed"), 3)
                if account.complete():
                    whole, good = whole + there, good + there - bad
                else:  # what it has yet to look at is as long as what there is, whether it has begun or not
                    decoded = self.progress.of(source, DECODE)
                    whole += max(there, sum(decoded.seconds(kind) for kind in KINDS), 0.001)
            if whole:  # else there was nothing to look at: no events, no verdicts
                shares.append(good / whole)
        told = self.spending
        return {
            "streams": len(self.sources) + unreadable,
            "complete": complete,
            "unreadable": unreadable,
            "windows": windows,
            "calls": told.calls,
            "calls_again": told.again,
            "tokens_in": told.tokens_in,
            "tokens_out": told.tokens_out,
            "money": round(told.money, 4),
            "budgets": {
                name: {
                    "tokens": s.tokens,
                    "calls": s.calls,
                    "money": round(s.money, 4),
                    "smaller": s.smaller,
                    "left_out": s.left_out,
                }
                for name, s in told.budgets.items()
            },
            "failed_s": failed,
            "covered": min(shares, default=1.0),
        }

    def left_s(self, rows: Sequence[tuple[str, int, int | None, float, int, int]]) -> float | None:
        """By the slowest of them, as fast as they are now."""
        waits = [(total - done) / rate for _, done, total, rate, _, _ in rows if total and rate > 0 and done < total]
        return max(waits, default=None)


class Screen:
    """Draws the board on a terminal; elsewhere it keeps silent."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *ended: Any) -> None:
        if self._live:
            self._live.__exit__(*ended)

    def draw(self) -> None:
        if not self._live:
            return
        from rich.table import Table
        from rich.text import Text

        board, rows = self.board, self.board.rows()
        table = Table("service", "windows", "a second", "in flight", "failed s", box=None, pad_edge=False)
        for service, done, total, rate, flying, failed in rows:
            of = f"{done:,} of {total:,}" if total else f"{done:,}"
            table.add_row(service, of, f"{rate:.1f}", str(flying or ""), Text(str(failed or ""), "red"))
        left = board.left_s(rows)
        foot = board.spending.told() + (f"; about {clock(left * 1000)} left" if left is not None else "")
        grid = Table.grid()
        grid.add_row(table)
        grid.add_row(Text(foot, "dim"))
        self._live.update(grid, refresh=True)

    def result(self, text: str) -> None:
        """A line of results, above what is drawn."""
        if self._live and sys.stdout.isatty():
            self._live.console.print(text, markup=False, highlight=False)
        else:
            line(text)
            sys.stdout.flush()


def clock(ms: float) -> str:
    """Stream time as people read it: 1:02:03.4"""
    tenths = round(ms / 100)
    seconds, tenth = divmod(tenths, 10)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    said = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{said}.{tenth}" if tenth else said


def shown(name: str, record: Any, *, live: bool) -> str | None:
    """A result as a line; None for what people need not see: the steps in between of a file's events, and gaps."""
    said = _said(name, record, live=live)
    return None if said is None else plain(said)


def _said(name: str, record: Any, *, live: bool) -> str | None:
    if name == "events" and record.event is not None:
        event = record.event
        if not live and event.state != "close":
            return None
        team = f" ({event.team})" if event.team else ""
        sure = f"  {event.confidence:.2f}" if event.confidence is not None else ""
        state = f"  {event.state}" if live else ""
        details = f"  {event.details}" if event.details else ""
        span = f"{when(record, event.start_ms)}–{when(record, event.end_ms)}"
        return f"{record.stream}  {span}  {event.label}{team}{sure}{state}{details}"
    if record.outcome != "done" or record.ended:
        return None
    at = when(record, record.start_ms)
    if name == "captions" and (record.text or record.fields):
        return f"{record.stream}  {at}  {record.text or record.fields}"
    if name == "detections" and record.events:
        return f"{record.stream}  {at}  {', '.join(e.label for e in record.events)}"
    if name == "verdicts" and (record.label or record.fields):
        said_ms = record.start_ms if record.time_ms is None else record.time_ms
        return f"{record.stream}  {when(record, said_ms)}  verdict  {record.label or record.fields}"
    return None


def when(record: Any, ms: int) -> str:
    """A moment of a record's stream: by the clock on this machine's wall where it is a feed, else from its beginning."""
    if record.utc is None:
        return clock(ms)
    moment = datetime.fromisoformat(record.utc) + timedelta(milliseconds=ms - record.start_ms)
    return f"{moment.astimezone():%H:%M:%S}"
