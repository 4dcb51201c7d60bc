"""What a file is: its pictures, its time, its sound, and where decoding may begin. Reads all packets, decodes none."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from streamproc.video import sampling
from streamproc.video.container import Opened


@dataclass(frozen=True, slots=True)
class Probe:
    codec: str
    width: int
    height: int
    pixel_format: str | None
    aspect: Fraction
    """Of a pixel."""
    rate: Fraction | None
    """Frames a second, on average."""
    frames: int
    duration_s: Fraction | None
    """Of what can be read; None where only decoding can tell."""
    audio: tuple[str, ...]
    entries: int
    """Frames at which decoding may begin."""
    longest_gop: int
    whole: str | None
    """Why it must be decoded from beginning to end; None where it need not."""
    damage: str | None


def probe(video: Opened) -> Probe:
    """Of a file just opened."""
    audio = tuple(stream.codec_context.name for stream in video.container.streams.audio)
    table = sampling.index(video)
    context = video.stream.codec_context
    bounds = [*table.entries, len(table.pts)]
    return Probe(
        codec=context.name,
        width=context.width,
        height=context.height,
        pixel_format=context.pix_fmt,
        aspect=video.stream.sample_aspect_ratio or Fraction(1),
        rate=video.stream.average_rate,
        frames=len(table.pts) - len(table.hidden),
        duration_s=table.shown_s if table.regular else None,
        audio=audio,
        entries=len(table.entries),
        longest_gop=max(b - a for a, b in pairwise(bounds)),
        whole=table.why,
        damage=table.damage,
    )
