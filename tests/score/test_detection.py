"""Found, missed, made up; what was taken for what; spans; and covered time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.score import detection
from streamproc.score.spots import Predictions, Stretches, Truth

TRUTH = Truth.of([(0, 0, 10_000, True), (0, 1, 60_000, True), (1, 0, 10_000, False)])


def test_precision_recall_and_f1_count_each_label_and_prediction_once() -> None:
    said = Predictions.of([(0, 0, 12_000, 0.9), (0, 0, 9_000, 0.8), (0, 1, 90_000, 0.7)])
    matches = detection.match(TRUTH, said, within_ms=5000, classes=2)
    assert matches.hit.tolist() == [True, False, False]
    each = detection.found(TRUTH, said, matches, classes=2)
    assert each.precision.tolist() == [0.5, 0.0]
    assert each.recall.tolist() == [0.5, 0.0]
    assert float(each.total().f1) == pytest.approx(2 * 1 / (3 + 3))


def test_a_match_needs_the_same_half_and_ends_at_the_tolerance() -> None:
    for time_ms, part, hit in ((15_000, 0, True), (15_001, 0, False), (10_000, 2, False)):
        said = Predictions.of([(part, 0, time_ms, 1.0)])
        assert detection.match(TRUTH, said, within_ms=5000, classes=2).hit.tolist() == [hit]


def test_confusion_pairs_what_is_right_first_and_the_rest_by_time() -> None:
    said = Predictions.of([(0, 1, 10_000, 0.9), (0, 1, 61_000, 0.8), (1, 1, 500_000, 0.3)])
    table = detection.confusion(TRUTH, said, within_ms=5000, classes=2)
    assert table.tolist() == [[0, 1, 1], [0, 1, 0], [0, 1, 0]]  # taken for 1, missed; found; nothing taken for 1


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 50_000)), max_size=30), st.integers(0, 9000)
)
def test_confusion_accounts_for_every_label_and_every_prediction(
    rows: list[tuple[int, int, int]], within_ms: int
) -> None:
    half = len(rows) // 2
    truth = Truth.of((*row, True) for row in rows[:half])
    said = Predictions.of((*row, 0.5) for row in rows[half:])
    table = detection.confusion(truth, said, within_ms=within_ms, classes=3)
    assert table[:3].sum(axis=1).tolist() == np.bincount(truth.label, minlength=3).tolist()
    assert table[:, :3].sum(axis=0).tolist() == np.bincount(said.label, minlength=3).tolist()


def test_nothing_found_of_nothing_is_no_success() -> None:
    nothing = detection.share(np.array([0.0]), np.array([0.0]))
    assert nothing.tolist() == [0.0]


def test_spans_are_paired_by_largest_overlap_and_each_once() -> None:
    truth = Stretches.of([(0, 0, 10), (0, 20, 30), (1, 0, 10)])
    said = Stretches.of([(0, 5, 10), (0, 1, 10), (0, 25, 40)])
    found = detection.overlaps(truth, said)
    assert sorted(found.iou.tolist()) == pytest.approx([5 / 20, 9 / 10])
    assert found.mean == pytest.approx((5 / 20 + 9 / 10) / 3)
    assert float(found.at(0.5).recall) == pytest.approx(1 / 3)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 30)), max_size=12))
def test_a_run_overlaps_itself_wholly(rows: list[tuple[int, int, int]]) -> None:
    spans = Stretches.of({(part, at, at + 1 + length) for part, at, length in rows})
    assert detection.overlaps(spans, spans).mean == pytest.approx(1.0 if rows else 0.0)


def test_covered_time_is_half_open_and_of_its_own_part() -> None:
    covered = Stretches.of([(0, 100, 200), (2, 0, 50)])
    moments = [(0, 99), (0, 100), (0, 199), (0, 200), (1, 150), (2, 0), (2, 50), (3, 10)]
    inside = covered.have(np.array([p for p, _ in moments]), np.array([t for _, t in moments]))
    assert inside.tolist() == [False, True, True, False, False, True, False, False]
    assert covered.total_ms() == 150
