"""Where a revision ends that a number is made under."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamproc.messages import Source
from streamproc.stages.revisions import holds_until
from tests.stages.rig import source


@given(begins=st.lists(st.integers(1, 40), max_size=5).map(sorted), index=st.integers(0, 40), length=st.integers(1, 50))
def test_a_revision_holds_until_the_first_number_of_another(begins: list[int], index: int, length: int) -> None:
    first = source("x.mp4")
    table = [replace(first, revision=i, from_index=begin) for i, begin in enumerate([0, *begins])]

    def in_force(stream: str, generation: int, number: int) -> Source:
        return [revision for revision in table if revision.from_index <= number][-1]

    look: Any = SimpleNamespace(in_force=in_force)
    same = [n for n in range(index, index + length) if in_force("m", 0, n) == in_force("m", 0, index)]
    assert holds_until(first, look, index, index + length) == same[-1] + 1


def test_where_no_revision_is_heard_of_the_one_at_hand_holds() -> None:
    look: Any = SimpleNamespace(in_force=lambda *_: None)
    assert holds_until(source("x.mp4"), look, 3, 9) == 9
