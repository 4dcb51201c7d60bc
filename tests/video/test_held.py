"""A file that stays open between two slices is the same as one that is opened for each, and never another than it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamproc.errors import Rejected
from streamproc.video import address
from streamproc.video.container import Opened
from streamproc.video.held import Held
from streamproc.video.limits import Limits
from tests.video.files import SLOW, Kind

ONE = Kind("held-one", "mp4", f"{SLOW} -g 5", seconds=1)
OTHER = Kind("held-other", "mp4", f"{SLOW} -g 10", seconds=2)


def read(video: Opened) -> int:
    return sum(1 for _ in video.packets())


def test_it_stays_open_while_the_same_is_asked_for(folder: Path) -> None:
    held, place = Held(), address.parse(ONE.make(folder))
    with held.opened(place, Limits()) as first:
        count = read(first)
    with held.opened(place, Limits()) as again:
        assert again is first
        assert read(again) == count
    held.close()
    with held.opened(place, Limits()) as later:
        assert later is not first
    held.close()


def test_another_file_under_its_name_is_another(folder: Path, tmp_path: Path) -> None:
    held, path = Held(), tmp_path / "film.mp4"
    path.write_bytes(ONE.make(folder).read_bytes())
    with held.opened(address.parse(path), Limits()) as video:
        count = read(video)
    path.unlink()
    path.write_bytes(OTHER.make(folder).read_bytes())
    with held.opened(address.parse(path), Limits()) as other:
        assert read(other) == 2 * count
    held.close()


def test_other_limits_are_looked_at_anew(folder: Path) -> None:
    held, place = Held(), address.parse(ONE.make(folder))
    with held.opened(place, Limits()):
        pass
    with pytest.raises(Rejected, match="max_pixels"), held.opened(place, Limits(pixels=100)):
        raise AssertionError("it is larger than that")


def test_nothing_is_kept_of_what_came_to_an_error_or_was_damaged(folder: Path) -> None:
    held, place = Held(), address.parse(ONE.make(folder))
    with pytest.raises(ZeroDivisionError), held.opened(place, Limits()) as failed:
        raise ZeroDivisionError
    with held.opened(place, Limits()) as damaged:
        assert damaged is not failed
        damaged.damage = "reading stopped"
    with held.opened(place, Limits()) as whole:
        assert whole is not damaged
    held.close()
