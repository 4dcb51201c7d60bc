"""What a replay will cost, before it begins: what the same range cost the original, at the prices of whoever is asked now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamproc.messages import Answer, Record, Tokens
from streamproc.models.card import Price
from streamproc.pipeline.parts import DECODE, PARTS, Plan
from streamproc.pipeline.replay import Replay
from streamproc.pipeline.replay_archive import Archive
from streamproc.pipeline.replay_range import WINDOWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Of one service."""

    service: str
    calls: int
    tokens_in: int | None
    """None: the original has asked nothing like it, so nobody knows."""
    tokens_out: int | None
    money: float | None
    """None: its model has no price, or nobody knows the tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    stream: str
    windows: int
    expired: int
    shares: tuple[Share, ...]

    @property
    def calls(self) -> int:
        return sum(s.calls for s in self.shares)

    @property
    def tokens(self) -> int:
        return sum((s.tokens_in or 0) + (s.tokens_out or 0) for s in self.shares)

    @property
    def money(self) -> float:
        return sum(s.money or 0.0 for s in self.shares)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Services of which only the calls are known."""
        return tuple(s.service for s in self.shares if s.tokens_in is None)


async def estimate(archive: Archive, replay: Replay, prices: Mapping[str, Price]) -> Estimate:
    left = replay.windows - replay.expired
    shares = [await _share(archive, replay, p, prices.get(p.model)) for p in replay.redone if p.model is not None]
    return Estimate(stream=replay.source.stream, windows=left, expired=replay.expired, shares=tuple(shares))


async def _share(archive: Archive, replay: Replay, plan: Plan, price: Price | None) -> Share:
    kind, original = PARTS[plan.stage].kind, replay.original
    of_windows = WINDOWS in kind.reads and plan.stage != "context"
    begin_ms = replay.revisions[0].grid.starts_ms(0)
    said: dict[str, list[Answer]] = {}
    for record in await archive.results(kind.writes[0], original.stream, original.generation):
        inside = _of_range(record, replay, begin_ms)
        if isinstance(record, Answer) and record.tokens is not None and inside and _alike(record.service, plan):
            said.setdefault(record.service, []).append(record)
    answers = said.get(plan.service) or next(iter(said.values()), [])
    tokens = [a.tokens for a in answers if a.tokens is not None]
    calls = replay.windows - replay.expired if of_windows else len(answers)
    if not tokens:
        return Share(service=plan.service, calls=calls, tokens_in=None, tokens_out=None, money=None)
    whole = Tokens(
        into=sum(t.into for t in tokens), cached=sum(t.cached for t in tokens), out=sum(t.out for t in tokens)
    )
    share = calls / len(tokens)
    cost = price.of(into=whole.into, cached=whole.cached, out=whole.out) * share if price else None
    return Share(
        service=plan.service,
        calls=calls,
        tokens_in=round(whole.into * share),
        tokens_out=round(whole.out * share),
        money=cost,
    )


def _of_range(record: Record, replay: Replay, begin_ms: int) -> bool:
    """Who answers what is said again goes by its numbers, and by that of what is closed where the range ends."""
    original = replay.original
    if record.root != DECODE and record.root in original.ranges:
        lo, hi = original.ranges[record.root]
        closed = [(left.last.root, left.closed_at) for left in replay.left]
        return lo <= record.index < hi or (record.root, record.index) in closed
    at_its_end = record.start_ms == record.end_ms == original.end_ms
    return begin_ms <= record.start_ms < original.end_ms or at_its_end


def _alike(service: str, plan: Plan) -> bool:
    """The same stage and preset, of whatever model."""
    stage, _, rest = service.partition(".")
    return stage == plan.stage != DECODE and (plan.preset is None or rest.rpartition(".")[2] == plan.preset)
