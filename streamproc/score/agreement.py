"""Who saw the same: sightings of several runs (models, samples, files) brought together in time and label, and kappa."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamproc.score.matching import NONE
from streamproc.score.spots import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Sightings:
    """What all runs say, as columns."""

    run: Ints
    part: Ints
    label: Ints
    time_ms: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """One row a thing seen. `rows[g, r]` is the sighting by which run r saw it, or NONE."""

    part: Ints
    label: Ints
    time_ms: Ints
    """Of the earliest sighting."""
    rows: Ints

    @property
    def found_by(self) -> Bools:
        return np.asarray(self.rows != NONE)

    @property
    def count(self) -> Ints:
        """How many runs saw each."""
        return np.asarray(self.found_by.sum(axis=1))


def group(seen: Sightings, *, runs: int, within_ms: int) -> Groups:
    """In order of time each sighting joins the oldest group of its label that began at most `within_ms` ago and that its
    run is not in yet; else it begins one. The order of the runs makes no difference but between sightings of one moment.
    """
    members: list[list[int]] = []
    first: list[int] = []
    recent: list[int] = []
    here: tuple[int, int] | None = None
    parts, labels, times, of = (c.tolist() for c in (seen.part, seen.label, seen.time_ms, seen.run))
    for row in np.lexsort((seen.run, seen.time_ms, seen.label, seen.part)).tolist():
        if here != (parts[row], labels[row]):
            here, recent = (parts[row], labels[row]), []
        recent = [g for g in recent if times[row] - times[first[g]] <= within_ms]
        joined = next((g for g in recent if members[g][of[row]] == NONE), None)
        if joined is None:
            joined = len(members)
            members.append([NONE] * runs)
            first.append(row)
            recent.append(joined)
        members[joined][of[row]] = row
    begun = np.asarray(first, np.int64)
    return Groups(
        part=seen.part[begun],
        label=seen.label[begun],
        time_ms=seen.time_ms[begun],
        rows=np.asarray(members, np.int64).reshape(-1, runs),
    )


# kappa --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """What kappa depends on, by unit (a game, a stream), so that an interval draws units without grouping anything again."""

    moments: Floats
    """(units,): of these, those that nobody names are agreed on, too."""
    agreed: Floats
    """(units,): for each moment the share of pairs of runs that say the same of it, summed."""
    yes: Floats
    """(units, runs): how often each run says yes."""

    @classmethod
    def of(cls, found_by: Bools, unit: Ints, *, moments: Ints) -> Votes:
        """`found_by` (things, runs), the unit of each thing, and how many moments each unit has."""
        units, runs = len(moments), found_by.shape[1]
        things = np.bincount(unit, minlength=units)
        total = np.maximum(moments, things)
        yes = found_by.sum(axis=1)
        same = (yes * (yes - 1) + (runs - yes) * (runs - yes - 1)) / max(runs * (runs - 1), 1)
        return cls(
            moments=total.astype(np.float64),
            agreed=np.bincount(unit, weights=same, minlength=units) + (total - things),
            yes=np.stack([np.bincount(unit, weights=found_by[:, r], minlength=units) for r in range(runs)], axis=1),
        )

    def kappa(self, weights: Floats) -> Floats:
        """(draws,): agreement beyond chance, Cohen's of two runs and Fleiss' of more; weights[d, u] says how often draw d
        has unit u. NaN where chance alone explains everything: all say nothing, or the same everywhere."""
        with np.errstate(invalid="ignore", divide="ignore"):
            total = weights @ self.moments
            agreed, share = (weights @ self.agreed) / total, (weights @ self.yes) / total[:, None]
            if share.shape[1] != 2:
                share = np.repeat(share.mean(axis=1, keepdims=True), 2, axis=1)
            chance = share.prod(axis=1) + (1 - share).prod(axis=1)
            return np.where((chance < 1) & (self.yes.shape[1] > 1), (agreed - chance) / (1 - chance), np.nan)


def kappa(found_by: Bools, *, moments: int) -> float:
    """Of all units as one."""
    votes = Votes.of(found_by, np.zeros(len(found_by), np.int64), moments=np.array([moments]))
    return float(votes.kappa(np.ones((1, 1)))[0])


def pairwise(found_by: Bools, *, moments: int) -> Floats:
    """(runs, runs): Cohen's kappa of each two; the diagonal is 1. Things that neither of the two saw are moments to them."""
    runs = found_by.shape[1]
    table = np.eye(runs)
    for a in range(runs):
        for b in range(a):
            pair = found_by[:, [a, b]]
            table[a, b] = table[b, a] = kappa(pair[pair.any(axis=1)], moments=moments)
    return table
