"""What a file is: its pictures, its time, its sound, and where decoding may begin.

Reads all packets and decodes one picture, for only a picture says how it is turned. `glance` is the quick look.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from streamproc.video import sampling
from streamproc.video.address import Address
from streamproc.video.container import Opened, opened
from streamproc.video.decoding import decode_all
from streamproc.video.limits import Limits
from streamproc.video.look import shown_size
from streamproc.video.picture import Turn
from streamproc.video.table import Table


@dataclass(frozen=True, slots=True)
class Gops:
    """Where decoding may begin, and how much must be decoded from there on."""

    count: int
    longest: int
    """Frames."""
    open: bool
    """Some pictures are made with the help of those before the entry that they stand behind."""


@dataclass(frozen=True, slots=True)
class Probe:
    codec: str
    width: int
    height: int
    """As shown: upright, with square pixels."""
    coded_width: int
    coded_height: int
    pixel_format: str | None
    rotation: int
    """Degrees that a picture is turned clockwise to be shown: 0, 90, 180 or 270."""
    mirrored: bool
    """Left and right change places before it is turned."""
    aspect: Fraction
    """Of a pixel: its width by its height."""
    rate: Fraction | None
    """Frames a second, on average."""
    frames: int | None
    duration_s: Fraction | None
    """Of what can be read; like the frames None where only decoding can tell."""
    audio: tuple[str, ...]
    gops: Gops | None
    """None where the packets do not tell."""
    whole: str | None
    """Why it must be decoded from beginning to end; None where it need not."""
    damage: str | None


@dataclass(frozen=True, slots=True)
class Examine:
    """A job for a worker: hostile bytes crash that, and not us. Answer: Probe."""

    address: Address
    limits: Limits

    def run(self) -> Iterator[Probe]:
        with opened(self.address, self.limits) as video:
            yield probe(video)


def probe(video: Opened) -> Probe:
    """Of a file just opened. Rejected where not one picture of it can be decoded."""
    audio = tuple(stream.codec_context.name for stream in video.container.streams.audio if stream.codec_context)
    table = sampling.index(video)
    damage = table.damage
    _, first = next(decode_all(video))
    turn = Turn.of(first)
    aspect = video.stream.sample_aspect_ratio or Fraction(1)
    width, height = shown_size(first.width, first.height, aspect, None)
    return Probe(
        codec=video.stream.codec_context.name,
        width=height if turn.swap else width,
        height=width if turn.swap else height,
        coded_width=first.width,
        coded_height=first.height,
        pixel_format=first.format.name,
        rotation=turn.clockwise,
        mirrored=turn.mirrored,
        aspect=aspect,
        rate=video.stream.average_rate,
        frames=len(table.shown()) if table.regular else None,
        duration_s=table.shown_s if table.regular else None,
        audio=audio,
        gops=_gops(table) if table.regular else None,
        whole=table.why,
        damage=damage,
    )


def _gops(table: Table) -> Gops:
    bounds = [*table.entries, len(table.pts)]
    return Gops(
        count=len(table.entries),
        longest=max(b - a for a, b in pairwise(bounds)),
        open=any(table.leads(packet) for packet in range(table.segment_end(0), len(table.pts))),
    )
