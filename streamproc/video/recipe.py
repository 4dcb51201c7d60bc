"""The `sampling` table of a task, read: which frames are looked at, in which windows, and how they are shown.

    fps       samples a second, `"1"`, `"30000/1001"`; or
    every     every so manieth frame, as a number
    window_s  how long a window is; with `every` and without this, a window is one frame
    step_s    from one window to the next; with `every` it is from one frame looked at to the next, whatever this says
    frames    at most so many of a window's, evenly spread
    longest   pixels of the longer side at most
    quality   of the JPEGs

What is none, or not there, has its default. Numbers that must be exact are written as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Protocol

from streamproc.errors import Misconfigured, Rejected
from streamproc.messages import Grid
from streamproc.video.choice import Every, Rate, Rule
from streamproc.video.look import Look
from streamproc.video.windows import Sampling

ROOT = "decode"
"""The service whose numbers lie on the grid."""
WINDOW_S = STEP_S = Fraction(2)


def sampling_of(said: Mapping[str, Any], grid: Grid) -> Sampling:
    """How a stream of that grid is cut. The grid says the step: it is what numbers stand for, and it outlives a task."""
    rule, step_s = _rule(said), _number("step", grid.step)
    assert step_s is not None, "a grid has a step"
    if isinstance(rule, Rate) and (own_s := _number("step_s", said.get("step_s")) or STEP_S) != step_s:
        raise Misconfigured(f"sampling.step_s is {own_s} where the stream's grid steps by {step_s} s")
    length_s = _number("window_s", said.get("window_s"))
    return Sampling(
        rule,
        step_s,
        length_s or (WINDOW_S if isinstance(rule, Rate) else step_s),
        frames=_count("frames", said.get("frames")),
        look=Look(_count("longest", said.get("longest")), _count("quality", said.get("quality")) or Look().quality),
    )


class Rated(Protocol):
    """Whoever has looked at a video: `probe`, or `glance`."""

    @property
    def rate(self) -> Fraction | None: ...


def grid_of(said: Mapping[str, Any], probe: Rated | None = None) -> Grid:
    """Of a new stream. Only `every` needs the probe: its step is that of the frames, at the file's own rate. Rejected where a
    file has none, which says nothing against the task or other files."""
    rule = _rule(said)
    if isinstance(rule, Rate):
        step_s = _number("step_s", said.get("step_s")) or STEP_S
    elif probe is None:
        raise Misconfigured(f"sampling.every {rule.n}: frames are counted in files, at their own rate; say fps")
    elif not probe.rate:
        raise Rejected(f"sampling.every {rule.n}: the video has no frame rate to count frames by; say fps")
    else:
        step_s = rule.n / probe.rate
    if step_s <= 0:
        raise Misconfigured(f"sampling.step_s is {step_s}: it must be above 0")
    return Grid(root=ROOT, origin="0", step=str(step_s), first=0)


def _rule(said: Mapping[str, Any]) -> Rule:
    fps, every = _number("fps", said.get("fps")), _count("every", said.get("every"))
    if (fps is None) == (every is None):
        raise Misconfigured("sampling says which frames are looked at: by fps or by every, one of them")
    return Rate(fps) if fps is not None else Every(every or 0)


def _number(name: str, value: Any) -> Fraction | None:
    if value is None:
        return None
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise Misconfigured(f"sampling.{name} is '{value}': a number like 2 or 0.5, or a fraction like 1/3") from None


def _count(name: str, value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise Misconfigured(f"sampling.{name} is '{value}': it is a whole number")
