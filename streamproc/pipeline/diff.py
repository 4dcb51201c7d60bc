"""Two streams beside each other: what both found, what only one did, and what they call or place otherwise.

They are compared over the time that both have looked at. Pairs are made one to one: the same label first, nearest in time
first; what is left over is paired by time alone, where both speak of one moment. Which is right, nobody knows here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from streamproc.messages import Caption, Source
from streamproc.pipeline.exporting import Landed
from streamproc.pipeline.progress import Progress
from streamproc.ranges import Ranges

Kind = Literal["same", "moved", "relabelled", "only in the first", "only in the second"]
KINDS: tuple[Kind, ...] = ("same", "moved", "relabelled", "only in the first", "only in the second")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that a stream found."""

    id: str
    label: str
    team: str | None
    time_ms: int
    text: str | None
    confidence: float | None

    @property
    def called(self) -> tuple[str, str]:
        return self.label.casefold(), (self.team or "").casefold()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    kind: Kind
    first: Item | None
    second: Item | None

    @property
    def time_ms(self) -> int:
        one = self.first or self.second
        assert one is not None, "a row is of somebody"
        return one.time_ms

    @property
    def text_changed(self) -> bool:
        return self.first is not None and self.second is not None and self.first.text != self.second.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    rows: Sequence[Row]
    """In the order of time."""
    common: Ranges
    """Stream time that both have looked at, in ms."""
    outside: tuple[int, int]
    """How many of each lie elsewhere, and are not compared."""
    captions: tuple[int, int]
    """Windows that both have described, and those that they describe otherwise."""

    def sums(self) -> dict[str, int]:
        counted = Counter(row.kind for row in self.rows)
        return {kind: counted[kind] for kind in KINDS} | {"text changed": sum(r.text_changed for r in self.rows)}


def diff(first: Landed, second: Landed, progress: Progress, *, within_ms: int, same_ms: int) -> Diff:
    """`within_ms`: how far apart one event may be told; `same_ms`: how far before it counts as moved."""
    common = _common(first, second, progress)
    here = [[i for i in items(one) if _inside(common, i.time_ms)] for one in (first, second)]
    outside = (len(items(first)) - len(here[0]), len(items(second)) - len(here[1]))
    rows = paired(here[0], here[1], within_ms=within_ms, same_ms=same_ms)
    return Diff(rows=rows, common=common, outside=outside, captions=_captions(first, second, common))


def items(landed: Landed) -> list[Item]:
    """Events that are believed; where a stream has none by its task, what its verdicts or incidents say."""
    found = [
        Item(
            id=f.event.id,
            label=f.event.label,
            team=f.event.team,
            time_ms=f.event.time_ms,
            text=f.event.details,
            confidence=f.confidence(),
        )
        for f in landed.found()
        if f.believed
    ]
    if any(_stage(s) == "dedup" for s in landed.source.services):
        return found
    judged = [v for v in landed.verdicts() if v.outcome == "done" and (v.label is not None or v.fields)]
    return [
        Item(
            id=v.id,
            label=v.label or "",
            team=None,
            time_ms=v.start_ms if v.time_ms is None else v.time_ms,
            text=_text(v.fields),
            confidence=v.confidence,
        )
        for v in judged
    ]


def _text(fields: Mapping[str, object] | None) -> str | None:
    return "; ".join(f"{name}: {value}" for name, value in sorted(fields.items())) if fields else None


def _stage(service: str) -> str:
    return service.partition(".")[0]


# time ---------------------------------------------------------------------------------------------------------------


def _common(first: Landed, second: Landed, progress: Progress) -> Ranges:
    return _and(_looked(first.source, progress), _looked(second.source, progress))


def _looked(source: Source, progress: Progress) -> Ranges:
    """What whoever finds things in it has done; an event may be told of any window, so all that look must have."""
    finders = [s for s in source.services if _stage(s) == "dedup"] or [
        s for s in source.services if _stage(s) == "locate"
    ]
    finders += [s for s in source.services if _stage(s) == "detect"]
    whole: Ranges | None = None
    for service in finders or source.services:
        done = progress.of(source, service).times("done")
        whole = done if whole is None else _and(whole, done)
    return whole or Ranges()


def _and(one: Ranges, other: Ranges) -> Ranges:
    both = one.copy()
    for lo, hi in one:
        for a, b in other.missing(lo, hi):
            both.remove(a, b)
    return both


def _inside(common: Ranges, time_ms: int) -> bool:
    return common.has(time_ms, time_ms + 1)


# pairs --------------------------------------------------------------------------------------------------------------


def paired(first: Sequence[Item], second: Sequence[Item], *, within_ms: int, same_ms: int) -> list[Row]:
    """The same in whatever order they are given."""
    a, b = (sorted(found, key=lambda i: (i.time_ms, i.label, i.id)) for found in (first, second))
    named = _nearest(a, b, within_ms, alike=lambda x, y: x.called == y.called)
    left = [i for i in range(len(a)) if i not in named], {j for j in range(len(b)) if j not in set(named.values())}
    moment = min(same_ms, within_ms)
    renamed = _nearest(a, b, moment, alike=lambda x, y: x.called != y.called, of=left[0], among=left[1])
    rows = [
        Row(kind="same" if abs(a[i].time_ms - b[j].time_ms) <= same_ms else "moved", first=a[i], second=b[j])
        for i, j in named.items()
    ]
    rows += [Row(kind="relabelled", first=a[i], second=b[j]) for i, j in renamed.items()]
    rows += [Row(kind="only in the first", first=a[i], second=None) for i in left[0] if i not in renamed]
    rows += [Row(kind="only in the second", first=None, second=b[j]) for j in sorted(left[1] - set(renamed.values()))]
    return sorted(rows, key=lambda r: (r.time_ms, KINDS.index(r.kind)))


def _nearest(
    a: Sequence[Item],
    b: Sequence[Item],
    within_ms: int,
    *,
    alike: Callable[[Item, Item], bool],
    of: Iterable[int] | None = None,
    among: set[int] | None = None,
) -> dict[int, int]:
    """Pairs of the two that are alike and no further apart, the nearest first. Both in the order of time."""
    candidates, low = list[tuple[int, int, int]](), 0
    for i in range(len(a)) if of is None else of:
        while low < len(b) and b[low].time_ms < a[i].time_ms - within_ms:
            low += 1
        for j in range(low, len(b)):
            if b[j].time_ms > a[i].time_ms + within_ms:
                break
            if (among is None or j in among) and alike(a[i], b[j]):
                candidates.append((abs(a[i].time_ms - b[j].time_ms), i, j))
    found, taken = dict[int, int](), set[int]()
    for _, i, j in sorted(candidates):
        if i not in found and j not in taken:
            found[i] = j
            taken.add(j)
    return found


def _captions(first: Landed, second: Landed, common: Ranges) -> tuple[int, int]:
    """By the moment at which a window begins; of several models each by itself."""

    def told(landed: Landed) -> list[Caption]:
        return [c for c in landed.of("captions") if c.outcome == "done" and _inside(common, c.start_ms)]

    said = told(first), told(second)
    alone = all(len({c.model for c in captions}) == 1 for captions in said)  # one each: whoever it is
    one, other = ({(c.start_ms, "" if alone else c.model): c for c in captions} for captions in said)
    both = one.keys() & other.keys()
    changed = sum((one[at].text, one[at].fields) != (other[at].text, other[at].fields) for at in both)
    return len(both), changed
