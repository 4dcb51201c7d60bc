"""Coverage by number and by time, and what may be forgotten of it."""

from __future__ import annotations

from streamproc.messages import Outcome, Window
from streamproc.runner.cover import HOUR_MS, Accounted, Cover
from tests.sim import toys

HOUR = HOUR_MS // 2000  # windows that start in an hour, one every 2 s


def owed(lo: int, hi: int) -> bool:
    return False


def placed(index: int, until: int | None = None, *, count: int | None = None, end_ms: int | None = None) -> Window:
    source = toys.source("m", services=("detect.a",), count=10)
    made = toys.window(source, index, until or index + 1, count if count is not None else -1)
    if end_ms is not None:
        return Window.of(made, start_ms=end_ms, end_ms=end_ms, count=count, root="decode")
    return Window.of(made, root="decode", outcome=made.outcome)


def covered(*steps: tuple[Window, Outcome]) -> Cover:
    cover = Cover("decode", "m", 0)
    for place, outcome in steps:
        cover.add(place, outcome, toys.source("m", services=("detect.a",), count=10))
    return cover


def test_a_window_accounts_for_its_step_not_its_length() -> None:
    record = covered((placed(0), "done"), (placed(1), "failed")).record("detect.a", 0)
    assert record.done == ((0, 2000),)
    assert record.failed == ((2000, 4000),)
    assert record.taken == ((0, 2),)
    assert not record.ended


def test_the_last_window_accounts_for_everything_to_the_end_whichever_comes_first() -> None:
    end = placed(2, count=2, end_ms=5300)
    for order in ((placed(0), placed(1), end), (placed(0), end, placed(1))):
        cover = covered(*((p, "done") for p in order))
        record = cover.record("detect.a", 0)
        assert record.done == ((0, 5300),)
        assert (record.ended, record.count) == (True, 2)
        assert record.missing == ()


def test_a_last_window_that_is_shorter_than_its_step_accounts_for_no_more_than_there_is() -> None:
    end = placed(2, count=2, end_ms=3500)
    for order in ((placed(0), placed(1), end), (placed(0), end, placed(1)), (end, placed(0), placed(1))):
        cover = covered(*((p, "done") for p in order))
        record = cover.record("detect.a", 0)
        assert record.done == ((0, 3500),)
        assert (record.ended, record.missing) == (True, ())


def test_the_tail_has_the_outcome_of_the_last_window() -> None:
    cover = covered((placed(0), "done"), (placed(1), "failed"), (placed(2, count=2, end_ms=5300), "done"))
    record = cover.record("detect.a", 0)
    assert record.failed == ((2000, 5300),)


def test_a_hole_is_missing_in_time_and_number() -> None:
    record = covered((placed(0), "done"), (placed(3), "done")).record("detect.a", 0)
    assert record.missing == ((2000, 6000),)
    assert record.taken == ((0, 1), (3, 4))


def test_a_gap_over_hours_is_skipped_in_each_of_them() -> None:
    cover = covered((placed(0, 2 * HOUR + 5), "skipped"))
    assert [cover.record("x", h).skipped for h in (0, 1, 2)] == [
        ((0, HOUR_MS),),
        ((HOUR_MS, 2 * HOUR_MS),),
        ((2 * HOUR_MS, 2 * HOUR_MS + 10_000),),
    ]


def test_an_hour_is_forgotten_only_when_every_number_before_the_next_is_taken() -> None:
    cover = covered(*((placed(i), "done") for i in range(HOUR) if i != HOUR - 1), (placed(HOUR), "done"))
    cover.touched.clear()
    assert cover.settle(owed) == []
    cover.add(placed(HOUR - 1), "done", toys.source("m", services=("detect.a",), count=10))
    assert cover.settle(owed) == [], "it is spoken of in this landing"
    cover.touched.clear()
    assert cover.settle(owed) == [0]
    assert list(cover.hours) == [1]
    assert cover.settled == HOUR


def test_the_end_is_known_to_the_next_owner_and_the_last_window_reaches_no_further() -> None:
    """A stream that is removed ends where its next window would begin, and its last one is longer than its step."""
    before = covered((placed(0), "done"), (placed(2, count=2, end_ms=4000), "done"))
    after = Cover("decode", "m", 0)
    after.load(0, before.hours[0].state(before.settled))
    after.add(placed(1), "done", toys.source("m", services=("detect.a",), count=10))
    record = after.record("detect.a", 0)
    assert record.done == ((0, 4000),)
    assert (record.ended, record.count, record.missing) == (True, 2, ())


def test_what_comes_before_a_service_was_named_is_not_waited_for() -> None:
    cover = Cover("decode", "m", 0)
    cover.owes_from(HOUR - 1)
    source = toys.source("m", services=("detect.a",), count=10)
    for i in (HOUR - 1, HOUR):
        cover.add(placed(i), "done", source)
    cover.touched.clear()
    assert cover.settle(owed) == [0]


def test_an_hour_is_forgotten_although_some_of_its_numbers_are_owed_by_nobody() -> None:
    cover = covered(*((placed(i), "done") for i in (*range(5), *range(9, HOUR - 3), HOUR + 2)))
    cover.touched.clear()
    assert cover.settle(lambda lo, hi: (lo, hi) == (5, 9)) == [], "the last three may be owed"
    assert cover.settle(lambda lo, hi: lo in (5, HOUR - 3)) == [0]
    assert cover.settled == HOUR + 2


def test_the_state_of_an_hour_comes_back_as_it_was() -> None:
    cover = covered((placed(0), "done"), (placed(3), "skipped"), (placed(5, count=5, end_ms=11_000), "done"))
    again = Cover("decode", "m", 0)
    again.load(0, cover.hours[0].state(cover.settled))
    assert again.record("s", 0) == cover.record("s", 0)
    assert again.count == 5


def test_readers_take_the_hours_of_a_stream_together() -> None:
    cover = covered(
        (placed(0), "done"),
        (placed(1, HOUR + 2), "skipped"),
        (placed(HOUR + 2, count=HOUR + 2, end_ms=HOUR_MS + 4000), "done"),
    )
    whole = Accounted()
    for hour in cover.hours:
        whole.hear(cover.record("s", hour))
    assert whole.complete
