"""The fields of one object out of a model's text, held to the JSON schema that was asked for.

    integer, number  a number, also one written as a string; outside its bounds it is refused
    boolean          true and false, yes and no, 1 and 0
    enum             by name, then by likeness; what is like none is refused
    array            item by item; an item that is refused is left out
    null             'none' and its spellings, where the schema allows it and they are nothing else that it allows

What is refused is kept beside the values as it was said. A field that was not said is missing: the stage decides whether to
ask again. Of several objects the one with most of the fields counts, the last of them if there are more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal

from msgspec import Struct

from streamproc.models.recovery import ladder
from streamproc.models.recovery.labels import OTHER, Labels
from streamproc.models.recovery.nothing import is_nothing

Schema = Mapping[str, Any]

_NUMBER: Final = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,15})?")
_YES: Final = frozenset(("true", "yes", "1"))
_NO: Final = frozenset(("false", "no", "0"))
_DEEPEST: Final = 8
_TRIM: Final = " \t*_`\"',;"
_LARGEST: Final = 2**53
_REFUSED: Final = object()


class Fields(Struct, frozen=True, kw_only=True):
    """What was read. `done`: at least one field; `missing` names those that the schema requires beside it."""

    outcome: Literal["done", "unreadable"]
    how: str
    values: dict[str, Any]
    refused: dict[str, Any]
    """As said, where the schema does not allow it."""
    missing: tuple[str, ...]


def fields(text: str, schema: Schema, *, prompt: str | None = None, cut: bool = False) -> Fields:
    """The object that a text answers with. `prompt`: what it may have repeated; `cut`: it ended by length."""
    read = ladder.read(text, prompt=prompt, cut=cut)
    properties: Mapping[str, Schema] = schema.get("properties", {})
    how = list(read.how)
    said = _best(read.values, properties)
    if said is None:
        said, by = _written(read, properties, cut=cut)
        how = [h for h in how if not by or h in ("thoughts", "echo")] + by
    values, refused = dict[str, Any](), dict[str, Any]()
    for name, wanted in properties.items():
        if name in said:
            value = _held(said[name], wanted, 0)
            if value is not _REFUSED:
                values[name] = value
            elif not is_nothing(said[name]):
                refused[name] = _sound(said[name], 0)
    missing = tuple(n for n in schema.get("required", properties) if n not in values)
    return Fields(
        outcome="done" if values else "unreadable",
        how=", ".join(how) or "text",
        values=values,
        refused=refused,
        missing=missing,
    )


# which object -------------------------------------------------------------------------------------------------------


def _best(values: tuple[Any, ...], properties: Mapping[str, Schema]) -> dict[str, Any] | None:
    best, most = None, 0
    for value in values:
        for candidate in _objects(value):
            named = _named(candidate, properties)
            if named and len(named) >= most:
                best, most = named, len(named)
    return best


def _objects(value: Any) -> list[dict[str, Any]]:
    """An object, those in a list, and what one level of wrapping holds."""
    if isinstance(value, list):
        return [v for v in value if isinstance(v, dict)]
    if isinstance(value, dict):
        return [*(v for v in value.values() if isinstance(v, dict)), value]
    return []


def _named(said: dict[str, Any], properties: Mapping[str, Schema]) -> dict[str, Any]:
    """The fields that were asked for, however their names are spelled."""
    if said.keys() <= properties.keys():
        return said
    plain = {_plain(name): name for name in properties}
    return {plain[p]: value for key, value in said.items() if (p := _plain(key)) in plain}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _written(read: ladder.Read, properties: Mapping[str, Schema], *, cut: bool) -> tuple[dict[str, Any], list[str]]:
    """Without JSON: lines of `name: value`, or the one field that there is as the whole answer."""
    text = read.text[: ladder.LONGEST_BROKEN]
    if "{" in text:  # an object that was begun and is not whole: its lines are no answer either
        return {}, []
    plain = {_plain(name): name for name in properties}
    said: dict[str, Any] = {}
    lines = text.splitlines()
    for line in lines[:-1] if cut or len(text) < len(read.text) else lines:
        name, colon, value = line.partition(":")
        if colon and len(name) < 80 and (known := plain.get(_plain(name.lstrip(" \t-*•0123456789.)")))):
            said.setdefault(known, value.strip(_TRIM))
    if said:
        return said, ["lines"]
    if len(properties) == 1 and text and not cut and not any(isinstance(v, list | dict) for v in read.values):
        (name,) = properties
        if "string" not in _types(properties[name]):  # a sentence is no answer to a question of one word
            return {name: text.strip(_TRIM + ".")}, ["bare"]
    return {}, []


# held to the schema -------------------------------------------------------------------------------------------------


def _types(schema: Schema) -> tuple[str, ...]:
    said = schema.get("type", ())
    return (said,) if isinstance(said, str) else tuple(said)


def _held(value: Any, schema: Schema, depth: int) -> Any:
    """The value as the schema wants it, or _REFUSED."""
    kinds = _types(schema)
    options = schema.get("enum")
    if options is not None:
        return _chosen(value, tuple(options))
    if value is None:
        return None if "null" in kinds else _REFUSED
    nothing = "null" in kinds and is_nothing(value)
    for kind in kinds or ("any",):
        if nothing and kind == "string":  # as a string it could be any of null's spellings
            continue
        held = _one(value, kind, schema, depth)
        if held is not _REFUSED:
            return held
    return None if nothing else _REFUSED


def _one(value: Any, kind: str, schema: Schema, depth: int) -> Any:
    if kind in ("integer", "number"):
        return _number(value, schema, whole=kind == "integer")
    if kind == "boolean":
        if isinstance(value, bool):
            return value
        plain = str(value).strip().lower() if isinstance(value, str | int) else ""
        return True if plain in _YES else False if plain in _NO else _REFUSED
    if kind == "string":
        return _string(value)
    if kind == "array" and isinstance(value, list) and depth < _DEEPEST:
        items = [_held(item, schema.get("items", {}), depth + 1) for item in value]
        return [item for item in items if item is not _REFUSED]
    if kind == "object" and isinstance(value, dict) and depth < _DEEPEST:
        wanted = schema.get("properties")
        if wanted is None:
            return _sound(value, depth)
        held = {n: _held(v, wanted[n], depth + 1) for n, v in _named(value, wanted).items()}
        return {n: v for n, v in held.items() if v is not _REFUSED}
    return _sound(value, depth) if kind == "any" else _REFUSED


def _number(value: Any, schema: Schema, *, whole: bool) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value) if "." in value else int(value)
    if not _countable(value):
        return _REFUSED
    if whole:
        if value != int(value):
            return _REFUSED
        value = int(value)
    if value < schema.get("minimum", -math.inf) or value > schema.get("maximum", math.inf):
        return _REFUSED
    return value


def _string(value: Any) -> Any:
    if isinstance(value, str):
        said = value.strip()
        return said if said.isascii() else said.encode(errors="replace").decode()
    return str(value) if _countable(value) else _REFUSED


def _countable(value: Any) -> bool:
    """A number, and one that stays the same as JSON: not infinite, and no more digits than a float has."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST


def _sound(value: Any, depth: int) -> Any:
    """Any value such that it can be encoded: no half characters, no infinite numbers, no nesting without end."""
    if isinstance(value, str):
        return _string(value)
    if depth >= _DEEPEST:
        return None
    if isinstance(value, list):
        return [_sound(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_string(key): _sound(item, depth + 1) for key, item in value.items()}
    return value if isinstance(value, bool) or _countable(value) else None


def _chosen(value: Any, options: tuple[Any, ...]) -> Any:
    for option in options:
        if value == option and isinstance(value, bool) == isinstance(option, bool):
            return option
    label, by = OTHER, "other"
    if isinstance(value, str):
        number = _number(value, {}, whole=False)
        if number is not _REFUSED:
            return number if number in options else _REFUSED
        label, by = _labels(tuple(o for o in options if isinstance(o, str))).of(value)
    if by != "name" and is_nothing(value):  # 'no' is an option before it is a spelling of 'none'
        return next((o for o in options if o is None or (isinstance(o, str) and is_nothing(o))), _REFUSED)
    return label if by in ("name", "likeness") else _REFUSED


@lru_cache(maxsize=256)
def _labels(names: tuple[str, ...]) -> Labels:
    return Labels(names)
