"""From the frames wanted to the packets a decoder must be given for them: stretches that each begin at an entry.

Left out are whole GOPs, everything behind the last frame wanted of a stretch, and leading pictures nobody wants. Spare
pictures are left out while decoding, where their bytes are at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from streamproc.video.table import Mark, Table

KEPT = 64
"""Packets among which are the 16 reference pictures that a decoder keeps at most, spare pictures between them."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Packets [first, last] of a file, to be decoded after a flush."""

    first: int
    last: int
    seek: int
    mark: Mark
    """Of the first packet, to find it by."""
    pos: int
    floor: int | None
    """Pictures with a pts below this that stand in the first segment lead it, and are left out. None: nothing is."""
    until: int
    """The first segment ends before this packet."""
    wanted: frozenset[int]
    """Timestamps of frames to keep."""
    hidden: frozenset[int]
    """Packets that are decoded and not shown."""
    broken: bool
    """The file begins in mid-GOP: pictures come out damaged, the same as in a full decode if every packet is given."""


def plan(table: Table, wanted: Iterable[int]) -> Iterator[Stretch]:
    """Stretches for the packets wanted, in the file's order; `wanted` in any order."""
    first = last = -1
    kept: list[int] = []
    for packet in sorted(wanted):
        entry = begin(table, packet)
        if kept and entry <= last:  # within what is decoded anyway
            first, last = min(first, entry), packet
            kept.append(packet)
            continue
        if kept:
            yield _stretch(table, first, last, kept)
        first, last, kept = entry, packet, [packet]
    if kept:
        yield _stretch(table, first, last, kept)


def begin(table: Table, packet: int) -> int:
    """The entry from which this packet's picture comes out right."""
    segment = table.segment(packet)
    if not table.leads(packet):
        return table.entries[segment]
    # It may be made with any picture that a decoder still keeps from before its entry: go back until all of those are
    # decoded too.
    entry = table.entries[segment]
    while segment > 0 and entry - table.entries[segment] < KEPT:
        segment -= 1
    return table.entries[segment]


def _stretch(table: Table, first: int, last: int, kept: list[int]) -> Stretch:
    return Stretch(
        first=first,
        last=last,
        seek=table.seek[first],
        mark=Mark(table.pts[first], table.size[first]),
        pos=table.pos[first],
        floor=table.pts[first] if first else None,  # at the file's first packet a full decode begins in the same way
        until=table.segment_end(table.segment(first)),
        wanted=frozenset(table.pts[i] for i in kept),
        hidden=frozenset(i for i in range(first, last + 1) if i in table.hidden) if table.hidden else frozenset(),
        broken=first == 0 and table.doubt > 0,
    )
