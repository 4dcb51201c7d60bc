"""Which member works on which partition. A pure function; both buses use it and nothing here knows either of them.

Members keep what they hold, and only as much moves as brings everybody near an equal share of streams. Small steps are
taken one at a time, each the one that mends most per partition moved: an optimal packing would be no better for the
streams, and would move far more of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

NEAR = 0.08
"""A share this near to the mean is left alone: to move a partition costs its streams the calls in flight."""

WORTH = 1e-4
"""A step that mends less than this of the mean's square is not worth its move."""


def spread(held: Mapping[str, Collection[int]], weights: Sequence[int]) -> dict[str, list[int]]:
    """Every partition to exactly one member. `held`: all members, and what each holds; `weights`: streams a partition.

    Where two members claim a partition the first by name keeps it. Equal inputs give equal results.
    """
    if not held:
        return {}
    # An empty partition counts as one stream: it will be filled, and shares without any weights go by their number.
    weigh = [max(0, w) + 1 for w in weights]
    shares: dict[str, set[int]] = {member: set() for member in sorted(held)}
    loads = dict.fromkeys(shares, 0)

    def give(partition: int, member: str) -> None:
        shares[member].add(partition)
        loads[member] += weigh[partition]

    free = set(range(len(weigh)))
    for member in shares:
        for partition in sorted(free.intersection(held[member])):
            free.discard(partition)
            give(partition, member)
    for partition in sorted(free, key=lambda p: (-weigh[p], p)):
        give(partition, min(shares, key=lambda m: (loads[m], len(shares[m]), m)))

    mean = sum(weigh) / len(shares)
    for _ in range(2 * len(weigh)):  # more steps than that are never taken; the bound is for the reader's peace
        best = max(_steps(shares, loads, weigh, mean), default=None)
        if best is None or best[0] < WORTH * mean * mean:
            break
        _, giver, taker, partition, back = best
        for p, origin, target in ((partition, giver, taker), (back, taker, giver)):
            if p >= 0:
                shares[origin].remove(p)
                loads[origin] -= weigh[p]
                give(p, target)
    return {member: sorted(partitions) for member, partitions in shares.items()}


def _steps(
    shares: Mapping[str, set[int]], loads: Mapping[str, int], weigh: Sequence[int], mean: float
) -> Iterator[tuple[float, str, str, int, int]]:
    """Every move of a partition, and every swap of two (`back` is -1 in a move): (gain per partition moved, …)."""

    def strain(load: float) -> float:
        return max(0.0, abs(load - mean) - NEAR * mean) ** 2

    for giver in shares:
        for taker in shares:
            if loads[giver] <= loads[taker]:
                continue
            before = strain(loads[giver]) + strain(loads[taker])
            if not before:
                continue
            for partition in shares[giver]:
                for back in (-1, *shares[taker]):
                    shift = weigh[partition] - (weigh[back] if back >= 0 else 0)
                    if shift <= 0:
                        continue
                    after = strain(loads[giver] - shift) + strain(loads[taker] + shift)
                    yield (before - after) / (1 if back < 0 else 2), giver, taker, partition, back
