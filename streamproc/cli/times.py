"""TIME as people type it: `93.5`, `12:34.5`, `1 - 12:34`, `2026-03-01T20:45:00Z`. What it means for a stream is asked later.

A file's times count from its first shown frame; a feed's are wall-clock times, and `20:45` is the last time it was
20:45. The same text can be read both ways, so both readings are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from streamproc.errors import Misconfigured

_SECONDS = re.compile(r"\d+(\.\d+)?")
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d\d)(\.\d+)?")
_GAME = re.compile(r"([12]) - (\d+:\d\d(?:\.\d+)?)")
_LIKE = "a TIME is seconds, 12:34[.5], 1 - 12:34 or ISO 8601"


@dataclass(frozen=True, slots=True)
class Time:
    """A moment: in stream time, by the wall clock, or either, whichever the stream goes by."""

    text: str
    stream_ms: int | None = None
    wall: datetime | None = None
    half: int | None = None
    """1 or 2 where a half of a game was named; stream_ms counts from its kick-off then."""

    def in_stream(self) -> int:
        """In a file: milliseconds from its first shown frame."""
        if self.stream_ms is None:
            raise Misconfigured(
                f"'{self.text}' is a wall-clock time; a file knows seconds and 12:34[.5] from its beginning"
            )
        return self.stream_ms

    def by_clock(self) -> datetime:
        """In a feed: the moment itself."""
        if self.wall is None:
            raise Misconfigured(f"'{self.text}' is no wall-clock time; a feed knows ISO 8601 and 20:45[:00]")
        return self.wall


def parse(text: str, *, now: datetime) -> Time:
    """All that `text` can mean. Wall-clock times that name no zone are in that of `now`; where that has none, they are what
    this machine's clock shows, summer and winter."""
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return Time(text, stream_ms=_ms(Decimal(text)))
    if found := _GAME.fullmatch(text):
        return Time(text, stream_ms=_counted(found[2]), half=int(found[1]))
    if _CLOCK.fullmatch(text):
        return Time(text, stream_ms=_counted(text), wall=_last(text, now))
    try:
        wall = datetime.fromisoformat(text)
    except ValueError:
        raise Misconfigured(f"'{text}' is no time: {_LIKE}") from None
    return Time(text, wall=wall if wall.tzinfo else _placed(wall, now))


def _placed(wall: datetime, now: datetime) -> datetime:
    return wall.replace(tzinfo=now.tzinfo) if now.tzinfo else wall.astimezone()


def _counted(text: str) -> int:
    """[h:]m:s as a length; minutes of a game pass 60."""
    found = _CLOCK.fullmatch(text)
    assert found
    hours, minutes, seconds = int(found[1] or 0), int(found[2]), int(found[3])
    if seconds > 59 or (found[1] and minutes > 59):
        raise Misconfigured(f"'{text}' is no time: 59 comes before the next minute or hour; {_LIKE}")
    return _ms(3600 * hours + 60 * minutes + seconds + Decimal(found[4] or 0))


def _last(text: str, now: datetime) -> datetime | None:
    """The last moment whose clock read so; None where no clock does (95:12, or 12:34.5 for hour and minute)."""
    hour, minute, *rest = text.split(":")
    try:
        clock = now.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
        clock += timedelta(seconds=float(rest[0]) if rest else 0)
    except ValueError:
        return None
    return _placed(clock if clock <= now else clock - timedelta(days=1), now)


def _ms(seconds: Decimal) -> int:
    return round(1000 * seconds)
