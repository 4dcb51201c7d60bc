"""JSON as models write it: Python's quotes and literals, comments, missing and surplus commas, quotes within quotes.

One pass over the text, in linear time, without recursion. What is not whole is left out: no value is completed, guessed
or moved. Objects that were whole before the text broke off are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

DEEPEST: Final = 8
"""Levels of nesting. An answer about a window has three or four."""
LONGEST_KEY: Final = 64
MOST_BROKEN: Final = 64
"""Brackets that lead nowhere, after which the rest of a text is not looked at: it is no answer."""

_QUOTES: Final = {'"': '"', "'": "'", "`": "`", "“": '“”"', "”": '”"', "‘": "‘’'", "’": "’'"}
"""Opening quote → what may close it."""
_ANY_QUOTE: Final = "".join(_QUOTES)

_SKIP: Final = re.compile(r"(?:\s+|//[^\n]*|\#[ \t][^\n]*|/\*[^*]{0,200}\*/)+")
_OPENING: Final = re.compile(r"[{\[]")
_BARE: Final = re.compile(r"[^\s,:{}\[\]" + _ANY_QUOTE + r"/#]+")
_WORDS_ON: Final = re.compile(r"[^,{}\[\]\n:" + _ANY_QUOTE + r"]+")
"""Words without quotes go on to the end of the line or of the value: `label: Yellow card,`"""
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")

_KEY_NEXT: Final = (
    rf"(?:[{_ANY_QUOTE}][^{_ANY_QUOTE}\n]{{0,{LONGEST_KEY}}}[{_ANY_QUOTE}]|[A-Za-z_]\w{{0,{LONGEST_KEY - 1}}})\s*:"
)
_AFTER_VALUE: Final = re.compile(rf"\s*+(?:,?\s*+(?:{_KEY_NEXT}|[}}\]]|$)|,\s*+(?://|/\*|\#|\{{))")
"""A quote ends a value of an object only where the object goes on or ends: apostrophes and inner quotes do not."""
_AFTER_ITEM: Final = re.compile(
    rf"\s*+(?:,\s*+(?:[{_ANY_QUOTE}{{\[\d+.-]|(?:true|false|null|none|nan)\b)|,?\s*+(?:[}}\]]|$))", re.IGNORECASE
)
_QUOTED_KEY: Final = re.compile(rf"[{_ANY_QUOTE}]([^{_ANY_QUOTE}{{}}\[\]\n]{{0,{LONGEST_KEY}}})[{_ANY_QUOTE}](?=\s*+:)")

_WORDS: Final = {
    "true": True,
    "false": False,
    "null": None,
    "none": None,
    "nan": None,
    "undefined": None,
}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


@dataclass(slots=True)
class Found:
    """The values of a text, in its order."""

    values: list[Any] = field(default_factory=list)
    broken: bool = False
    """Something was open when the text ended, or could not be read: what had been whole by then is here."""
    closed: bool = False
    """Only brackets were missing at the very end."""


class _Stop(Exception):
    """No failure: where a value could not be read on. `ended`: because the text did."""

    def __init__(self, at: int, *, ended: bool = False) -> None:
        self.at, self.ended = at, ended


@dataclass(slots=True)
class _Open:
    """A container that is being read. `key` is the one whose value comes next."""

    value: dict[str, Any] | list[Any]
    key: str | None = None

    def put(self, value: Any) -> None:
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.key is not None:
            self.value[self.key] = value
            self.key = None


@dataclass(slots=True)
class _Reader:
    text: str
    cut: bool
    endless: dict[tuple[str, bool], int] = field(default_factory=dict)
    """Quote and place → from where on strings are known not to end. Those behind do not either, and nobody looks again."""

    def all(self) -> Found:
        found, at, led_nowhere = Found(), 0, 0
        while (opening := _OPENING.search(self.text, at)) and led_nowhere < MOST_BROKEN:
            stack: list[_Open] = []
            try:
                value, at = self._value(opening.start(), stack)
                found.values.append(value)
            except _Stop as stop:
                at = max(stop.at, opening.start() + 1)
                led_nowhere += 1
                if stop.ended and not self.cut and self._only_unclosed(stack):
                    found.closed = True
                    found.values.append(_closed(stack))
                else:
                    found.broken = found.broken or any(o.value or o.key for o in stack)
                    found.values += _whole(stack)
        return found

    def _only_unclosed(self, stack: list[_Open]) -> bool:
        """Nothing but brackets is missing: the last thing said was whole, and no comma promised more."""
        last = stack[-1]
        return bool(last.value) and last.key is None and not self.text.rstrip().endswith(",")

    def _value(self, at: int, stack: list[_Open]) -> tuple[Any, int]:
        """The container that opens at `at`, and where it ends. On failure `stack` holds what was open."""
        text = self.text
        while True:
            at = self._skipped(at)
            here = stack[-1] if stack else None
            if at >= len(text):
                raise _Stop(at, ended=True)
            char = text[at]
            if char in "{[":
                if len(stack) == DEEPEST:
                    raise _Stop(at)
                if here is not None and isinstance(here.value, dict) and here.key is None:
                    self._close_forgotten(stack, list, at + 1)  # an object within an object can only be the next
                stack.append(_Open({} if char == "{" else []))
                at += 1
            elif char in "}]":
                at += 1
                if isinstance(stack[-1].value, dict) != (char == "}"):
                    self._close_forgotten(stack, dict if char == "}" else list, at)
                closed = stack.pop().value
                if not stack:
                    return closed, at
                stack[-1].put(closed)
            elif char == ",":
                stack[-1].key = None  # `"team": ,` says nothing of the team
                at += 1
            elif here is not None and isinstance(here.value, dict) and here.key is None:
                here.key, at = self._key(at)
            elif here is not None:
                value, at = self._scalar(at, in_list=isinstance(here.value, list))
                here.put(value)

    @staticmethod
    def _close_forgotten(stack: list[_Open], kind: type, at: int) -> None:
        """One bracket was left out: what it would have closed is whole, because what holds it goes on or ends here."""
        if len(stack) < 2 or not isinstance(stack[-2].value, kind) or not stack[-1].value or stack[-1].key is not None:
            raise _Stop(at)
        forgotten = stack.pop().value
        stack[-1].put(forgotten)

    def _skipped(self, at: int) -> int:
        skipped = _SKIP.match(self.text, at)
        return skipped.end() if skipped else at

    def _key(self, at: int) -> tuple[str, int]:
        text = self.text
        if text[at] in _QUOTES:
            if not (quoted := _QUOTED_KEY.match(text, at)):
                raise _Stop(at + 1)
            key, after = _unescaped(quoted[1]), quoted.end()
        else:
            bare = _BARE.match(text, at)
            if not bare or bare.end() - at > LONGEST_KEY:
                raise _Stop(at + 1)
            key, after = bare.group(), bare.end()
        after = self._skipped(after)
        if after >= len(text) or text[after] != ":":
            raise _Stop(after)
        return key, after + 1

    def _scalar(self, at: int, *, in_list: bool) -> tuple[Any, int]:
        text = self.text
        if (quote := text[at]) in _QUOTES:
            if self.endless.get((quote, in_list), len(text)) <= at:
                raise _Stop(at + 1)
            end = self._end(at, in_list=in_list)
            if end < 0:
                self.endless[quote, in_list] = at
                raise _Stop(at + 1)
            return _unescaped(text[at + 1 : end]), end + 1
        bare = _BARE.match(text, at)
        if not bare:
            raise _Stop(at + 1)
        if bare.end() == len(text):
            raise _Stop(bare.end())  # a number or word that the text ends in may have gone on
        word = bare.group()
        if _NUMBER.fullmatch(word):
            after = bare.end()
            number = float(word) if len(word) < 32 else None
            if number is not None and number.is_integer() and "." not in word and "e" not in word.lower():
                return int(number), after
            return number, after
        if (known := word.lower()) in _WORDS:
            return _WORDS[known], bare.end()
        line = _WORDS_ON.match(text, at)
        if not line or line.end() == len(text):
            raise _Stop(line.end() if line else at + 1)
        return line.group().strip(), line.end()

    def _end(self, at: int, *, in_list: bool) -> int:
        """Where the string that opens at `at` ends; -1 if it does not."""
        for close in _ends(self.text[at], in_list=in_list).finditer(self.text, at + 1):
            if not _escaped(self.text, close.start()):
                return close.start()
        return -1


@cache
def _ends(quote: str, *, in_list: bool) -> re.Pattern[str]:
    """Where a string may end that this opened. One search, as a heap of quotes has thousands; made when one comes, as they
    take longer to make than most who import this have time for."""
    after = _AFTER_ITEM if in_list else _AFTER_VALUE
    return re.compile(f"[{_QUOTES[quote]}](?={after.pattern})", after.flags)


def _escaped(text: str, at: int) -> bool:
    """An odd number of backslashes stands before."""
    before = at
    while before and text[before - 1] == "\\":
        before -= 1
    return (at - before) % 2 == 1


def _unescaped(string: str) -> str:
    return _ESCAPE.sub(_character, string) if "\\" in string else string


def _character(escape: re.Match[str]) -> str:
    if code := escape[1]:
        char = chr(int(code, 16))
        return "\ufffd" if "\ud800" <= char <= "\udfff" else char
    return _ESCAPES.get(escape[2], escape[2])


def _whole(stack: list[_Open]) -> list[Any]:
    """The objects that had been closed within what was open."""
    found: list[Any] = []
    for container in stack:
        items = container.value if isinstance(container.value, list) else container.value.values()
        for item in items:
            if isinstance(item, dict):
                found.append(item)
            elif isinstance(item, list):
                found += [i for i in item if isinstance(i, dict)]
    return found


def _closed(stack: list[_Open]) -> Any:
    value = stack.pop().value
    while stack:
        stack[-1].put(value)
        value = stack.pop().value
    return value


def scan(text: str, *, cut: bool = False) -> Found:
    """Every object and list in a text. With `cut` the text is known to have been broken off: nothing is closed."""
    return _Reader(text, cut).all()
