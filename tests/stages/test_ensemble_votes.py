"""Who found an event, who did not, and how sure to be of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from streamproc.messages import Life, Vote
from streamproc.score.calibration import Method, fit
from streamproc.stages.ensemble.votes import Calibration, believed, combined, found


def event(*votes: tuple[str, float | None], looked: tuple[str, ...] = ()) -> Life:
    return Life(
        id="m/e0",
        revision=0,
        state="close",
        label="Goal",
        start_ms=0,
        end_ms=4000,
        time_ms=2000,
        votes=tuple(Vote(model=m, index=i, confidence=c) for i, (m, c) in enumerate(votes)),
        looked=looked,
    )


@pytest.mark.parametrize(
    ("votes", "looked", "said"),
    [
        ("ab", "ab", ("by all", "")),
        ("a", "a", ("by all", "")),
        ("a", "ab", ("by one", "b")),
        ("aab", "abc", ("by some", "c")),
    ],
)
def test_an_event_is_found_by_all_who_looked_or_by_some_and_those_who_saw_nothing_disagree(
    votes: str, looked: str, said: tuple[str, str]
) -> None:
    """Row 2: two models compared: found by both, by one, disagreement."""
    of = found(event(*((m, None) for m in votes), looked=tuple(looked)), ["a", "b", "c"])
    assert (of.found, "".join(of.disagreement)) == said
    assert of.found_by == tuple(sorted(set(votes)))


def test_who_never_answered_is_absent_and_neither_for_nor_against() -> None:
    of = found(event(("a", 0.8), looked=("a",)), ["a", "b"])
    assert (of.found, of.disagreement, of.absent, of.confidence) == ("by all", (), ("b",), 0.8)


@pytest.mark.parametrize(
    ("votes", "looked", "confidence"),
    [
        ([("a", 0.9)], 1, 0.9),
        ([("a", 0.9)], 2, 0.45),
        ([("a", 0.9), ("a", 0.5)], 1, 0.9),
        ([("a", 0.9), ("b", 0.5)], 2, 0.7),
        ([("a", 0.9), ("b", None)], 2, 0.9),
        ([("a", 0.9), ("b", None)], 3, 0.6),
        ([("a", None)], 1, 2 / 3),
        ([("a", None), ("b", None)], 2, 0.75),
        ([("a", None)], 3, 0.4),
        ([("a", 0.0)], 1, 0.0),
    ],
)
def test_the_combined_confidence(votes: list[tuple[str, float | None]], looked: int, confidence: float) -> None:
    assert combined(event(*votes), looked=looked) == pytest.approx(confidence, abs=1e-6)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.floats(0, 1)), min_size=1, max_size=6), st.data())
def test_the_combined_confidence_is_a_share_and_falls_with_each_who_looked_in_vain(
    votes: list[tuple[str, float | None]], data: st.DataObject
) -> None:
    least = len({m for m, _ in votes})
    confidences = [combined(event(*votes), looked=least + more) for more in range(4)]
    assert all(0 <= c <= 1 for c in confidences)
    assert confidences == sorted(confidences, reverse=True)
    assert combined(event(*data.draw(st.permutations(votes))), looked=least) == confidences[0]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.floats(0, 1))
def test_a_calibration_file_means_here_what_it_meant_where_it_was_fitted(
    seen: list[tuple[float, bool]], confidence: float
) -> None:
    methods: tuple[Method, ...] = ("isotonic", "platt")
    for method in methods:
        line = fit(np.array([c for c, _ in seen]), np.array([h for _, h in seen]), method=method)
        here = Calibration.model_validate(line.plain())(confidence)
        assert here == pytest.approx(float(line(np.array([confidence]))[0]))


def test_a_label_with_a_line_of_its_own_is_read_by_that_and_any_other_by_the_line_of_all() -> None:
    flat = {"confidence": [0.0], "probability": [0.2]}
    line = Calibration.model_validate(
        {"confidence": [0.0, 1.0], "probability": [0.0, 0.5], "per_label": {"Goal": flat}}
    )
    assert (line(0.8, "goal"), line(0.8, "Foul"), line(0.8)) == (0.2, 0.4, 0.4)


@pytest.mark.parametrize(
    ("seen", "looked", "agreed"),
    [("a1", 1, 2 / 3), ("a1 a2", 1, 3 / 4), ("a1", 2, 1 / 2), ("a1 b1", 2, 3 / 4), ("a1 a2 b2", 2, 2 / 3)],
)
def test_agreement_counts_models_and_windows_and_no_confidence(seen: str, looked: int, agreed: float) -> None:
    votes = tuple(Vote(model=v[0], index=int(v[1]), confidence=0.01) for v in seen.split())
    of = replace(event(looked=("a", "b")[:looked]), votes=votes)
    assert found(of, ["a", "b"]).agreement == pytest.approx(agreed, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"confidence": [], "probability": []},
        {"confidence": [0.1, 0.2], "probability": [0.1]},
        {"confidence": [0.2, 0.1], "probability": [0.1, 0.2]},
        {"confidence": [0.1, 0.2], "probability": [0.2, 0.1]},
        {"confidence": [0.1], "probability": [1.1]},
        {"confidence": [float("nan")], "probability": [0.5]},
        {"Goal": 0.5},
        {"confidence": [0.1], "probability": [0.1], "of": "hearsay"},
        {"confidence": [0.1], "probability": [0.1], "per_label": {"Goal": {"confidence": [1], "probability": []}}},
    ],
)
def test_what_is_no_calibration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate(wrong)


def test_a_label_is_believed_from_its_threshold_on() -> None:
    thresholds = {"goal": 0.5}
    assert believed("Goal", 0.5, thresholds)
    assert not believed("Goal", 0.49, thresholds)
    assert believed("Foul", 0.01, thresholds), "nobody set one"
    assert believed(None, None, thresholds)
