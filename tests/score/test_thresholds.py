"""One matching gives the whole curve; the best threshold is where F1 is best, and of equals the highest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.score import detection, thresholds
from streamproc.score.spots import Predictions, Truth

ROWS = st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 30_000))


@given(
    truth=st.lists(ROWS, max_size=12),
    said=st.lists(st.tuples(ROWS, st.sampled_from([0.1, 0.3, 0.5, 0.9])), max_size=24),
)
def test_each_point_of_the_curve_is_what_leaving_the_rest_out_gives(
    truth: list[tuple[int, int, int]], said: list[tuple[tuple[int, int, int], float]]
) -> None:
    true, predictions = Truth.of((*row, True) for row in truth), Predictions.of((*row, c) for row, c in said)
    for label, curve in enumerate(thresholds.curves(true, predictions, within_ms=4000, classes=2)):
        for threshold, f1 in zip(curve.threshold, curve.f1, strict=True):
            kept = predictions.where(predictions.confidence >= threshold)
            matches = detection.match(true, kept, within_ms=4000, classes=2)
            assert f1 == pytest.approx(detection.found(true, kept, matches, classes=2).f1[label])


def test_of_equal_thresholds_the_highest_keeps_the_fewest() -> None:
    truth = Truth.of([(0, 0, 0, True), (0, 0, 100_000, True)])
    said = Predictions.of([(0, 0, 0, 0.9), (0, 0, 50_000, 0.6), (0, 0, 100_000, 0.5)])
    curve = thresholds.curves(truth, said, within_ms=1000, classes=1)[0]
    assert curve.f1.tolist() == pytest.approx([0.8, 0.5, 2 / 3])
    assert curve.best() == 0.5


def test_a_class_that_is_never_found_gets_no_threshold_and_keeps_all() -> None:
    said = Predictions.of([(0, 0, 0, 0.9)])
    curve = thresholds.curves(Truth.of([]), said, within_ms=1000, classes=1)[0]
    assert curve.best() is None
    assert thresholds.keep(said, np.array([np.nan])).all()
    assert not thresholds.keep(said, np.array([0.95])).any()
