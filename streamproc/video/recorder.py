"""A feed's packets, written as they come: no picture is coded anew. Segments begin at key frames; what one holds is on disk
a second later, so a process that is killed leaves a file that can be read to there. Of a recording in an object store the
folder is the spool, and `sending` takes it from there.

A disk that is full stops the recording, not the feed; it is tried again with the next segment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from streamproc.video.keep import Keep, Segment, segment_name, segments
from streamproc.video.sending import Sending

log = logging.getLogger(__name__)

SEGMENT_S = 60
APART_S = Fraction(1, 2)
"""A clock that moved by so much is another clock: times of one segment are those of one clock."""
OPTIONS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "1000000", "flush_packets": "1"}

FAILURES = (OSError, av.FFmpegError, ValueError)
"""Of writing; the last is PyAV's, for what cannot stand in an MP4."""


class Recorder:
    """Of one connection."""

    def __init__(
        self, keep: Keep, stream: VideoStream, *, segment_s: float = SEGMENT_S, now: Callable[[], float] = time.time
    ) -> None:
        self._keep, self._stream, self._segment_s, self._now = keep, stream, Fraction(segment_s), now
        self._out: OutputContainer | None = None
        self._to: VideoStream | None = None
        self._start_s = self._offset_s = Fraction(0)
        self._first = self._last_dts = 0
        self._failed = False
        self._sending = Sending(keep) if keep.bucket else None

    def packet(self, packet: Packet[VideoStream], offset_s: Fraction | None) -> None:
        """`offset_s`: from the connection's time to the stream's; None as long as that is not known."""
        if packet.pts is None or offset_s is None:
            return
        try:
            self._packet(packet, packet.pts, offset_s)
        except FAILURES as e:
            self._tell(e)
            self._abandon()

    def close(self) -> None:
        try:
            self._end()
        except FAILURES as e:  # the connection ended for a reason of its own, and that is what is to be heard
            self._tell(e)
        if self._sending:
            self._sending.close()

    def _tell(self, error: Exception) -> None:
        if not self._failed:  # once; it may fail for hours
            why = getattr(error, "strerror", None) or error
            log.warning("%s: the feed is not recorded: %s", self._keep.folder, why)
        self._failed = True

    def _end(self) -> None:
        """Of a segment."""
        out, self._out = self._out, None
        if out is None:
            return
        try:
            out.close()
        finally:  # what had come to the disk can be read
            if self._sending:
                self._sending.add(Path(out.name))

    def _packet(self, packet: Packet[VideoStream], pts: int, offset_s: Fraction) -> None:
        time_s = pts * self._base + offset_s
        if self._out is not None and abs(offset_s - self._offset_s) > APART_S:
            self._end()
        if packet.is_keyframe and (self._out is None or time_s - self._start_s >= self._segment_s) and time_s >= 0:
            self._begin(pts, time_s, offset_s)
        dts = pts if packet.dts is None else packet.dts
        if self._out is None or dts <= self._last_dts:
            return
        self._last_dts = dts
        copy: Packet[Any] = av.Packet(bytes(packet))
        copy.pts, copy.dts, copy.time_base = pts - self._first, dts - self._first, self._base
        copy.is_keyframe = packet.is_keyframe
        assert self._to is not None, "an open segment has a stream"
        copy.stream = self._to
        self._out.mux(copy)

    @property
    def _base(self) -> Fraction:
        assert self._stream.time_base, "FFmpeg gives every stream a time base"
        return self._stream.time_base

    def _begin(self, pts: int, time_s: Fraction, offset_s: Fraction) -> None:
        self._end()
        folder = self._keep.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._trim(segments(folder))
        self._to = None
        self._out = av.open(str(folder / segment_name(time_s)), "w", format="mp4", options=OPTIONS)
        self._to = self._out.add_stream_from_template(self._stream)
        self._start_s, self._offset_s, self._first = time_s, offset_s, pts
        self._last_dts, self._failed = -(2**63), False

    def _trim(self, there: list[Segment]) -> None:
        """The oldest go; only what one recorder writes lies in the folder."""
        sizes = []
        for segment in there:
            with suppress(FileNotFoundError):  # sent meanwhile
                sizes.append((segment.path, segment.path.stat()))
        total = sum(status.st_size for _, status in sizes)
        oldest = self._now() - self._keep.hours * 3600
        for path, status in sizes:
            if status.st_mtime >= oldest and (self._keep.size_bytes is None or total <= self._keep.size_bytes):
                break
            path.unlink(missing_ok=True)
            total -= status.st_size

    def _abandon(self) -> None:
        """A segment that could not be written to may not be closed either."""
        out, self._out = self._out, None
        if out is None:
            return
        with suppress(OSError, av.FFmpegError):
            out.close()
        if self._to is None:  # nothing can be in it
            Path(out.name).unlink(missing_ok=True)
        elif self._sending:
            self._sending.add(Path(out.name))
