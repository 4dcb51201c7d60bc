"""`streamproc trace`: the first sentence says which service lost a moment, and why; the rest shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from streamproc.bus.embedded import Embedded
from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.messages import Detection, Grid, Incident, Record, Source, Window, record_id
from streamproc.pipeline import streams
from streamproc.pipeline.trace import moment
from streamproc.pipeline.trace_find import Finder
from streamproc.pipeline.trace_told import told
from streamproc.topics import deployment
from streamproc.wire import Stored, encode
from tests.e2e.answers import MODEL, Scripted, scripted
from tests.e2e.films import film

LABELS = ("--set", "labels=red box, blue box")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")


@pytest.fixture(scope="module")
def match(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("films") / "match.mp4", 24, ("red", 4.0, 8.0), ("blue", 14.0, 17.0))


@pytest.fixture
def model() -> Iterator[Scripted]:
    with scripted(lambda colours: "None") as served:
        yield served


def run(match: Path, *arguments: str) -> int:
    return exit_code(build(), ["run", str(match), *LABELS, *arguments])


def by(model: Scripted) -> tuple[str, str]:
    Path("streamproc.toml").write_text(
        f'[endpoints.{MODEL}]\ncard = "openai-compatible"\nurls = ["{model.url}"]\nserved_name = "{MODEL}"\n'
    )
    return "--model", f"detect={MODEL}"


def trace(capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capfd.readouterr()
    assert exit_code(build(), ["trace", *arguments, "--json"]) == Code.DONE
    return json.loads(capfd.readouterr().out)


def seen(label: str, confidence: float = 0.9) -> str:
    return json.dumps([{"label": label, "confidence": confidence}])


def test_what_was_told_is_not_lost_and_shows_how_reports_became_one_event(
    match: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(match) == Code.DONE
    found = trace(capfd, "match", "15")
    assert found["lost_by"] is None
    assert "a verdict on blue box" in found["sentence"]
    first, *others = found["dedup"]["decisions"]
    assert first["decided"].startswith("kept")
    assert [d["decided"].partition(" ")[0] for d in others] == ["merged"] * len(others) != []
    assert {d["event"] for d in (first, *others)} == {found["dedup"]["events"][0]["id"]}
    window = next(w for w in found["windows"] if w["shows_it"])
    detection = next(o for o in window["outcomes"] if o["service"] == "detect.observer")
    assert detection["prompt"]
    assert detection["raw"]
    assert detection["tokens"]["in"] > 0
    assert detection["attempts"] == 1
    assert detection["seconds"]["served"] >= 0
    assert [o["service"] for o in found["behind"]] == ["ensemble"]


def test_a_model_that_looked_and_saw_nothing_has_lost_it_with_its_own_words(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(match, *by(model)) == Code.DONE
    found = trace(capfd, "match", "0:15")
    assert found["lost_by"] == f"detect.{MODEL}"
    assert "saw nothing; it answered 'None'" in found["sentence"]


def test_an_endpoint_that_refused_has_lost_it_and_the_dead_letter_is_named(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    model.says = lambda colours: 400 if "blue" in colours else "None"
    assert run(match, *by(model)) == Code.INCOMPLETE
    found = trace(capfd, "match", "15")
    assert found["lost_by"] == f"detect.{MODEL}"
    assert "400 not this picture" in found["sentence"]
    assert "dlq show detect." in found["sentence"]


def test_what_a_model_said_and_nobody_could_read_is_shown_as_it_came(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    model.says = lambda colours: "I am a teapot" if "blue" in colours else "None"
    assert run(match, *by(model)) == Code.INCOMPLETE
    found = trace(capfd, "match", "15")
    assert "unreadable" in found["sentence"]
    outcomes = [o for w in found["windows"] if w["shows_it"] for o in w["outcomes"]]
    assert "I am a teapot" in [o.get("raw") for o in outcomes]


def test_what_a_model_said_is_no_command_to_the_terminal(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    model.says = lambda colours: "\x1b[2Jred\u202e\r\nbox" if "blue" in colours else "None"
    assert run(match, *by(model)) == Code.INCOMPLETE
    capfd.readouterr()
    assert exit_code(build(), ["trace", "match", "15"]) == Code.DONE
    told = capfd.readouterr().out
    assert r"said: \x1b[2Jred\u202e\r\nbox" in told
    assert all(row.isprintable() for row in told.split("\n"))


def test_one_model_that_saw_it_is_enough_where_another_did_not(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(match, *by(model), "--model", "detect=observer") == Code.DONE
    found = trace(capfd, "match", "15")
    assert found["lost_by"] is None
    [verdict] = found["behind"]
    assert verdict["fields"]["disagreement"] == [MODEL]


def test_a_threshold_that_was_not_reached_is_told_with_both_numbers(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    model.says = lambda colours: seen("blue box", 0.25) if "blue" in colours else "None"
    assert run(match, *by(model), "--set", 'ensemble.thresholds={"blue box": 0.5}') == Code.DONE
    found = trace(capfd, "match", "15")
    assert found["lost_by"] == "ensemble"
    assert "confidence of 0.25 and needs 0.5" in found["sentence"]


def test_an_incident_is_traced_from_captions_to_the_verdict_on_it(
    match: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(build(), ["run", str(match), "--task", "dashcam"]) == Code.DONE
    found = trace(capfd, "match", "15")
    assert found["lost_by"] is None
    assert "it became an incident at" in found["sentence"]
    assert {"locate", "ensemble"} < {o["service"].partition(".")[0] for o in found["behind"]}


def test_results_that_were_imported_have_no_windows_and_are_traced_from_what_they_say(
    match: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [{"time": 12.0, "raw": seen("blue box")}, {"time": 20.0, "raw": "None"}]
    Path("theirs.json").write_text(json.dumps(rows))
    brought = ("import", "theirs.json", "--as", "theirs", "--format", "predictions", "--model", "m", *LABELS)
    assert exit_code(build(), list(brought)) == Code.DONE
    found = trace(capfd, "theirs", "13")
    assert found["lost_by"] is None
    assert "a verdict on blue box" in found["sentence"]
    assert trace(capfd, "theirs", "20")["lost_by"] == "detect.m"


def test_too_few_models_are_told_by_name(match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]) -> None:
    model.says = lambda colours: seen("blue box") if "blue" in colours else "None"
    assert run(match, *by(model), "--set", "ensemble.at_least=2") == Code.DONE
    found = trace(capfd, "match", "15")
    assert found["lost_by"] == "ensemble"
    assert f"seen by {MODEL}, and 2 models" in found["sentence"]


def test_who_was_never_asked_has_lost_nothing(match: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(match, "--only", "decode") == Code.DONE
    found = trace(capfd, "match", "15")
    assert found["lost_by"] is None
    assert "detect.observer: it was not asked so far, and nobody works in it" in found["sentence"]
    assert {s["service"] for s in found["services"] if s["asked"]} == {"decode"}
    assert {s["service"]: s["complete"] for s in found["services"]}["decode"]
    assert run(match, "--only", "caption") == Code.DONE
    found = trace(capfd, "match", "15")
    assert found["lost_by"] is None
    assert found["sentence"].startswith("nothing lost it so far; detect.observer: it was not asked so far")
    assert "caption.observer told what it shows" in found["sentence"]
    assert run(match, "--only", "detect") == Code.DONE
    found = trace(capfd, "match", "15")
    assert found["lost_by"] is None
    assert "detect.observer saw blue box; dedup: it was not asked so far" in found["sentence"]
    assert run(match, "--only", "dedup") == Code.DONE
    found = trace(capfd, "match", "15")
    assert found["lost_by"] is None
    assert "ensemble: it was not asked so far" in found["sentence"]
    assert exit_code(build(), ["trace", "match", "15"]) == Code.DONE
    assert "ensemble: not asked so far, lag" in capfd.readouterr().out


def test_who_failed_has_lost_it_before_those_who_were_never_asked(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    model.says = lambda colours: 400
    _, named = by(model)
    assert run(match, "--model", named.replace("detect", "caption"), "--only", "caption") == Code.INCOMPLETE
    found = trace(capfd, "match", "15")
    assert found["lost_by"] == f"caption.{MODEL}"
    assert "400 not this picture" in found["sentence"]
    assert "; detect.observer: it was not asked so far" in found["sentence"]


def test_people_read_the_sentence_first_and_scripts_are_given_no_pictures(
    match: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(match) == Code.DONE
    capfd.readouterr()
    assert exit_code(build(), ["trace", "match", "5"]) == Code.DONE
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("nothing lost it")
    assert any("tokens in" in row for row in lines)
    assert "jpeg" not in json.dumps(trace(capfd, "match", "5"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mtch", "5"), "did you mean 'match'"),
        (("match", "five"), "no time"),
        (("match", "2026-03-01T20:45:00Z"), "wall-clock"),
    ],
)
def test_a_stream_or_time_that_cannot_be_is_told(
    match: Path, arguments: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(match, "--only", "decode") == Code.DONE
    assert exit_code(build(), ["trace", *arguments]) == Code.USAGE
    assert said in capfd.readouterr().err


def test_behind_the_end_there_is_nothing_to_lose(match: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(match, "--only", "decode") == Code.DONE
    assert "is over by 1:00:00: it ends at 24 s" in trace(capfd, "match", "1:00:00")["sentence"]


# long ones, and feeds -----------------------------------------------------------------------------------------------

DETECT = "detect.m"


def source(*, live: bool = False) -> Source:
    return Source(
        id=record_id("cli", "cli", "cam", 0, 0),
        service="cli",
        root="cli",
        stream="cam",
        generation=0,
        revision=0,
        index=0,
        start_ms=0,
        end_ms=0,
        outcome="done",
        uri="cam.mp4",
        live=live,
        state="active",
        from_index=0,
        grid=Grid(root="decode", origin="0", step="2", first=0),
        task={"sampling": {"fps": "1", "window_s": "4", "step_s": "2"}},
        services=("decode", DETECT),
        readers={"sources": ("decode",), "windows": (DETECT,)},
        lag="block",
    )


def said(kind: type[Record], service: str, index: int, **fields: Any) -> Record:
    return kind(
        id=record_id(service, "decode", "cam", 0, index),
        service=service,
        root="decode",
        stream="cam",
        generation=0,
        revision=0,
        index=index,
        start_ms=2000 * index,
        end_ms=2000 * index + 4000,
        **({"outcome": "done"} | fields),
    )


class Counting(Embedded):
    """Knows how many records it was asked for."""

    count = 0

    async def read(self, *arguments: Any, **options: Any) -> list[Stored]:
        found = await super().read(*arguments, **options)
        self.count += len(found)
        return found


async def test_a_moment_of_a_long_stream_is_found_without_reading_it_whole() -> None:
    bus = await Counting.open("long.db", partitions=1)
    try:
        await bus.create(deployment())
        await streams.publish(bus, [source()])
        for begin in range(0, 20_000, 2000):
            records = [said(Window, "decode", i) for i in range(begin, begin + 2000)]
            records += [said(Detection, DETECT, i, events=(), raw=f"None of {i}") for i in range(begin, begin + 2000)]
            await bus.publish([encode(r, partitions=1, time="") for r in records])
        bus.count = 0
        found = await moment(bus, source(), 2000 * 9000 + 1000)
    finally:
        await bus.close()
    assert found.windows == (8999, 9001)
    assert [landed.record.raw for landed in found.here(DETECT) if landed] == ["None of 8999", "None of 9000"]
    assert bus.count < 20_000, "of 40,000"


async def test_what_landed_long_after_its_place_is_found_all_the_same() -> None:
    bus = await Embedded.open("late.db", partitions=1)
    try:
        await bus.create(deployment())
        await streams.publish(bus, [source()])
        await bus.publish([encode(said(Window, "decode", i), partitions=1, time="") for i in range(8000)])
        in_time = [said(Detection, DETECT, i, events=()) for i in range(8000) if i != 50]
        await bus.publish([encode(r, partitions=1, time="") for r in in_time])
        late = said(Detection, DETECT, 50, outcome="failed", reason="late in the day")
        await bus.publish([encode(late, partitions=1, time="")])
        await bus.publish([_covered(8000)])
        found = await moment(bus, source(), 2000 * 50 + 1000)
    finally:
        await bus.close()
    sentence = told(found, "1:41")
    assert sentence.lost_by == DETECT
    assert "late in the day" in sentence.sentence


async def test_who_has_begun_and_not_come_so_far_has_lost_it_with_nobody_working_there() -> None:
    bus = await Embedded.open("begun.db", partitions=1)
    try:
        await bus.create(deployment())
        await streams.publish(bus, [source()])
        await bus.publish([encode(said(Window, "decode", i), partitions=1, time="") for i in range(8)])
        await bus.publish([_covered(2)])
        found = await moment(bus, source(), 9000)
    finally:
        await bus.close()
    sentence = told(found, "0:09")
    assert sentence.lost_by == DETECT
    assert "it has not come so far (it stands at 4 s, 8 records before it), and nobody works in it" in sentence.sentence


def _covered(count: int) -> Any:
    from streamproc.messages import Coverage

    record = Coverage(
        id=f"{DETECT}/decode/cam/0/0",
        stream="cam",
        service=DETECT,
        root="decode",
        generation=0,
        hour=0,
        ended=False,
        done=((0, 2000 * count),),
        failed=(),
        skipped=(),
        missing=(),
        taken=((0, count),),
    )
    return encode(record, partitions=1, time="", sub=(DETECT, "decode", "0", "0"))


@pytest.mark.parametrize("left", ["windows", "incidents"])
async def test_the_clock_of_a_feed_is_told_by_whatever_it_has_left(left: str) -> None:
    feed, bus = source(live=True), await Embedded.open("feed.db", partitions=1)
    try:
        await bus.create(deployment())
        kind: type[Record] = Window if left == "windows" else Incident
        second = said(kind, left, 1, utc="2026-03-01T20:45:02Z")
        await bus.publish([encode(r, partitions=1, time="") for r in (second, said(kind, left, 2))])
        begun_ms = await Finder(bus, feed).began_ms()
    finally:
        await bus.close()
    assert begun_ms == datetime(2026, 3, 1, 20, 45, tzinfo=UTC).timestamp() * 1000


def test_a_feed_is_asked_by_the_clock_and_a_skip_of_its_is_a_loss_with_its_reason(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import asyncio

    async def given() -> None:
        bus = await Embedded.open("streamproc.db", partitions=2)
        try:
            await bus.create(deployment())
            await streams.publish(bus, [source(live=True)])
            clock = [f"2026-03-01T20:45:{2 * i:02}Z" for i in range(10)]
            windows = [said(Window, "decode", i, utc=clock[i]) for i in range(5)]
            gap = said(Window, "decode", 5, utc=clock[5], until_index=10, outcome="skipped", reason="too-old")
            await bus.publish([encode(r, partitions=2, time="") for r in (*windows, gap)])
        finally:
            await bus.close()

    asyncio.run(given())
    found = trace(capfd, "cam", "2026-03-01T20:45:13Z")
    assert found["time_ms"] == 13_000
    assert found["sentence"] == "decode lost it: it was skipped: too-old"
    assert exit_code(build(), ["trace", "cam", "13"]) == Code.USAGE
    assert exit_code(build(), ["trace", "cam", "2026-03-01T20:00:00Z"]) == Code.USAGE
    assert "began at" in capfd.readouterr().err
