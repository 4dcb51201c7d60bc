"""Small films whose events the observer measures: plain rooms in which coloured boxes come and go."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, RATE = 160, 96, 10
COLOURS = {"red": (215, 30, 30), "blue": (30, 60, 210), "green": (40, 170, 40), "yellow": (240, 210, 20)}
Box = tuple[str, float, float]
"""Colour, and from when to when it is there, in seconds. A `small red` one is a quarter as high: the observer is less sure."""


def film(path: Path, seconds: float, *boxes: Box, ruled: bool = False) -> Path:
    """`ruled`: at the top a line grows with time, so that no two pictures are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        stream.options = {"preset": "ultrafast", "g": "20"}
        for number in range(round(seconds * RATE)):
            picture = _picture(number / RATE, boxes)
            if ruled:
                picture[:8, : round(WIDTH * number / (seconds * RATE))] = 250
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _picture(t: float, boxes: Sequence[Box]) -> NDArray[np.uint8]:
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for i, (colour, begin, end) in enumerate(boxes):
        if begin <= t < end:
            bottom = 32 if colour.startswith("small ") else 80
            image[16:bottom, 8 + 48 * (i % 3) : 48 + 48 * (i % 3)] = COLOURS[colour.removeprefix("small ")]
    return image
