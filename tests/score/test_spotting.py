"""The spotting score is the official one. The oracle is the official package, over files that both sides read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.formats.soccernet import LABELS, Spot
from streamproc.score import spotting
from streamproc.score.spots import Predictions, Truth
from tests.score import official

HALF_MS = 120 * 60 * 1000


def _times() -> st.SearchStrategy[int]:
    crowded = st.integers(0, 240).map(lambda n: n * 250)
    ends = st.sampled_from([0, 499, 500, HALF_MS - 1, HALF_MS, HALF_MS + 5000, 47 * 60_000])
    return crowded | ends | st.integers(0, HALF_MS + 60_000)


def _spot(
    labels: tuple[str, ...], confidence: st.SearchStrategy[float | None], shown: st.SearchStrategy[bool]
) -> st.SearchStrategy[Spot]:
    return st.builds(
        Spot,
        half=st.integers(1, 2),
        time_ms=_times(),
        label=st.sampled_from(labels),
        confidence=confidence,
        shown=shown,
        team=st.none(),
    )


_CONFIDENCE = st.sampled_from([0.0, 0.5, 0.9, 1.0, 100 / 199]) | st.floats(0, 1)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[dict[str, tuple[list[Spot], list[Spot]]], tuple[str, ...], str]:
    """Games, classes, a metric. The official code needs 10 ms a class and tolerance, so most cases have one of each."""
    labels = LABELS[: draw(st.sampled_from([1] * 9 + [2]))]
    metric = draw(st.sampled_from(["at1", "at2", "at3", "at4", "at5"] * 16 + ["tight", "tight", "loose"]))
    truth = st.lists(_spot(labels, st.none(), st.booleans()), max_size=8)
    said = st.lists(_spot(labels, _CONFIDENCE, st.just(True)), max_size=16)
    games = draw(st.lists(st.tuples(truth, said), min_size=1, max_size=2))
    return {f"game {n}": game for n, game in enumerate(games)}, labels, metric


@pytest.fixture(scope="module", autouse=True)
def _everything_is_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hypothesis also draws constants that stand in the modules loaded: an import half-way would change what it draws."""
    folder = tmp_path_factory.mktemp("warm")
    games = official.made_up(1, games=1, predictions=3)
    official.write(folder, games)
    _agree(folder, list(games), metric="at1", labels=LABELS, quick=True)


@pytest.mark.timeout(600)  # the official code's time, not ours: some twenty seconds of an idle core
@settings(max_examples=1000)
@given(case=_cases())
def test_every_digit_is_the_official_one(
    case: tuple[dict[str, tuple[list[Spot], list[Spot]]], tuple[str, ...], str],
) -> None:
    games, labels, metric = case
    with tempfile.TemporaryDirectory() as folder:
        official.write(Path(folder), games)
        _agree(Path(folder), list(games), metric=metric, labels=labels, quick=True)


@pytest.mark.parametrize("metric", ["tight", "at3"])
def test_whole_games_score_as_officially(tmp_path: Path, metric: str) -> None:
    games = official.made_up(7, games=3, predictions=300)
    official.write(tmp_path, games)
    _agree(tmp_path, list(games), metric=metric, labels=LABELS)


def test_games_without_a_single_prediction_score_nothing(tmp_path: Path) -> None:
    games: official.Games = {"g": (official.made_up(1, games=1, predictions=0)["league/season/game 000"][0], [])}
    official.write(tmp_path, games)
    _agree(tmp_path, list(games), metric="at5", labels=LABELS)


def test_the_quick_oracle_says_what_the_official_package_says(tmp_path: Path) -> None:
    games = official.made_up(8, games=2, predictions=100)
    official.write(tmp_path, games)
    slow, quick = (official.evaluate(tmp_path, metric="at4", quick=q) for q in (False, True))
    assert all(np.array_equal(slow[name], quick[name]) for name in slow)


def _agree(folder: Path, games: list[str], *, metric: str, labels: tuple[str, ...], quick: bool = False) -> None:
    theirs = official.evaluate(folder, metric=metric, labels=labels, quick=quick)
    truth, predictions = official.columns(folder, games)
    ours = spotting.score(spotting.tally(truth, predictions, games=len(games), classes=len(labels)))[metric]
    for view, suffix in (("all", ""), ("visible", "_visible"), ("unshown", "_unshown")):
        assert ours.average[view] == pytest.approx(theirs[f"a_mAP{suffix}"], abs=1e-12, rel=0)
        per_class = np.asarray(theirs[f"a_mAP_per_class{suffix}"])
        np.testing.assert_allclose(ours.per_class[view], per_class, atol=1e-12, rtol=0)


# known ways to be wrong ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def game() -> spotting.Tally:
    games = list(official.made_up(3, games=2, predictions=400).values())
    number = {name: n for n, name in enumerate(LABELS)}
    truth = Truth.of(
        (2 * g + s.half - 1, number[s.label], s.time_ms, s.shown)
        for g, (t, _) in enumerate(games)
        for s in t
        if s.label != "Goal"
    )
    said = Predictions.of(
        (2 * g + s.half - 1, number[s.label], s.time_ms, s.confidence or 0.0)
        for g, (_, p) in enumerate(games)
        for s in p
    )
    return spotting.tally(truth, said, games=2, classes=len(LABELS))


def test_classes_without_labels_count_as_zero_and_not_as_absent(game: spotting.Tally) -> None:
    found = spotting.score(game)["loose"]
    present = game.labels.sum(axis=(0, 2)) > 0
    assert not present.all()
    assert found.average["all"] == pytest.approx(found.per_class["all"].mean())
    assert found.average["all"] < found.per_class["all"][present].mean() - 1e-3


def test_a_tolerance_reaches_half_of_itself_to_either_side() -> None:
    truth = Truth.of([(0, 0, 60_000, True)])
    for late_ms, expected in ((1000, 1.0), (1500, 0.0), (2000, 0.0)):
        said = Predictions.of([(0, 0, 60_000 + late_ms, 0.9)])
        score = spotting.score(spotting.tally(truth, said, games=1, classes=1))
        assert score["at2"].average["all"] == pytest.approx(expected)


def test_tolerances_are_averaged_by_the_trapezoid_so_the_ends_count_half(game: spotting.Tally) -> None:
    found = spotting.score(game)
    at = np.array([found[f"at{seconds}"].average["all"] for seconds in range(1, 6)])
    assert found["tight"].average["all"] == pytest.approx(float(np.trapezoid(at) / 4), abs=1e-12)
    assert abs(found["tight"].average["all"] - at.mean()) > 1e-4


def test_of_two_rows_in_one_cell_the_later_one_stands_even_if_less_sure() -> None:
    truth = Truth.of([(0, 0, 10_000, True), (0, 1, 10_000, True)])
    said = Predictions.of([(0, 0, 10_000, 0.9), (0, 0, 10_400, 0.2), (0, 0, 500_000, 0.5), (0, 1, 10_000, 0.9)])
    counted = spotting.tally(truth, said, games=1, classes=2)
    assert counted.overwritten == 1
    assert spotting.score(counted)["at1"].per_class["all"].tolist() == [0.5, 1.0]


def test_the_unshown_average_over_tolerances_is_scaled_as_officially_and_single_ones_are_not(
    game: spotting.Tally,
) -> None:
    found = spotting.score(game)
    assert found["loose"].average["unshown"] == pytest.approx(found["loose"].per_class["unshown"].mean() * 17 / 13)
    assert found["at5"].average["unshown"] == pytest.approx(found["at5"].per_class["unshown"].mean())


def test_drawing_each_game_once_is_the_score_itself(game: spotting.Tally) -> None:
    drawn = spotting.averages(game, np.ones((2, game.games)))
    for name, metric in spotting.score(game).items():
        for view in spotting.VIEWS:
            np.testing.assert_allclose(drawn[name][view], metric.average[view], atol=1e-12)
