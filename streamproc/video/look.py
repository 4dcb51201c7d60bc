"""How a picture is to be shown, and what it is once it is a JPEG. Making it is `picture`'s."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from streamproc.errors import Misconfigured

LARGEST = 65500
"""Pixels of a JPEG's longer side."""
STRANGE = 16
"""A pixel so many times as wide as high, or as high as wide, is a damaged header's, and taken for square."""


@dataclass(frozen=True, slots=True)
class Look:
    """How pictures are shown."""

    longest: int | None = None
    """Pixels of the longer side at most; None: as large as they are."""
    quality: int = 90

    def __post_init__(self) -> None:
        if self.longest is not None and not 16 <= self.longest <= LARGEST:
            raise Misconfigured(f"longest side {self.longest}: 16 to {LARGEST} pixels can be asked for")
        if not 1 <= self.quality <= 100:
            raise Misconfigured(f"JPEG quality {self.quality}: 1 to 100 can be asked for")


@dataclass(frozen=True, slots=True)
class Jpeg:
    data: bytes
    width: int
    height: int


def shown_size(width: int, height: int, aspect: Fraction, longest: int | None) -> tuple[int, int]:
    """With square pixels, and no side longer than asked; nothing is made larger than it is, but for its pixels' shape."""
    wide = width * aspect if Fraction(1, STRANGE) <= aspect <= STRANGE else Fraction(width)
    scale = min(Fraction(1), (longest or LARGEST) / max(wide, Fraction(height), Fraction(1)))  # a header may say 0 × 0
    return max(1, round(wide * scale)), max(1, round(height * scale))
