"""The tree of errors: what it says is what it is."""

from __future__ import annotations

import re

import pytest

from streamproc import errors
from streamproc.errors import Expired, Fatal, NotBegun, NotYet, Rejected, Retryable, StreamprocError, Unreachable

SIGNALS = {Expired, NotYet, NotBegun}
"""Neither failure of an input nor of the process: the reader goes on, the record waits, or is left to whoever is next."""


def every_error(root: type[StreamprocError] = StreamprocError) -> list[type[StreamprocError]]:
    """All that errors.py defines, as the tree is drawn: a class, then what is below it."""
    below = [c for c in vars(errors).values() if isinstance(c, type) and root in c.__bases__]
    return [root, *(each for child in below for each in every_error(child))]


def test_the_tree_at_the_top_is_the_tree_below() -> None:
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ((?:[│ ]   )*(?:[├└]── )?)([A-Z]\w+)", line):
            drawn.append((len(found[1]) // 4, found[2]))
    real = [(len(c.__mro__) - len(StreamprocError.__mro__), c.__name__) for c in every_error()]
    assert drawn == real


def test_every_error_says_by_its_class_what_is_to_be_done() -> None:
    for error in every_error():
        ways = [way for way in (Retryable, Rejected, Fatal) if issubclass(error, way)]
        assert len(ways) == (0 if error in SIGNALS or error is StreamprocError else 1), error


def test_what_is_unreachable_names_the_hop_and_the_remedy() -> None:
    error = Unreachable("broker at 127.0.0.1:1", "nobody listens", remedy="Start it.")
    assert str(error) == "broker at 127.0.0.1:1: nobody listens. Start it."


@pytest.mark.parametrize(("name", "told"), [("capton", "; did you mean 'captions'?"), ("xyz", ""), ("", "")])
def test_the_nearest_name_is_offered_where_one_is_near(name: str, told: str) -> None:
    assert errors.did_you_mean(name, ["captions", "windows"]) == told
