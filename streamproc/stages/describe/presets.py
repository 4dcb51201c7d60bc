"""Which pictures are looked at around a place: so many before it, so many after it, so many frames apart.

A preset is called what it is: `12-11-6` is 12 before, 11 after, 6 apart; `6-5-rows` has the captions' own distance. At an
edge the pictures shift to the other side; where a clip is too short for all of them they move together, and where it has
fewer frames than that, all of it is shown. The place itself is always among them.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

from streamproc.errors import did_you_mean

KNOWN: Final = ("6-5-rows", "11-2-6", "6-5-10", "12-11-6", "6-5-8")
"""Those that have been tried."""
MOST: Final = 64
"""Pictures of one preset."""
ROWS: Final = "rows"

_FORM: Final = re.compile(rf"(\d{{1,2}})-(\d{{1,2}})-(\d{{1,4}}|{ROWS})")


class Preset(NamedTuple):
    before: int
    after: int
    step: int | None
    """Frames from one picture to the next; None: as the captions were made."""

    @classmethod
    def named(cls, name: str) -> Self:
        """Raises ValueError where nobody can be called so."""
        found = _FORM.fullmatch(name)
        if not found:
            raise ValueError(
                f"no preset '{name}'{did_you_mean(name, KNOWN)}; it looks like 12-11-6: pictures before, after, frames apart"
            )
        before, after, step = int(found[1]), int(found[2]), None if found[3] == ROWS else int(found[3])
        if step == 0 or before + 1 + after > MOST:
            raise ValueError(f"preset '{name}': at most {MOST} pictures, at least one frame apart")
        return cls(before, after, step)


def around(place: int, *, of: int, preset: Preset, rows: int) -> tuple[int, ...]:
    """Numbers of frames, from 1, in their order. `of`: how many there are; `rows`: frames from caption to caption."""
    if of < 1:
        return ()
    place, others = min(max(place, 1), of), preset.before + preset.after
    for step in range(preset.step or rows, 0, -1):
        room_before, room_after = (place - 1) // step, (of - place) // step
        if room_before + room_after >= others:
            after = min(max(preset.after, others - room_before), room_after)
            first = place - (others - after) * step
            return tuple(range(first, first + others * step + 1, step))
    return tuple(range(1, of + 1))
