"""Which prediction answers which truth: every truth in order of time takes the surest one left within its reach.

That is the rule of the official evaluation, ties to the earlier one. It has a use beyond it: leaving out all predictions
below some confidence takes away their matches and changes no other, so one matching gives the whole curve of thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from streamproc.score.spots import Floats, Ints

NONE = -1
FEW = 8
"""Below so many at once, one after the other is faster than all together."""


def axis(group: Ints, at: Ints, *, span: int) -> Ints:
    """One line for all groups, so far apart that nothing reaches from one into the next. `span` > largest `at` + reach."""
    return group * span + at


def greedy(truth: Ints, predicted: Ints, confidence: Floats, *, reach: int) -> Ints:
    """For each truth the row of the prediction it takes, or NONE. Both on one axis (see `axis`), sorted; ends included.

    Truths that have no candidate in common do not see each other. So they are cut into chains that share candidates,
    and the first truths of all chains choose at once, then the second ones: the same choices as one after the other.
    """
    lo = np.searchsorted(predicted, truth - reach, side="left")
    hi = np.searchsorted(predicted, truth + reach, side="right")
    taken = np.full(len(truth), NONE, np.int64)
    free = confidence.copy()
    for rows in _rounds(lo, hi):
        best = _surest(free, lo[rows], hi[rows])
        there = free[best] > -np.inf
        taken[rows[there]] = best[there]
        free[best[there]] = -np.inf
    return taken


def _rounds(lo: Ints, hi: Ints) -> Iterator[Ints]:
    """Rows that have candidates: first the first of each chain, then the second of each …"""
    rows = np.flatnonzero(hi > lo)
    if not len(rows):
        return
    begins = np.concatenate(([True], lo[rows[1:]] >= hi[rows[:-1]]))
    places = np.arange(len(rows))
    rank = places - places[begins][np.cumsum(begins) - 1]
    by_rank = np.argsort(rank, kind="stable")
    yield from np.split(rows[by_rank], np.cumsum(np.bincount(rank))[:-1])


def _surest(values: Floats, lo: Ints, hi: Ints) -> Ints:
    """For each [lo, hi) the first row with the largest value."""
    if len(lo) <= FEW:
        return np.array([a + int(values[a:b].argmax()) for a, b in zip(lo, hi, strict=True)], np.int64)
    sizes = hi - lo
    starts = np.cumsum(sizes) - sizes
    rows = np.arange(sizes.sum()) + np.repeat(lo - starts, sizes)
    inside = values[rows]
    largest = np.flatnonzero(inside == np.repeat(np.maximum.reduceat(inside, starts), sizes))
    return rows[largest[np.searchsorted(largest, starts)]]  # type: ignore[no-any-return]
