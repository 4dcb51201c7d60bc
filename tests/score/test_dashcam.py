"""Dash-cam clips: start frame, categories, counts, texts; a clip without an answer is wrong in everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamproc.formats.submission import Clip
from streamproc.score import dashcam

CLIP = Clip(
    video="1",
    start_frame=100,
    incident=1,
    severity="1. Crash",
    ego=1,
    label="vehicle overtakes",
    cyclists=0,
    animals=0,
    pedestrians=2,
    vehicles=1,
    before="Ego car approaches a crossing at night.",
    reason="A van cuts in from the right lane.",
)
OTHER = replace(
    CLIP, video="2", incident=0, label="animal on the road", reason="A dog runs onto the road from the left."
)


def numbers(pairs: list[dashcam.Pair]) -> dict[str, float]:
    return {name: float(of(np.ones((1, len(pairs))))[0]) for name, of in dashcam.headline(pairs).items()}


def test_all_right_is_one_everywhere() -> None:
    found = numbers([(CLIP, CLIP), (OTHER, OTHER)])
    assert all(v == pytest.approx(1) for name, v in found.items() if not name.endswith(("cider", "meteor")))
    assert all(v > 0.99 for name, v in found.items() if name.endswith("meteor"))
    assert found["reason_cider"] > 9 > found["before_cider"] == 0  # what all references say is worth nothing


def test_a_start_frame_counts_within_k_frames_ends_included() -> None:
    found = numbers([(CLIP, replace(CLIP, start_frame=105))])
    assert {k: found[f"start_within_{k}"] for k in dashcam.FRAMES} == {0: 0, 1: 0, 5: 1, 10: 1, 30: 1}


def test_a_clip_without_an_answer_is_wrong_in_everything() -> None:
    assert set(numbers([(CLIP, None)]).values()) == {0.0}
    assert numbers([(CLIP, None), (OTHER, OTHER)])["label_accuracy"] == 0.5


def test_errors_are_told_where_there_is_an_answer() -> None:
    assert dashcam.errors([(CLIP, None), (OTHER, replace(OTHER, vehicles=3))])["vehicles"] == 2.0
    assert np.isnan(dashcam.errors([(CLIP, None)])["vehicles"])


def test_f1_of_a_category_goes_over_the_values_of_the_truth() -> None:
    pairs: list[dashcam.Pair] = [
        (CLIP, CLIP),
        (OTHER, replace(OTHER, incident=1)),
        (replace(OTHER, video="3"), replace(OTHER, incident=-1)),
    ]
    assert dashcam.f1(pairs)["incident"] == pytest.approx({"0": 0.0, "1": 2 / 3})
    found = numbers(pairs)
    assert (found["incident_accuracy"], found["incident_macro_f1"]) == pytest.approx((1 / 3, 1 / 3))


def test_counting_a_clip_twice_is_having_it_twice() -> None:
    pairs: list[dashcam.Pair] = [(CLIP, replace(CLIP, label="x", reason="A van cuts in.")), (OTHER, OTHER)]
    drawn = {name: float(of(np.array([[2.0, 1.0]]))[0]) for name, of in dashcam.headline(pairs).items()}
    twice = numbers([pairs[0], *pairs])
    assert {n: v for n, v in drawn.items() if "cider" not in n} == pytest.approx(
        {n: v for n, v in twice.items() if "cider" not in n}
    )
