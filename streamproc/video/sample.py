"""A film of a minute and a half, drawn and encoded here, with events whose times are known: something to try everything on.

A plain room, in which a red ball lies, a light flashes, a blue door opens, a crowd comes in, and the scene changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, RATE, SECONDS = 640, 360, 15, 90

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Known:
    """What happens in the film, and when."""

    label: str
    start_s: float
    end_s: float


EVENTS: Final = (
    Known("red ball", 8, 14),
    Known("light flash", 22, 22.6),
    Known("blue door", 30, 37),
    Known("crowd", 45, 52),
    Known("scene cut", 60, 60),
    Known("red ball", 66, 71),
    Known("light flash", 80, 80.6),
)
LABELS: Final = tuple(dict.fromkeys(e.label for e in EVENTS))


def make(path: Path) -> None:
    """Blocking, a few seconds: call it in a thread."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        stream.options = {"preset": "ultrafast", "crf": "23", "g": "30"}
        for number in range(RATE * SECONDS):
            frame = av.VideoFrame.from_ndarray(drawn(number / RATE), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def drawn(t: float) -> Image:
    """The picture at that time."""
    image = _room(t)
    for event in EVENTS:
        if event.start_s <= t < event.end_s:
            _DRAW[event.label](image, (t - event.start_s) / (event.end_s - event.start_s))
    return image


def _room(t: float) -> Image:
    """Another one behind the cut."""
    cut = next(e.start_s for e in EVENTS if e.label == "scene cut")
    return (_wall(150, 190) if t < cut else _wall(60, 100)).copy()


@cache
def _wall(low: int, high: int) -> Image:
    """With a shade on it."""
    wall = np.linspace(low, high, WIDTH, dtype=np.float32).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(wall[None, :, None], (HEIGHT, WIDTH, 3)))


def _ball(image: Image, done: float) -> None:
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    image[(x - (240 + 20 * done)) ** 2 + (y - HEIGHT * 0.6) ** 2 < 70**2] = (215, 30, 30)


def _flash(image: Image, done: float) -> None:
    del done  # all at once, and all at once off
    image[:, : WIDTH * 2 // 5] = 250


def _door(image: Image, done: float) -> None:
    wide = round(60 + 140 * min(1.0, 2 * done, 2 * (1 - done) + 0.2))
    image[60 : HEIGHT - 20, WIDTH // 2 : WIDTH // 2 + wide] = (30, 60, 210)


def _crowd(image: Image, done: float) -> None:
    for i in range(12):
        column, row = i % 4, i // 4
        x = round(40 + column * 150 + 40 * np.sin(9 * done + i))
        y = round(30 + row * 110 + 25 * np.cos(7 * done + 2 * i))
        image[y : y + 60, x : x + 36] = (225, 220, 200) if i % 2 else (35, 32, 30)


def _cut(image: Image, done: float) -> None:
    """It has no length: the room is another from here on."""


_DRAW: Final = {"red ball": _ball, "light flash": _flash, "blue door": _door, "crowd": _crowd, "scene cut": _cut}
