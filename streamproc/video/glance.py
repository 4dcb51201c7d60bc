"""What a file says of itself at its beginning: enough to lay a grid and to tell how long it will take. Reads no pictures.

It is believed nowhere else: decoding finds out what is really there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from streamproc.video.address import Address
from streamproc.video.container import Limits, opened


@dataclass(frozen=True, slots=True)
class Glanced:
    rate: Fraction | None
    """Frames a second, on average."""
    duration_s: Fraction | None
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Glance:
    """A job for a worker: a hostile header crashes that, and not us. Answer: Glanced."""

    address: Address
    limits: Limits

    def run(self) -> Iterator[Glanced]:
        with opened(self.address, self.limits) as video:
            context, declared = video.stream.codec_context, video.container.duration
            duration_s = video.declared_s or (Fraction(declared, 1_000_000) if declared else None)
            yield Glanced(video.stream.average_rate, duration_s, context.width, context.height)
