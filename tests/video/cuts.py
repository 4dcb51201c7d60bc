"""How the predecessors cut their videos, in code: what the tasks that ship are held against."""

from __future__ import annotations

from fractions import Fraction

from streamproc.video.choice import Every, Rate
from streamproc.video.look import Look
from streamproc.video.windows import Sampling


def soccer() -> Sampling:
    return Sampling(Rate(Fraction(1)), Fraction(2), Fraction(4), frames=4, look=Look(longest=384))


def soccer_dense() -> Sampling:
    return Sampling(Rate(Fraction(5)), Fraction(2), Fraction(3), look=Look(longest=384))


def dashcam(rate: Fraction, every: int = 10) -> Sampling:
    """A window for every tenth frame. A frame has a number there, so the grid goes by frames, at the file's rate."""
    return Sampling(Every(every), every / rate, every / rate)
