"""A stretch of a stream done again beside what there is: from any point on, killed at any moment, compared afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamproc.bus.embedded import Embedded
from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.messages import Event, Window
from tests.e2e.films import film
from tests.e2e.logs import copied, records, until_some

LABELS = ("--set", "labels=red box, blue box")
BOXES = (("red", 4.0, 9.0), ("blue", 14.0, 17.0), ("red", 24.0, 27.0))
ENVIRONMENT = {**os.environ, "LOG_LEVEL": "warning"}


@pytest.fixture(scope="module")
def match(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("films") / "match.mp4", 30, *BOXES)


@pytest.fixture(scope="module")
def ran(match: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bus on which the match has run."""
    folder = tmp_path_factory.mktemp("ran")
    bus = f"embedded:{folder / 'streamproc.db'}"
    assert streamproc("run", match, *LABELS, "--bus", bus) == Code.DONE
    return folder


@pytest.fixture
def here(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copied(ran, tmp_path, monkeypatch)


def streamproc(*arguments: str | Path) -> int:
    return exit_code(build(), [*map(str, arguments)])


def started(*arguments: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "streamproc", *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def done(windows: list[Window]) -> Iterator[Window]:
    return (w for w in windows if not w.ended)


def answers(capfd: pytest.CaptureFixture[str]) -> list[Any]:
    return [json.loads(row) for row in capfd.readouterr().out.splitlines()]


def told(events: list[Event]) -> list[tuple[str, int, int]]:
    return [(e.event.label, e.event.start_ms, e.event.end_ms) for e in events if e.event and e.event.state == "close"]


# what a replay is


def test_a_replay_of_windows_is_complete_in_itself_and_keeps_every_picture_and_time(here: Path) -> None:
    before = records("windows", "match")
    assert streamproc("replay", "match", "--as", "trial", "--set", "detect.prompt=Boxes?") == Code.DONE
    assert streamproc("coverage", "match@trial") == Code.DONE
    old, new = records("windows", "match"), records("windows", "match@trial")
    assert old == before  # nothing was overwritten
    assert [w.index for w in new] == list(range(16))
    assert new[-1].ended
    for was, now in zip(done(old), done(new), strict=True):
        assert (was.frames, was.start_ms, was.end_ms) == (now.frames, now.start_ms, now.end_ms)
    assert told(records("events", "match@trial")) == told(records("events", "match"))
    assert {d.prompt for d in records("detections", "match@trial") if d.prompt}.isdisjoint(
        {d.prompt for d in records("detections", "match") if d.prompt}
    )


def test_of_a_range_only_its_windows_are_there_under_numbers_of_their_own(here: Path) -> None:
    assert streamproc("replay", "match", "--as", "cut", "--from", "0:09", "--to", "20") == Code.DONE
    windows = records("windows", "match@cut")
    assert [(w.index, w.start_ms) for w in done(windows)] == [(i, 10_000 + 2000 * i) for i in range(5)]
    assert (windows[-1].count, windows[-1].start_ms) == (5, 20_000)
    assert [label for label, _, _ in told(records("events", "match@cut"))] == ["blue box"]
    assert streamproc("replay", "match@cut", "--as", "again") == Code.DONE  # and a replay of a replay
    twice = records("windows", "match@cut@again")
    assert [w.frames for w in twice] == [w.frames for w in windows]


def test_from_detections_on_no_model_is_asked_and_dedup_is_done_anew(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("replay", "match", "--as", "near", "--at", "detections", "--set", "dedup.within_s=0.5", "--json")
    assert streamproc(*command) == Code.DONE
    assert answers(capfd)[-1]["receipt"]["calls"] == 0
    assert len(told(records("events", "match@near"))) > len(told(records("events", "match")))
    old, new = ({d.index: d.events for d in records("detections", s)} for s in ("match", "match@near"))
    assert old == new
    assert records("windows", "match@near") == []


def test_from_events_on_the_verdicts_alone_are_new(here: Path) -> None:
    assert (
        streamproc("replay", "match", "--as", "strict", "--at", "events", "--set", "ensemble.at_least=2") == Code.DONE
    )
    old, new = records("events", "match"), records("events", "match@strict")
    assert told(old) == told(new)
    assert {e.event.id for e in new if e.event} == {
        e.event.id.replace("match/", "match@strict/") for e in old if e.event
    }
    assert "done" in {v.outcome for v in records("verdicts", "match") if not v.ended}
    assert {v.outcome for v in records("verdicts", "match@strict") if not v.ended} == {"skipped"}


def test_what_was_known_of_the_original_is_known_of_its_replay_and_not_asked_again(match: Path, here: Path) -> None:
    bus = ("--bus", "embedded:demo.db")
    assert streamproc("run", match, "--task", "demo", *bus) == Code.DONE
    assert streamproc("replay", "match", "--as", "x", "--from", "10", *bus) == Code.DONE
    drawn_on = {d.context for d in records("detections", "match", "embedded:demo.db") if d.context}
    assert {
        d.context.replace("/match@x/", "/match/")
        for d in records("detections", "match@x", "embedded:demo.db")
        if d.context
    } == (drawn_on)
    assert not any(r.service.startswith("context") for r in records("coverage", "match@x", "embedded:demo.db"))


def test_footage_is_decoded_again_over_the_same_range_at_another_rate(here: Path) -> None:
    anew = ("sampling.fps=5", "sampling.step_s=1", "sampling.window_s=1")
    options = ("--from", "10", "--to", "20", *(part for option in anew for part in ("--set", option)))
    assert streamproc("replay", "match", "--as", "fine", "--at", "footage", *options) == Code.DONE
    windows = records("windows", "match@fine")
    assert [(w.index, w.start_ms) for w in done(windows)] == [(i, 10_000 + 1000 * i) for i in range(10)]
    times_ms = [f.t_ms for w in done(windows) for f in w.frames]
    assert all(t % 200 == 0 for t in times_ms)
    assert any(t % 1000 for t in times_ms)  # which no picture of the original had


def test_a_detached_replay_is_done_by_those_who_are_up(here: Path) -> None:
    assert streamproc("replay", "match", "--as", "later", "--detach") == Code.DONE
    assert records("windows", "match@later") == []
    assert streamproc("up", "--until-idle", "--port", "0") == Code.DONE
    assert streamproc("coverage", "match@later") == Code.DONE
    assert told(records("events", "match@later")) == told(records("events", "match"))


def test_whoever_works_beside_it_counts_calls_of_its_own_and_the_receipt_says_so(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert streamproc("replay", "match", "--as", "alone", "--json") == Code.DONE
    assert answers(capfd)[-1]["receipt"]["others"] == 0
    process = started("up", "--port", "0", "--workers", "1")
    try:
        assert streamproc("replay", "match", "--as", "first", "--detach") == Code.DONE
        until_some("verdicts", "match@first")  # it is at work
        capfd.readouterr()
        assert streamproc("replay", "match", "--as", "second") == Code.DONE
        assert "1 more at work in the same services" in capfd.readouterr().err
        assert streamproc("replay", "match", "--as", "third", "--json") == Code.DONE
        assert answers(capfd)[-1]["receipt"]["others"] == 1
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_dry_run_says_what_it_would_take_and_does_nothing(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert streamproc("replay", "match", "--as", "dear", "--to", "10", "--dry-run", "--json") == Code.DONE
    (found,) = answers(capfd)
    spent = [d.tokens for n in ("captions", "detections") for d in records(n, "match") if d.index < 5]
    assert (found["windows"], found["expired"], found["calls"]) == (5, 0, 10)
    assert found["tokens"] == sum(t.into + t.out for t in spent)
    assert streamproc("coverage", "match@dear") == Code.USAGE


# what goes wrong


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("at", ["windows", "detections", "footage"])
def test_killed_at_any_moment_the_same_command_loses_and_doubles_nothing(here: Path, at: str, seed: int) -> None:
    rng = random.Random(f"{at}{seed}")
    command = ("replay", "match", "--as", "killed", "--at", at, "--workers", "1")
    for _ in range(3):
        process = started(*command)
        try:
            process.wait(timeout=rng.uniform(1.0, 4.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    last = started(*command)
    _, said = last.communicate(timeout=60)
    assert last.returncode == Code.DONE, said.decode()
    for name in ("windows", "captions", "detections", "events", "verdicts"):
        old, new = records(name, "match"), records(name, "match@killed")
        assert len({r.id for r in new}) == len(new)
        assert [r.index for r in sorted(new, key=lambda r: r.index)] == (
            [r.index for r in sorted(old, key=lambda r: r.index)] if new else []
        )
    assert told(records("events", "match@killed")) == told(records("events", "match"))


def a_week_later() -> None:
    async def trim() -> None:
        log = await Embedded.open(Path("streamproc.db"), clock=lambda: time.time() + 8 * 86_400)
        try:
            await log.trim()
        finally:
            await log.close()

    asyncio.run(trim())


@pytest.mark.parametrize("removed", [False, True])
def test_a_replay_that_has_begun_goes_on_whatever_becomes_of_the_original(
    here: Path, removed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, begun = ("replay", "match", "--as", "whole"), ("replay", "match", "--as", "begun", "--from", "10")
    fine = ("replay", "match", "--as", "fine", "--at", "footage", "--from", "10", "--set", "sampling.step_s=1")
    assert streamproc(*whole) == streamproc(*fine) == Code.DONE
    assert streamproc(*begun, "--detach") == Code.DONE
    if removed:
        assert exit_code(build(), ["sources", "remove", "match"]) == Code.DONE
    a_week_later()
    capfd.readouterr()
    for command in (whole, fine):
        assert streamproc(*command, "--json") == Code.DONE
        assert answers(capfd)[-1]["receipt"]["calls"] == 0
    assert streamproc(*begun, "--json") == Code.INCOMPLETE
    assert answers(capfd)[-1]["receipt"]["complete"] == 1
    (gap,) = done(records("windows", "match@begun"))
    assert (gap.index, gap.until_index, gap.reason, gap.start_ms) == (0, 10, "expired", 10_000)


def test_of_windows_that_have_expired_footage_is_named_and_used(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a_week_later()
    assert records("windows", "match") == []
    assert streamproc("replay", "match", "--as", "x") == Code.USAGE
    assert "--at footage" in capfd.readouterr().err
    assert streamproc("replay", "match", "--as", "x", "--at", "footage") == Code.DONE
    assert told(records("events", "match@x")) == told(records("events", "match"))


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (["mach", "--as", "x"], "did you mean 'match'"),
        (["match", "--as", "x", "--from", "40", "--to", "50"], "it has 0 to 30 s"),
        (["match", "--as", "x", "--from", "20", "--to", "10"], "no window"),
        (["match", "--as", "x", "--at", "descriptions"], "has written no descriptions"),
        (["match", "--as", "x", "--at", "window"], "did you mean 'windows'"),
        (["match", "--as", "x/y"], "without '/'"),
        (["match", "--as", ""], "without '/'"),
        (["match", "--as", " "], "without '/'"),
        (["match", "--as", "x", "--from", "1 - 3:00"], "of a game"),
        (["match", "--as", "x", "--from", "soon"], "no time"),
        (["match", "--as", "x", "--from", "2026-01-01T00:00"], "knows no wall-clock time"),
        (["match", "--as", "x", "--set", "sampling.fps=3"], "stands before windows"),
        (["match", "--as", "x", "--at", "detections", "--model", "detect=observer"], "stands before detections"),
        (["match", "--as", "x", "--set", "dedup.withins=3"], "did you mean 'dedup.within_s'"),
        (["match", "--as", "x", "--task", "socer"], "did you mean 'soccer'"),
    ],
)
def test_a_replay_that_cannot_be_is_told_and_nothing_is_begun(
    here: Path, wishes: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert streamproc("replay", *wishes) == Code.USAGE
    assert said in capfd.readouterr().err
    assert streamproc("sources", "list", "--json") == Code.DONE
    assert [s["stream"] for s in answers(capfd)] == ["match"]


def test_a_name_that_is_taken_is_refused_unless_it_is_the_same_replay(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("replay", "match", "--as", "x", "--to", "6")
    assert streamproc(*command) == Code.DONE
    before = records("detections", "match@x")
    assert streamproc(*command, "--set", "dedup.within_s=9") == Code.USAGE
    assert "nothing is overwritten" in capfd.readouterr().err
    assert streamproc("replay", "match", "--as", "x", "--to", "8") == Code.USAGE
    assert streamproc(*command, "--json") == Code.DONE  # it was complete, and is
    assert answers(capfd)[-1]["receipt"]["calls"] == 0
    assert records("detections", "match@x") == before


# side by side


def test_a_diff_says_what_only_one_found_and_how_its_scores_change(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        streamproc("replay", "match", "--as", "near", "--at", "detections", "--set", "dedup.within_s=0.5") == Code.DONE
    )
    Path("truth.json").write_text(json.dumps([{"label": f"{c} box", "time": (a + b) / 2} for c, a, b in BOXES]))
    capfd.readouterr()
    assert streamproc("diff", "match", "match@near", "--labels", "truth.json", "--json") == Code.DONE
    (found,) = answers(capfd)
    more = len(told(records("events", "match@near"))) - len(BOXES)
    assert found["sums"]["same"] + found["sums"]["moved"] == len(BOXES)
    assert found["sums"]["only in the second"] == more
    assert found["common_ms"] == [[0, 30_000]]
    precision = next(s for s in found["scores"] if s["name"] == "precision")
    assert (precision["first"], precision["second"]) == (1.0, pytest.approx(len(BOXES) / (len(BOXES) + more)))
    low, high = precision["interval"]
    assert low <= precision["difference"] <= high


def test_only_the_time_that_both_have_looked_at_is_compared(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert streamproc("replay", "match", "--as", "cut", "--from", "10", "--to", "20") == Code.DONE
    capfd.readouterr()
    assert streamproc("diff", "match", "match@cut", "--json") == Code.DONE
    (found,) = answers(capfd)
    assert (found["common_ms"], found["outside"]) == ([[10_000, 20_000]], [2, 0])
    assert [(r["kind"], r["first"]["label"]) for r in found["rows"]] == [("same", "blue box")]
    assert streamproc("diff", "match", "match@cat") == Code.USAGE
    assert "match@cut" in capfd.readouterr().err
    assert streamproc("diff", "match", "match") == Code.USAGE
