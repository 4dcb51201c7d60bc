"""One connection of a feed: packets as they come, pictures as they become showable, and all of it recorded where that is
wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain
from math import floor
from time import monotonic

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamproc.errors import Misconfigured
from streamproc.video.choice import Chosen, Rate
from streamproc.video.container import Clock, Opened, opened
from streamproc.video.jobs import Dropped, ReadFeed
from streamproc.video.needed import Needed
from streamproc.video.picture import Painter
from streamproc.video.recorder import Recorder
from streamproc.video.streamtime import JUMP_S, StreamTime
from streamproc.video.windows import Picture

HELD = 256
"""Packets that are kept to be recorded until there is a picture; a feed that has none yet is not recorded."""
AT_ONCE_S = 0.005
"""A packet that comes sooner had been waiting for us."""


def read_feed(job: ReadFeed) -> Iterator[list[Picture] | Dropped]:
    rule, began = job.cut.sampling.rule, monotonic()
    if not isinstance(rule, Rate):
        raise Misconfigured("a feed has no first frame to count from: it is sampled by a rate")
    with opened(job.address, job.limits) as video:
        painter = Painter(job.cut.sampling.look, video.stream.sample_aspect_ratio)
        waiting, packets = _waiting(video, Fraction(monotonic() - began))
        times = StreamTime(late_s=waiting, wanted_s=job.next_k / rule.per_s)
        if job.keep:
            packets = _recorded(Recorder(job.keep, video.stream), packets, times)
        for chosen, frame in chosen_of(video, packets, times, rule, lambda: monotonic() - job.zero_s):
            yield [Picture(chosen, painter.jpeg(frame))]
        yield Dropped(video.damage or "the feed ended", times.jumps)


def chosen_of(
    video: Opened,
    packets: Iterator[Packet[VideoStream]],
    times: StreamTime,
    rule: Rate,
    now_s: Callable[[], float],
) -> Iterator[tuple[Chosen, VideoFrame]]:
    """Of each sample from the one wanted on the first frame at or after it; those for which none came are left out."""
    for pts, frame in _frames(video, packets, times):
        time_s = times.at(pts * video.time_base, Fraction(now_s()))
        if time_s >= times.wanted_s:
            k = floor(time_s * rule.per_s)
            times.wanted_s = (k + 1) / rule.per_s
            yield Chosen(k, k / rule.per_s, 0, pts, time_s), frame


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
    needed = Needed(video.reader, times, video.time_base)
    whole = False
    for packet in packets:
        for given in needed.of(packet):
            try:
                frames = context.decode(given)
            except av.FFmpegError:
                continue  # a packet lost on the way; the picture after the next entry is whole again
            finally:
                if given is None:
                    context.flush_buffers()
            for frame in frames:
                pts = clock.best(frame.pts, frame.dts)
                whole = whole or not frame.is_corrupt
                if pts is not None and whole:
                    yield pts, frame
