"""Packets into frames: the stretches of a plan, or all there is.

What a stretch gives is held against the table. A frame that does not come, comes damaged or with another time than its
packet said is a `Surprise`: then the table is wrong about this file, and it is decoded from beginning to end instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamproc.errors import Rejected
from streamproc.video.bitstream import never
from streamproc.video.container import Clock, Opened
from streamproc.video.plan import Stretch
from streamproc.video.table import Mark, Table

READ_ON_BYTES = 4 * 2**20
"""Reading past so much is cheaper, and surer, than a seek."""


class Surprise(Exception):
    """The packets did not tell what the decoder shows."""


def decode_all(video: Opened) -> Iterator[tuple[int, VideoFrame]]:
    """Every frame that is shown, as ffmpeg shows them: damaged packets are passed over, damaged pictures are shown."""
    packets = video.packets()  # first: it may open the file anew
    clock, context, timeless = Clock(), video.stream.codec_context, video.timeless
    last: int | None = None
    step = video.tick
    for packet in _then_none(packets):
        try:
            frames = context.decode(packet)
        except av.FFmpegError as e:
            at = f" at byte {packet.pos}" if packet and packet.pos is not None else ""
            video.damage = video.damage or f"the packet{at} cannot be decoded: {e.strerror}"
            continue
        for frame in frames:
            pts = clock.best(None if timeless else frame.pts, frame.dts)
            if pts is None:  # no clock at all: each frame is shown for as long as the one before
                pts = 0 if last is None else last + step
            elif last is not None and pts > last:
                step = pts - last
            last = pts
            yield pts, frame
    if last is None:
        raise Rejected(f"{video.address.shown}: no picture in it can be decoded ({video.damage or 'it has none'})")


def settle(video: Opened, table: Table) -> None:
    """Decode the packets in doubt, from the file's beginning, and note which of them are shown."""
    if not (until := table.doubt):
        return
    packets = video.packets()
    context = video.stream.codec_context
    expected = {table.pts[i] for i in range(until) if i not in table.hidden}
    came = set[int]()
    for frame in _frames(context, islice(packets, until)):
        if frame.pts not in expected:
            raise Surprise(f"a frame at {frame.pts} that no packet told of")
        came.add(frame.pts)
    context.flush_buffers()
    if not came:
        raise Surprise("nothing comes of the first packets")
    table.hidden |= {i for i in range(until) if table.pts[i] not in came}


def decode(video: Opened, stretches: Iterable[Stretch]) -> Iterator[tuple[int, VideoFrame]]:
    """The frames wanted, in shown order within each stretch."""
    reader = video.reader
    spare = reader.spare if reader else never
    place = _Place(video)
    for stretch in stretches:
        place.go(stretch)
        context = video.stream.codec_context  # going there may have opened the file anew
        sent, missing = set[int](), set(stretch.wanted)
        for frame in _frames(context, _needed(place, stretch, spare, sent)):
            if frame.pts not in sent or (frame.is_corrupt and not stretch.broken):
                raise Surprise(f"a frame at {frame.pts} is damaged, or no packet told of it")
            sent.remove(frame.pts)
            if frame.pts in missing:
                missing.remove(frame.pts)
                yield frame.pts, frame
        if sent or missing:
            raise Surprise(f"no frame came for {min(sent | missing)}")
        context.flush_buffers()  # without it pictures of this stretch would stand in for missing ones of the next


def _needed(
    place: _Place, stretch: Stretch, spare: Callable[[bytes], bool], sent: set[int]
) -> Iterator[Packet[VideoStream]]:
    """Packets of a stretch that the decoder must be given; notes the frames that are to come of them."""
    for i in range(stretch.first, stretch.last + 1):
        packet = place.packet()
        pts = packet.pts
        if pts not in stretch.wanted:
            if stretch.floor is not None and i < stretch.until and pts is not None and pts < stretch.floor:
                continue
            if not stretch.broken and spare(bytes(packet)):
                continue
        if i not in stretch.hidden:
            assert pts is not None, "a regular table has a time for every packet"
            sent.add(pts)
        yield packet


class _Place:
    """Where in a file we stand, and how to get elsewhere."""

    def __init__(self, video: Opened) -> None:
        self._video = video
        self._packets: Iterator[Packet[VideoStream]] = video.packets() if video.fresh else iter(())
        self._held: Packet[VideoStream] | None = None
        self._next: int | None = 0 if video.fresh else None
        self._pos = 0

    def packet(self) -> Packet[VideoStream]:
        packet, self._held = self._held or next(self._packets, None), None
        if packet is None:
            raise Surprise("the file ends earlier than it did")
        if self._next is not None:
            self._next += 1
        self._pos = packet.pos if packet.pos is not None else self._pos
        return packet

    def go(self, stretch: Stretch) -> None:
        """To a stretch's first packet: reading on, by a seek where it leads there, else from the beginning."""
        ahead = self._next is not None and self._next <= stretch.first
        if ahead and 0 <= stretch.pos - self._pos <= READ_ON_BYTES:
            self._read_on(stretch)
        elif not self._sought(stretch):
            self._again()
            self._read_on(stretch)

    def _read_on(self, stretch: Stretch) -> None:
        assert self._next is not None
        while self._next < stretch.first:
            self.packet()
        if self._hold(stretch.mark) is not True:
            raise Surprise("the file is another than it was")

    def _sought(self, stretch: Stretch) -> bool:
        """Seek, then look for the packet itself: some containers lead before it, some behind."""
        if stretch.first == 0 or not self._video.seek(stretch.seek):
            return False
        self._packets, self._held = self._video.packets_on(), None
        while (found := self._hold(stretch.mark)) is None:
            self._held = None
        self._next = stretch.first if found else None
        return found

    def _hold(self, mark: Mark) -> bool | None:
        """The next packet, held: is it the one? False where it can no longer come."""
        self._held = self._held or next(self._packets, None)
        if self._held is None:
            return False
        if (self._held.pts, self._held.size) == mark:
            return True
        return False if self._held.is_keyframe and (self._held.pts or 0) > mark.pts else None

    def _again(self) -> None:
        self._packets, self._held, self._next, self._pos = self._video.packets(), None, 0, 0


def _frames(context: VideoCodecContext, packets: Iterable[Packet[VideoStream]]) -> Iterator[VideoFrame]:
    for packet in _then_none(packets):
        try:
            yield from context.decode(packet)
        except av.FFmpegError as e:
            raise Surprise(f"a packet cannot be decoded: {e.strerror}") from e


def _then_none(packets: Iterable[Packet[VideoStream]]) -> Iterator[Packet[VideoStream] | None]:
    """At the end a decoder is asked for what it still holds."""
    yield from packets
    yield None
