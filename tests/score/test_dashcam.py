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


def test_all_right_is_one_everywhere() -> None:
    pairs = [(CLIP, CLIP), (OTHER, OTHER)]
    columns = dashcam.headline(pairs)
    ones = {name: values for name, values in columns.items() if not name.endswith(("cider", "meteor"))}
    assert all((values == 1).all() for values in ones.values())
    assert all(of.accuracy == of.macro_f1 == 1.0 for of in dashcam.categories(pairs).values())
    assert dashcam.collection(pairs)["reason_bleu4"] == pytest.approx(1.0)


def test_a_start_frame_counts_within_k_frames_ends_included() -> None:
    columns = dashcam.headline([(CLIP, replace(CLIP, start_frame=105))])
    assert {k: columns[f"start_within_{k}"][0] for k in dashcam.FRAMES} == {0: 0, 1: 0, 5: 1, 10: 1, 30: 1}


def test_a_clip_without_an_answer_is_wrong_in_everything() -> None:
    columns = dashcam.headline([(CLIP, None), (OTHER, OTHER)])
    assert all(values[0] == 0 for values in columns.values())
    assert dashcam.collection([(CLIP, None), (OTHER, replace(OTHER, vehicles=3))])["vehicles_mean_error"] == 2.0
    assert np.isnan(dashcam.collection([(CLIP, None)])["vehicles_mean_error"])


def test_f1_of_a_category_goes_over_the_values_of_the_truth() -> None:
    pairs = [
        (CLIP, CLIP),
        (OTHER, replace(OTHER, incident=1)),
        (replace(OTHER, video="3"), replace(OTHER, incident=-1)),
    ]
    found = dashcam.categories(pairs)["incident"]
    assert found.f1 == {"0": 0.0, "1": pytest.approx(2 / 3)}
    assert (found.accuracy, found.macro_f1) == pytest.approx((1 / 3, 1 / 3))
