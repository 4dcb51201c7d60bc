"""A lane against the plainest there could be: a list that is looked through whole each time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.messages import Sequence
from streamproc.runner.inputs import Input, Place
from streamproc.runner.lanes import Lane

SERVICES = ("detect.a", "detect.b")


def said(service: str, index: int, until: int) -> Input:
    sequence = Sequence(service, "decode", "m", 0)
    return Input(("detections", index), sequence, index, until, None, None, Place(sequence, index, until))


@st.composite
def speakers(draw: st.DrawFn) -> list[Input]:
    """Every number of each service once, as records or as ranges, in whatever order."""
    inputs = []
    for service in SERVICES:
        cuts = sorted(draw(st.sets(st.integers(1, 19), max_size=12)) | {0, 20})
        inputs += [said(service, lo, hi) for lo, hi in pairwise(cuts)]
    return draw(st.permutations(inputs))


@given(speakers(), st.lists(st.integers(1, 4), min_size=5), st.data())
@settings(max_examples=200, deadline=None)
def test_a_lane_says_who_has_his_turn_however_far_the_others_are_ahead(
    inputs: list[Input], steps: list[int], data: st.DataObject
) -> None:
    lane = Lane("m", 0, "decode", 0)
    waiting: list[Input] = []
    for step in steps:
        for _ in range(data.draw(st.integers(0, 10))):
            if inputs and (next_ := inputs.pop()).until > lane.index:
                lane.add(next_)
                waiting.append(next_)
        turns = {id(one): max(one.index, lane.index) for one in waiting}
        assert lane.spoken() == {one.sequence.service: one for one in waiting if turns[id(one)] == lane.index}
        for service in SERVICES:
            assert lane.further(service) == min(
                (turns[id(one)] for one in waiting if one.sequence.service == service), default=None
            )
        beyond = lane.beyond()
        assert (beyond[0] if beyond else None) == min(turns.values(), default=None)
        left = lane.pass_to(lane.index + step)
        assert sorted(map(id, left)) == sorted(id(one) for one in waiting if one.until <= lane.index)
        waiting = [one for one in waiting if one.until > lane.index]
        assert sorted(id(one) for line in lane.waiting.values() for one in line) == sorted(map(id, waiting))
