"""Opening a file or an address, and its packets in order. The one place that FFmpeg's errors are mapped.

Not here: what is in the packets (bitstream), which of them are needed (plan), decoding (decoding).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from pathlib import Path

import av
from av.codec.context import Flags as CodecFlags
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from streamproc.errors import Rejected, Retryable, StreamprocError, Unreachable
from streamproc.video.address import Address
from streamproc.video.bitstream import Bitstream, bitstream, never
from streamproc.video.limits import Limits

ATTACHED = Disposition.attached_pic
OUT_OF_FILES = {errno.EMFILE, errno.ENFILE}
FOR_THE_MOMENT = OUT_OF_FILES | {errno.ENOMEM, errno.EIO, errno.EAGAIN, errno.ETIMEDOUT}
"""What the file system says of the machine rather than of the file."""

PULSE: ContextVar[Callable[[], None] | None] = ContextVar("pulse", default=None)
"""Told of each packet that is read, where a process wants to show that it lives."""

logging.getLogger("libav").setLevel(logging.CRITICAL)  # decoders talk about every damaged byte; we report what follows


@dataclass(slots=True)
class Opened:
    """An open container and the one stream of it that is shown."""

    address: Address
    container: InputContainer
    stream: VideoStream
    limits: Limits
    damage: str | None = None
    """Why reading ended before the end, where it did; what came before holds."""
    fresh: bool = True
    """Nothing has been read of it, so it stands at its beginning."""

    @property
    def time_base(self) -> Fraction:
        assert self.stream.time_base, "FFmpeg gives every stream a time base"
        return self.stream.time_base

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """Packets of the stream from its beginning, empty ones left out, and those that can never be shown.

        Where some have been read already the file is opened anew, and its decoder with it.
        """
        if not self.fresh:
            self._rewind()
        return self._showable()

    def _showable(self) -> Iterator[Packet[VideoStream]]:
        reader = self.reader
        orphan = reader.orphan if reader else never
        if orphan is never:
            yield from self._within_limits()
            return
        entries = 0
        for packet in self._within_limits():
            if entries < 2 and reader:
                data = bytes(packet)
                entries += reader.entry(data)
                if entries < 2 and orphan(data):
                    continue
            yield packet

    def _within_limits(self) -> Iterator[Packet[VideoStream]]:
        """What a file is no one knows beforehand: its header may say nothing, or too little."""
        read_bytes, zero, reach = 0, None, floor(Fraction(self.limits.duration_s) / self.time_base)
        for packet in self.packets_on():
            read_bytes += packet.size
            if read_bytes > self.limits.size_bytes:
                raise Rejected(f"{self.address.shown}: more than the {self.limits.size_bytes} bytes of video.max_bytes")
            if packet.pts is not None:
                zero = packet.pts if zero is None else zero
                if abs(packet.pts - zero) > reach:  # a damaged timestamp, most likely; what comes after it may be sound
                    where = f"{float((packet.pts - zero) * self.time_base):.0f} s from the first"
                    self.damage = (
                        self.damage or f"a packet {where}, where video.max_duration_s allows less, is left out"
                    )
                    continue
            yield packet

    def packets_on(self) -> Iterator[Packet[VideoStream]]:
        """Packets of the stream from where the container stands."""
        self.fresh, pulse = False, PULSE.get()
        try:
            for packet in self.container.demux(self.stream):
                if pulse:
                    pulse()
                if packet.size:
                    yield packet
        except av.FFmpegError as e:
            # ffmpeg, too, takes this for the end of the file.
            self.damage = f"reading stopped: {_said(e)}"
        except IndexError:  # PyAV's own, where a damaged file seems to bring a stream that its beginning did not have
            self.damage = "reading stopped: a stream begins in mid-file"

    @property
    def reader(self) -> Bitstream | None:
        context = self.stream.codec_context
        return bitstream(context.name, context.extradata)

    @property
    def timeless(self) -> bool:
        """The container keeps no time of showing, and FFmpeg's guess at it is not what ffmpeg goes by."""
        return self.container.format.name == "avi"

    @property
    def declared_s(self) -> Fraction | None:
        """How long the file says its pictures last; None where it says nothing, or means its sound."""
        if self.stream.duration:
            return self.stream.duration * self.time_base
        return length_s(self.container) if len(self.container.streams) == 1 else None

    @property
    def tick(self) -> int:
        """How long one frame is shown, in the time base, where nothing else tells."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return max(1, round(1 / rate / self.time_base)) if rate else 1

    def seek(self, timestamp: int) -> bool:
        """To a place from which a packet at `timestamp` can be read on to, as far as the container knows one."""
        self.fresh = False
        try:
            self.container.seek(timestamp, stream=self.stream, backward=True)
        except av.FFmpegError:
            return False
        return True

    def _rewind(self) -> None:
        if not self.address.is_file and self.address.scheme not in {"http", "https"}:
            raise Rejected(f"{self.address.shown}: can be read only once, and its packets do not tell what they show")
        self.container.close()
        self.container = _open(self.address, self.limits)
        self.stream = _stream(self.address.shown, self.container, self.limits)
        self.fresh = True


def length_s(container: InputContainer) -> Fraction | None:
    """How long the file says it is, all streams together."""
    ticks = container.duration or 0
    if container.format.name.startswith(
        "matroska"
    ):  # it says how far from 0 the last picture is, wherever the first is
        ticks -= max(0, container.start_time or 0)
    return Fraction(ticks, 1_000_000) if ticks > 0 else None


@contextmanager
def opened(address: Address, limits: Limits) -> Iterator[Opened]:
    """The file, open; raises with its name and the place where it fails."""
    _look(address, limits)
    container = _open(address, limits)
    try:
        video = Opened(address, container, _stream(address.shown, container, limits), limits)
    except BaseException:
        container.close()
        raise
    try:
        yield video
    finally:
        video.container.close()


def _open(address: Address, limits: Limits) -> InputContainer:
    try:
        return av.open(
            f"file:{address.target}" if address.is_file else address.target,  # or a path like concat:a is no path
            format=address.format,
            options=dict(address.options),
            timeout=(limits.open_s, limits.read_s),
            metadata_errors="replace",
        )
    except av.FFmpegError as e:
        raise _refused(address.shown, address, e) from e
    except (ValueError, UnicodeError) as e:
        raise Rejected(f"{address.shown}: cannot be opened: {e}") from e


def _look(address: Address, limits: Limits) -> None:
    """What the file system says of a file before FFmpeg does; its words are clearer."""
    if not address.is_file:
        return
    path = Path(address.target)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise Rejected(f"{path}: is a folder, not a video file")
        with path.open("rb"):
            pass
    except OSError as e:
        kind = Retryable if e.errno in FOR_THE_MOMENT else Rejected
        raise kind(f"{path}: {e.strerror}") from e
    if size == 0:
        raise Rejected(f"{path}: is empty (0 bytes)")
    if size > limits.size_bytes:
        raise Rejected(f"{path}: {size} bytes where video.max_bytes allows {limits.size_bytes}")


def _stream(name: str, container: InputContainer, limits: Limits) -> VideoStream:
    """The stream that ffmpeg would choose: the largest, a default one before others, cover art last."""
    every = container.streams.video
    streams = [stream for stream in every if stream.codec_context is not None]
    if every and not streams:
        raise Rejected(f"{name}: no decoder for its video stream")
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams}))
        raise Rejected(f"{name}: no video stream in it ({kinds or 'nothing'} only)")

    def liking(stream: VideoStream) -> int:
        if stream.disposition & ATTACHED:
            return 1
        return stream.width * stream.height + 5_000_000 * bool(stream.disposition & Disposition.default)

    chosen = max(streams, key=liking)
    context = chosen.codec_context
    if chosen.width * chosen.height > limits.pixels:
        raise Rejected(
            f"{name}: pictures of {chosen.width} × {chosen.height} where video.max_pixels allows {limits.pixels}"
        )
    if (long_s := length_s(container)) and long_s > limits.duration_s:
        raise Rejected(f"{name}: {float(long_s):.0f} s long where video.max_duration_s allows {limits.duration_s:.0f}")
    for other in container.streams:
        if other is not chosen:
            other.discard = Discard.all  # their packets are not even read where the container lets us
    context.thread_count = 1  # many slices in parallel, one thread each: none waits for another
    context.options = {"max_pixels": str(limits.pixels)}
    if context.name == "hevc":
        context.flags |= (
            CodecFlags.output_corrupt
        )  # shown by ffmpeg where a file begins in mid-GOP; newer libraries hide it
    return chosen


def _refused(name: str, address: Address, e: av.FFmpegError) -> StreamprocError:
    if address.is_file:
        kind = Retryable if e.errno in OUT_OF_FILES else Rejected  # all else FFmpeg also says of damaged bytes
        return kind(f"{name}: not a video that can be read: {_said(e)}")
    if isinstance(e, av.HTTPClientError):
        return Rejected(f"{name}: {_said(e)}")
    if isinstance(e, av.InvalidDataError):
        return Rejected(f"{name}: answers, but not with a video")
    if isinstance(e, (av.ProtocolNotFoundError, av.OptionNotFoundError, av.DemuxerNotFoundError)):
        return Rejected(f"{name}: {_said(e)}")
    return Unreachable(name, _said(e), remedy="Is the address right, and is its server up?")


def _said(e: av.FFmpegError) -> str:
    """FFmpeg's words without the file name, which may hold a password."""
    return e.strerror or type(e).__name__


@dataclass(slots=True)
class Clock:
    """FFmpeg's best_effort_timestamp, which PyAV does not show: pts, or dts where those have been worse so far.

    It has a memory, so it must see every frame from the first on (libavcodec/decode.c, guess_correct_pts).
    """

    faulty_pts: int = 0
    faulty_dts: int = 0
    last_pts: int = field(default=-(2**63))
    last_dts: int = field(default=-(2**63))

    def best(self, pts: int | None, dts: int | None) -> int | None:
        if dts is not None:
            self.faulty_dts += dts <= self.last_dts
            self.last_dts = dts
        elif pts is not None:
            self.last_dts = pts
        if pts is not None:
            self.faulty_pts += pts <= self.last_pts
            self.last_pts = pts
        elif dts is not None:
            self.last_pts = dts
        if pts is not None and (self.faulty_pts <= self.faulty_dts or dts is None):
            return pts
        return dts
