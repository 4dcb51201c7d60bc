"""SoccerNet action spotting: the 17 labels and their spellings, Labels-v2.json, results_spotting.json. No scores here.

Where a row says one thing twice and the two disagree (gameTime and position, gameTime and half), position and half are
believed, as the official evaluation does; the row is counted as a problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from streamproc.errors import Rejected
from streamproc.formats.problems import Problems

LABELS_FILE: Final = "Labels-v2.json"
PREDICTIONS_FILE: Final = "results_spotting.json"

# labels -------------------------------------------------------------------------------------------------------------

LABELS: Final = (
    "Penalty",
    "Kick-off",
    "Goal",
    "Substitution",
    "Offside",
    "Shots on target",
    "Shots off target",
    "Clearance",
    "Ball out of play",
    "Throw-in",
    "Foul",
    "Indirect free-kick",
    "Direct free-kick",
    "Corner",
    "Yellow card",
    "Red card",
    "Yellow->red card",
)
"""In the official order: a label's number is its place."""

SPELLINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Penalty kick": "Penalty",
        "Kickoff": "Kick-off",
        "Goal scored": "Goal",
        "Goals": "Goal",
        "Sub": "Substitution",
        "Substitutions": "Substitution",
        "Player substitution": "Substitution",
        "Off-side": "Offside",
        "Shot on target": "Shots on target",
        "Shot on goal": "Shots on target",
        "Shot off target": "Shots off target",
        "Clearances": "Clearance",
        "Ball out": "Ball out of play",
        "Out of play": "Ball out of play",
        "Ball out of bounds": "Ball out of play",
        "Throwin": "Throw-in",
        "Throw-ins": "Throw-in",
        "Fouls": "Foul",
        # a bare 'Free-kick' is read as the kind that is four times as frequent; each one is counted and told
        "Free-kick": "Indirect free-kick",
        "Freekick": "Indirect free-kick",
        "Corner kick": "Corner",
        "Corners": "Corner",
        "Yellow cards": "Yellow card",
        "Yellow": "Yellow card",
        "Booking": "Yellow card",
        "Red cards": "Red card",
        "Red": "Red card",
        "Second yellow card": "Yellow->red card",
        "Second yellow": "Yellow->red card",
        "Yellow to red card": "Yellow->red card",
    }
)
"""How models and people write them too; case, hyphens and spaces do not matter."""

_PUNCTUATION = re.compile(r"[^a-z0-9]+")


def _key(text: str) -> str:
    return _PUNCTUATION.sub(" ", text.casefold()).strip()


_BY_KEY: Final = {_key(written): label for written, label in SPELLINGS.items()} | {_key(name): name for name in LABELS}


def label_of(text: str) -> str | None:
    """The official label that `text` spells; None where it spells none."""
    return _BY_KEY.get(_key(text))


# streams and times --------------------------------------------------------------------------------------------------

_STREAM = re.compile(r"(.+)/([12])_[^/]+", re.DOTALL)
_WHOLE = re.compile(r"-?\d{1,15}\.0*")  # as pandas writes a column that once had a hole
_GAME_TIME = re.compile(r"\s*(\d+)\s*-\s*(\d+):(\d\d)\s*")

AS_LONG_AS_A_VECTOR_MS: Final = 120 * 60 * 1000
"""The official evaluation moves what is later than two hours to their end."""
ROUNDED_MS: Final = 1000
"""gameTime and position may be so far apart: some round gameTime down, some to the nearest."""
LATEST_MS: Final = 10**10
"""A hundred days: beyond it a number is no time in a half, but one in other units, or since 1970."""


def half_of(stream: str) -> tuple[str, Literal[1, 2]] | None:
    """(game, half) of a stream named GAME/1_… or GAME/2_…; None for any other."""
    if not (found := _STREAM.fullmatch(stream)):
        return None
    return found[1], 1 if found[2] == "1" else 2


def game_time(half: int, time_ms: int) -> str:
    """`1 - 12:34`; whole seconds, rounded down, as SoccerNet has them."""
    minutes, seconds = divmod(time_ms // 1000, 60)
    return f"{half} - {minutes:02d}:{seconds:02d}"


@lru_cache(maxsize=1 << 14)  # a match has 6,000 seconds, and a file says each of them many times
def parse_game_time(text: str) -> tuple[int, int] | None:
    """(half, milliseconds) of `1 - 12:34`; None where it is no such time."""
    if not (found := _GAME_TIME.fullmatch(text)) or int(found[3]) > 59:
        return None
    return int(found[1]), 1000 * (60 * int(found[2]) + int(found[3]))


# spots --------------------------------------------------------------------------------------------------------------


class Spot(Struct, frozen=True, kw_only=True, gc=False):
    """One labelled moment of one half of a game."""

    half: int
    """1 or 2."""
    time_ms: int
    label: str
    confidence: float | None = None
    """Predictions have one."""
    shown: bool = True
    """False where the broadcast does not show it."""
    team: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    """Where the event is known as a stretch; SoccerNet itself has moments only, and its evaluation does not look here."""


class _Row(Struct, gc=False):
    """Both files' rows; what is needed is asked for with a message of ours."""

    label: str | None = None
    game_time: str | None = msgspec.field(default=None, name="gameTime")
    position: int | float | str | None = None
    half: int | float | str | None = None
    confidence: float | str | None = None
    visibility: str | None = None
    team: str | None = None
    start_ms: int | float | str | None = None
    end_ms: int | float | str | None = None


class _Labels(Struct):
    annotations: list[_Row]


class _Predictions(Struct):
    predictions: list[_Row]


def read_labels(data: bytes, *, file: str, problems: Problems) -> list[Spot]:
    """The annotations of a Labels-v2.json, those with unknown labels or halves left out and counted."""
    rows = _decoded(data, _Labels, file=file).annotations
    return _spots(rows, _label_spot, file=file, problems=problems)


def read_predictions(data: bytes, *, file: str, problems: Problems) -> list[Spot]:
    """The predictions of a results_spotting.json, in their order; those of unknown labels or halves left out and counted."""
    rows = _decoded(data, _Predictions, file=file).predictions
    return _spots(rows, _prediction_spot, file=file, problems=problems)


def write_labels(game: str, spots: Iterable[Spot]) -> bytes:
    annotations = [
        _written(spot, team=spot.team or "not applicable", visibility="visible" if spot.shown else "not shown")
        for spot in spots
    ]
    return _encoded({"UrlLocal": f"{game}/", "UrlYoutube": "", "annotations": annotations})


def write_predictions(game: str, spots: Iterable[Spot]) -> bytes:
    """As the challenge wants it; a spot without a confidence is sure, since the evaluation ranks by it."""
    predictions = [
        _written(spot, half=str(spot.half), confidence=repr(1.0 if spot.confidence is None else spot.confidence))
        | ({"team": spot.team} if spot.team else {})
        for spot in spots
    ]
    return _encoded({"UrlLocal": game, "predictions": predictions})


def _written(spot: Spot, **more: str) -> dict[str, Any]:
    at = game_time(spot.half, spot.time_ms)
    stretch = {} if spot.start_ms is None else {"start_ms": spot.start_ms, "end_ms": spot.end_ms}
    return {"gameTime": at, "label": spot.label, "position": str(spot.time_ms), **more, **stretch}


def _encoded(document: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=4) + b"\n"


_File = TypeVar("_File")


def _decoded(data: bytes, kind: type[_File], *, file: str) -> _File:
    try:
        return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=kind)
    except (msgspec.DecodeError, RecursionError) as e:
        # not JSON, too deep, or not of this shape: the message names the place, as in $.annotations[3]
        raise Rejected(f"{file}: {e}") from e


_Read = Callable[["_Row", "_Place"], Spot | None]


class _Place(NamedTuple):
    """Where we are; the words are made only when something is wrong there."""

    file: str
    row: int
    problems: Problems

    def __str__(self) -> str:
        return f"{self.file} row {self.row}"

    def odd(self, kind: str, what: str) -> None:
        self.problems.add(kind, f"{self} ({what})")


def _spots(rows: Sequence[_Row], read: _Read, *, file: str, problems: Problems) -> list[Spot]:
    found = (read(row, _Place(file, number, problems)) for number, row in enumerate(rows, start=1))
    return [spot for spot in found if spot is not None]


def _label_spot(row: _Row, place: _Place) -> Spot | None:
    label, said = _label(row, place), _said_time(row, place)
    if said is None:
        raise Rejected(f"{place}: no gameTime, and only that names the half of a label")
    half, said_ms = said
    time_ms = said_ms if row.position is None else _position(row, place, said_ms=said_ms)
    if label is None or not _is_half(half, place):
        return None
    spot = Spot(half=half, time_ms=time_ms, label=label, shown=row.visibility != "not shown", team=row.team)
    return spot if row.start_ms is None else _stretched(spot, row, place)


def _prediction_spot(row: _Row, place: _Place) -> Spot | None:
    label, said = _label(row, place), _said_time(row, place)
    confidence = _confidence(row, place)
    half = _half(row, place)
    if said is not None and said[0] != half:
        place.odd("gameTime names another half than 'half', which is believed", f"{row.game_time}, {half}")
    if row.position is None:
        raise Rejected(f"{place}: no position, the milliseconds from the beginning of the half")
    time_ms = _position(row, place, said_ms=said[1] if said else None)
    if label is None or not _is_half(half, place):
        return None
    spot = Spot(half=half, time_ms=time_ms, label=label, confidence=confidence, team=row.team)
    return spot if row.start_ms is None else _stretched(spot, row, place)


_NUMBER: Final = {name: number for number, name in enumerate(LABELS)}


def _label(row: _Row, place: _Place) -> str | None:
    if row.label in _NUMBER:
        return row.label
    if row.label is None:
        raise Rejected(f"{place}: no label")
    label = label_of(row.label)
    if label is None:
        place.odd("label unknown, left out as the official evaluation does", f"'{row.label}'")
    else:
        place.odd("label spelt otherwise", f"'{row.label}' read as '{label}'")
    return label


def _said_time(row: _Row, place: _Place) -> tuple[int, int] | None:
    if row.game_time is None:
        return None
    if (said := parse_game_time(row.game_time)) is None:
        raise Rejected(f"{place}: gameTime '{row.game_time}' is not like '1 - 12:34'")
    return said


def _position(row: _Row, place: _Place, *, said_ms: int | None) -> int:
    position = _whole(row.position, place, "position")
    if position < 0:
        raise Rejected(f"{place}: position {position} is before the half begins")
    if position > LATEST_MS:
        raise Rejected(f"{place}: position {position} is no time in milliseconds from the beginning of the half")
    if said_ms is not None and abs(position - said_ms) > ROUNDED_MS:
        place.odd("gameTime and position disagree, position is believed", f"{row.game_time}, {position} ms")
    if position >= AS_LONG_AS_A_VECTOR_MS:
        place.odd("later than two hours, scored as at their end, as officially", f"{position} ms")
    return position


def _whole(value: float | str | None, place: _Place, name: str) -> int:
    if value is None:
        raise Rejected(f"{place}: no {name}")
    try:
        return int(value)
    except (ValueError, OverflowError) as e:
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            return int(float(value))
        raise Rejected(f"{place}: {name} '{value}' is not a whole number") from e


def _half(row: _Row, place: _Place) -> int:
    """1.0 is 1, as pandas writes it; 1.5 is no half rounded down, as a position of 10000.5 is."""
    if isinstance(row.half, float) and not row.half.is_integer():
        raise Rejected(f"{place}: half '{row.half}' is not a whole number")
    return _whole(row.half, place, "half")


def _is_half(half: int, place: _Place) -> bool:
    if half in (1, 2):
        return True
    place.odd("neither half 1 nor 2, left out as the official evaluation does", f"half {half}")
    return False


def _confidence(row: _Row, place: _Place) -> float:
    try:
        confidence = float(row.confidence)  # type: ignore[arg-type]  # None lands in the same message as what is no number
    except (TypeError, ValueError) as e:
        raise Rejected(f"{place}: confidence {row.confidence!r} is not a number; the metric ranks by it") from e
    if not 0 <= confidence <= 1:  # NaN is not, either
        raise Rejected(f"{place}: confidence {confidence} is not between 0 and 1; calibrate or scale it first")
    return confidence


def _stretched(spot: Spot, row: _Row, place: _Place) -> Spot:
    start_ms, end_ms = _whole(row.start_ms, place, "start_ms"), _whole(row.end_ms, place, "end_ms")
    if not 0 <= start_ms <= end_ms <= LATEST_MS:
        raise Rejected(f"{place}: a stretch from {start_ms} to {end_ms} ms")
    return msgspec.structs.replace(spot, start_ms=start_ms, end_ms=end_ms)
