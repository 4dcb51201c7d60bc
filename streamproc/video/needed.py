"""Which packets of a feed its decoder is given: those that some picture wanted is made with, as far as it can be known
while they come.

Behind the last sample of a GOP the rest of it is of no use, if the next GOP begins before the next sample is wanted. A
camera's GOPs are of one length, mostly: where the last two were, packets are held until the next one has begun, and are
forgotten then. Where it does not come when it should they are decoded late, still before the sample; and nothing is held
any more until GOPs are regular again.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from av.packet import Packet
from av.video.stream import VideoStream

from streamproc.video.bitstream import Bitstream
from streamproc.video.streamtime import StreamTime

HELD = 512
"""Packets held at most; of longer GOPs the rest is decoded, needed or not."""
LATE_S = Fraction(1, 10)
"""A GOP may begin so much before or behind its time."""


class Needed:
    """Of one connection."""

    def __init__(self, reader: Bitstream | None, times: StreamTime, time_base: Fraction) -> None:
        self._reader, self._times, self._base = reader, times, time_base
        self._held: list[Packet[VideoStream]] = []
        self._entry_s: Fraction | None = None
        self._length_s: Fraction | None = None
        self._regular = False

    def of(self, packet: Packet[VideoStream]) -> Iterator[Packet[VideoStream] | None]:
        """What is to be decoded now that this packet has come. None: a gap, to be drained and flushed before what follows.

        Entries are, wanted or not: what the pictures behind them are decoded by may be told in them, and nowhere else.
        """
        if packet.pts is None or self._reader is None:
            yield from self._with_held(packet)
            return
        time_s, data = packet.pts * self._base, bytes(packet)
        ahead_s, entry = self._times.until_wanted(time_s), self._reader.entry(data)
        if entry:
            self._begins(time_s)
            if self._held and ahead_s is not None and ahead_s >= 0:
                self._held = []  # what leads this entry may be made with it and come out wrong; it is shown before, too
                yield None
        if ahead_s is not None and ahead_s > 0:
            self._times.left_out(time_s)  # or decoded for the sake of others
            if self._reader.spare(data):
                return
            if not entry and self._useless(time_s, ahead_s):
                self._held.append(packet)
                return
        yield from self._with_held(packet)

    def _begins(self, time_s: Fraction) -> None:
        """A GOP."""
        if self._entry_s is not None:
            length_s = time_s - self._entry_s
            self._regular = self._length_s is not None and abs(length_s - self._length_s) <= LATE_S
            self._length_s = length_s
        self._entry_s = time_s

    def _useless(self, time_s: Fraction, ahead_s: Fraction) -> bool:
        """The next GOP will begin before the sample, for all we know."""
        if not self._regular or self._entry_s is None or self._length_s is None:
            return False
        left_s = self._entry_s + self._length_s + LATE_S - time_s
        self._regular = left_s >= 0 and len(self._held) < HELD
        return self._regular and left_s <= ahead_s

    def _with_held(self, packet: Packet[VideoStream]) -> Iterator[Packet[VideoStream]]:
        held, self._held = self._held, []
        yield from held
        yield packet
