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


def cohen(found_by: Bools, *, moments: int) -> float:
    """Agreement of two runs beyond chance. `found_by` (things, 2); of `moments` those that nobody names are agreed on, too.

    NaN where chance alone explains everything: both say nothing, or the same everywhere.
    """
    both = np.count_nonzero(found_by.all(axis=1))
    first, second = found_by.sum(axis=0).tolist()
    total = max(moments, len(found_by))
    if not total:
        return float("nan")
    agreed = (total - first - second + 2 * both) / total
    chance = first * second / total**2 + (total - first) * (total - second) / total**2
    return (agreed - chance) / (1 - chance) if chance < 1 else float("nan")


def fleiss(found_by: Bools, *, moments: int) -> float:
    """The same for any number of runs."""
    total, runs = max(moments, len(found_by)), found_by.shape[1]
    if not total or runs < 2:
        return float("nan")
    yes = np.zeros(total)
    yes[: len(found_by)] = found_by.sum(axis=1)
    agreed = float(((yes * (yes - 1) + (runs - yes) * (runs - yes - 1)) / (runs * (runs - 1))).mean())
    share = float(yes.mean()) / runs
    chance = share**2 + (1 - share) ** 2
    return (agreed - chance) / (1 - chance) if chance < 1 else float("nan")


def pairwise(found_by: Bools, *, moments: int) -> Floats:
    """(runs, runs): Cohen's kappa of each two; the diagonal is 1. Things that neither of the two saw are moments to them."""
    runs = found_by.shape[1]
    table = np.eye(runs)
    for a in range(runs):
        for b in range(a):
            pair = found_by[:, [a, b]]
            table[a, b] = table[b, a] = cohen(pair[pair.any(axis=1)], moments=moments)
    return table
