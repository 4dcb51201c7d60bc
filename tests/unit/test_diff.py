"""Two streams beside each other: pairs by label and time, and what the change of each score is worth."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import pytest

from streamproc.errors import Misconfigured
from streamproc.formats.problems import Problems
from streamproc.pipeline.diff import Diff, Item, Row, paired
from streamproc.pipeline.diff_score import Label, labels, scored
from streamproc.ranges import Ranges


def item(label: str, at_s: float, text: str | None = None, *, team: str | None = None) -> Item:
    time_ms = round(at_s * 1000)
    return Item(id=f"{label}@{time_ms}", label=label, team=team, time_ms=time_ms, text=text, confidence=None)


def kinds(*rows: Row) -> list[tuple[str, float | None, float | None]]:
    def at_s(found: Item | None) -> float | None:
        return found.time_ms / 1000 if found else None

    return [(r.kind, at_s(r.first), at_s(r.second)) for r in rows]


def compared(first: list[Item], second: list[Item]) -> list[Row]:
    return paired(first, second, within_ms=5000, same_ms=1000)


def test_one_event_is_found_by_both_moved_or_by_one_alone() -> None:
    rows = compared([item("goal", 10), item("foul", 30), item("goal", 60)], [item("goal", 11), item("foul", 33)])
    assert kinds(*rows) == [("same", 10, 11), ("moved", 30, 33), ("only in the first", 60, None)]
    (late,) = compared([], [item("goal", 5)])
    assert kinds(late) == [("only in the second", None, 5)]
    assert late.time_ms == 5000


def test_a_moment_that_both_speak_of_under_two_names_is_relabelled_and_only_then() -> None:
    assert kinds(*compared([item("goal", 10)], [item("foul", 11)])) == [("relabelled", 10, 11)]
    apart = compared([item("goal", 10)], [item("foul", 12)])
    assert [r.kind for r in apart] == ["only in the first", "only in the second"]
    beside = compared([item("goal", 10), item("foul", 10)], [item("foul", 10), item("goal", 10.5)])
    assert [r.kind for r in beside] == ["same", "same"]
    of_the_other = compared([item("goal", 10, team="home")], [item("goal", 10, team="away")])
    assert [r.kind for r in of_the_other] == ["relabelled"]


def test_names_are_compared_whatever_their_case_and_the_nearest_go_together() -> None:
    rows = compared([item("Goal", 10), item("goal", 13)], [item("GOAL", 12.5)])
    assert kinds(*rows) == [("only in the first", 10, None), ("same", 13, 12.5)]


def test_sums_count_rows_and_texts_that_changed() -> None:
    rows = compared([item("goal", 10, "a header"), item("foul", 20, "a push")], [item("goal", 10, "a volley"), item("foul", 20, "a push")])  # fmt: skip
    found = Diff(rows=rows, common=Ranges([(0, 30_000)]), outside=(0, 0), captions=(0, 0))
    assert found.sums() == {
        "same": 2,
        "moved": 0,
        "relabelled": 0,
        "only in the first": 0,
        "only in the second": 0,
        "text changed": 1,
    }


def test_pairs_are_the_same_in_whatever_order_events_come() -> None:
    first = [item("goal", 10), item("goal", 14), item("foul", 11)]
    second = [item("goal", 12), item("card", 11), item("goal", 15)]
    wanted = compared(first, second)
    assert all(compared(list(a), list(b)) == wanted for a in permutations(first) for b in permutations(second))


# scores -------------------------------------------------------------------------------------------------------------


def test_each_score_changes_by_what_the_second_found_more_and_its_interval_holds_that() -> None:
    truth = [Label(label="goal", time_ms=60_000 * i + 30_000) for i in range(20)]
    some = [item("goal", 60 * i + 30) for i in range(10)]
    most = [item("goal", 60 * i + 31) for i in range(18)] + [item("goal", 60 * 18 + 5)]
    common = Ranges([(0, 20 * 60_000)])
    found = {c.name: c for c in scored(truth, some, most, common, within_ms=5000, draws=500, seed=1)}
    assert (found["recall"].first, found["recall"].second) == (0.5, 0.9)
    assert found["precision"].first == 1.0
    assert found["precision"].second == pytest.approx(18 / 19)
    recall = found["recall"]
    assert recall.difference == pytest.approx(0.4)
    assert recall.interval
    assert 0 < recall.interval.low <= 0.4 <= recall.interval.high
    again = scored(truth, some, most, common, within_ms=5000, draws=500, seed=1)
    assert {c.name: c for c in again} == found


def test_where_there_is_too_little_to_draw_from_scores_have_no_interval_and_without_time_there_are_none() -> None:
    truth, both = [Label(label="goal", time_ms=200)], [item("goal", 0.2)]
    short = scored(truth, both, both, Ranges([(0, 900)]), within_ms=500, draws=100, seed=0)
    assert [(c.name, c.difference, c.interval, c.p) for c in short] == [
        (name, 0, None, None) for name in ("precision", "recall", "F1")
    ]
    assert scored(truth, both, both, Ranges(), within_ms=500, draws=100, seed=0) == []


def test_labels_are_rows_with_a_time_in_any_of_three_ways(tmp_path: Path) -> None:
    rows = [{"label": "a", "time_ms": 1500}, {"label": "b", "time": 2.5}, {"label": "c", "start_ms": 0, "end_ms": 3000}]
    (tmp_path / "match.json").write_text(json.dumps(rows))
    for path in (tmp_path, tmp_path / "match.json"):
        found = labels(path, "match@trial", Problems())
        assert [(one.label, one.time_ms) for one in found] == [("a", 1500), ("b", 2500), ("c", 1500)]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("[{}]", "row 1: a row has a label"),
        ('[{"label": "a"}]', "row 1: no time_ms"),
        ('[{"label": "a", "time_ms": true}]', "row 1: no time_ms"),
        ('[{"label": "a", "time_ms": -1}]', "from 0 on"),
        ('[{"label": "a", "start_ms": "x", "end_ms": 1}]', "row 1: no time_ms"),
        ('{"a": 1}', "neither a Labels-v2.json nor a list"),
        ("[", "cannot be read"),
    ],
)
def test_labels_that_are_none_say_where(tmp_path: Path, said: str, why: str) -> None:
    (tmp_path / "truth.json").write_text(said)
    with pytest.raises(Misconfigured, match=why.replace("(", r"\(")):
        labels(tmp_path / "truth.json", "match", Problems())


def test_a_folder_without_labels_of_the_stream_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"there is none of match\.json"):
        labels(tmp_path, "match@trial", Problems())
