"""JPEGs: sharp, in the right colours whatever the video says of its own, upright, with square pixels."""

from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamproc.errors import Misconfigured
from streamproc.video import address, sampling
from streamproc.video.choice import Every
from streamproc.video.container import opened
from streamproc.video.limits import Limits
from streamproc.video.look import Jpeg, Look, shown_size
from streamproc.video.picture import Painter
from tests.video.files import SLOW, Kind, ffmpeg

Image = NDArray[np.uint8]


def jpeg_of(path: Path, look: Look) -> Jpeg:
    with opened(address.parse(path), Limits()) as video:
        _, frame = next(sampling.samples(video, Every(1000)))
        return Painter(look, video.stream.sample_aspect_ratio).jpeg(frame)


def planes(jpeg: bytes) -> Image:
    """A JPEG's own luma and chroma, one behind the other."""
    decoder = av.CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    return np.asarray(decoder.decode(av.Packet(jpeg))[0].to_ndarray(), np.uint8).ravel()


def painted(path: Path, look: Look) -> Image:
    """The first frame, as a model sees it."""
    jpeg = jpeg_of(path, look)
    image: Image = simplejpeg.decode_jpeg(jpeg.data)
    assert image.shape == (jpeg.height, jpeg.width, 3)
    return image


def by_ffmpeg(path: Path, filters: str, width: int, height: int) -> Image:
    raw = ffmpeg(f"-i {path} -frames:v 1 -vf {filters},format=rgb24 -f rawvideo -")
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3)


def psnr(a: Image, b: Image) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error))


@pytest.mark.parametrize("longest", [64, 32, 63])
def test_a_picture_with_an_odd_side_has_the_same_bytes_each_time(longest: int, folder: Path) -> None:
    path = Kind("odd", "mp4", f"{SLOW} -g 25", seconds=5).make(folder)
    with opened(address.parse(path), Limits()) as video:
        frames = [frame for _, frame in sampling.samples(video, Every(25))]
    painter = Painter(Look(longest=longest))
    first = [painter.jpeg(frame).data for frame in frames]
    again = [painter.jpeg(frame).data for frame in reversed(frames)]  # other memory lies behind each by now
    assert again[::-1] == first


@pytest.mark.parametrize("spread", ["tv", "pc"])
@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
def test_pictures_are_the_source_scaled_in_the_right_colours(matrix: str, spread: str, folder: Path) -> None:
    tags = f"-colorspace {matrix} -color_primaries {matrix} -color_trc {matrix} -color_range {spread}"
    name = {"bt709": "bt709", "smpte170m": "bt601"}[matrix]
    kind = Kind(
        f"colours-{matrix}-{spread}",
        "mp4",
        f"{SLOW} -crf 4 {tags}",
        size="640x360",
        seconds=0.2,
        filters=f"gblur=2,scale=out_color_matrix={name}:out_range={spread},format=yuv420p",
    )
    path = kind.make(folder)
    scale = f"scale=320:180:flags=area:in_color_matrix={name}:in_range={spread}:out_color_matrix=bt601:out_range=pc"
    theirs = np.frombuffer(ffmpeg(f"-i {path} -frames:v 1 -vf {scale},format=yuvj420p -f rawvideo -"), np.uint8)
    ours = planes(jpeg_of(path, Look(longest=320)).data)
    luma = 320 * 180
    for part in (slice(0, luma), slice(luma, luma * 5 // 4), slice(luma * 5 // 4, None)):
        assert psnr(ours[part], theirs[part]) >= 37


@pytest.mark.parametrize(("turn", "size"), [(0, (64, 96)), (90, (96, 64)), (180, (64, 96)), (270, (96, 64))])
def test_pictures_stand_upright(turn: int, size: tuple[int, int], folder: Path) -> None:
    kind = Kind(
        f"turned-{turn}",
        "mp4",
        f"{SLOW} -crf 4",
        filters="gblur=2",
        before=f"-i {{}} -c copy -metadata:s:v rotate={turn}",
        middle="mp4",
    )
    path = kind.make(folder)
    image = painted(path, Look())
    assert image.shape[:2] == size
    assert psnr(image, by_ffmpeg(path, "null", size[1], size[0])) >= 30, "chroma counts less here: RGB, and noise"


def test_pixels_are_square(folder: Path) -> None:
    kind = Kind("anamorphic", "mp4", f"{SLOW} -crf 4 -aspect 16:9", size="144x144", seconds=0.2)
    assert painted(kind.make(folder), Look()).shape == (144, 256, 3)
    assert painted(kind.make(folder), Look(longest=128)).shape == (72, 128, 3)


@given(
    width=st.integers(1, 8192),
    height=st.integers(1, 8192),
    aspect=st.fractions(Fraction(1, 4), Fraction(4)) | st.fractions(Fraction(0), Fraction(10**6)),
    longest=st.none() | st.integers(16, 4000),
)
def test_no_side_is_longer_than_asked_or_than_a_jpeg_can_be(
    width: int, height: int, aspect: Fraction, longest: int | None
) -> None:
    w, h = shown_size(width, height, aspect, longest)
    assert min(w, h) >= 1
    assert max(w, h) <= (longest or 65500)


def test_pixels_of_a_shape_that_no_camera_has_are_taken_for_square() -> None:
    assert shown_size(640, 480, Fraction(65535), None) == (640, 480)
    assert shown_size(640, 480, Fraction(1, 65535), None) == (640, 480)


def test_a_header_that_tells_no_size_breaks_nothing() -> None:
    assert shown_size(0, 0, Fraction(1), 384) == (1, 1)


@pytest.mark.parametrize(("longest", "quality"), [(0, 85), (-1, 85), (15, 85), (10**6, 85), (384, 0), (384, 101)])
def test_what_cannot_be_painted_is_refused_beforehand(longest: int, quality: int) -> None:
    with pytest.raises(Misconfigured):
        Look(longest=longest, quality=quality)


def test_painting_keeps_no_frame(folder: Path) -> None:
    path = Kind("many", "mp4", f"{SLOW} -g 25", seconds=2).make(folder)
    gc.collect()
    gc.disable()  # what only the collector would find is memory all the same, while it has not run
    try:
        with opened(address.parse(path), Limits()) as video:
            painter = Painter(Look())
            for _, frame in sampling.samples(video, Every(1)):
                painter.jpeg(frame)
        assert sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects()) <= 3
    finally:
        gc.enable()
