"""A feed's time: what its packets say, held against the wall clock, so that stream time never jumps and never stands.

A server that restarts, wraps its timestamps, jumps or pauses goes on with other numbers; the wall clock says where on
the stream's own axis that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import floor
from time import monotonic

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamproc.errors import Misconfigured
from streamproc.video.address import Address
from streamproc.video.bitstream import never
from streamproc.video.choice import Chosen, Rate
from streamproc.video.container import Clock, Limits, Opened, opened
from streamproc.video.footage import Keep
from streamproc.video.picture import Painter
from streamproc.video.recorder import Recorder
from streamproc.video.windows import Cut, Picture

JUMP_S = Fraction(5)
"""More than this between two frames, or behind the wall clock, is no network's jitter."""
LEAD_S, SLEW = Fraction(30), Fraction(1, 100)
"""A feed may be so far ahead of the wall clock (a playlist begins some segments back); where its clock is fast and it comes
to more, its time is held back by this share."""
HELD = 256
"""Packets that are kept to be recorded until there is a picture; a feed that has none yet is not recorded."""
AT_ONCE_S = 0.005
"""A packet that comes sooner had been waiting for us."""


@dataclass(slots=True)
class StreamTime:
    """Timestamps of one connection as stream time. `now_s` is the stream's time by the wall clock."""

    late_s: Fraction = Fraction(0)
    """How long the first frame has waited for us."""
    offset_s: Fraction | None = None
    last_s: Fraction = Fraction(-1)
    wanted_s: Fraction = Fraction(0)
    """When the next sample is wanted."""
    jumps: int = 0

    def at(self, time_s: Fraction, now_s: Fraction) -> Fraction:
        if self.offset_s is None:
            self.offset_s = now_s - self.late_s - time_s
        found = time_s + self.offset_s
        step_s = found - self.last_s
        if (self.last_s >= 0 and not 0 <= step_s <= JUMP_S) or now_s - found > JUMP_S:
            self.jumps += 1
            self.offset_s = max(now_s, self.last_s) - time_s
            found = time_s + self.offset_s
        elif found - now_s > LEAD_S:
            self.offset_s -= step_s * SLEW
            found = time_s + self.offset_s
        self.last_s = found
        return found

    def early(self, time_s: Fraction) -> bool:
        """Shown before the next sample is wanted, for all we know."""
        return self.offset_s is not None and time_s + self.offset_s < self.wanted_s


@dataclass(frozen=True, slots=True)
class Dropped:
    """How a connection ended; each does."""

    why: str
    jumps: int


@dataclass(frozen=True, slots=True)
class ReadFeed:
    """Job: one connection. Answers: pictures as they become showable, then how it ended."""

    address: Address
    limits: Limits
    cut: Cut
    zero_s: float
    """When stream time was 0, by the clock that all processes of a machine share."""
    next_k: int
    """The first sample nobody has."""
    keep: Keep | None = None
    """Where it is recorded."""

    def run(self) -> Iterator[list[Picture] | Dropped]:
        rule, next_k, began = self.cut.sampling.rule, self.next_k, monotonic()
        if not isinstance(rule, Rate):
            raise Misconfigured("a feed has no first frame to count from: it is sampled by a rate")
        with opened(self.address, self.limits) as video:
            painter = Painter(self.cut.sampling.look, video.stream.sample_aspect_ratio)
            waiting, packets = _waiting(video, Fraction(monotonic() - began))
            times = StreamTime(late_s=waiting, wanted_s=next_k / rule.per_s)
            if self.keep:
                packets = _recorded(Recorder(self.keep, video.stream), packets, times)
            for pts, frame in _frames(video, packets, times):
                time_s = times.at(pts * video.time_base, Fraction(monotonic() - self.zero_s))
                k = floor(time_s * rule.per_s)
                if k >= next_k:
                    next_k = k + 1
                    times.wanted_s = next_k / rule.per_s
                    chosen = Chosen(k, k / rule.per_s, 0, pts, time_s)
                    yield [Picture(chosen, painter.jpeg(frame))]
            yield Dropped(video.damage or "the feed ended", times.jumps)


def _waiting(video: Opened, opening_s: Fraction) -> tuple[Fraction, Iterator[Packet[VideoStream]]]:
    """How much of the feed came while it was being opened, and all packets from its first on.

    Else a feed would seem as far in the future as its opening took: its first frame is that old when we get it.
    """
    packets, most_s = video.packets_on(), min(opening_s, JUMP_S)
    held: list[Packet[VideoStream]] = []
    waited_s, first, asked = Fraction(0), None, monotonic()
    for packet in packets:
        held.append(packet)
        if packet.pts is not None:
            first = packet.pts if first is None else first
            waited_s = min((packet.pts - first) * video.time_base, most_s)
        if monotonic() - asked > AT_ONCE_S or waited_s == most_s or waited_s < 0:
            break
        asked = monotonic()
    return max(Fraction(0), waited_s), chain(held, packets)


def _recorded(
    recorder: Recorder, packets: Iterator[Packet[VideoStream]], times: StreamTime
) -> Iterator[Packet[VideoStream]]:
    """Each once its place in time is known; that takes a frame or two at the beginning."""
    held: list[Packet[VideoStream]] = []
    with closing(recorder):
        for packet in packets:
            yield packet
            held.append(packet)
            if times.offset_s is not None or len(held) > HELD:
                for one in held:
                    recorder.packet(one, times.offset_s)
                held = []


def _frames(
    video: Opened, packets: Iterator[Packet[VideoStream]], times: StreamTime
) -> Iterator[tuple[int, VideoFrame]]:
    """Frames as they come; pictures that nobody needs, and those before the first that is whole, are left out."""
    context, clock = video.stream.codec_context, Clock()
    spare = video.reader.spare if video.reader else never
    whole = False
    for packet in packets:
        if packet.pts is not None and times.early(packet.pts * video.time_base) and spare(bytes(packet)):
            continue
        try:
            frames = context.decode(packet)
        except av.FFmpegError:
            continue  # a packet lost on the way; the picture after the next entry is whole again
        for frame in frames:
            pts = clock.best(frame.pts, frame.dts)
            whole = whole or not frame.is_corrupt
            if pts is not None and whole:
                yield pts, frame
