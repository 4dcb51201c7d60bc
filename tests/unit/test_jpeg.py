"""A JPEG's size by its header alone: as the decoder says it, and an error for whatever is no JPEG."""

from __future__ import annotations

import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from streamproc import jpeg


def picture(width: int, height: int, colour: str = "RGB") -> bytes:
    channels = 1 if colour == "GRAY" else 3
    pixels = memoryview(bytes(width * height * channels)).cast("B", (height, width, channels))
    return bytes(simplejpeg.encode_jpeg(pixels, colorspace=colour))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 9), (384, 216), (65500, 1), (3, 4096)])
@pytest.mark.parametrize("colour", ["RGB", "GRAY"])
def test_its_size_is_the_decoders(width: int, height: int, colour: str) -> None:
    data = picture(width, height, colour)
    assert jpeg.size_of(data) == (width, height)
    assert simplejpeg.decode_jpeg_header(data)[:2] == (height, width)


def test_what_stands_before_the_header_is_passed_by() -> None:
    """Comments, a camera's notes with a small picture of their own, and filling."""
    inner = picture(8, 8)
    notes = b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner
    data = picture(40, 30)
    assert jpeg.size_of(data[:2] + b"\xff\xfe\x00\x04hi" + notes + b"\xff\xff" + data[2:]) == (40, 30)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", picture(8, 8)[:40], b"\xff\xd8" + 40 * b"\x00"]
)
def test_what_says_no_size_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="JPEG"):
        jpeg.size_of(data)


@given(st.binary(max_size=400))
def test_whatever_bytes_it_is_given_it_ends(data: bytes) -> None:
    for begin in (b"", b"\xff\xd8", b"\xff\xd8\xff"):
        try:
            width, height = jpeg.size_of(begin + data)
        except ValueError:
            continue
        assert max(width, height) < 65536
