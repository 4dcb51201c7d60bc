"""A stretch of a video as a file of its own. Where it begins at a frame that decoding may begin with, packets are copied as
they are; else the frames up to the next such one are coded anew, and only those. Sound is left out.

Its last frame may be followed by a few more: those that it is made with.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamproc.errors import Misconfigured, Rejected
from streamproc.video import sampling
from streamproc.video.choice import Chosen, Every
from streamproc.video.container import Opened, opened
from streamproc.video.jobs import Clip, Clipped
from streamproc.video.plan import plan
from streamproc.video.table import Table

ENCODERS = {
    "h264": ("libx264", {"crf": "13", "preset": "veryfast", "bf": "0", "x264-params": "repeat-headers=1"}),
    "hevc": (
        "libx265",
        {"crf": "13", "preset": "veryfast", "x265-params": "bframes=0:repeat-headers=1:log-level=none"},
    ),
}
"""Codec → who codes it anew. No frame waits for a later one, so that times stay in order where the two parts meet."""
IDR = 5
"""NAL unit of an H.264 picture that nothing behind refers past."""
END_OF_SEQUENCE = bytes([36 << 1, 1])
"""Tells HEVC that what follows counts its pictures anew."""


def clip(job: Clip) -> Iterator[Clipped]:
    if job.until_s <= job.from_s:
        raise Misconfigured(f"a clip from {float(job.from_s):g} s to {float(job.until_s):g} s holds nothing")
    if job.address.under:
        raise Rejected(f"{job.address.shown}: a pair is no video to be cut; each half is one")
    part = job.path.with_name(f"{job.path.name}.part")
    try:
        with opened(job.address, job.limits) as video:
            clipped = _clip(job, video, part)
        part.rename(job.path)  # it is there whole, or it is not
    finally:
        part.unlink(missing_ok=True)
    yield clipped


def _clip(job: Clip, video: Opened, part: Path) -> Clipped:
    name, table = video.address.shown, sampling.index(video)
    if not table.regular:
        raise Rejected(f"{name}: cannot be cut: {table.why}")
    shown = table.shown()
    pts = [table.pts[i] for i in shown]
    a, b = (bisect_left(pts, t / table.time_base + pts[0]) for t in (job.from_s, job.until_s))
    if a == b:
        raise Rejected(f"{name}: it has no frame from {float(job.from_s):g} s to {float(job.until_s):g} s")
    entry = _entry(video, table, pts[a])
    copied = b if entry is None else min(b, bisect_left(pts, table.pts[entry]))
    with av.open(str(part), "w", format="mp4") as out:
        writer = _Writer(out, video, pts[a])
        if copied > a:
            delay = table.pts[entry] - table.seek[entry] if entry is not None and copied < b else 0
            writer.code(video, table, shown[a:copied], delay)
        if entry is not None and copied < b:
            writer.copy(video, table, entry, max(shown[copied:b]), again=copied > a)
    begin_s, end_s = ((pts[i] - pts[0]) * table.time_base for i in (a, b - 1))
    return Clipped(begin_s, end_s, b - a, copied - a)


def _entry(video: Opened, table: Table, first: int) -> int | None:
    """The packet from which on a clip is copied that begins at `first`.

    H.264 counts pictures from the last one that refers to none before it, so behind others only such a one may follow: a key
    picture of an open GOP is none, though decoding may begin there.
    """
    entries = [e for e in table.entries if e not in table.hidden and table.pts[e] >= first]
    if not entries or table.pts[entries[0]] == first or video.stream.codec_context.name != "h264":
        return entries[0] if entries else None
    framing, numbers = Framing(video.stream.codec_context), set(entries)
    for i, packet in enumerate(video.packets()):
        if i in numbers and any(unit[0] & 31 == IDR for unit in framing.units(bytes(packet))):
            return i
    return None


class _Writer:
    """Packets of both kinds into one stream."""

    def __init__(self, out: OutputContainer, video: Opened, first: int) -> None:
        self._out, self._first, self._base = out, first, video.time_base
        self._to = out.add_stream_from_template(video.stream)
        self._frames = Framing(video.stream.codec_context)

    def code(self, video: Opened, table: Table, packets: Sequence[int], delay: int) -> None:
        """Frames of these packets, as new ones; `delay`: how far before its showing a packet is due in the other part."""
        context = video.stream.codec_context
        if context.name not in ENCODERS:
            raise Rejected(f"{video.address.shown}: {context.name} can be cut only where decoding may begin")
        chosen = [
            Chosen(k, Fraction(0), k + 1, table.pts[i], Fraction(0)) for k, i in enumerate(packets)
        ]  # numbers of the clip: nobody else sees them
        encoder = _encoder(video.stream)
        for _, frame in sampling.planned(video, Every(1), chosen, list(plan(table, packets))):
            frame.pict_type = 0  # as the encoder likes, not as it was
            self._coded(encoder.encode(frame), delay)
        self._coded(encoder.encode(None), delay)

    def _coded(self, packets: Sequence[Packet[Any]], delay: int) -> None:
        for packet in packets:
            assert packet.pts is not None, "an encoder keeps the time of its frames"
            self._write(self._frames.of_annex_b(bytes(packet)), packet.pts, packet.pts - delay, key=packet.is_keyframe)

    def copy(self, video: Opened, table: Table, entry: int, last: int, *, again: bool) -> None:
        """Packets from an entry on, but those that lead it; `again`: what it is decoded by is told once more."""
        for i, packet in enumerate(video.packets()):
            if i > last:
                return
            if i < entry or packet.pts is None or packet.pts < table.pts[entry]:
                continue
            data = bytes(packet)
            if i == entry and again:
                data = self._frames.parameters + data
            dts = packet.pts if packet.dts is None else packet.dts
            self._write(data, packet.pts, dts, key=packet.is_keyframe)

    def _write(self, data: bytes, pts: int, dts: int, *, key: bool) -> None:
        packet: Packet[Any] = av.Packet(data)
        packet.pts, packet.dts, packet.time_base = pts - self._first, dts - self._first, self._base
        packet.is_keyframe, packet.stream = key, self._to
        self._out.mux(packet)


class Framing:
    """How a stream's NAL units are told apart: by start codes, or by lengths; and its parameter sets, told in that way."""

    def __init__(self, context: VideoCodecContext) -> None:
        data = context.extradata or b""
        self._length: int | None = None
        self.parameters = data
        hevc = context.name == "hevc"
        if context.name in ENCODERS and data[:1] == b"\1":
            self._length = (data[21 if hevc else 4] & 3) + 1
            self.parameters = b"".join(self._unit(unit) for unit in (_hevc(data) if hevc else _avc(data)))
        if hevc:
            self.parameters = self._unit(END_OF_SEQUENCE) + self.parameters

    def units(self, data: bytes) -> Iterator[bytes]:
        """NAL units of a packet."""
        if self._length is None:
            yield from _annex_b(data)
            return
        at = 0
        while at + self._length < len(data):
            size = int.from_bytes(data[at : at + self._length], "big")
            yield data[at + self._length : at + self._length + size]
            at += self._length + size

    def of_annex_b(self, data: bytes) -> bytes:
        if self._length is None:
            return data
        return b"".join(self._unit(unit) for unit in _annex_b(data))

    def _unit(self, unit: bytes) -> bytes:
        if self._length is None:
            return b"\0\0\0\1" + unit
        return len(unit).to_bytes(self._length, "big") + unit


def _annex_b(data: bytes) -> Iterator[bytes]:
    return (unit for unit in re.split(rb"\x00\x00\x00?\x01", data) if unit)


def _avc(data: bytes) -> Iterator[bytes]:
    """Parameter sets of an AVCDecoderConfigurationRecord (ISO 14496-15)."""
    at = 5
    for mask in (31, 255):
        count, at = data[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(data[at : at + 2], "big")
            yield data[at + 2 : at + 2 + size]
            at += 2 + size


def _hevc(data: bytes) -> Iterator[bytes]:
    """Those of an HEVCDecoderConfigurationRecord."""
    at = 23
    for _ in range(data[22]):
        count, at = int.from_bytes(data[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            size = int.from_bytes(data[at : at + 2], "big")
            yield data[at + 2 : at + 2 + size]
            at += 2 + size


def _encoder(stream: VideoStream) -> VideoCodecContext:
    """With the pictures' own shape and colours."""
    name, options = ENCODERS[stream.codec_context.name]
    context, encoder = stream.codec_context, av.CodecContext.create(name, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = context.width, context.height, context.pix_fmt
    encoder.time_base = stream.time_base or Fraction(1, 90_000)
    encoder.framerate = stream.average_rate or Fraction(25)
    encoder.sample_aspect_ratio = stream.sample_aspect_ratio or Fraction(1)
    for colour in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(encoder, colour, getattr(context, colour))
    encoder.options = options
    return encoder
