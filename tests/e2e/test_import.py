"""`streamproc import`: results made elsewhere come out as events, verdicts and coverage; nothing is said twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streamproc.bus.contract import Bus
from streamproc.bus.embedded import Embedded
from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.errors import Misconfigured
from streamproc.formats import submission
from streamproc.pipeline import importing, importing_files
from streamproc.pipeline.importing_files import Brought, File, Format
from streamproc.pipeline.newcomers import Newcomers
from streamproc.pipeline.progress import followed
from streamproc.pipeline.streams import newest
from streamproc.task import load
from streamproc.topics import deployment
from streamproc.wire import Entry
from tests import brokers
from tests.bus.kafka.conftest import _real_kafka, prefix  # noqa: F401  # fixtures
from tests.e2e.films import film
from tests.unit.test_ensemble_cli import CLIP, HOLE, numbered, written

GOAL = '[{"label": "Goal", "team": "home", "confidence": 0.9}]'
CORNER = '[{"label": "Corner", "confidence": 0.5}]'
MATCH = {0: "None", 4: GOAL, 6: GOAL, 30: CORNER, 61.5: CORNER}
ENVIRONMENT = {**os.environ, "LOG_LEVEL": "warning"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")  # also where a broker is named for other tests
    return tmp_path


def streamproc(*arguments: str | Path) -> int:
    return exit_code(build(), [*map(str, arguments)])


def import_(*arguments: str | Path) -> int:
    return streamproc("import", *arguments)


def predictions(name: str, rows: dict[float, str]) -> Path:
    path = Path(name)
    path.write_text(json.dumps([{"time": time, "raw": raw} for time, raw in rows.items()]))
    return path


def spotting(name: str, *spots: tuple[str, int, str, float]) -> Path:
    path = Path(name)
    rows = [
        {"gameTime": f"{half} - 00:00", "half": half, "position": str(ms), "label": label, "confidence": str(sure)}
        for half, ms, label, sure in spots
    ]
    path.write_text(json.dumps({"UrlLocal": "g", "predictions": rows}))
    return path


def said(path: str) -> Any:
    return json.loads(Path(path).read_bytes())


def windows(stream: str) -> list[Any]:
    return [json.loads(line) for line in Path(f"out/{stream}/detections.jsonl").read_bytes().splitlines()]


def found(stream: str, out: str = "out") -> list[tuple[str, int, int]]:
    return [(e["label"], e["start_ms"], e["end_ms"]) for e in said(f"{out}/{stream}/events.json")]


# predictions --------------------------------------------------------------------------------------------------------


def test_rows_become_events_verdicts_and_a_coverage_without_holes() -> None:
    assert import_(predictions("p.json", MATCH), "--as", "m", "--task", "soccer", "--out", "out") == Code.DONE
    assert found("m") == [("Goal", 4000, 10_000), ("Corner", 30_000, 34_000), ("Corner", 61_500, 65_500)]
    verdicts = said("out/m/verdicts.json")
    assert [(v["label"], v["found_by"]) for v in verdicts] == [(e[0], ["imported"]) for e in found("m")]
    coverage = {row["service"]: row for row in said("out/m/coverage.json")}
    assert coverage["detect.imported"]["done"] == coverage["dedup"]["done"] == [[0, 65_500]]
    assert said("out/m/summary.json")["complete"]
    assert streamproc("coverage", "m") == Code.DONE


def test_text_that_cannot_be_read_is_a_failure_at_its_place_and_no_vote(capfd: pytest.CaptureFixture[str]) -> None:
    file = predictions("p.json", MATCH | {20: "mumble ### mumble"})
    assert import_(file, "--as", "m", "--task", "soccer", "--out", "out") == Code.INCOMPLETE
    assert "the first is at 20 s" in capfd.readouterr().err
    (failed,) = [w for w in windows("m") if w["outcome"] == "failed"]
    assert (failed["index"], failed["reason"], failed["raw"]) == (10, "unreadable", "mumble ### mumble")
    assert "events" not in failed
    assert len(found("m")) == 3


def test_rows_between_two_windows_keep_their_own_time() -> None:
    file = predictions("p.json", {4.5: GOAL, 5.25: CORNER, 5.5: "mumble ###"})
    assert import_(file, "--as", "m", "--task", "soccer", "--out", "out") == Code.DONE
    events = {e["label"]: e["time_ms"] for e in said("out/m/events.json")}
    assert events == {"Goal": 6500, "Corner": 7250}
    (window,) = [w for w in windows("m") if "raw" in w]
    assert (window["start_ms"], window["end_ms"]) == (4500, 9500)
    assert "1 of 3 texts unreadable" in window["how"]


def test_several_files_are_parts_of_one_stream() -> None:
    parts = [predictions("a.json", {0: "None", 4: GOAL}), predictions("b.json", {30: CORNER, 61.5: CORNER, 6: GOAL})]
    assert import_(*parts, "--as", "parts", "--task", "soccer", "--out", "out") == Code.DONE
    assert import_(predictions("p.json", MATCH), "--as", "whole", "--task", "soccer", "--out", "out") == Code.DONE
    assert found("parts") == found("whole")


def test_what_no_row_speaks_of_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert import_(predictions("p.json", MATCH), "--as", "m", "--task", "soccer") == Code.DONE
    assert "31 windows, 5 of them named" in (told := capfd.readouterr().err)
    assert "at most 28 s at a stretch, from 32 s" in told


@pytest.mark.parametrize(
    ("content", "wishes", "code", "told"),
    [
        ('[{"time": 1, "raw": ""}, {"time": "x", "raw": ""}]', [], Code.FAILED, "f.json row 2: Expected `float`"),
        ('[{"time": 1}]', [], Code.FAILED, "f.json row 1: Object missing required field `raw`"),
        ('[{"time": -1, "raw": ""}]', [], Code.FAILED, "row 1: time -1.0 is before the beginning"),
        ('[{"time": 1e15, "raw": ""}]', [], Code.FAILED, "f.json row 1: time 1e+15"),
        ("[]", [], Code.FAILED, "no rows"),
        ("{}", [], Code.FAILED, "f.json"),
        ("nothing", [], Code.FAILED, "f.json: JSON is malformed"),
        (json.dumps([{"time": 1, "raw": "\0" * 200_000}]), [], Code.FAILED, "m at 1 s: 12"),
        ("[]", ["--format", "spoting"], Code.USAGE, "did you mean 'spotting'"),
        ("[]", ["--model", "My Model"], Code.USAGE, "small letters"),
        ("[]", ["--as", "a/../b"], Code.USAGE, "give another with --as"),
        ("[]", ["--task", "dashcam"], Code.USAGE, "no stage 'detect'"),
        ("[]", ["--set", "dedup.withins=3"], Code.USAGE, "did you mean 'dedup.within_s'"),
    ],
)
def test_bad_input_is_told_with_its_place_and_nothing_is_begun(
    content: str, wishes: list[str], code: Code, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("f.json").write_text(content)
    assert import_("f.json", *(["--as", "m"] if "--as" not in wishes else []), *wishes) == code
    assert told in capfd.readouterr().err
    assert not Path("streamproc.db").exists()


# going on -----------------------------------------------------------------------------------------------------------


async def opened(path: str = "streamproc.db") -> Embedded:
    bus = await Embedded.open(Path(path))
    await bus.create(deployment())
    return bus


async def ids(bus: Bus, stream: str, *topics: str) -> list[str]:
    source = (await newest(bus))[stream]
    return [r.id for _, r in await Newcomers(bus, topics, [source]).come()]


def brought(rows: dict[float, str], model: str = "imported") -> list[Brought]:
    data = json.dumps([{"time": time, "raw": raw} for time, raw in rows.items()]).encode()
    task = load("soccer", models=[f"detect={model}"])
    return importing_files.brought(
        [File("p.json", data)], Format.predictions, stream="m", model=model, task=task, say=lambda _: None
    )


bring = partial(importing.bring, chunk=5)
"""With many places to end at."""


class Stops(RuntimeError):
    """The end of a process."""


class Stopping:
    """A bus that publishes so many times, and no more."""

    def __init__(self, bus: Bus, times: int) -> None:
        self._bus, self._left = bus, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publish(self, entries: Sequence[Entry]) -> None:
        if not self._left:
            raise Stops
        self._left -= 1
        await self._bus.publish(entries)


async def test_wherever_an_import_ends_the_next_one_says_the_rest_and_nothing_twice() -> None:
    wanted = [f"detect.imported/decode/m/0/{i}" for i in range(32)]
    for times in range(1, 8):  # the streams, and 33 entries in chunks of 5
        bus = await opened(f"{times}.db")
        try:
            async with followed(bus) as progress:
                with pytest.raises(Stops):
                    await bring(Stopping(bus, times), progress, brought(MATCH))
                entered = await bring(bus, progress, brought(MATCH))
                assert entered.known
                assert Counter(await ids(bus, "m", "detections")) == Counter(wanted)
                assert await bring(bus, progress, brought(MATCH)) == entered
                assert Counter(await ids(bus, "m", "detections")) == Counter(wanted)
        finally:
            await bus.close()


@pytest.mark.parametrize("seed", range(1))
def test_killed_at_any_moment_it_ends_with_the_same_files(seed: int) -> None:
    rows = {2.0 * i: GOAL if i % 50 == 0 else "None" for i in range(1500)}
    file, rng = predictions("p.json", rows), random.Random(seed)
    arguments = (file, "--as", "m", "--task", "soccer", "--out")
    assert import_(*arguments, "whole", "--bus", "embedded:whole.db") == Code.DONE
    command = [sys.executable, "-m", "streamproc", "import", *map(str, arguments), "killed"]
    for _ in range(2):
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=rng.uniform(1.5, 5.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=30)
    last = subprocess.run(command, env=ENVIRONMENT, check=False, capture_output=True, timeout=120)
    assert last.returncode == Code.DONE, last.stderr.decode()
    for name in ("events.json", "verdicts.json", "coverage.json", "detections.jsonl"):
        assert Path("killed/m", name).read_bytes() == Path("whole/m", name).read_bytes()


def test_up_works_on_for_an_import_and_leaves_alone_what_it_has_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert import_(predictions("p.json", MATCH), "--as", "m", "--task", "soccer") == Code.DONE
    capfd.readouterr()
    assert streamproc("up", "--until-idle", "--port", "0") == Code.DONE
    told = capfd.readouterr().err
    assert "dedup is up" in told
    assert "ensemble is up" in told
    assert "decode" not in told
    assert "detect" not in told


# several models -----------------------------------------------------------------------------------------------------


def test_models_that_come_one_after_the_other_are_heard_together() -> None:
    options = ("--as", "m", "--task", "soccer", "--out", "out")
    assert import_(predictions("a.json", MATCH), "--model", "a", *options) == Code.DONE
    assert import_(predictions("b.json", {4: GOAL, 90: CORNER}), "--model", "b", *options) == Code.DONE
    assert import_(predictions("c.json", {30: CORNER}), "--model", "c", *options) == Code.DONE
    verdicts = {
        (v["label"], v["time_ms"] // 1000): (v["fields"]["found"], v["found_by"]) for v in said("out/m/verdicts.json")
    }
    assert verdicts[("Corner", 32)] == ("by some", ["a", "c"])
    assert verdicts[("Corner", 92)] == ("by one", ["b"])
    assert ("by some", ["a", "b"]) in verdicts.values()
    for row in said("out/m/coverage.json"):
        assert row["ended"]
        assert row["missing"] == row["failed"] == []


def test_streams_of_a_bus_agree_with_each_other_and_with_files(capfd: pytest.CaptureFixture[str]) -> None:
    file = predictions("a.json", MATCH)
    options = ("--task", "soccer")
    assert import_(file, "--as", "one", *options) == Code.DONE
    assert import_(predictions("b.json", {4: GOAL}), "--as", "two", *options) == Code.DONE
    assert import_(predictions("b.json", {4: GOAL}), "--as", "one", "--model", "b", *options) == Code.DONE
    for arguments, all_, one in (
        (("one", "two"), 1, 2),
        (("one", "--by", "model"), 1, 2),
        (("two", "b.json"), 1, 0),
    ):
        capfd.readouterr()
        assert streamproc("score", "agreement", *arguments, "--json") == Code.DONE
        told = json.loads(capfd.readouterr().out)
        assert (told["all"], told["one"]) == (all_, one)
    assert streamproc("score", "agreement", "one", "twoo") == Code.USAGE
    assert "no stream 'twoo'; did you mean 'two'?" in capfd.readouterr().err
    assert streamproc("score", "agreement", "one", "two", "--bus", "embedded:none.db") == Code.USAGE
    assert "no such file or folder" in capfd.readouterr().err


def test_in_whatever_order_models_come_events_are_the_same() -> None:
    files = {"a": predictions("a.json", MATCH), "b": predictions("b.json", {4: GOAL, 90: CORNER})}
    for stream, order in (("ab", "ab"), ("ba", "ba")):
        for model in order:
            assert (
                import_(files[model], "--as", stream, "--model", model, "--task", "soccer", "--out", "out") == Code.DONE
            )
    one, other = (Path(f"out/{s}/events.json").read_text().replace(f'"{s}/', '"m/') for s in ("ab", "ba"))
    assert one == other


def test_an_earlier_model_brought_again_changes_nothing() -> None:
    options = ("--as", "m", "--task", "soccer", "--out", "out")
    a, b = predictions("a.json", MATCH), predictions("b.json", {4: GOAL})
    assert import_(a, "--model", "a", *options) == import_(b, "--model", "b", *options) == Code.DONE
    before = Path("out/m/verdicts.json").read_bytes()
    assert import_(a, "--model", "a", *options) == import_(b, "--model", "b", *options) == Code.DONE
    assert Path("out/m/verdicts.json").read_bytes() == before


async def test_a_model_that_stopped_in_the_middle_is_waited_for_by_the_next() -> None:
    bus = await opened()
    try:
        async with followed(bus) as progress:
            with pytest.raises(Stops):
                await bring(Stopping(bus, 2), progress, brought(MATCH, "a"))
            with pytest.raises(Misconfigured, match=r"'detect\.a' was stopped in the middle"):
                await bring(bus, progress, brought({4: GOAL}, "b"))
            await bring(bus, progress, brought(MATCH, "a"))
            with pytest.raises(Stops):
                await bring(Stopping(bus, 3), progress, brought({4: GOAL}, "b"))
            with pytest.raises(Misconfigured, match=r"'detect\.b' was stopped in the middle"):
                await bring(bus, progress, brought(MATCH, "a"))
            await bring(bus, progress, brought({4: GOAL}, "b"))
            wanted = [f"detect.{model}/decode/m/1/{i}" for model in "ab" for i in range(32)]
            assert Counter(await ids(bus, "m", "detections")) == Counter(wanted)
    finally:
        await bus.close()


def test_other_results_of_a_model_another_task_and_a_stream_of_ours_are_told_apart(
    capfd: pytest.CaptureFixture[str],
) -> None:
    a, b = predictions("a.json", MATCH), predictions("b.json", {4: GOAL})
    assert import_(a, "--as", "m", "--task", "soccer") == Code.DONE
    assert import_(b, "--as", "m", "--task", "soccer") == Code.USAGE
    assert "other results of 'imported'" in capfd.readouterr().err
    assert import_(b, "--as", "m", "--task", "soccer", "--model", "b", "--set", "dedup.within_s=9") == Code.USAGE
    assert "dedup.within_s" in capfd.readouterr().err
    assert import_(b, "--as", "m", "--model", "b") == Code.USAGE
    assert "the task 'soccer'" in capfd.readouterr().err
    films = film(Path("film.mp4"), 4, ("red", 1.0, 3.0))
    assert streamproc("run", films, "--set", "labels=red box", "--out", "out") == Code.DONE
    assert import_(b, "--as", "film", "--task", "soccer") == Code.USAGE
    assert "is no import" in capfd.readouterr().err
    assert import_(b, "--as", "film", "--task", "soccer", "--bus", "embedded:o.db", "--out", "out") == Code.USAGE
    assert "holds the results of a run" in capfd.readouterr().err


def test_a_name_that_was_removed_begins_another_life() -> None:
    assert import_(predictions("a.json", MATCH), "--as", "m", "--task", "soccer") == Code.DONE
    assert streamproc("sources", "remove", "m") == Code.DONE
    other = predictions("b.json", {4: GOAL})
    assert import_(other, "--as", "m", "--task", "soccer", "--out", "out") == Code.DONE
    assert found("m") == [("Goal", 4000, 8000)]


# games and clips ----------------------------------------------------------------------------------------------------


def test_a_game_becomes_two_halves_and_labels_that_nobody_knows_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    spots = [("1", 10_500, "goal", 0.9), ("2", 71_000, "Corner", 0.4), ("2", 99_000, "Dribble", 0.4)]
    assert import_(spotting("s.json", *spots), "--as", "l/g", "--model", "net", "--out", "out") == Code.DONE
    told = capfd.readouterr().err
    assert "s.json row 3 ('Dribble')" in told
    assert "s.json row 1 ('goal' read as 'Goal')" in told
    assert found("l/g/1_half") == [("Goal", 10_000, 14_000)]
    assert found("l/g/2_half") == [("Corner", 70_000, 74_000)]
    (event,) = said("out/l/g/1_half/events.json")
    assert (event["time_ms"], event["confidence"]) == (10_500, 0.9)


def test_a_half_without_a_single_spot_is_complete_too() -> None:
    assert import_(spotting("s.json", ("1", 10_500, "Goal", 0.9)), "--as", "g", "--out", "out") == Code.DONE
    assert found("g/2_half") == []
    assert said("out/g/2_half/summary.json")["complete"]


def test_submissions_of_two_describers_become_one_verdict_a_clip() -> None:
    other = replace(CLIP, incident=1)
    one, two = written("one.csv", *numbered(CLIP, HOLE)), written("two.csv", *numbered(other, other))
    options = ("--as", "sub", "--set", "ensemble.rule=fill", "--out", "out")
    assert import_(one, "--model", "one", *options) == import_(two, "--model", "two", *options) == Code.DONE
    first, second = (said(f"out/sub/{n}/verdicts.json")[0] for n in (0, 1))
    assert (first["fields"]["incident"], second["fields"]["incident"]) == (0, 1)  # the hole gave way
    assert first["frame"] == CLIP.start_frame
    assert first["found_by"] == ["one.row", "two.row"]


@pytest.mark.parametrize(
    ("there", "instead", "told"),
    [
        (b",431,", b",soon,", "line 2: 'Incident window start frame' is 'soon'"),
        (b"vehicle overtakes", b"vehicle flies", "line 2: 'Label' is 'vehicle flies', no label; did you mean 'vehicle"),
        (b"Crash Severity", b"Severity", "it lacks 'Crash Severity'"),
    ],
)
def test_a_submission_with_a_bad_cell_is_refused_with_row_and_column(
    there: bytes, instead: bytes, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("bad.csv").write_bytes(submission.write(numbered(CLIP)).replace(there, instead))
    assert import_("bad.csv", "--as", "sub") == Code.FAILED
    assert told in capfd.readouterr().err
    assert not Path("streamproc.db").exists()


# Kafka --------------------------------------------------------------------------------------------------------------


@pytest.mark.kafka
@pytest.mark.usefixtures("_real_kafka")
def test_on_kafka_it_is_the_same(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811  # the fixture
    arguments = (predictions("p.json", MATCH), "--as", "m", "--task", "soccer", "--out")
    assert import_(*arguments, "embedded") == Code.DONE
    monkeypatch.setenv("STREAMPROC_TOPIC_PREFIX", prefix)
    monkeypatch.setenv("STREAMPROC_BUS", f"kafka://{brokers.shared()}")
    assert import_(*arguments, "kafka") == Code.DONE
    assert import_(*arguments, "kafka") == Code.DONE
    for name in ("events.json", "verdicts.json", "coverage.json", "detections.jsonl"):
        assert Path("kafka/m", name).read_bytes() == Path("embedded/m", name).read_bytes()
    assert streamproc("export", "m", "--format", "predictions", "--out", "back.json") == Code.DONE
    assert [row["time"] for row in said("back.json")] == [4.0, 30.0, 61.5]
