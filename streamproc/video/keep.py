"""Where a feed is recorded, and how much of it stays; and what there is of a recording.

A recording is a folder of segments, each a fragmented MP4 named for the stream time at which it begins, in µs. In an object
store it is the same; there a segment is put once it is complete, and until then it lies in a folder of this machine, the spool.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

from streamproc.errors import Misconfigured, Rejected
from streamproc.messages import Source
from streamproc.video import address
from streamproc.video.bucket import Bucket

HOURS = 24.0
NEAR_S = Fraction(1, 1000)
"""Times of frames are told in whole ms: a frame so much before the time asked for is the one that is meant."""
UNREACHABLE: Final = "footage-unreachable"
"""Why there is no picture, where there was one or might have been."""


@dataclass(frozen=True, slots=True)
class Keep:
    """`FOLDER`, `FOLDER?hours=48&bytes=20000000000`, `s3://bucket/prefix?hours=48&spool=FOLDER`."""

    folder: Path
    """Of a recording in an object store: the spool."""
    hours: float = HOURS
    size_bytes: int | None = None
    bucket: str | None = None
    """Its address; None: the recording lies in the folder."""
    below: str = ""
    """Where in the bucket."""

    @classmethod
    def parse(cls, text: str) -> Keep:
        place, _, rest = text.partition("?")
        told = {name: values[-1] for name, values in parse_qs(rest, keep_blank_values=True).items()}
        try:
            hours, size = float(told.pop("hours", HOURS)), told.pop("bytes", None)
            kept = cls(Path(place.removeprefix("file://")), hours, None if size is None else int(float(size)))
        except ValueError as e:
            raise Misconfigured(f"footage '{address.redact(text)}': {e}") from None
        if "://" in place and not place.startswith("file://"):
            kept = replace(kept, bucket=_bucket(text, place), folder=_spool(place, told.pop("spool", None)))
        if told or kept.hours <= 0 or (kept.size_bytes is not None and kept.size_bytes <= 0):
            raise Misconfigured(
                f"footage '{address.redact(text)}': behind the '?' stand hours and bytes, both above 0; of a bucket the spool, too"
            )
        return kept

    def of(self, source: Source) -> Keep:
        """The stream's own folder."""
        folder = self.folder / quote(source.stream, safe="") / str(source.generation)
        return replace(self, folder=folder, below=f"{_key(source.stream)}/{source.generation}")


def _bucket(text: str, place: str) -> str:
    parts = urlsplit(place)
    if parts.scheme != "s3" or not parts.netloc:
        raise Misconfigured(f"footage '{address.redact(text)}': it is a folder, or s3://bucket/prefix")
    if "@" in parts.netloc:
        raise Misconfigured(f"footage '{address.redact(text)}': credentials are read from the environment (AWS_…)")
    if find_spec("obstore") is None:
        raise Misconfigured(f"footage '{text}' needs: pip install 'streamproc[s3]'")
    return place.rstrip("/")


def _spool(place: str, told: str | None) -> Path:
    """Of each bucket another, and of each user of the machine."""
    if told:
        return Path(told) / _key(place.rstrip("/"))
    return Path(tempfile.gettempdir()) / f"streamproc-footage-{os.getuid()}" / _key(place.rstrip("/"))


def _key(name: str) -> str:
    """A name as one part of a key: stores read a '%' each in its own way."""
    return quote(name, safe="").replace("~", "%7E").replace("%", "~")


# what there is ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    path: Path
    """Where it lies, or is put once it is fetched."""
    start_s: Fraction
    key: str | None = None
    """Of one in an object store."""


def segments(folder: Path) -> list[Segment]:
    """In the order of time."""
    found = [Segment(path, Fraction(int(path.stem), 10**6)) for path in folder.glob("*.mp4") if path.stem.isdecimal()]
    return sorted(found, key=lambda segment: segment.start_s)


def segment_name(start_s: Fraction) -> str:
    return f"{round(start_s * 10**6):016}.mp4"


@dataclass(frozen=True, slots=True)
class Recording:
    """Of one stream: what is in the bucket, and what this machine has not put there yet."""

    keep: Keep

    def segments(self) -> list[Segment]:
        here = segments(self.keep.folder)  # first: what is put meanwhile is found twice, and not missed
        if self.keep.bucket is None:
            return here
        there = {segment.path.name: segment for segment in stored_segments(self.keep)}
        return sorted(
            (there | {segment.path.name: segment for segment in here}).values(), key=lambda segment: segment.start_s
        )

    @contextmanager
    def at_hand(self, segment: Segment) -> Iterator[Path]:
        """As a file, for as long as it is looked at."""
        if self.keep.bucket is None or segment.path.exists():
            yield segment.path
            return
        with tempfile.TemporaryDirectory(prefix="streamproc-footage-") as folder:
            path = Path(folder) / segment.path.name
            if not Bucket(self.keep.bucket).fetch(f"{self.keep.below}/{segment.path.name}", path):
                raise Rejected(UNREACHABLE)  # it has made room
            yield path


def stored_segments(keep: Keep) -> list[Segment]:
    """Those in the bucket, in the order of time."""
    assert keep.bucket, "the recording is in an object store"
    named = ((Path(one.key), one.key) for one in Bucket(keep.bucket).below(f"{keep.below}/"))
    found = [
        Segment(keep.folder / path.name, Fraction(int(path.stem), 10**6), key)
        for path, key in named
        if path.suffix == ".mp4" and path.stem.isdecimal()
    ]
    return sorted(found, key=lambda segment: segment.start_s)
