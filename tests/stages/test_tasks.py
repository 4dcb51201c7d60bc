"""The tasks that ship: what the predecessors' jobs need of them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest

from streamproc.formats.soccernet import LABELS, SPELLINGS, label_of
from streamproc.messages import Grid
from streamproc.models.recovery.labels import Labels as Mapped
from streamproc.stages import caption, context, detect
from streamproc.stages.options import Labels, Section
from streamproc.video.recipe import sampling_of
from tests.stages.watching import task
from tests.video import cuts

TASKS = ("soccer", "dashcam", "any")
SECTIONS: Mapping[str, type[Section]] = {
    "labels": Labels,
    "context": context.Options,
    "caption": caption.Options,
    "detect": detect.Options,
}


def grid(step: str) -> Grid:
    return Grid(root="decode", origin="0", step=step, first=0)


@pytest.mark.parametrize("name", TASKS)
def test_its_sections_are_read_and_read_the_same_again_as_they_are_written_into_a_source(name: str) -> None:
    said = task(name)
    assert said["about"]
    for section, kind in SECTIONS.items():
        if section in said:
            options = kind.model_validate(said[section])
            assert kind.model_validate(options.model_dump(mode="json", exclude_none=True)) == options


def test_soccer_looks_as_the_predecessors_did_4_s_windows_2_s_step_1_fps_4_frames_384_px() -> None:
    assert sampling_of(task("soccer")["sampling"], grid("2")) == cuts.soccer()


def test_soccer_may_look_closer_5_fps_in_3_s_windows() -> None:
    dense = task("soccer")["sampling"] | {"fps": "5", "window_s": "3", "frames": 15}
    wanted = cuts.soccer_dense()
    found = sampling_of(dense, grid("2"))
    assert (found.rule, found.length_s, found.step_s) == (wanted.rule, wanted.length_s, wanted.step_s)


def test_dashcam_looks_at_every_tenth_frame() -> None:
    found, wanted = sampling_of(task("dashcam")["sampling"], grid("1/3")), cuts.dashcam(Fraction(30))
    assert (found.rule, found.step_s, found.length_s) == (wanted.rule, wanted.step_s, wanted.length_s)


def soccer() -> Mapped:
    labels = Labels.model_validate(task("soccer")["labels"])
    return Mapped(labels.names, labels.aliases)


def test_soccers_labels_are_soccernets_by_their_exact_names() -> None:
    said: dict[str, Any] = task("soccer")["labels"]
    assert tuple(said["names"]) == LABELS
    assert set(said["about"]) == set(LABELS)
    assert said["teams"] is True


@pytest.mark.parametrize("spelled", [*SPELLINGS, *LABELS])
def test_what_the_format_reads_as_a_label_the_task_reads_as_the_same(spelled: str) -> None:
    assert soccer().of(spelled).label == label_of(spelled)
