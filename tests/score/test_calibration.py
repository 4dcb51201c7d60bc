"""Reliability, and fits that mend it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.errors import Rejected
from streamproc.score import calibration
from streamproc.score.calibration import Fit, Method
from streamproc.score.spots import Bools, Floats, Ints

SAID = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def columns(said: list[tuple[float, bool]]) -> tuple[Floats, Bools]:
    return np.array([c for c, _ in said], np.float64), np.array([h for _, h in said], np.bool_)


def overconfident(count: int, seed: int) -> tuple[Floats, Bools]:
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.5, 1, count)
    return confidence, random.random(count) < confidence**4


def test_bins_say_what_was_said_and_what_came_true() -> None:
    table = calibration.reliability(np.array([0.0, 0.1, 0.85, 0.9, 1.0]), np.array([False, True, True, False, True]))
    assert table.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 2, 1]
    assert table.accuracy[[0, 8, 9]].tolist() == [0.5, 0.5, 1.0]
    assert table.ece == pytest.approx((2 * abs(0.05 - 0.5) + 2 * abs(0.875 - 0.5)) / 5)


@given(SAID, st.sampled_from(["isotonic", "platt"]))
def test_a_fit_never_falls_and_stays_a_probability(said: list[tuple[float, bool]], method: Method) -> None:
    line = calibration.fit(*columns(said), method=method)
    at = line(np.linspace(0, 1, 101))
    assert (np.diff(at) >= -1e-12).all()
    assert ((at >= 0) & (at <= 1)).all()


@given(SAID)
def test_isotonic_is_the_rising_line_with_the_least_squared_error(said: list[tuple[float, bool]]) -> None:
    confidence, hit = columns(said)
    ours = float(((calibration.fit(confidence, hit, method="isotonic")(confidence) - hit) ** 2).sum())
    for other in (
        confidence,
        np.full(len(hit), hit.mean()),
        np.clip(confidence * 1.3 - 0.2, 0, 1),
        (confidence > 0.5).astype(float),
    ):
        assert ours <= float(((other - hit) ** 2).sum()) + 1e-9


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_fit_brings_unseen_confidences_closer_to_the_truth(method: Method) -> None:
    line = calibration.fit(*overconfident(4000, 1), method=method)
    confidence, hit = overconfident(4000, 2)
    before, after = calibration.reliability(confidence, hit).ece, calibration.reliability(line(confidence), hit).ece
    assert after < before / 4


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_fit_that_was_saved_is_the_same_fit(method: Method) -> None:
    line = calibration.fit(*overconfident(200, 3), method=method)
    again = Fit.parse(line.plain(), file="f")
    at = np.linspace(0, 1, 77)
    assert again(at).tolist() == line(at).tolist()


def test_where_surer_is_worse_platt_says_that_confidence_says_nothing() -> None:
    confidence = np.linspace(0.01, 0.99, 200)
    line = calibration.fit(confidence, confidence < 0.5, method="platt")
    assert np.ptp(line.probability) == 0.0
    assert line.probability[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"method": "platt", "confidence": [0, 1], "probability": [1, 0]},
        {"method": "platt", "confidence": [0, 1], "probability": [0, 2]},
        {"method": "platt", "confidence": [0, 1], "probability": [0]},
        {"method": "platt", "confidence": [], "probability": []},
        {"method": "platt", "confidence": [0, float("nan")], "probability": [0, 1]},
    ],
)
def test_a_file_that_is_no_calibration_is_refused_by_name(plain: dict[str, object]) -> None:
    with pytest.raises(Rejected, match=r"^f: not a calibration"):
        Fit.parse(plain, file="f")


def test_a_class_with_enough_predictions_has_its_own_line_and_the_rest_share_one() -> None:
    confidence, hit = overconfident(400, 4)
    label = np.repeat([0, 1, 2], [300, 90, 10])
    hit[label == 1] = True  # nothing to tell apart: no line can be fitted to it alone
    lines = calibration.by_class(confidence, hit, label, method="platt", least=50)
    assert list(lines.per_class) == [0]
    said = np.full(3, 0.9)
    own = calibration.fit(confidence[:300], hit[:300], method="platt")(said)[0]
    every = calibration.fit(confidence, hit, method="platt")(said)[0]
    assert lines(said, np.array([0, 1, 2])).tolist() == [own, every, every]


def test_lines_by_class_are_better_than_one_where_classes_differ() -> None:
    def said(seed: int) -> tuple[Floats, Bools, Ints]:
        confidence, hit = overconfident(2000, seed)
        return confidence, np.where(np.arange(2000) < 1000, hit, confidence > 0.6), np.repeat([0, 1], 1000)

    confidence, hit, label = said(5)
    one, each = (
        calibration.by_class(*said(6), method="isotonic", least=least)(confidence, label) for least in (10**6, 30)
    )
    assert calibration.reliability(each, hit).brier < calibration.reliability(one, hit).brier


def test_the_error_of_a_draw_is_that_of_its_games_as_often_as_it_has_them() -> None:
    confidence, hit = overconfident(90, 9)
    game = np.repeat([0, 1, 2], 30)
    once, first, nothing = calibration.errors(confidence, hit, game, np.array([[1.0, 1, 1], [2, 0, 0], [0, 0, 0]]))
    assert once == pytest.approx(calibration.reliability(confidence, hit).ece)
    assert first == pytest.approx(calibration.reliability(confidence[:30], hit[:30]).ece)
    assert np.isnan(nothing)


def test_of_no_prediction_nobody_can_say_how_far_off_it_is() -> None:
    table = calibration.reliability(np.array([]), np.array([], np.bool_))
    assert np.isnan([table.ece, table.brier]).all()


def test_nothing_to_fit_on_is_said() -> None:
    with pytest.raises(Rejected, match="nothing to calibrate"):
        calibration.fit(np.array([]), np.array([], np.bool_), method="platt")


def test_more_voters_who_agree_are_surer_and_one_is_never_certain() -> None:
    sure = calibration.from_agreement(np.array([1, 3, 9, 0]), np.array([1, 3, 9, 9]))
    assert sure.tolist() == pytest.approx([2 / 3, 4 / 5, 10 / 11, 1 / 11])
