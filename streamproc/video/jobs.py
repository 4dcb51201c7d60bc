"""What a worker process is asked to do, and what it answers: plain data, which whoever asks can make without FFmpeg.

A job is answered by any number of parts and one end. What is done with it stands in modules that only a worker imports, since
FFmpeg and numpy are a fifth of a second and 35 MB to whoever loads them.

A file is surveyed once; then its slices are jobs of their own, for any worker. A file that cannot be cut (its packets do not
tell what is shown) is one job, answered as it goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from streamproc.messages import Frame
from streamproc.video.address import Address
from streamproc.video.keep import Keep
from streamproc.video.limits import Limits
from streamproc.video.look import Look
from streamproc.video.slices import Slice
from streamproc.video.windows import Cut, Picture

SLICE_S = 60.0


class Job(Protocol):
    """Whatever a worker can run."""

    def run(self) -> Iterator[Any]: ...


# whole streams ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Glanced:
    rate: Fraction | None
    """Frames a second, on average."""
    duration_s: Fraction | None
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Glance:
    """What a file says of itself at its beginning: enough to lay a grid and to tell how long it will take. Reads no pictures,
    and is believed nowhere else: decoding finds out what is really there. Answer: Glanced."""

    address: Address
    limits: Limits

    def run(self) -> Iterator[Glanced]:
        from streamproc.video.slicing import glance

        return glance(self)


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a file goes."""

    end_s: Fraction
    """In the grid's time."""
    count: int
    """Windows of what could be read."""
    declared: int
    """Windows that the file says it has; more than `count` where some of it cannot be read."""
    damage: str | None


@dataclass(frozen=True, slots=True)
class Surveyed:
    extent: Extent | None
    """None: only decoding can tell."""
    slices: tuple[Slice, ...]
    at_once: bool = False
    """One slice, and no answer should hold all of its pictures."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Read the packets and cut the file into slices. Answer: Surveyed."""

    address: Address
    limits: Limits
    cut: Cut
    begin: int
    slice_s: float = SLICE_S
    workers: int = 1
    """How many will share the slices."""

    def run(self) -> Iterator[Surveyed]:
        from streamproc.video.slicing import survey

        return survey(self)


@dataclass(frozen=True, slots=True)
class DecodeSlice:
    """Answer: the pictures of one slice."""

    address: Address
    limits: Limits
    cut: Cut
    part: Slice

    def run(self) -> Iterator[list[Picture]]:
        from streamproc.video.slicing import decode_slice

        return decode_slice(self)


@dataclass(frozen=True, slots=True)
class DecodeAll:
    """Answers: the pictures from window `begin` on, some at a time, then the Extent."""

    address: Address
    limits: Limits
    cut: Cut
    begin: int

    part: Slice | None = None
    """Where a survey could plan, but its slices would decode the same packets again and again."""

    def run(self) -> Iterator[list[Picture] | Extent]:
        from streamproc.video.slicing import decode_all

        return decode_all(self)


@dataclass(frozen=True, slots=True)
class DecodeStack:
    """A pair from window `begin` on. Answers: pictures, some at a time, then the Extent."""

    address: Address
    limits: Limits
    cut: Cut
    begin: int

    def run(self) -> Iterator[list[Picture] | Extent]:
        from streamproc.video.stack import decode_stack

        return decode_stack(self)


@dataclass(frozen=True, slots=True)
class Dropped:
    """How a connection ended; each does."""

    why: str
    jumps: int


@dataclass(frozen=True, slots=True)
class ReadFeed:
    """One connection. Answers: pictures as they become showable, then how it ended."""

    address: Address
    limits: Limits
    cut: Cut
    zero_s: float
    """When stream time was 0, by the clock that all processes of a machine share."""
    next_k: int
    """The first sample nobody has."""
    keep: Keep | None = None
    """Where it is recorded."""

    def run(self) -> Iterator[list[Picture] | Dropped]:
        from streamproc.video.feed import read_feed

        return read_feed(self)


# out of what is there: single pictures, and stretches ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reach:
    """Which pictures there are of a stream."""

    begin_s: float
    end_s: float
    rate: float
    """Frames a second, on the whole."""
    frames: int | None = None
    """How many, where they have numbers: in files."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How many frames a file shows; of a pair, those that both have. Answer: Reach."""

    address: Address
    limits: Limits

    def run(self) -> Iterator[Reach]:
        from streamproc.video.picking import measure

        return measure(self)


@dataclass(frozen=True, slots=True)
class Pick:
    """The frames of these numbers, from 1, in shown order; numbers that the file does not have are left out. Answer: a list."""

    address: Address
    limits: Limits
    numbers: frozenset[int]
    look: Look

    def run(self) -> Iterator[list[Frame]]:
        from streamproc.video.picking import pick

        return pick(self)


@dataclass(frozen=True, slots=True)
class Extents:
    """From when to when a recording goes. Answer: Reach, or None where there is none."""

    keep: Keep
    limits: Limits

    def run(self) -> Iterator[Reach | None]:
        from streamproc.video.playback import extents

        return extents(self)


@dataclass(frozen=True, slots=True)
class PickTimes:
    """The first frame at or after each of these times, out of a recording. Answer: a list; what is not there is left out."""

    keep: Keep
    limits: Limits
    times_s: tuple[Fraction, ...]
    look: Look

    def run(self) -> Iterator[list[Frame]]:
        from streamproc.video.playback import pick_times

        return pick_times(self)


@dataclass(frozen=True, slots=True)
class Clipped:
    """What a clip holds, in the time of the video."""

    begin_s: Fraction
    end_s: Fraction
    """Of its last frame asked for."""
    frames: int
    coded: int
    """How many of them were coded anew."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames with from_s ≤ time < until_s of a file, as an MP4. Answer: Clipped."""

    address: Address
    limits: Limits
    from_s: Fraction
    until_s: Fraction
    path: Path

    def run(self) -> Iterator[Clipped]:
        from streamproc.video.clip import clip

        return clip(self)


@dataclass(frozen=True, slots=True)
class ClipRecording:
    """The same as Clip, of a recording. Where nothing was recorded for a while the picture before stands."""

    keep: Keep
    limits: Limits
    from_s: Fraction
    until_s: Fraction
    path: Path

    def run(self) -> Iterator[Clipped]:
        from streamproc.video.playback import clip_recording

        return clip_recording(self)
