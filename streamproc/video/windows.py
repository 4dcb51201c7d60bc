"""Samples into windows on the index grid: which samples a window has, where it is cut into clips, where the last ends.

Window i starts at `origin + (i - first) * step` in stream time, whatever came or did not come before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil, floor
from typing import Any

from streamproc.errors import Misconfigured
from streamproc.messages import Frame, Grid, Outcome, Source, Window
from streamproc.video.choice import Chosen, Rate, Rule
from streamproc.video.look import Jpeg, Look

UNREADABLE = "unreadable"
MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a task says of its windows."""

    rule: Rule
    step_s: Fraction
    length_s: Fraction
    frames: int | None = None
    """At most so many of a window's samples, evenly spread; None: all."""
    per_step: int = 1
    """With Every: how many samples a step holds. With a rate the clock says it."""
    look: Look = field(default_factory=Look)

    def __post_init__(self) -> None:
        if self.step_s <= 0 or self.length_s <= 0:
            raise Misconfigured(f"windows of {self.length_s} s every {self.step_s} s: both must be more than 0")
        if self.per_step < 1 or (self.frames is not None and self.frames < 1):
            raise Misconfigured("a window, and a step, hold 1 frame or more")

    @property
    def sample_s(self) -> Fraction:
        """From one sample to the next, in the time of the grid."""
        return 1 / self.rule.per_s if isinstance(self.rule, Rate) else self.step_s / self.per_step


@dataclass(frozen=True, slots=True)
class Cut:
    """A sampling laid on a stream's grid."""

    sampling: Sampling
    origin_s: Fraction = Fraction(0)
    first: int = 0
    began: datetime | None = None
    """Of a feed: when its stream time was 0."""

    @classmethod
    def on(cls, grid: Grid, sampling: Sampling) -> Cut:
        if Fraction(grid.step) != sampling.step_s:
            raise Misconfigured(f"the task steps by {sampling.step_s} s and the stream's grid by {grid.step} s")
        return cls(sampling, Fraction(grid.origin), grid.first)

    def start_s(self, index: int) -> Fraction:
        return self.origin_s + (index - self.first) * self.sampling.step_s

    def utc(self, time_s: Fraction) -> str | None:
        """Wall-clock time of a stream time."""
        if self.began is None:
            return None
        return (self.began + timedelta(milliseconds=_ms(time_s))).isoformat(timespec="milliseconds")

    def at(self, t: Fraction) -> int:
        """The last window that starts at or before t."""
        return self.first + floor((t - self.origin_s) / self.sampling.step_s)

    def count(self, end_s: Fraction) -> int:
        """How many windows a stream has that ends there: each that starts before the end."""
        return max(self.first, self.first + ceil((end_s - self.origin_s) / self.sampling.step_s))

    def samples(self, begin: int, until: int) -> tuple[int, int]:
        """Numbers [a, b) of the samples that windows [begin, until) are made of."""
        a = ceil(self.start_s(begin) / self.sampling.sample_s)
        b = ceil((self.start_s(until - 1) + self.sampling.length_s) / self.sampling.sample_s)
        return max(0, a), b

    def end_s(self, samples: int, shown_until_s: Fraction) -> Fraction:
        """Where the grid's time ends: when the last frame has been shown, or behind the last of counted frames."""
        if isinstance(self.sampling.rule, Rate):
            return shown_until_s
        return samples * self.sampling.sample_s


@dataclass(frozen=True, slots=True)
class Picture:
    """A sample as it is shown."""

    chosen: Chosen
    jpeg: Jpeg


def windows(
    cut: Cut, source: Source, pictures: Mapping[int, Picture], begin: int, until: int, end_s: Fraction | None
) -> Iterator[Window]:
    """Windows [begin, until), made of samples by number. Those without a single frame are a gap.

    `end_s` is the end of the stream where it is near enough to cut a window short.
    """
    at = begin
    for index in _seen(cut, pictures, begin, until):
        if at < index:
            yield gap(cut, source, at, index, MISSING)
        yield _window(cut, source, index, _frames(cut, pictures, index), end_s)
        at = index + 1
    if at < until:
        yield gap(cut, source, at, until, MISSING)


def _seen(cut: Cut, pictures: Iterable[int], begin: int, until: int) -> list[int]:
    """Which windows have a picture. Told by the pictures: a feed may have been down for a hundred thousand windows."""
    found: set[int] = set()
    for k in pictures:
        t = k * cut.sampling.sample_s
        found.update(range(max(begin, cut.at(t - cut.sampling.length_s) + 1), min(until, cut.at(t) + 1)))
    return sorted(found)


def gap(cut: Cut, source: Source, begin: int, until: int, reason: str, outcome: Outcome = "skipped") -> Window:
    """Windows that are not there, counted."""
    return _record(
        cut,
        source,
        index=begin,
        until_index=until,
        start_s=cut.start_s(begin),
        end_s=cut.start_s(until),
        outcome=outcome,
        reason=reason,
    )


def ended(cut: Cut, source: Source, count: int, end_s: Fraction) -> Window:
    """The record behind the last window."""
    return _record(cut, source, index=count, start_s=end_s, end_s=end_s, count=count)


def _frames(cut: Cut, pictures: Mapping[int, Picture], index: int) -> list[tuple[int, Picture]]:
    a, b = cut.samples(index, index + 1)
    there = [(k, pictures[k]) for k in range(a, b) if k in pictures]
    most = cut.sampling.frames
    if most is None or len(there) <= most:
        return there
    return [there[j * len(there) // most] for j in range(most)]


def _window(
    cut: Cut, source: Source, index: int, frames: Sequence[tuple[int, Picture]], end_s: Fraction | None
) -> Window:
    start_s = cut.start_s(index)
    full_s = start_s + cut.sampling.length_s
    return _record(
        cut,
        source,
        index=index,
        start_s=start_s,
        end_s=full_s if end_s is None else min(full_s, max(end_s, start_s)),
        frames=tuple(
            Frame(t_ms=round(1000 * p.chosen.time_s), frame=p.chosen.number or None, jpeg=p.jpeg.data)
            for _, p in frames
        ),
        clips=_clips(cut, [k for k, _ in frames]),
        width=frames[0][1].jpeg.width,
        height=frames[0][1].jpeg.height,
    )


def _clips(cut: Cut, samples: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Frames of one step of the grid are one clip, so windows that overlap share clips whole."""
    clips: list[tuple[int, int]] = []
    before = None
    for i, k in enumerate(samples):
        step = cut.at(k * cut.sampling.sample_s)
        if step == before:
            clips[-1] = (clips[-1][0], i)
        else:
            clips.append((i, i))
        before = step
    return tuple(clips)


def _record(
    cut: Cut, source: Source, *, start_s: Fraction, end_s: Fraction, outcome: Outcome = "done", **fields: Any
) -> Window:
    """Who speaks, and the id, are filled in by whoever emits it."""
    return Window(
        id="",
        service="",
        root="",
        stream=source.stream,
        generation=source.generation,
        revision=source.revision,
        start_ms=_ms(start_s),
        end_ms=_ms(end_s),
        utc=cut.utc(start_s),
        outcome=outcome,
        **fields,
    )


def _ms(time_s: Fraction) -> int:
    """As a Grid rounds: halves up."""
    return floor(1000 * time_s + Fraction(1, 2))
