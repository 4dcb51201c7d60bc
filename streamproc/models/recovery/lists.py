"""Lists without JSON: numbered, marked with dashes or stars, tables, or lines of `Label: …`. As Llama likes to answer.

An item is taken for an event only where it says so: by a key such as `Event:`, by a label that the task knows, or by a team
or a confidence beside what it names. Each becomes an object of the strings that stand in it, so that events are made of
them as of JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from streamproc.models.recovery.nothing import says_nothing

_KEYS: Final = {
    "label": "label",
    "event": "label",
    "event type": "label",
    "event label": "label",
    "type": "label",
    "action": "label",
    "incident": "label",
    "team": "team",
    "side": "team",
    "confidence": "confidence",
    "confidence score": "confidence",
    "confidence level": "confidence",
    "probability": "confidence",
    "score": "confidence",
    "details": "details",
    "detail": "details",
    "description": "details",
    "reason": "details",
    "explanation": "details",
    "time": "time",
    "timestamp": "time",
}
_ITEM: Final = re.compile(
    r"([ \t]*)(?:(?:event|incident)[ \t]+)?(?:\#{1,6}[ \t]*)?(?:(?:\d{1,3}[.):]|[-*•+–])[ \t]+|(?=\*\*))(.*)",
    re.IGNORECASE,
)
_FIELD: Final = re.compile(
    r"(?:^|[\n,;|(\u2013\u2014-])[ \t]*[*_\"'`]{0,3}("
    + "|".join(sorted(_KEYS, key=len, reverse=True))
    + r")[*_\"'`]{0,3}[ \t]*[:=][ \t*_]*",
    re.IGNORECASE,
)
_BOLD: Final = re.compile(r"(?:\*\*|__)([^*_\n]{1,80}?)[:.]?(?:\*\*|__)[:.]?")
_HEAD: Final = re.compile(r"[^:(\n\u2013\u2014]{1,80}?(?=[:(\n\u2013\u2014]|[ \t]-[ \t]|,|$)")
_PARTS: Final = re.compile(r"[(),|\n]|[ \t][-\u2013\u2014][ \t]")
_SIDE: Final = re.compile(r"(?:home|away)(?: team)?", re.IGNORECASE)
_SHARE: Final = re.compile(r"[01]?\.\d{1,4}|\d{1,3}(?:\.\d+)?[ \t]?%")
_NOT: Final = re.compile(
    r"(?:no|not|none|0|false|n/a|nothing)\W*$|"
    r"(?:not|none|no \w{1,20}(?: \w{1,20})?) (?:(?:is|was|are|were|clearly) ){0,2}"
    r"(?:visible|seen|detected|observed|present|shown|found|evident|identified|occurr)",
    re.IGNORECASE,
)
"""'No foul visible' says that there was none; 'No. 9 scores' and 'no doubt' do not."""
_TRIM: Final = " \t\n,;|-–—*_`\"'."
_TRIM_PART: Final = _TRIM.replace(".", "") + ":"  # of `.9` the point is a part
_LONGEST_ITEM: Final = 2000
_PART_ENDS: Final = re.compile(r"\n|(?<!\d)[,;.](?=[ ])")
_MOST_LINES: Final = 400
"""A list that is longer is a loop; its beginning says all that it says."""
_MOST_WORDS: Final = 5
"""Of a label; more are a sentence."""


def listed(text: str, known: Callable[[str], bool]) -> tuple[list[dict[str, str]], bool]:
    """The events of a list in a text, and whether each of its items says of a label that it was not seen."""
    if "|" in text and (rows := _table(text)):
        return rows, False
    read = [_event(item, known) for item in _items(text)]
    return [event for event in read if event], bool(read) and all(event == {} for event in read)


def _items(text: str) -> Iterator[str]:
    """Each item with what is indented below it; a new `Label:` begins one too."""
    item: list[str] = []
    depth = -1
    for line in text.splitlines()[:_MOST_LINES]:
        marked = _ITEM.match(line)
        body = marked[2] if marked else line
        field = _FIELD.match(body)
        names = field is not None and _KEYS[field[1].lower()] == "label"
        outer = marked is not None and (depth < 0 or len(marked[1]) <= depth) and (not field or names)
        again = names and any((f := _FIELD.match(i)) and _KEYS[f[1].lower()] == "label" for i in item)
        if outer or again:
            if item:
                yield _shortened("\n".join(item))
            item, depth = [body], len(marked[1]) if marked else depth
        elif marked or item or names:
            item.append(body)
    if item:
        yield _shortened("\n".join(item))


def _shortened(item: str) -> str:
    """Where it is too long, up to the end of a part of it: half of a number would be another number."""
    if len(item) <= _LONGEST_ITEM:
        return item
    return item[: max((end.end() for end in _PART_ENDS.finditer(item, 0, _LONGEST_ITEM)), default=0)]


def _event(item: str, known: Callable[[str], bool]) -> dict[str, str] | None:
    """The object of an item; {} where it says that there was none; None where it is no event."""
    fields = list(_FIELD.finditer(item))
    event = _fields(item, fields)
    if "label" in event:
        return {} if says_nothing(event["label"]) else event
    label, rest = _head(item[: fields[0].start()] if fields else item)
    if _NOT.match(rest.partition("\n")[0].lstrip(" :*-–—(=\t")):
        return {} if known(label) or known(label.removesuffix("s")) else None
    beside = _beside(rest) if not fields else _short(rest)
    if not label or not (known(label) or not {"team", "confidence"}.isdisjoint(event.keys() | beside.keys())):
        return None
    return {"label": label, **beside, **event}


def _fields(item: str, fields: list[re.Match[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    ends = [*(f.start() for f in fields[1:]), len(item)]
    for field, end in zip(fields, ends, strict=False):
        key, value = _KEYS[field[1].lower()], item[field.end() : end].strip(_TRIM)
        if key != "details":
            value = value.partition("\n")[0].strip(_TRIM)
        if value:
            found.setdefault(key, value if "(" in value else value.removesuffix(")"))
    return found


def _head(head: str) -> tuple[str, str]:
    """What an item calls its event, and what it says behind that."""
    head = head.lstrip()
    found = _BOLD.match(head)
    name = found[1] if found else ""
    if not found and (found := _HEAD.match(head)):
        name = found[0]
    return (name.strip(_TRIM), head[found.end() :]) if found and len(name.split()) <= _MOST_WORDS else ("", "")


def _beside(rest: str) -> dict[str, str]:
    """`(home, 0.9): what happened` and `- home - 0.9`: team and confidence by their form, the longest of the others as details."""
    before, colon, after = rest.partition(":")
    found = _short(before if colon else rest)
    told = (
        after.strip(_TRIM)
        if colon
        else max((p for p in _PARTS.split(rest) if not _short(p)), key=len, default="").strip(_TRIM)
    )
    return {**found, "details": told} if told else found


def _short(text: str) -> dict[str, str]:
    """What stands between brackets, commas and dashes and can only be a team or a confidence."""
    found: dict[str, str] = {}
    for part in _PARTS.split(text):
        said = part.strip(_TRIM_PART)
        if _SIDE.fullmatch(said):
            found.setdefault("team", said)
        elif _SHARE.fullmatch(said):
            found.setdefault("confidence", said)
    return found


def _table(text: str) -> list[dict[str, str]]:
    """Rows of a table whose head names what we know."""
    rows = [
        [c.strip(_TRIM) for c in line.strip().strip("|").split("|")]
        for line in text.splitlines()[:_MOST_LINES]
        if "|" in line
    ]
    if len(rows) < 2:
        return []
    head = [_KEYS.get(c.lower()) for c in rows[0]]
    if "label" not in head:
        return []
    found = []
    for row in rows[1:]:
        cells = {key: cell for key, cell in zip(head, row, strict=False) if key and cell}
        label = cells.get("label", "")
        if label and set(label) - set(":-= ") and not says_nothing(label):
            found.append(cells)
    return found
