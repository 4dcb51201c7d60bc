"""A decoded frame as a model is shown it: upright, square pixels, no longer than asked, right colours, as a JPEG.

Also the digest of a frame as it was decoded, by which two decoders are compared.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import simplejpeg
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from streamproc.video.look import Jpeg, Look, shown_size

UNSPECIFIED = 2
"""AVCOL_SPC_UNSPECIFIED. ffmpeg reads such pictures as ITU-R 601, which is also what a JPEG is, so they pass as they are."""

Plane = NDArray[np.uint8]


class Painter:
    """Makes JPEGs of one stream's frames; keeps the scaler, which is dear to set up."""

    def __init__(self, look: Look, aspect: Fraction | None = None) -> None:
        self._look, self._aspect = look, aspect or Fraction(1)
        self._scaler = VideoReformatter()
        self._turn: Turn | None = None

    def jpeg(self, frame: VideoFrame) -> Jpeg:
        size = shown_size(frame.width, frame.height, self._aspect, self._look.longest)
        return encoded(self.planes(frame, *size), self._look.quality)

    def planes(self, frame: VideoFrame, width: int, height: int) -> tuple[Plane, Plane, Plane]:
        """As a JPEG has them: scaled to this size, then turned upright."""
        scaled = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format="yuvj420p",
            interpolation=Interpolation.AREA,
            src_colorspace=Colorspace.ITU601 if frame.colorspace == UNSPECIFIED else None,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        turn = self.turn(frame)
        y, u, v = (turn.apply(_plane(p)) for p in scaled.planes[:3])
        return y, u, v

    def turn(self, frame: VideoFrame) -> Turn:
        if self._turn is None or self._turn.degrees != frame.rotation:
            self._turn = Turn.of(frame)
        return self._turn


def encoded(planes: tuple[Plane, Plane, Plane], quality: int) -> Jpeg:
    y, u, v = planes
    data = simplejpeg.encode_jpeg_yuv_planes(_even(y), u, v, quality=quality)
    return Jpeg(data, y.shape[1], y.shape[0])


@dataclass(frozen=True, slots=True)
class Turn:
    """How a picture is turned and mirrored to stand upright, in quarter turns."""

    degrees: int
    """As the frame has it; mirroring is not in it."""
    swap: bool = False
    mirror: bool = False
    flip: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Turn:
        """Asking a frame for its side data makes a cycle that keeps it for long, so few frames are asked."""
        data = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]  # its stub says str; it takes the enum
        if data is None:
            return cls(frame.rotation)
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])  # x' = ax + cy, y' = bx + dy
        swap = abs(b) + abs(c) > abs(a) + abs(d)
        across, down = (c, b) if swap else (a, d)
        return cls(frame.rotation, swap, across < 0, down < 0)

    @property
    def mirrored(self) -> bool:
        """A transposition, too, is a mirror."""
        return self.swap ^ self.mirror ^ self.flip

    @property
    def clockwise(self) -> int:
        """Degrees that the picture is turned, after it has been mirrored where it is."""
        if self.swap:
            return 90 if self.mirror else 270
        return 180 if self.flip else 0

    def apply(self, plane: Plane) -> Plane:
        plane = plane.T if self.swap else plane
        plane = plane[:, ::-1] if self.mirror else plane
        return np.ascontiguousarray(plane[::-1] if self.flip else plane)


def digest(frame: VideoFrame) -> str:
    """MD5 of the picture as decoded: planes in their order, rows without padding, as `ffmpeg -f framemd5` has it."""
    whole = hashlib.md5(usedforsecurity=False)
    for i, plane in enumerate(frame.planes):
        whole.update(_rows(plane, _row_bytes(frame, i, plane)).tobytes())
    return whole.hexdigest()


def _row_bytes(frame: VideoFrame, i: int, plane: VideoPlane) -> int:
    if len(frame.planes) == 1:
        return (plane.width * frame.format.padded_bits_per_pixel + 7) // 8
    if frame.format.name == "pal8":
        return plane.width if i == 0 else plane.line_size
    here = [c for c in frame.format.components if c.plane == i]
    return plane.width * sum((c.bits + 7) // 8 for c in here)


def _even(luma: Plane) -> Plane:
    """The same, with memory behind it that is ours: where a side is odd the encoder reads as far as the chroma goes."""
    height, width = luma.shape
    if height % 2 == 0 and width % 2 == 0:
        return luma
    return np.pad(luma, ((0, height % 2), (0, width % 2)), mode="edge")[:height, :width]


def _plane(plane: VideoPlane) -> Plane:
    return _rows(plane, plane.width)


def _rows(plane: VideoPlane, row_bytes: int) -> Plane:
    data: Plane = np.frombuffer(memoryview(plane), np.uint8)
    return data[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)[:, :row_bytes]
