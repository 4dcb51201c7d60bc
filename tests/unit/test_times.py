"""TIME as people type it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from streamproc.cli.times import Time, parse
from streamproc.errors import Misconfigured

HERE = timezone(timedelta(hours=2))
NOW = datetime(2026, 3, 1, 12, 30, tzinfo=HERE)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0", 0),
        ("93", 93_000),
        ("93.5", 93_500),
        ("0.0005", 0),  # half to even, as everywhere
        ("12:34", 754_000),
        ("12:34.5", 754_500),
        ("95:12", 5_712_000),
        ("1:02:03.25", 3_723_250),
        (" 12:34 ", 754_000),
    ],
)
def test_in_a_file_a_time_counts_from_the_first_shown_frame(text: str, ms: int) -> None:
    assert parse(text, now=NOW).in_stream() == ms


@pytest.mark.parametrize(
    ("text", "wall"),
    [
        ("12:29", datetime(2026, 3, 1, 12, 29, tzinfo=HERE)),
        ("12:30", NOW),
        ("12:31", datetime(2026, 2, 28, 12, 31, tzinfo=HERE)),
        ("12:29:30.5", datetime(2026, 3, 1, 12, 29, 30, 500_000, tzinfo=HERE)),
        ("2026-03-01T20:45:00Z", datetime(2026, 3, 1, 20, 45, tzinfo=UTC)),
        ("2026-03-01T20:45", datetime(2026, 3, 1, 20, 45, tzinfo=HERE)),
        ("2026-03-01 20:45:00+05:30", datetime(2026, 3, 1, 15, 15, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=HERE)),
    ],
)
def test_in_a_feed_a_time_is_by_the_wall_clock_and_the_last_such(text: str, wall: datetime) -> None:
    assert parse(text, now=NOW).by_clock() == wall


def test_in_a_game_a_time_counts_from_the_kick_off_of_its_half() -> None:
    assert parse("2 - 45:03.5", now=NOW) == Time("2 - 45:03.5", stream_ms=2_703_500, half=2)


@pytest.mark.parametrize(
    "text", ["", "abc", "-1", "12:75", "1:75:00", "12:3", "3 - 12:34", "1-12:34", "12:34:56:78", "2026-13-01", "nan"]
)
def test_anything_else_is_no_time_and_the_error_says_what_is(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"is no time: .*a TIME is seconds, 12:34\[\.5\], 1 - 12:34 or ISO 8601"):
        parse(text, now=NOW)


def test_a_time_of_the_other_kind_is_refused_with_the_kinds_that_fit() -> None:
    with pytest.raises(Misconfigured, match="a file knows seconds"):
        parse("2026-03-01T20:45:00Z", now=NOW).in_stream()
    for text in ("93.5", "95:12", "12:34.5", "1 - 12:34"):
        with pytest.raises(Misconfigured, match="a feed knows ISO 8601"):
            parse(text, now=NOW).by_clock()


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("text", "now", "utc"),
    [
        ("2026-01-15T20:45", datetime(2026, 7, 1, 12), datetime(2026, 1, 15, 19, 45, tzinfo=UTC)),
        ("2026-07-15T20:45", datetime(2026, 12, 1, 12), datetime(2026, 7, 15, 18, 45, tzinfo=UTC)),
        ("20:45", datetime(2026, 3, 29, 12), datetime(2026, 3, 28, 19, 45, tzinfo=UTC)),  # clocks went forth at 2:00
        ("11:45", datetime(2026, 3, 29, 12), datetime(2026, 3, 29, 9, 45, tzinfo=UTC)),
    ],
)
def test_by_this_machines_clock_a_winters_time_is_a_winters_also_in_summer(
    text: str, now: datetime, utc: datetime
) -> None:
    assert parse(text, now=now).by_clock() == utc
