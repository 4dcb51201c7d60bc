"""What a video may ask of us."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may ask of us."""

    pixels: int = 8192 * 4352
    duration_s: float = 48 * 3600
    size_bytes: int = 512 * 2**30
    open_s: float = 20
    read_s: float = 20
