"""Where revisions of a source begin, for stages that number what they make: each number is made under the one in force."""

from __future__ import annotations

from bisect import bisect_left

from streamproc.messages import Source
from streamproc.stage import Pace


def holds_until(source: Source, look: Pace, index: int, until: int) -> int:
    """How far the revision that `index` is made under holds: to where another begins, and not beyond `until`."""
    here = look.in_force(source.stream, source.generation, index) or source

    def another(number: int) -> bool:
        found = look.in_force(source.stream, source.generation, number)
        return found is not None and found.revision != here.revision

    return index + bisect_left(range(index, until), True, key=another)  # revisions only grow with the numbers
