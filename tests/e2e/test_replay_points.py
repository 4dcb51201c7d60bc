"""A replay from each of its points: all that stands behind it is done again, and what there is then is complete in itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from tests.e2e.films import film
from tests.e2e.logs import copied, records

BOXES = (("red", 4.0, 9.0), ("blue", 14.0, 17.0), ("red", 24.0, 27.0))
TASK = """
name = "everything"
labels = "red box, blue box"
[sampling]
fps = "2"
window_s = "2"
step_s = "1"
[context]
opening_s = 4
[caption]
[detect]
[dedup]
[locate]
model = "observer"
samples = 2
stretch_s = 8
[describe]
samples = 1
[ensemble]
over = "events"
"""
BEHIND = {
    "windows": {"windows", "captions", "detections", "incidents", "events", "descriptions", "verdicts"},
    "captions": {"captions", "incidents", "events", "descriptions", "verdicts"},
    "detections": {"detections", "incidents", "events", "descriptions", "verdicts"},
    "incidents": {"incidents", "events", "descriptions", "verdicts"},
    "events": {"incidents", "events", "descriptions", "verdicts"},
    "descriptions": {"incidents", "events", "descriptions", "verdicts"},
}
"""Point → topics that the derived stream has."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bus on which a match has been through every stage."""
    folder = tmp_path_factory.mktemp("ran")
    match = film(folder / "match.mp4", 30, *BOXES)
    (folder / "everything.toml").write_text(TASK)
    bus = f"embedded:{folder / 'streamproc.db'}"
    assert streamproc("run", match, "--task", folder / "everything.toml", "--bus", bus) == Code.DONE
    return folder


@pytest.fixture
def here(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copied(ran, tmp_path, monkeypatch)


def streamproc(*arguments: str | Path) -> int:
    return exit_code(build(), [*map(str, arguments)])


def answers(capfd: pytest.CaptureFixture[str]) -> list[Any]:
    return [json.loads(row) for row in capfd.readouterr().out.splitlines()]


def closed(stream: str) -> list[tuple[str, int, int]]:
    steps = sorted(records("events", stream), key=lambda e: e.index)
    return [(e.event.label, e.event.start_ms, e.event.end_ms) for e in steps if e.event and e.event.state == "close"]


def judged(stream: str) -> list[tuple[str, int | None, str]]:
    return [(v.label, v.time_ms, v.outcome) for v in records("verdicts", stream) if v.label is not None]


def whole(stream: str) -> None:
    """Every service has one outcome for each number, and says so."""
    for name in ("windows", "captions", "detections", "incidents", "events", "descriptions", "verdicts"):
        numbers: dict[tuple[str, str], list[tuple[int, int, bool]]] = {}
        for r in records(name, stream):
            numbers.setdefault((r.service, r.root), []).append((r.index, r.until, r.ended))
        for (service, root), found in numbers.items():
            at = 0
            for index, until, _ in sorted(found):
                assert index == at, f"{service} of {root}: {index} is not {at}"
                at = until
            assert max(found)[-1], f"{service} of {root} has no end"
    assert streamproc("coverage", stream) == Code.DONE


@pytest.mark.parametrize("at", BEHIND)
def test_from_each_point_all_of_it_gives_what_the_original_gave(
    here: Path, at: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert streamproc("replay", "match", "--as", "x", "--at", at, "--json") == Code.DONE
    (receipt,) = (a["receipt"] for a in answers(capfd) if "receipt" in a)
    whole("match@x")
    there = {name for name in BEHIND["windows"] if records(name, "match@x")}
    assert there == BEHIND[at]
    assert closed("match@x") == closed("match")
    assert judged("match@x") == judged("match")
    assert (receipt["calls"] > 0) == (at != "descriptions")
    for name in there - {"windows"}:
        assert [(r.service, r.index) for r in sorted(records(name, "match@x"), key=_place)] == [
            (r.service, r.index) for r in sorted(records(name, "match"), key=_place)
        ]


def _place(record: Any) -> tuple[str, str, int]:
    return record.service, record.root, record.index


@pytest.mark.parametrize("at", BEHIND)
def test_from_each_point_a_part_of_it_is_complete_in_itself(here: Path, at: str) -> None:
    assert streamproc("replay", "match", "--as", "part", "--at", at, "--from", "6", "--to", "16") == Code.DONE
    whole("match@part")
    assert [(label, outcome) for label, _, outcome in judged("match@part")] == [
        ("red box", "done"),
        ("blue box", "done"),
    ]
    assert all(6000 <= (r.start_ms) <= r.end_ms <= 17_000 for n in BEHIND[at] for r in records(n, "match@part"))


def test_an_event_that_is_open_where_the_range_ends_is_closed_there_and_judged(here: Path) -> None:
    """As dedup itself would have done: with what had been seen of it by then."""
    part = ("--from", "0", "--to", "6")
    assert streamproc("replay", "match", "--as", "anew", "--at", "detections", *part) == Code.DONE
    for at in ("events", "descriptions"):
        assert streamproc("replay", "match", "--as", at, "--at", at, *part) == Code.DONE
        assert closed(f"match@{at}") == closed("match@anew") != []
        assert judged(f"match@{at}") == judged("match@anew")
        (described,) = (d for d in records("descriptions", f"match@{at}") if d.root == "dedup" and d.fields)
        assert described.outcome == "done"
        whole(f"match@{at}")
        assert streamproc("replay", "match", "--as", at, "--at", at, *part) == Code.DONE  # the same, and nothing more
        whole(f"match@{at}")


def test_an_incident_is_of_the_range_that_its_place_is_in(here: Path) -> None:
    found = [i for i in records("incidents", "match") if not i.ended]
    one = found[1]
    begin_s = one.time_ms / 1000
    part = ("--from", str(begin_s), "--to", str(begin_s + 1))
    assert streamproc("replay", "match", "--as", "x", "--at", "incidents", *part) == Code.DONE
    again = [i for i in records("incidents", "match@x") if not i.ended]
    assert [(i.time_ms, i.outcome) for i in again] == [(one.time_ms, "done")]
    whole("match@x")
