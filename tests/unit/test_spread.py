"""Shares are even, whole, and stay where they are as far as that goes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.bus.spread import spread
from streamproc.topics import partition_of


def streams(seed: int, partitions: int = 16) -> list[int]:
    """A thousand streams of random names, counted by partition."""
    rng = random.Random(seed)
    weights = [0] * partitions
    for _ in range(1000):
        weights[partition_of(f"{rng.choice(['cam', 'game', 'lot'])}/{rng.getrandbits(40):x}", partitions)] += 1
    return weights


def off(shares: Mapping[str, Sequence[int]], weights: Sequence[int]) -> float:
    """How far the worst share is from the mean, as a part of it."""
    mean = sum(weights) / len(shares)
    return max(abs(sum(weights[p] for p in share) - mean) for share in shares.values()) / mean


def moved(before: Mapping[str, Sequence[int]], after: Mapping[str, Sequence[int]]) -> int:
    owner = {p: m for m, ps in before.items() for p in ps}
    return sum(owner.get(p) != m for m, ps in after.items() for p in ps)


def test_a_thousand_streams_on_four_members_are_within_a_tenth_however_they_came_to_be_four() -> None:
    for seed in range(400):
        weights = streams(seed)
        fresh = spread(dict.fromkeys("abcd", ()), weights)
        assert off(fresh, weights) <= 0.1, f"fresh, seed {seed}"

        three = spread(dict.fromkeys("abc", ()), weights)
        joined = spread({**three, "d": []}, weights)
        assert off(joined, weights) <= 0.1, f"after a join, seed {seed}"

        five = spread(dict.fromkeys("abcde", ()), weights)
        left = spread({m: ps for m, ps in five.items() if m != "c"}, weights)
        assert off(left, weights) <= 0.1, f"after a leave, seed {seed}"


def test_a_join_moves_hardly_more_than_the_newcomer_gets() -> None:
    for seed in range(100):
        weights = streams(seed)
        three = spread(dict.fromkeys("abc", ()), weights)
        joined = spread({**three, "d": []}, weights)
        assert moved(three, joined) <= len(joined["d"]) + 4


def test_a_leave_moves_hardly_more_than_the_leaver_had() -> None:
    for seed in range(100):
        weights = streams(seed)
        five = spread(dict.fromkeys("abcde", ()), weights)
        stay = {m: ps for m, ps in five.items() if m != "e"}
        assert moved(stay, spread(stay, weights)) <= len(five["e"]) + 4


def test_where_shares_are_near_enough_nothing_moves() -> None:
    for seed in range(100):
        weights = streams(seed)
        once = spread(dict.fromkeys("abcd", ()), weights)
        assert spread(once, weights) == once


@pytest.mark.parametrize("weights", [[0] * 16, [7] * 16])
def test_without_weights_shares_go_by_their_number(weights: list[int]) -> None:
    assert sorted(map(len, spread(dict.fromkeys("abc", ()), weights).values())) == [5, 5, 6]
    assert sorted(map(len, spread({"a": range(16), "b": [], "c": [], "d": []}, weights).values())) == [4, 4, 4, 4]


def test_the_first_by_name_keeps_what_two_claim() -> None:
    shares = spread({"b": [0, 1], "a": [1, 2]}, [1, 1, 1, 1])
    assert 1 in shares["a"]
    assert 0 in shares["b"]


def test_nobody_there_is_no_error() -> None:
    assert spread({}, [1, 2, 3]) == {}


def test_what_is_held_beyond_the_partitions_there_are_is_left_out() -> None:
    assert spread({"a": [0, 99]}, [1, 1]) == {"a": [0, 1]}


members = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.sets(st.integers(0, 20)), min_size=1)


@given(members, st.lists(st.integers(0, 500), max_size=16))
def test_every_partition_has_exactly_one_member(held: dict[str, set[int]], weights: list[int]) -> None:
    shares = spread(held, weights)
    assert set(shares) == set(held)
    assert sorted(p for ps in shares.values() for p in ps) == list(range(len(weights)))
    assert shares == spread(dict(reversed(held.items())), weights), "the order of members must not matter"


@given(members, st.lists(st.integers(0, 500), max_size=16))
def test_spreading_again_moves_nothing(held: dict[str, set[int]], weights: list[int]) -> None:
    shares = spread(held, weights)
    assert spread(shares, weights) == shares
