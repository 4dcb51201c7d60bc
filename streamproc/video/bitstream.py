"""What a coded picture says of itself: may decoding begin with it, and does any other picture need it?

Only headers are read, and only what the standards promise is believed; 'no' where in doubt, which costs time but never
a pixel. What containers say (keyframe flags) is believed for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

INTRA_ONLY = frozenset(
    {"mjpeg", "png", "prores", "dnxhd", "dvvideo", "rawvideo", "huffyuv", "ffvhuff", "utvideo", "v210", "jpeg2000"}
)

RASL = (8, 9)


def never(_: bytes) -> bool:
    return False


def always(_: bytes) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Bitstream:
    """How to read the pictures of one stream."""

    entry: Callable[[bytes], bool]
    """All that is shown from here on comes out the same as if everything before had been decoded."""
    spare: Callable[[bytes], bool]
    """No other picture is made with the help of this one."""
    orphan: Callable[[bytes], bool] = never
    """Leads its entry and cannot be made where decoding begins with it: nobody shows it."""


def bitstream(codec: str, extradata: bytes | None) -> Bitstream | None:
    """None: nothing is known of this codec, everything must be decoded."""
    extra = extradata or b""
    if codec == "h264":
        nals = _splitter((extra[4] & 3) + 1 if len(extra) > 6 and extra[0] == 1 else None)
        return Bitstream(lambda data: _h264_entry(data, nals), lambda data: _h264_spare(data, nals))
    if codec == "hevc":
        prefixed = len(extra) > 22 and (extra[0] == 1 or extra[:3] not in (b"\0\0\0", b"\0\0\1"))
        nals = _splitter((extra[21] & 3) + 1 if prefixed else None)
        top = _hevc_top_layer(extra, prefixed=prefixed)
        return Bitstream(
            entry=lambda data: 16 <= _hevc_kind(data, nals) <= 21,
            spare=lambda data: _hevc_spare(data, nals, top),
            orphan=lambda data: _hevc_kind(data, nals) in RASL,
        )
    if codec in INTRA_ONLY:
        return Bitstream(always, always)
    others = {
        "av1": Bitstream(_av1_entry, never),
        "libdav1d": Bitstream(_av1_entry, never),
        "vp9": Bitstream(_vp9_entry, never),
        "vp8": Bitstream(lambda data: len(data) > 0 and not data[0] & 1, never),
        "mpeg4": Bitstream(lambda data: _vop_types(data) == [0], lambda data: _vop_types(data) == [2]),
        "mpeg2video": Bitstream(_mpeg2_entry, lambda data: set(_mpeg2_types(data)) == {3}),
    }
    return others.get(codec)


# H.264 and HEVC: NAL units -----------------------------------------------------------------------------------------

Span = tuple[int, int]
Splitter = Callable[[bytes], Iterator[Span]]


def _splitter(length_size: int | None) -> Splitter:
    """Where NAL units begin and end: behind their lengths (MP4, MKV), or between start codes (TS, AVI)."""

    def prefixed(data: bytes) -> Iterator[Span]:
        assert length_size
        at = 0
        while at + length_size < len(data):
            begin = at + length_size
            at = begin + int.from_bytes(data[at:begin], "big")
            yield begin, min(at, len(data))

    def annex_b(data: bytes) -> Iterator[Span]:
        begin = data.find(b"\0\0\1")
        while begin >= 0:
            after = data.find(b"\0\0\1", begin + 3)
            yield begin + 3, after if after >= 0 else len(data)
            begin = after

    return prefixed if length_size else annex_b


def _h264_entry(data: bytes, nals: Splitter) -> bool:
    recovers = False
    for begin, end in nals(data):
        kind = data[begin] & 31 if begin < end else 0
        if kind == 5:
            return True  # IDR: nothing before it counts
        if kind == 6:
            recovers |= _recovers_at_once(data[begin + 1 : end])
        elif 1 <= kind <= 4:
            return recovers
    return False


def _recovers_at_once(sei: bytes) -> bool:
    """A recovery point with recovery_frame_cnt 0 and exact_match: an open GOP's I picture, not a refresh by and by."""
    sei = sei.replace(b"\0\0\3", b"\0\0")
    at = 0
    while at + 2 < len(sei):
        kind = size = 0
        while at < len(sei) and sei[at] == 255:
            kind, at = kind + 255, at + 1
        if at + 1 >= len(sei):
            return False
        kind, at = kind + sei[at], at + 1
        while at < len(sei) and sei[at] == 255:
            size, at = size + 255, at + 1
        if at + 1 >= len(sei):
            return False
        size, at = size + sei[at], at + 1
        if kind == 6 and size:
            return sei[at] & 0xC0 == 0xC0
        at += size
    return False


def _h264_spare(data: bytes, nals: Splitter) -> bool:
    seen = False
    for begin, end in nals(data):
        if begin < end and 1 <= data[begin] & 31 <= 5:
            if data[begin] & 0x60:
                return False
            seen = True
    return seen


def _hevc_kind(data: bytes, nals: Splitter) -> int:
    """Type of the first coded slice; 63 where there is none."""
    for begin, end in nals(data):
        if begin < end and (kind := data[begin] >> 1 & 63) < 32:
            return kind
    return 63


def _hevc_spare(data: bytes, nals: Splitter, top: int) -> bool:
    """Sub-layer non-reference pictures help higher temporal layers still, so only those of the top layer are spare."""
    seen = False
    for begin, end in nals(data):
        if begin + 1 >= end or (kind := data[begin] >> 1 & 63) >= 32:
            continue
        if kind > 14 or kind & 1 or (data[begin + 1] & 7) - 1 < top:
            return False
        seen = True
    return seen


def _hevc_top_layer(extra: bytes, *, prefixed: bool) -> int:
    """The highest temporal layer that the stream may have; 7 (above all) where that is not said."""
    if prefixed:
        layers = extra[21] >> 3 & 7
        return layers - 1 if layers else 7
    for begin, end in _splitter(None)(extra):
        if end - begin > 3 and extra[begin] >> 1 & 63 == 32:  # the video parameter set
            return extra[begin + 3] >> 1 & 7
    return 7


# the others ---------------------------------------------------------------------------------------------------------


def _av1_entry(data: bytes) -> bool:
    """A shown key frame with its sequence header in the same temporal unit."""
    header, at = False, 0
    while at < len(data):
        first = data[at]
        kind, extended, sized = first >> 3 & 15, first >> 2 & 1, first >> 1 & 1
        at += 1 + extended
        size, shift = len(data) - at, 0
        if sized:
            size = 0
            while at < len(data):
                byte = data[at]
                size |= (byte & 127) << shift
                shift, at = shift + 7, at + 1
                if not byte & 128:
                    break
        if kind == 1:
            header = True
        elif kind in (3, 6):  # frame header, frame: not show_existing_frame, KEY_FRAME, show_frame
            return header and at < len(data) and data[at] >> 4 == 1
        at += size
    return False


def _vp9_entry(data: bytes) -> bool:
    """frame_marker 2, not show_existing_frame, frame_type 0; profile 3 has one bit more before."""
    if not data or data[0] >> 6 != 2:
        return False
    return data[0] >> (1 if data[0] >> 4 & 3 == 3 else 2) & 3 == 0


def _vop_types(data: bytes) -> list[int]:
    """MPEG-4 part 2: 0 I, 1 P, 2 B, 3 S; more than one where frames are packed."""
    return [data[at + 4] >> 6 for at in _codes(data, 0xB6) if at + 4 < len(data)]


def _mpeg2_types(data: bytes) -> list[int]:
    """1 I, 2 P, 3 B; two where fields are coded one by one."""
    return [data[at + 5] >> 3 & 7 for at in _codes(data, 0x00) if at + 5 < len(data)]


def _mpeg2_entry(data: bytes) -> bool:
    return _mpeg2_types(data)[:1] == [1] and any(True for _ in _codes(data, 0xB3))


def _codes(data: bytes, code: int) -> Iterator[int]:
    wanted = b"\0\0\1" + bytes([code])
    at = data.find(wanted)
    while at >= 0:
        yield at
        at = data.find(wanted, at + 4)
