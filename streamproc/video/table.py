"""All packets of a file, in the order they stand in it: what is shown when, and where decoding may begin.

Reading packets costs a hundredth of decoding them, and with the table every choice is made before anything is decoded.
A table is `regular` where packets tell what a full decode would show. Where they do not (no timestamps, times that jump
back, two pictures in a packet), nobody guesses: such a file is decoded from beginning to end.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from streamproc.video.container import Opened


class Mark(NamedTuple):
    """What tells one packet from all others of its stream."""

    pts: int
    size: int


@dataclass(slots=True)
class Table:
    """Columns, one number a packet."""

    time_base: Fraction
    regular: bool
    why: str | None
    """Why it is not regular."""
    pts: list[int]
    size: list[int]
    pos: list[int]
    seek: list[int]
    """The timestamp to seek to for a packet: its dts, or what it has instead."""
    entries: list[int]
    """Packets at which decoding may begin, in order. The first packet is always one: there a full decode begins too."""
    hidden: set[int] = field(default_factory=set)
    """Packets that are decoded and not shown: outside of edit lists, or before the first picture that can be made."""
    frame_s: Fraction = Fraction(0)
    """How long the last frame is shown."""
    doubt: int = 0
    """Packets [0, doubt) must be decoded to know which of them are shown."""
    damage: str | None = None

    @property
    def shown_s(self) -> Fraction:
        """From the first shown frame to the end of the last."""
        shown = [self.pts[i] for i in self.shown()]
        return (shown[-1] - shown[0]) * self.time_base + self.frame_s if shown else Fraction(0)

    def segment(self, packet: int) -> int:
        """Which entry a packet stands behind."""
        return bisect_right(self.entries, packet) - 1

    def segment_end(self, segment: int) -> int:
        return self.entries[segment + 1] if segment + 1 < len(self.entries) else len(self.pts)

    def leads(self, packet: int) -> bool:
        """Shown before the entry it stands behind: in an open GOP it is made with pictures from before that entry."""
        return self.pts[packet] < self.pts[self.entries[self.segment(packet)]]

    def shown(self) -> list[int]:
        """Packets in shown order."""
        kept = range(len(self.pts)) if not self.hidden else (i for i in range(len(self.pts)) if i not in self.hidden)
        return sorted(kept, key=self.pts.__getitem__)


def scan(video: Opened) -> Table:
    """Read all packets, decode none."""
    reader, timeless = video.reader, video.timeless
    pts, size, pos, seek, entries = list[int](), list[int](), list[int](), list[int](), list[int]()
    hidden = set[int]()
    why = None if reader else f"nothing is known of {video.stream.codec_context.name}"
    last = 0
    first_is_entry = False
    for i, packet in enumerate(video.packets()):
        if packet.pts is None:
            why = why or f"packet {i} has no timestamp"
        elif packet.is_corrupt:
            why = why or f"packet {i} is damaged"
        elif timeless and packet.pts != packet.dts:
            why = why or "its container does not say when frames are shown"
        if packet.is_discard:
            hidden.add(i)
        now = packet.pts if packet.pts is not None else packet.dts or 0
        pts.append(now)
        size.append(packet.size)
        pos.append(packet.pos if packet.pos is not None else -1)
        seek.append(packet.dts if packet.dts is not None else now)
        last = packet.duration or last
        # Only a packet flagged as key can be an entry, except that MPEG-4 and others may flag more than they should.
        if reader and why is None and (i == 0 or packet.is_keyframe):
            clean = reader.entry(bytes(packet))
            if i == 0:
                first_is_entry = clean
            if clean or i == 0:
                entries.append(i)
    table = Table(
        time_base=video.time_base,
        regular=False,
        why=why,
        pts=pts,
        size=size,
        pos=pos,
        seek=seek,
        entries=entries or [0],
        hidden=hidden,
        frame_s=_frame_s(video, last),
        damage=video.damage,
    )
    table.why = why or _irregular(table)
    table.regular = table.why is None
    table.doubt = _doubt(table, first_is_entry=first_is_entry) if table.regular else 0
    return table


def _frame_s(video: Opened, last: int) -> Fraction:
    if last:
        return last * video.time_base
    rate = video.stream.average_rate or video.stream.guessed_rate
    return 1 / rate if rate else Fraction(0)


def _irregular(table: Table) -> str | None:
    if not table.pts:
        return "no packets"
    shown = [p for i, p in enumerate(table.pts) if i not in table.hidden]
    if len(set(shown)) != len(shown):
        return "two pictures have the same timestamp"
    highest = list(accumulate(table.pts, max))
    for entry in table.entries[1:]:
        if highest[entry - 1] >= table.pts[entry]:
            return f"time jumps back at packet {entry}"
    return None


def _doubt(table: Table, *, first_is_entry: bool) -> int:
    """A stream cut in mid-GOP, or one whose first pictures lead: which of them a decoder shows, only a decoder knows."""
    if not first_is_entry:
        return table.segment_end(min(1, len(table.entries) - 1))
    end = table.segment_end(0)
    leading = any(table.pts[i] < table.pts[0] for i in range(end))
    return end if leading or (table.hidden and min(table.hidden) < end) else 0
