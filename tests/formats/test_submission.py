"""The 2COOOL submission: read as spreadsheets and pandas write it, written byte for byte as pandas does."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.errors import Rejected
from streamproc.formats import submission
from streamproc.formats.submission import COLUMNS, Clip

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures" / "2coool"
NUMBER = st.integers(-1, 500)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=30)


def clips() -> st.SearchStrategy[list[Clip]]:
    clip = st.builds(
        Clip,
        video=st.integers(0, 999).map(str) | st.sampled_from(["007", "dash cam", "a,b", "x\ny"]),
        start_frame=NUMBER,
        incident=NUMBER,
        severity=TEXT,
        ego=NUMBER,
        label=TEXT,
        cyclists=NUMBER,
        animals=NUMBER,
        pedestrians=NUMBER,
        vehicles=NUMBER,
        before=TEXT,
        reason=TEXT,
    )
    return st.lists(clip, max_size=5, unique_by=lambda c: c.video)


@given(clips())
def test_clips_come_back_as_they_were_written(rows: list[Clip]) -> None:
    assert submission.read(submission.write(rows), file="f") == rows


@given(clips())
def test_crlf_and_a_byte_order_mark_change_nothing_between_the_rows(rows: list[Clip]) -> None:
    data = submission.write(rows)
    if b"\n" not in "".join(r.before + r.reason + r.severity + r.label + r.video for r in rows).encode():
        assert submission.read(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"), file="f") == rows


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="the real submissions are not here")
def test_a_real_submission_is_written_as_its_makers_wrote_it() -> None:
    original = next(FIXTURES.glob("exp005_*.csv")).read_bytes()
    rows = submission.read(original, file="exp005")
    assert len(rows) == 661
    assert submission.write(rows) == original.replace(b"\r\n", b"\n")


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="the real submissions are not here")
def test_real_submissions_of_any_quoting_hold_the_same_clips() -> None:
    for file in FIXTURES.glob("*.csv"):
        rows = submission.read(file.read_bytes(), file=file.name)
        assert submission.read(submission.write(rows), file="f") == rows
        assert {row.incident for row in rows} <= {-1, 0, 1}


def test_numbers_that_pandas_made_fractions_are_whole_again() -> None:
    assert submission.read(_row(start="12.0"), file="f")[0].start_frame == 12


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: not the 12 columns of a 2COOOL submission: the file is empty"),
        (b"video,frame\n", "line 1: not the 12 columns .* it lacks 'Incident window start frame', "),
        (",".join(COLUMNS[::-1]).encode(), "line 1: not the 12 columns .* they stand in another order"),
        (b"\xff", "not UTF-8 at byte 0"),
    ],
)
def test_what_is_no_submission_is_refused_by_file_and_line(data: bytes, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        submission.read(data, file="f")


def _row(start: str = "1") -> bytes:
    return (",".join(f'"{c}"' for c in COLUMNS) + f"\n1,{start},0,x,0,y,0,0,0,0,b,r\n").encode()


@pytest.mark.parametrize("cell", ["", "soon", "1.5", "inf", "nan"])
def test_a_number_that_is_none_is_refused_by_column_and_line(cell: str) -> None:
    with pytest.raises(Rejected, match=f"f line 2: 'Incident window start frame' is '{cell}'"):
        submission.read(_row(start=cell), file="f")


def test_a_clip_that_stands_twice_is_refused() -> None:
    data = _row() + b"1,1,0,x,0,y,0,0,0,0,b,r\n"
    with pytest.raises(Rejected, match="f line 3: video 1 stands in line 2 already"):
        submission.read(data, file="f")


def test_a_row_that_is_too_short_is_refused() -> None:
    with pytest.raises(Rejected, match="f line 3: 2 columns instead of 12"):
        submission.read(_row() + b"2,3\n", file="f")


def test_a_label_that_there_is_not_is_refused_by_line_where_labels_are_known() -> None:
    assert submission.read(_row(), file="f", labels=("x", "y"))[0].label == "y"
    with pytest.raises(Rejected, match="f line 2: 'Label' is 'y', no label; did you mean 'yy'"):
        submission.read(_row(), file="f", labels=("yy",))


def test_every_cell_has_a_kind_of_its_own_to_agree_on() -> None:
    assert ["video", *submission.KINDS] == [field.name for field in fields(Clip)]
