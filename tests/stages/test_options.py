"""options: what a task's author may say, and what is said of a slip."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from streamproc.errors import Rejected
from streamproc.stages.caption import Options
from streamproc.stages.options import Labels, Told, filled, variables
from tests.sim import toys


@pytest.mark.parametrize("said", ["Goal, Red card", ["Goal", "Red card"], {"names": ["Goal", "Red card"]}])
def test_labels_are_names_with_commas_a_list_or_a_table(said: Any) -> None:
    labels = Labels.model_validate(said)
    assert labels.names == ("Goal", "Red card")
    assert labels.listed() == "- Goal\n- Red card"


def test_a_line_about_a_label_stands_behind_it() -> None:
    assert Labels(names=("Fire",), about={"Fire": "flames are seen"}).listed() == "- Fire — flames are seen"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"names": ["Goal"], "aliases": {"Tor": "Gaol"}}, "no label 'Gaol'; did you mean 'Goal'"),
        ({"names": ["Goal"], "about": {"Foul": "a foul"}}, "no label 'Foul'"),
        (["Goal", "goal"], "the same but for their case"),
    ],
)
def test_a_label_that_there_is_not_is_refused(said: Any, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Labels.model_validate(said)


def test_json_in_a_prompt_is_no_variable() -> None:
    assert list(variables('{"label": {labels}, { a }, {A}, {a1}} {fields}')) == ["labels", "fields"]


@given(value=st.text(max_size=50))
def test_what_a_variable_holds_is_not_looked_at_again(value: str) -> None:
    assert filled("{a}{b}", {"a": "{b}", "b": value}) == "{b}" + value


def test_a_section_is_parsed_once_a_source_and_its_own_for_each() -> None:
    told, source = Told("caption", Options), toys.source("m", services=(), count=0)
    first, second = (replace(source, task={"caption": {"model": "m", "prompt": p}}) for p in ("one", "two"))
    assert told.of(first) is told.of(first)
    assert (told.of(first).prompt, told.of(second).prompt) == ("one", "two")


def test_of_many_sources_the_last_are_kept() -> None:
    told, source = Told("caption", Options), toys.source("m", services=(), count=0)
    many = [replace(source, task={"caption": {"model": f"m{i}"}}) for i in range(Told.KEPT + 10)]
    assert [told.of(s).model for s in many] == [f"m{i}" for i in range(len(many))]
    assert told.of(many[0]).model == "m0"


def test_a_section_that_cannot_be_read_names_stream_revision_and_option() -> None:
    source = replace(toys.source("m", services=(), count=0), task={"caption": {"model": "m", "again": -1}})
    with pytest.raises(Rejected, match=r"task of m, revision 0: 'caption' cannot be read(.|\n)*again"):
        Told("caption", Options).of(source)
