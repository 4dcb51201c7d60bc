"""Labels-v2.json and results_spotting.json: what is read, what is refused, what is counted; and the table of labels."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.errors import Rejected
from streamproc.formats import soccernet
from streamproc.formats.problems import Problems
from streamproc.formats.soccernet import LABELS, SPELLINGS, Spot

SPOTS = st.builds(
    Spot,
    half=st.sampled_from([1, 2]),
    time_ms=st.integers(0, 7_000_000),
    label=st.sampled_from(LABELS),
    confidence=st.floats(0, 1),
    shown=st.just(True),
    team=st.none() | st.sampled_from(["home", "away"]),
)


DEEP = b'{"x": ' + b"[" * 100_000


def predictions(*rows: dict[str, Any]) -> bytes:
    whole = {"gameTime": "1 - 00:10", "label": "Goal", "position": "10000", "half": "1", "confidence": "0.5"}
    return json.dumps({"predictions": [whole | row for row in rows]}).encode()


def labels(*rows: dict[str, Any]) -> bytes:
    whole = {"gameTime": "1 - 00:10", "label": "Goal", "position": "10000", "visibility": "visible", "team": "home"}
    return json.dumps({"annotations": [whole | row for row in rows]}).encode()


def read(data: bytes) -> tuple[list[Spot], Problems]:
    problems = Problems()
    kind = soccernet.read_labels if b"annotations" in data else soccernet.read_predictions
    return kind(data, file="game/file.json", problems=problems), problems


@given(st.lists(SPOTS))
def test_predictions_come_back_as_they_were_written(spots: list[Spot]) -> None:
    found, problems = read(soccernet.write_predictions("league/game", spots))
    assert found == spots
    assert not problems


@given(st.lists(SPOTS), st.booleans())
def test_labels_come_back_as_they_were_written(spots: list[Spot], shown: bool) -> None:
    truth = [Spot(half=s.half, time_ms=s.time_ms, label=s.label, shown=shown, team=s.team or "home") for s in spots]
    found, problems = read(soccernet.write_labels("league/game", truth))
    assert found == truth
    assert not problems


def test_numbers_may_be_numbers_or_texts_and_a_byte_order_mark_is_no_matter() -> None:
    data = predictions({"position": 10000, "half": 1, "confidence": 0.5}, {"position": 10000.0, "half": 1.0})
    assert (
        read(data)[0]
        == read(b"\xef\xbb\xbf" + data)[0]
        == [Spot(half=1, time_ms=10000, label="Goal", confidence=0.5)] * 2
    )


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("Shot on target", "Shots on target"),
        ("shots off TARGET", "Shots off target"),
        ("Free-kick", "Indirect free-kick"),
        ("Direct free kick", "Direct free-kick"),
        ("Kick off", "Kick-off"),
        ("Yellow -> red card", "Yellow->red card"),
        ("Second yellow card", "Yellow->red card"),
        ("Goal kick", None),
        ("", None),
    ],
)
def test_labels_are_known_by_the_spellings_of_the_table(said: str, label: str | None) -> None:
    assert soccernet.label_of(said) == label


def test_the_table_maps_to_official_labels_only_and_never_one_label_to_another() -> None:
    assert set(SPELLINGS.values()) <= set(LABELS)
    assert all(soccernet.label_of(name) == name for name in LABELS)


def test_the_official_order_is_the_official_packages_order() -> None:
    utils = pytest.importorskip("SoccerNet.Evaluation.utils")
    assert {name: number for number, name in enumerate(LABELS)} == utils.EVENT_DICTIONARY_V2


def test_a_label_spelt_otherwise_is_read_and_counted() -> None:
    spots, problems = read(predictions({"label": "shot on target"}))
    assert [spot.label for spot in spots] == ["Shots on target"]
    assert list(problems.lines()) == [
        "1 × label spelt otherwise: game/file.json row 1 ('shot on target' read as 'Shots on target')"
    ]


def test_an_unknown_label_is_left_out_and_counted_with_its_row() -> None:
    spots, problems = read(predictions({}, {"label": "Goal kick"}))
    assert len(spots) == 1
    assert next(problems.lines()).endswith("game/file.json row 2 ('Goal kick')")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"position": "15000"}, "gameTime and position disagree"),
        ({"gameTime": "2 - 00:10"}, "gameTime names another half"),
        ({"half": "3", "gameTime": "3 - 00:10"}, "neither half 1 nor 2"),
        ({"position": "7300000", "gameTime": "1 - 121:40"}, "later than two hours"),
    ],
)
def test_what_disagrees_is_counted_with_file_and_row(row: dict[str, Any], what: str) -> None:
    _, problems = read(predictions({}, row))
    assert [line for line in problems.lines() if what in line and "game/file.json row 2" in line]


def test_position_and_half_are_believed_as_officially() -> None:
    spots, _ = read(predictions({"gameTime": "2 - 40:00", "position": "15000", "half": "1"}))
    assert (spots[0].half, spots[0].time_ms) == (1, 15000)


def test_gametime_may_round_either_way() -> None:
    assert not read(labels({"position": "10999"}, {"position": "9400"}))[1]


def test_a_label_without_position_is_at_its_gametime() -> None:
    data = json.dumps({"annotations": [{"gameTime": "2 - 12:34", "label": "Goal"}]}).encode()
    assert read(data)[0] == [Spot(half=2, time_ms=754_000, label="Goal")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"confidence": None}, "row 1: confidence None is not a number"),
        ({"confidence": "high"}, "row 1: confidence 'high' is not a number"),
        ({"confidence": 1.5}, "row 1: confidence 1.5 is not between 0 and 1"),
        ({"confidence": "nan"}, "row 1: confidence nan is not between 0 and 1"),
        ({"position": None}, "row 1: no position"),
        ({"position": "soon"}, "row 1: position 'soon' is not a whole number"),
        ({"position": "-5", "gameTime": "1 - 00:00"}, "row 1: position -5 is before the half begins"),
        ({"position": "9" * 30}, "row 1: position " + "9" * 30 + " is no time in milliseconds"),
        ({"position": 1_763_737_200_000}, "row 1: position 1763737200000 is no time in milliseconds"),
        ({"start_ms": 5, "end_ms": 4}, "row 1: a stretch from 5 to 4 ms"),
        ({"start_ms": "soon", "end_ms": 4}, "row 1: start_ms 'soon' is not a whole number"),
        ({"half": None}, "row 1: no half"),
        ({"half": 1.5}, "row 1: half '1.5' is not a whole number"),
        ({"label": None}, "row 1: no label"),
        ({"gameTime": "12:34"}, "row 1: gameTime '12:34' is not like '1 - 12:34'"),
    ],
)
def test_what_cannot_be_scored_honestly_is_refused_with_file_and_row(row: dict[str, Any], message: str) -> None:
    with pytest.raises(Rejected, match=r"game/file\.json") as refused:
        read(predictions(row))
    assert message in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"{", b'{"predictions": 3}', b'{"predictions": [3]}', b"[]", b"\xff", DEEP])
def test_what_is_no_such_file_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(Rejected, match=r"game/file\.json"):
        soccernet.read_predictions(data, file="game/file.json", problems=Problems())


@pytest.mark.parametrize(
    ("stream", "half"),
    [
        ("league/season/game/1_720p", ("league/season/game", 1)),
        ("game/2_224p@trial", ("game", 2)),
        ("game/3_720p", None),
        ("1_720p", None),
        ("game/1", None),
    ],
)
def test_streams_named_by_half_are_halves_of_their_game(stream: str, half: tuple[str, int] | None) -> None:
    assert soccernet.half_of(stream) == half


@given(st.sampled_from([1, 2]), st.integers(0, 7_200_000))
def test_game_times_read_back_to_the_second(half: int, time_ms: int) -> None:
    assert soccernet.parse_game_time(soccernet.game_time(half, time_ms)) == (half, time_ms // 1000 * 1000)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    for kind in (soccernet.read_labels, soccernet.read_predictions):
        with suppress(Rejected):
            kind(data, file="f", problems=Problems())
