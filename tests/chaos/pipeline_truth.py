"""What is true: films whose every picture says its number, and what the endpoint answers to which question about them.

The endpoint answers by these functions, and the check asks them again; so every caption, event, description and verdict of
a run is known beforehand, whatever is killed meanwhile. Questions carry the stream's name and what they ask for in brackets,
`[detect s3 a]`, and pictures their number as black and white boxes: one film serves any number of streams.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from zlib import crc32

import av
import numpy as np
import simplejpeg

from streamproc.task import Task

RATE = 10
"""Pictures a second; a window begins with each, and shows it and the next."""
WINDOW_S, STEP_S = "0.2", "0.1"
STEP_MS = 100
SIDE, BOX = 64, 16
DETECTORS = ("a", "b")
PRESET = "1-1-1"
TABLE_ROWS = 200
"""Of one table of `locate`; the default."""
EVERY, LASTS = 20, 3
"""A thing happens every so many windows, and is seen in so many."""

ASKED = re.compile(r"\[(\w+) ([^\s\]]+)([^\]]*)\]")
CAPTION, CONTEXT, DETECT, LOCATE, DESCRIBE = "caption", "context", "detect", "locate", "describe"

REFUSED, NONSENSE, WRAPPED = "refused", "nonsense", "wrapped"


def task(stream: str) -> Task:
    """Every stage, all of them small. The questions are all that differs between streams."""
    return Task.model_validate(
        {
            "name": "chaos",
            "sampling": {"fps": str(RATE), "window_s": WINDOW_S, "step_s": STEP_S, "frames": 2, "longest": SIDE},
            "context": {"model": "c", "prompt": f"[context {stream}] {{fields}}", "opening_s": 0.4, "frames": 2},
            "caption": {"model": "c", "prompt": f"[caption {stream}]", "again": 0},
            "detect": {"models": list(DETECTORS), "prompt": f"[detect {stream}]"},
            "dedup": {"within_s": 0.5},
            "locate": {"model": "c", "prompt": f"[locate {stream} {{first}} {{last}}] {{table}}"},
            "describe": {
                "models": ["c"],
                "presets": [PRESET],
                "samples": 1,
                "rounds": [
                    {
                        "name": "story",
                        "prompt": f"[describe {stream}] {{event}} [/] {{fields}}",
                        "fields": {"text": {"type": "string", "maxLength": 1000}},
                    }
                ],
            },
            "ensemble": {"rule": "vote", "over": "events"},
        }
    )


# films --------------------------------------------------------------------------------------------------------------


def film(path: Path, pictures: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        stream.options = {"preset": "ultrafast", "g": "10", "qp": "20"}
        for number in range(pictures):
            frame = av.VideoFrame.from_ndarray(_picture(number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _picture(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    for bit in range((SIDE // BOX) ** 2):
        y, x = divmod(bit, SIDE // BOX)
        image[y * BOX : (y + 1) * BOX, x * BOX : (x + 1) * BOX] = 255 * (number >> bit & 1)
    return image


def number_of(jpeg: bytes) -> int:
    image = simplejpeg.decode_jpeg(jpeg, colorspace="GRAY")[:, :, 0]
    middles = image[BOX // 2 :: BOX, BOX // 2 :: BOX].ravel()
    return sum(int(middle > 127) << bit for bit, middle in enumerate(middles))


# what the endpoint says ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: `number` is the first picture's, or what else tells questions of a kind and stream apart."""

    kind: str
    stream: str
    number: str

    @property
    def manner(self) -> str | None:
        """How it is answered: some are refused, some answered with nonsense, some well but at length."""
        chance = crc32(f"{self.kind} {self.stream} {self.number}".encode()) % 100
        if chance < 2:
            return REFUSED
        if chance < 4 and self.kind != DESCRIBE:  # there an answer without a story is asked for again
            return NONSENSE
        return WRAPPED if chance < 14 else None


def answer(asked: Asked) -> str:
    """The model's text; for what is refused there is none."""
    if asked.manner == NONSENSE:
        return "}{ &c &c" if asked.kind != CAPTION else f"nonsense about {asked.stream}"
    said = _said(asked)
    if asked.manner == WRAPPED and said.startswith(("{", "[")):
        return f"Let me look.\n```json\n{said}\n```\nThat is all."
    return said


def _said(asked: Asked) -> str:
    if asked.kind == CONTEXT:
        return f'{{"scene": "{asked.stream}"}}'
    if asked.kind == CAPTION:
        return f"{asked.stream} shows {asked.number}"
    if asked.kind == LOCATE:
        first, last = map(int, asked.number.split())
        return f'{{"row": {(first + last) // 2}}}'
    if asked.kind == DESCRIBE:
        return f'{{"text": "{asked.stream} tells of {asked.number}"}}'
    label = thing(int(asked.number))
    return f'[{{"label": "{label}", "confidence": 0.5}}]' if label else "None"


def thing(index: int) -> str | None:
    """What is to be seen in a window."""
    return f"thing {index // EVERY}" if index % EVERY < LASTS else None


# what follows -------------------------------------------------------------------------------------------------------


def understood(asked: Asked) -> bool:
    """Whether it has an outcome that is done."""
    return asked.manner not in ((REFUSED,) if asked.kind == CAPTION else (REFUSED, NONSENSE))


def tables(stream: str, windows: int) -> Iterator[str]:
    """First and last line of each table of `locate`: so many captions that there are. Empty where a table has none."""
    first, lines = 1, 0
    for line in range(1, windows + 1):
        lines += understood(Asked(CAPTION, stream, f"{line - 1}"))
        if lines == TABLE_ROWS or line == windows:
            yield f"{first} {line}" if lines else ""
            first, lines = line + 1, 0


@dataclass(frozen=True, slots=True)
class Happened:
    """One event of a stream."""

    label: str
    start_ms: int
    votes: tuple[tuple[str, int], ...]
    """(model, window), by window."""


def happened(stream: str, windows: int) -> Iterator[Happened]:
    """What dedup makes of that: one event a thing, of those whom somebody could be understood to have seen."""
    for first in range(0, windows, EVERY):
        seen = [
            (model, index)
            for index in range(first, min(first + LASTS, windows))
            for model in DETECTORS
            if understood(Asked(DETECT, stream, f"{index}"))
        ]
        if seen:
            yield Happened(f"thing {first // EVERY}", seen[0][1] * STEP_MS, tuple(seen))
