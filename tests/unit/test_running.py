"""What people see of a run: results as lines, times as they read them, and how far everybody is."""

from __future__ import annotations

from typing import Any

import pytest

from streamproc.cli import frame
from streamproc.cli.running import Board, Spending, clock, shown
from streamproc.errors import Misconfigured, Retryable, Unreachable
from streamproc.messages import Caption, Coverage, Detection, Event, Life, Sighting, Tokens, Vote
from streamproc.models.card import Price
from streamproc.models.desk import Record
from streamproc.pipeline.progress import Account, Progress
from tests.sim import toys

SOURCE = toys.source("m", services=("decode", "detect.a"), count=10)


def place(**more: Any) -> dict[str, Any]:
    return {
        "id": "", "service": "", "root": "decode", "stream": "m", "generation": 0, "revision": 0, "index": 0,
        "start_ms": 61_000, "end_ms": 65_000, "outcome": "done",
    } | more  # fmt: skip


def life(state: Any = "close", **more: Any) -> Life:
    told: dict[str, Any] = {"label": "goal", "team": "home", "start_ms": 61_000, "end_ms": 65_500, "time_ms": 62_000}
    return Life(id="m/e0", revision=0, state=state, votes=(Vote(model="a", index=0),), **(told | more))


@pytest.mark.parametrize(
    ("ms", "said"), [(0, "0:00"), (500, "0:00.5"), (61_000, "1:01"), (3_600_000, "1:00:00"), (7_325_340, "2:02:05.3")]
)
def test_stream_time_is_written_as_people_read_it(ms: float, said: str) -> None:
    assert clock(ms) == said


def test_of_a_file_only_events_that_are_over_are_shown_and_of_a_feed_every_step() -> None:
    line = "m  1:01–1:05.5  goal (home)  0.90"
    assert shown("events", Event(**place(), event=life(confidence=0.9)), live=False) == line
    opened = Event(**place(), event=life("open"))
    assert shown("events", opened, live=False) is None
    assert shown("events", opened, live=True) == "m  1:01–1:05.5  goal (home)  open"


def test_of_a_feed_times_are_those_of_the_clock_on_the_wall() -> None:
    made = Event(**place(utc="2026-03-01T20:45:00.000+00:00"), event=life(start_ms=62_000, team=None))
    told = shown("events", made, live=True)
    assert told is not None
    assert told.split("  ")[1].endswith(":04")  # 4.5 s behind the record's beginning; the hour is the reader's own


def test_captions_and_detections_are_shown_where_they_say_something() -> None:
    assert shown("captions", Caption(**place(), text="a wall"), live=False) == "m  1:01  a wall"
    assert shown("detections", Detection(**place(), events=(Sighting(label="goal"),)), live=False) == "m  1:01  goal"
    assert shown("detections", Detection(**place(), events=()), live=False) is None
    assert shown("captions", Caption(**place(outcome="failed", reason="unreadable")), live=False) is None


def test_what_a_model_says_is_one_line_of_bounded_length_and_no_command_to_the_terminal() -> None:
    told = shown(
        "captions", Caption(**place(), text="\x1b[31mred\r\nnew\u202eabc\0 Ärger 日本\u3000👩\u200d🚀"), live=False
    )
    assert told == "m  1:01  \\x1b[31mred\\r\\nnew\\u202eabc\\x00 Ärger 日本\u3000👩\u200d🚀"
    told = shown("captions", Caption(**place(), text="word " * 52_000), live=False)
    assert told is not None
    assert len(told) == 300
    assert told.endswith("…")
    goal = shown("events", Event(**place(), event=life(label="goal\x07", details="\n")), live=False)
    assert goal is not None
    assert goal.isprintable()


def test_what_was_spent_is_what_the_card_says_it_costs() -> None:
    spending = Spending({"m": Price(input=1.0, output=10.0, as_of="today")})
    spending.hear(Record(model="m", url="u", outcome="done", seconds=1, tokens=Tokens(into=1_000_000, out=100_000)))
    spending.hear(Record(model="m", url="u", outcome="Overdue", seconds=1, calls=5))
    assert (spending.calls, spending.again) == (6, 5)
    assert spending.told() == "6 calls (5 of them failed or went twice), 1,000,000 tokens in, 100,000 out, $2.00"


def hour(service: str, taken: tuple[tuple[int, int], ...], count: int | None = None, **more: Any) -> Coverage:
    told: dict[str, Any] = {"done": (), "failed": (), "skipped": (), "missing": ()}
    return Coverage(
        id="", stream="m", service=service, root="decode", generation=0, hour=0, ended=count is not None, count=count,
        taken=taken, **(told | more),
    )  # fmt: skip


def test_the_board_says_how_far_everybody_is_and_when_it_will_be_over() -> None:
    progress, now = Progress(), 0.0
    board = Board(progress, [SOURCE], ["decode", "detect.a"], {"m": 10}, Spending({}), clock=lambda: now)
    accounts = progress._accounts["m", 0]
    accounts["decode"] = Account()
    assert [(row[0], row[1], row[2]) for row in board.rows()] == [("decode", 0, 11), ("detect.a", 0, 11)]
    now = 2.0
    accounts["decode"].hear(hour("decode", ((0, 6),)))
    rows = board.rows()
    assert rows[0][1:4] == (6, 11, 3.0)
    assert board.left_s(rows) == pytest.approx(5 / 3)
    assert board.left(SOURCE, "decode") == 4


ALL = {"done": ((0, 20_000),)}
HALF = {"done": ((0, 10_000),), "failed": ((10_000, 20_000),)}
NONE = {"failed": ((0, 20_000),)}


@pytest.mark.parametrize(
    ("detected", "covered", "failed"),
    [(ALL, 1.0, {}), (HALF, 0.5, {"detect.a": 10.0}), (NONE, 0.0, {"detect.a": 20.0}), (None, 0.0, {})],
)
def test_the_receipt_says_covered_of_what_everybody_has_looked_at_and_who_failed(
    detected: dict[str, Any] | None, covered: float, failed: dict[str, float]
) -> None:
    """On average over both, who failed at everything, or never began, would pass for half of it or for all."""
    progress = Progress()
    board = Board(progress, [SOURCE], ["decode", "detect.a"], {"m": 10}, Spending({}))
    for service, kinds in (("decode", ALL), ("detect.a", detected)):
        if kinds is not None:
            account = progress._accounts["m", 0].setdefault(service, Account())
            account.hear(hour(service, ((0, 11),), 10, **kinds))
    found = board.receipt(complete=1, unreadable=0)
    assert found["windows"] == 10
    assert (found["covered"], found["failed_s"]) == (covered, failed)


async def test_what_a_bus_that_is_away_does_not_say_is_asked_again_and_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "AGAIN_S", 0)
    away = [Unreachable("bus", "it is away", remedy="Wait"), Retryable("still")]

    async def others() -> int:
        if away:
            raise away.pop(0)
        return 3

    assert await frame.Patience().until(others) == 3
    said = capsys.readouterr().err
    assert (said.count("Waiting for it"), said.count("answers again")) == (1, 1)


async def test_what_is_wrong_with_a_question_is_not_waited_for() -> None:
    async def others() -> int:
        raise Misconfigured("no such topic")

    with pytest.raises(Misconfigured):
        await frame.Patience().until(others)
