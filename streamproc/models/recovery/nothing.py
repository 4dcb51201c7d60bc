"""The null class: how a model says that nothing happened. Looked at and nothing there is an answer; silence is not."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

_SPELLED: Final = frozenset(
    (
        "none",
        "null",
        "nil",
        "n/a",
        "na",
        "nothing",
        "no",
        "no event",
        "no events",
        "no incident",
        "no incidents",
        "[]",
        "{}",
    )
)
_ADJECTIVES: Final = (
    r"(?:(?:significant|notable|relevant|clear|visible|major|obvious|identifiable|specific|key|new|other|such) )*"
)
_SUBJECTS: Final = r"(?:(?:soccer|football|match|game|traffic|hazardous|safety) )?(?:events?|incidents?|actions?|hazards?|activity|changes?)"
_ENDS: Final = (
    r"(?:(?: (?:is|are|was|were|has been|have been|can be))?(?: clearly)? (?:detected|occurr(?:ed|ing|s)?|occurs?|happen(?:ed|ing|s)?|visible|"
    r"observed|found|identified|seen|shown|present|taking place|to report|of note|here))?"
    r"(?:,? (?:in|during|within|across|throughout) (?:the|these|this|any of the) [a-z0-9 ]{1,40})?"
)
_SENTENCE: Final = re.compile(
    r"(?:(?:answer|output|result|events?|response|final answer): ?)?(?:there (?:is|are|was|were) )?"
    rf"(?:no {_ADJECTIVES}{_SUBJECTS}{_ENDS}|nothing(?: (?:significant|notable|relevant|of note|else))*{_ENDS}|none(?: of (?:the|these) [a-z ]{{1,40}})?{_ENDS})"
)
_DRESS: Final = " \t\r\n.!*_`'\"“”‘’"
_LABELLED: Final = re.compile(r"(?:answer|output|result|events?|response|final answer)\W{1,4}")
_TWICE: Final = re.compile(r"(?:none|null|nothing)\W{1,4}(.*?)\W*", re.DOTALL)
"""'None (no significant events)'"""
_LONGEST: Final = 200


def says_nothing(text: str) -> bool:
    """The whole text spells the null class, in a word or a plain sentence. 'No goal, but a foul' does not."""
    return len(text) <= _LONGEST and _says_nothing(text)


@lru_cache(maxsize=1024)
def _says_nothing(text: str) -> bool:
    bare = text.strip(_DRESS).lower()
    if bare in _SPELLED:
        return True
    if labelled := _LABELLED.match(bare):
        bare = bare[labelled.end() :].strip(_DRESS)
        if bare in _SPELLED:
            return True
    if _SENTENCE.fullmatch(bare):
        return True
    twice = _TWICE.fullmatch(bare)
    return twice is not None and _SENTENCE.fullmatch(twice[1].strip(_DRESS)) is not None


def begins_with_nothing(text: str) -> bool:
    """Its first line does, and what comes behind is an explanation."""
    return says_nothing(text.lstrip().partition("\n")[0])


def is_nothing(value: Any) -> bool:
    """A value of JSON that stands for nothing."""
    return value is None or value is False or (isinstance(value, str) and (not value.strip() or says_nothing(value)))
