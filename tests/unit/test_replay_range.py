"""What of a range can be had, before anything of it is done again."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from streamproc.errors import Misconfigured
from streamproc.pipeline.replay_range import Lives, unrecorded
from streamproc.video.keep import Keep, segment_name
from tests.sim import toys

OF = ("door", 0, True)


def door(kept: Path, *begin_s: int) -> Lives:
    """A feed with a window every two seconds, recorded from there on."""
    source = msgspec.structs.replace(
        toys.source("door", services=("decode",), count=9, live=True), footage=f"{kept}?hours=1"
    )
    folder = Keep.parse(source.footage or "").of(source).folder
    folder.mkdir(parents=True)
    for start_s in begin_s:
        (folder / segment_name(Fraction(start_s))).touch()
    return Lives([source], None)


@pytest.mark.parametrize(("begin_s", "gone"), [(0, 0), (1, 0), (20, 0), (22, 1), (25, 3), (38, 9)])
def test_windows_before_the_recording_begins_are_counted(tmp_path: Path, begin_s: int, gone: int) -> None:
    lives = door(tmp_path, begin_s, begin_s + 60)
    assert unrecorded(lives, OF, 10, 20) == gone
    assert len(lives.warnings) == bool(gone)


def test_a_recording_that_begins_behind_all_that_is_asked_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="begins at 40 s, behind what is asked for"):
        unrecorded(door(tmp_path, 40), OF, 10, 20)
