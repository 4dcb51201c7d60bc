"""Windows said in portions, as those who read them have room: what decoding and replay have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streamproc.messages import Source, Window
from streamproc.stage import Pace
from streamproc.stages.options import ahead


def portions(source: Source, records: Sequence[Window]) -> Iterator[Sequence[Window]]:
    """Small enough that the slowest reader never waits for the rest of what was decoded or read."""
    size = _portion(source)
    return (records[i : i + size] for i in range(0, len(records), size))


async def room(look: Pace, source: Source, part: Sequence[Window]) -> None:
    """Back when a portion may land. A gap counts as one, however long it is: readers take it in one step, and none of them
    comes any nearer before it has landed."""
    await look.room(source, part[0].index + len(part) - 1, ahead=ahead(source))


async def room_behind(look: Pace, source: Source, index: int) -> None:
    """Back when a whole portion that begins at `index` may land."""
    await look.room(source, index + _portion(source) - 1, ahead=ahead(source))


def _portion(source: Source) -> int:
    return max(1, ahead(source) // 4)
