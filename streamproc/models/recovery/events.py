"""Events out of a model's text: what it says it sees, checked field by field, with the rungs that were needed.

    confidence   a number from 0 to 1, a percentage, or a fraction of ten; words, ranges and all else are refused
    team         home or away in any spelling, else as said; 'none', 'unknown' and both at once are no team
    label        as `labels` maps it; what is 'other' keeps what was said
    time         seconds, or minutes and seconds

An object that repeats the prompt's template (`EVENT_TYPE`, `<label>`, `…`) is an echo, and one that stands in the text twice
counts once. `unreadable` is what has no event and does not say that there is none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final, Literal

from msgspec import Struct

from streamproc.models.recovery import ladder
from streamproc.models.recovery.labels import AS_SAID, OTHER, Labels
from streamproc.models.recovery.lists import listed
from streamproc.models.recovery.nothing import begins_with_nothing, is_nothing, says_nothing


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event that a text speaks of."""

    label: str
    said: str | None = None
    """What the model called it, where that is not the label."""
    team: str | None = None
    confidence: float | None = None
    details: str | None = None
    time_s: float | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """`done` with no events is the null class: the text says that nothing happened."""

    outcome: Literal["done", "unreadable"]
    how: str
    events: tuple[Event, ...]


_LABEL_KEYS: Final = (
    "label",
    "event",
    "event_type",
    "type",
    "event_label",
    "action",
    "incident",
    "name",
    "class",
    "category",
)
_DETAIL_KEYS: Final = ("details", "description", "detail", "reason", "explanation", "evidence")
_CONFIDENCE_KEYS: Final = ("confidence", "confidence_score", "probability", "score", "conf")
_TIME_KEYS: Final = ("time", "timestamp", "time_s", "seconds", "t")
_LIST_KEYS: Final = (
    "events",
    "detections",
    "detected_events",
    "incidents",
    "results",
    "answer",
    "predictions",
    "output",
    "actions",
)
_SEEN_KEYS: Final = frozenset(("detected", "present", "occurred", "happened", "visible", "seen"))
_FIELD_KEYS: Final = frozenset((*_DETAIL_KEYS, *_CONFIDENCE_KEYS, "team"))

_TEMPLATE: Final = re.compile(
    r"(?:EVENT|LABEL|CLASS|ACTION|TYPE)(?:_(?:TYPE|NAME|LABEL|CLASS|HERE|[A-Z0-9]))*|<[^<>]{1,60}>|\[[A-Za-z_ |/]{1,60}\]|\{[A-Za-z_ ]{1,60}\}|\.{3}|…|string|str|label|event|event_type|event type|"
    r"your[ _].{1,60}|.{1,40}[\"']? OR [\"']?.{1,40}"
)
_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s?%")
_OF_TEN: Final = re.compile(r"(\d{1,2}(?:\.\d{1,3})?)\s?/\s?10|(\d{1,3}(?:\.\d{1,3})?)\s?/\s?100")
_PLAIN: Final = re.compile(r"[01]?\.\d{1,17}|[01]")
_CLOCK: Final = re.compile(r"(?:(\d{1,2}):)?(\d{1,3}):(\d{2}(?:\.\d{1,3})?)")
_SECONDS: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s?(?:s|sec|secs|seconds?)?")
_SENTENCE_ENDS: Final = re.compile(r"[^\W\d]\.\s*\Z")
"""Behind a number the point may be a part of it."""
_JSON_BEGINS: Final = frozenset("[{`")
_BARE_ENDS: Final = " \t\n.!*_`'\""
_NO_TEAM: Final = frozenset(("unknown", "n/a", "na", "none", "both", "neither", "unclear", "unspecified", "-", "?", ""))
_LONGEST_TEXT: Final = 4000
_LONGEST_NAME: Final = 200
_ODD_KEY: Final = re.compile(r"[^a-z_]").search
_MOST_KEYS: Final = 32
_MOST: Final = 256
"""Events of one window. A model that names more is in a loop, and cut off."""


def events(text: str, labels: Labels = AS_SAID, *, prompt: str | None = None, cut: bool = False) -> Answer:
    """What a text says it sees. `prompt`: what it may have repeated; `cut`: it ended by length."""
    if text[:1] not in _JSON_BEGINS and says_nothing(text):
        return Answer(outcome="done", how="null", events=())
    read = ladder.read(text, prompt=prompt, cut=cut)
    how, found, nothing, echoes = list(read.how), list[Event](), False, 0
    items = chain.from_iterable(_items(value, labels, alone=read.whole) for value in read.values)
    for item in islice(items, _MOST):
        if item is None:
            nothing = True
            continue
        if isinstance(item, dict) and _is_template(item):
            echoes += 1
            continue
        if isinstance(item, _Keyed) and "keyed" not in how:
            how.append("keyed")
        if (event := _event(item, labels)) is not None:
            found.append(event)
    if not found and not nothing and not echoes and not _has_objects(read.values):
        nothing = _without_json(read, labels, found, how, cut=cut)
    if echoes and "echo" not in how:
        how.insert(0, "echo")
    if len(found) > 1 and len(once := list(dict.fromkeys(found))) < len(found):
        found = once
        how.append("repeats")
    if next(items, items) is not items:
        how.append("too many")
    if found:
        if labels.names and any(e.said is not None for e in found):
            how.append("labels")
        return Answer(outcome="done", how=", ".join(how), events=tuple(found))
    if nothing and "cut" not in how:  # with the rest cut off, nobody knows what it would have said
        return Answer(outcome="done", how=", ".join([*how, "null"]), events=())
    return Answer(outcome="unreadable", how=", ".join(how) or "text", events=())


def _without_json(read: ladder.Read, labels: Labels, found: list[Event], how: list[str], *, cut: bool) -> bool:
    """Lists and plain words. Adds to `found`; True where the text says that there is nothing."""
    text = read.text[: ladder.LONGEST_BROKEN]
    cut = cut or len(text) < len(read.text)
    items, nothing = listed(text, labels.knows)
    rung = "list"
    if cut and items and not _SENTENCE_ENDS.search(text):
        items.pop()  # the last one may have gone on, and differently
        how.append("cut")
    if not items and not cut and labels.knows(bare := text.strip(_BARE_ENDS)):
        items, rung = [{"label": bare}], "bare"
    found += [e for item in items if not _is_template(item) and (e := _event(item, labels)) is not None]
    if found:
        how[:] = [*(h for h in how if h in ("thoughts", "echo", "cut")), rung]
        return False
    return (nothing and not cut) or says_nothing(text) or begins_with_nothing(text)


# objects ------------------------------------------------------------------------------------------------------------


_DEEPEST: Final = 4
"""Lists and wrappers around an event. Who nests deeper says nothing that we know to read."""


class _Keyed(dict[str, Any]):
    """An event whose label stood as the key before it."""


def _items(value: Any, labels: Labels, *, alone: bool, depth: int = 0) -> Iterator[dict[str, Any] | str | None]:
    """What may be an event; None for what says that there is none. Bare strings and empty lists count only where they are
    the whole answer: brackets in prose are no list of events."""
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        if value or alone:
            yield from _within(value, labels, depth)
    elif isinstance(value, list):
        if not value and alone:
            yield None
        for item in value:
            if isinstance(item, str) and alone and not is_nothing(item):
                yield item
            else:
                yield from _items(item, labels, alone=alone, depth=depth + 1)
    elif alone and is_nothing(value):
        yield None
    elif alone and depth == 0 and isinstance(value, str):  # JSON that was written into a string of JSON
        for inner in ladder.read(value).values:
            yield from _items(inner, labels, alone=False, depth=1)


def _within(item: dict[str, Any], labels: Labels, depth: int) -> Iterator[dict[str, Any] | str | None]:
    """An object, or the events that it wraps."""
    if not item:
        yield None
        return
    as_said, item = item, _folded(item)
    label = _first(item, _LABEL_KEYS)
    for key in () if item.keys().isdisjoint(_LIST_KEYS) else _LIST_KEYS:
        inner = item.get(key, 0)
        if (inner and isinstance(inner, list | dict)) or (_empty(inner) and not _named(label, labels)):
            yield from _items(inner, labels, alone=True, depth=depth + 1)
            return
    if label is None and (keyed := _keyed(as_said, labels)):
        yield from keyed
    elif isinstance(label, dict | list):  # {"event": {"label": …}}
        yield from _items(label, labels, alone=True, depth=depth + 1)
    elif is_nothing(label) or (_unseen(item) and not _is_template(item)):  # {"event": "Goal", "detected": false}
        yield item if item.keys().isdisjoint(_LABEL_KEYS) else None
    else:
        yield item


def _empty(said: Any) -> bool:
    return said in ([], {}) or is_nothing(said)


def _named(label: Any, labels: Labels) -> bool:
    """With an empty list beside it {"label": "Goal"} is still a goal, but {"type": "response"} says that nothing happened."""
    return isinstance(label, str) and labels.of(label).by != "other"


def _keyed(item: dict[str, Any], labels: Labels) -> list[dict[str, Any] | None]:
    """{"Goal": {…}, "Foul": [{…}], "Corner": null}: events by labels that the task knows; None for what was not seen. Of a
    number nobody knows what it counts: where one stands, that nothing was seen is not believed of the others either."""
    found, unread = list[dict[str, Any] | None](), False
    for label, said in islice(item.items(), _MOST_KEYS):
        if not labels.knows(label):
            continue
        for one in said if isinstance(said, list) and said else [said]:
            if isinstance(one, dict) and one:
                event = _Keyed(_folded(one) | {"label": label})
                found.append(None if _unseen(event) else event)
            elif one is True:
                found.append(_Keyed(label=label))
            elif _denied(one) or one in ("", [], {}):
                found.append(None)
            else:
                unread = True
    return [f for f in found if f is not None] if unread else found


def _unseen(item: dict[str, Any]) -> bool:
    """Who ticks off every label says of most of them that they were not there."""
    return not _SEEN_KEYS.isdisjoint(item) and any(_denied(item[key]) for key in _SEEN_KEYS.intersection(item))


def _denied(said: Any) -> bool:
    return said is False or is_nothing(said) or (isinstance(said, str) and said.strip().lower() in ("no", "false"))


def _event(item: dict[str, Any] | str, labels: Labels) -> Event | None:
    if isinstance(item, str):
        item = {"label": item}
    said = _first(item, _LABEL_KEYS)
    if not isinstance(said, str):
        return None
    said = _clean(said, _LONGEST_NAME)
    if not said:
        return None
    label, by = labels.of(said)
    return Event(
        label=label,
        said=None if by == "said" or label == said else said,
        team=_team(item.get("team")),
        confidence=confidence(_first(item, _CONFIDENCE_KEYS)),
        details=_details(_first(item, _DETAIL_KEYS)),
        time_s=_time(_first(item, _TIME_KEYS)),
    )


def _first(item: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """What is said under the first of the keys that is there."""
    for key in keys:
        if key in item:
            return item[key]
    return None


def _folded(item: dict[str, Any]) -> dict[str, Any]:
    """With its keys as we spell them: `Event Type` is `event_type`."""
    if len(item) > _MOST_KEYS or not any(map(_ODD_KEY, item)):
        return item
    return {k.strip().lower().replace(" ", "_").replace("-", "_"): v for k, v in item.items()}


def _is_template(item: dict[str, Any]) -> bool:
    said = _first(item, _LABEL_KEYS)
    return isinstance(said, str) and len(said) <= _LONGEST_NAME and _TEMPLATE.fullmatch(said.strip()) is not None


def _has_objects(values: tuple[Any, ...]) -> bool:
    """Objects with something of an event in them: then there is no list beside them to look for."""
    return any(isinstance(v, dict) and not _FIELD_KEYS.isdisjoint(v) for v in values)


# fields -------------------------------------------------------------------------------------------------------------


def confidence(said: Any) -> float | None:
    """From 0 to 1, or None where it was not said so that it can be one."""
    if type(said) is float or type(said) is int:
        return _share(said)
    if not isinstance(said, str):
        return None
    said = said.strip()
    if _PLAIN.fullmatch(said):
        return _share(float(said))
    if percent := _PERCENT.fullmatch(said):
        return _share(float(percent[1]) / 100)
    if part := _OF_TEN.fullmatch(said):
        return _share(float(part[1]) / 10 if part[1] else float(part[2]) / 100)
    return None


def _share(number: float) -> float | None:
    """Whole numbers above ten are percentages; from one to ten nobody knows the scale."""
    if 0 <= number <= 1:
        return float(number)
    if 10 < number <= 100:
        return number / 100
    return None


def _team(said: Any) -> str | None:
    if not isinstance(said, str):
        return None
    plain = said.strip().lower().removesuffix(" team").strip()
    if plain in ("home", "away"):
        return plain
    if plain in _NO_TEAM or len(said) > _LONGEST_NAME or " or " in plain or "|" in plain:
        return None
    return _clean(said, _LONGEST_NAME) if not _TEMPLATE.fullmatch(said.strip()) else None


def _details(said: Any) -> str | None:
    return (_clean(said, _LONGEST_TEXT) or None) if isinstance(said, str) else None


def _time(said: Any) -> float | None:
    if type(said) is float or type(said) is int:
        return float(said) if 0 <= said < 1e6 and math.isfinite(said) else None
    if not isinstance(said, str) or len(said) > 40:
        return None
    said = said.strip()
    if clock := _CLOCK.fullmatch(said):
        return int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(clock[3])
    seconds = _SECONDS.fullmatch(said)
    return float(seconds[1]) if seconds else None


def _clean(said: str, longest: int) -> str:
    """Without the blanks around it, and such that it can be encoded."""
    said = said[:longest].strip()
    return said if said.isascii() else said.encode(errors="replace").decode()


def described(event: Event) -> str | None:
    """Its details, with what it was called where no label stands for that: so that a record keeps it."""
    if event.label == OTHER and event.said:
        return f"{event.said}: {event.details}" if event.details else event.said
    return event.details
