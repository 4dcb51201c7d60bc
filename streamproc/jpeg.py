"""How large a JPEG is, by its header. Who only asks that needs no decoder, and not the numpy that comes with one."""

from __future__ import annotations

_ALONE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a length."""
_SIZED = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of a frame's header; the three between them are tables'."""


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height. Raises ValueError where it is no JPEG that says them."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("no JPEG")
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SIZED:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker == 0xFF:  # filled up
            at += 1
        else:
            at += 2 if marker in _ALONE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("a JPEG without a size")
