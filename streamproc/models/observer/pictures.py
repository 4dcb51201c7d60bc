"""What can be measured in a row of JPEGs without any model: colour areas, brightness, motion, cuts, blobs.

Numbers only; what they are called in an answer is decided in `answers`. The same bytes give the same numbers everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray

SIDE: Final = 64
"""Pictures are decoded at the smallest scale whose sides are no shorter: what is measured is larger than that."""

MOVED: Final = 24
"""A pixel has moved where red, green or blue changed by more than this, of 255: JPEG noise stays below."""

CUT: Final = 0.5
"""Half of the brightness histogram is elsewhere: another picture, not the same one moved."""

COLOURS: Final = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white", "black")


class Unreadable(ValueError):
    """These bytes are no JPEG."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, measured by itself; `rgb` is kept, small, to compare it with the next."""

    width: int
    height: int
    brightness: float
    areas: dict[str, float]
    """Colour → share of the picture; grey tones are in none."""
    rgb: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Seen:
    """A row of pictures in time order. Lists have one entry a picture; what compares begins with 0."""

    brightness: list[float]
    areas: list[dict[str, float]]
    motion: list[float]
    """Share of pixels that changed."""
    cuts: list[bool]
    flashes: list[float]
    """How much brighter than the one before, of 1."""
    blobs: list[int]
    """Moving things, one where they touch."""

    @property
    def frames(self) -> int:
        return len(self.brightness)


def measure(jpeg: bytes) -> Picture:
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
        rgb = simplejpeg.decode_jpeg(
            jpeg, "RGB", fastdct=False, min_height=min(height, SIDE), min_width=min(width, SIDE), strict=False
        )
    except ValueError as e:
        raise Unreadable(f"no JPEG: {e}") from e
    step = max(1, min(rgb.shape[0], rgb.shape[1]) // SIDE)
    rgb = np.ascontiguousarray(rgb[::step, ::step])
    return Picture(width, height, float(_grey(rgb).mean()) / 255, _areas(rgb.astype(np.int16)), rgb)


def compare(pictures: Sequence[Picture]) -> Seen:
    motion, cuts, flashes, blobs = [0.0], [False], [0.0], [0]
    for before, after in pairwise(pictures):
        if before.rgb.shape != after.rgb.shape:
            motion, cuts, flashes, blobs = [*motion, 1.0], [*cuts, True], [*flashes, 0.0], [*blobs, 0]
            continue
        moved = np.abs(after.rgb.astype(np.int16) - before.rgb).max(2) > MOVED
        motion.append(float(moved.mean()))
        cuts.append(_apart(_grey(before.rgb), _grey(after.rgb)) > CUT)
        flashes.append(max(0.0, after.brightness - before.brightness))
        blobs.append(_count(moved))
    n = len(pictures)
    return Seen(
        [p.brightness for p in pictures], [p.areas for p in pictures], motion[:n], cuts[:n], flashes[:n], blobs[:n]
    )


def _grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (rgb @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)


def _areas(rgb: NDArray[np.int16]) -> dict[str, float]:
    """Shares of named colours, by hue where there is enough colour, by brightness where there is none."""
    high, low = rgb.max(2), rgb.min(2)
    spread = high - low
    strong = (spread > 96) & (high > 110)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    safe = np.maximum(spread, 1)
    hue = np.where(high == r, (g - b) / safe % 6, np.where(high == g, (b - r) / safe + 2, (r - g) / safe + 4)) * 60
    bounds = ((345, 360), (15, 40), (40, 75), (75, 165), (165, 200), (200, 260), (260, 300), (300, 345))
    shares = {
        name: float((strong & (hue >= first) & (hue < last)).mean())
        for name, (first, last) in zip(COLOURS, bounds, strict=False)
    }
    shares["red"] += float((strong & (hue < 15)).mean())
    plain = spread < 40
    return shares | {"white": float((plain & (low > 225)).mean()), "black": float((plain & (high < 24)).mean())}


def _apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Share of pixels in another of 16 steps of brightness; a shift of everything by one step counts for little."""
    one = np.bincount(a.ravel() >> 4, minlength=16) / a.size
    two = np.bincount(b.ravel() >> 4, minlength=16) / b.size
    return float(np.abs(np.cumsum(one) - np.cumsum(two)).max())


def _count(moved: NDArray[np.bool_]) -> int:
    """Connected patches of a grid of 8 × 8 pixel cells that moved in a quarter of their pixels."""
    rows, columns = moved.shape[0] // 8, moved.shape[1] // 8
    if not rows or not columns:
        return int(moved.any())
    cells = moved[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).mean((1, 3)) > 0.25
    left = {(int(y), int(x)) for y, x in np.argwhere(cells)}
    count = 0
    while left:
        count += 1
        edge = [left.pop()]
        while edge:
            y, x = edge.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    edge.append(near)
    return count
