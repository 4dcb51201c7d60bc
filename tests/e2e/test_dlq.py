"""`streamproc dlq`: what failed for good is listed, can be read, and is done again beside what there is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamproc import wire
from streamproc.bus.embedded import Embedded
from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.messages import Record
from streamproc.topics import deployment, key_of, partition_of, topic
from streamproc.wire import Entry
from tests.e2e.answers import MODEL, Scripted, scripted
from tests.e2e.films import film

LABELS = ("--set", "labels=red box, blue box")
BLUE = json.dumps([{"label": "blue box", "confidence": 0.9}])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")


@pytest.fixture(scope="module")
def match(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("films") / "match.mp4", 24, ("red", 4.0, 8.0), ("blue", 14.0, 17.0))


@pytest.fixture
def model() -> Iterator[Scripted]:
    """It refuses what is blue."""
    with scripted(lambda colours: 400 if "blue" in colours else "None") as served:
        Path("streamproc.toml").write_text(
            f'[endpoints.{MODEL}]\ncard = "openai-compatible"\nurls = ["{served.url}"]\nserved_name = "{MODEL}"\n'
        )
        yield served


def streamproc(*arguments: str | Path) -> int:
    return exit_code(build(), [*map(str, arguments)])


def lines(capfd: pytest.CaptureFixture[str], *arguments: str, code: Code = Code.DONE) -> list[Any]:
    capfd.readouterr()
    assert streamproc(*arguments, "--json") == code
    return [json.loads(row) for row in capfd.readouterr().out.splitlines()]


def failed(match: Path, *arguments: str) -> None:
    given = ("--set", "caption.model=observer", "--model", f"detect={MODEL}")
    assert streamproc("run", match, *LABELS, *given, *arguments) == Code.INCOMPLETE


def records(name: str) -> list[Any]:
    """All of a topic."""

    async def work() -> list[Any]:
        bus = await Embedded.open("streamproc.db")
        try:
            found: list[Any] = []
            for p in range(bus.partitions):
                at, end = await bus.span(name, p)
                while at < end and (some := await bus.read(name, p, at, max_records=500, max_bytes=2**24)):
                    found += [wire.decode(topic(name), stored) for stored in some]
                    at = some[-1].offset + 1
            return found
        finally:
            await bus.close()

    return asyncio.run(work())


def publish(entries: Sequence[Entry]) -> None:
    async def work() -> None:
        bus = await Embedded.open("streamproc.db")
        try:
            await bus.create(deployment())
            await bus.publish(entries)
        finally:
            await bus.close()

    asyncio.run(work())


def test_what_was_refused_is_listed_with_its_place_and_why_and_can_be_read(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    failed(match)
    found = lines(capfd, "dlq", "list")
    assert [one["index"] for one in found] == [6, 7, 8]  # windows of 4 s, every 2 s, in which something is blue
    assert {one["service"] for one in found} == {f"detect.{MODEL}"}
    assert found[0]["id"] == f"detect.{MODEL}/decode/match/0/6"
    assert (found[0]["start_ms"], found[0]["end_ms"], found[0]["attempts"]) == (12_000, 16_000, 1)
    assert "400 not this picture" in found[0]["error"]
    [whole] = lines(capfd, "dlq", "show", found[0]["id"], "--jpeg", "pictures")
    assert whole["headers"]["source-topic"] == "windows"
    assert all(frame["jpeg"].endswith(" bytes>") for frame in whole["record"]["frames"])
    assert len(whole["pictures"]) == len(whole["record"]["frames"]) == 4
    assert all(Path(path).read_bytes().startswith(b"\xff\xd8") for path in whole["pictures"])
    assert streamproc("dlq", "show", found[0]["id"]) == Code.DONE
    assert "400 not this picture" in capfd.readouterr().out


def test_a_replay_is_a_stream_of_its_own_and_the_outcome_of_the_first_time_stands(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    failed(match)
    ids = [one["id"] for one in lines(capfd, "dlq", "list")]
    model.says = lambda colours: BLUE if "blue" in colours else "None"
    [made] = lines(capfd, "dlq", "replay", *ids[:2])
    assert (made["stream"], made["letters"]) == ("match@dlq-1", 2)
    assert made["services"] == [f"detect.{MODEL}", "dedup", "ensemble"]
    assert streamproc("up", "--until-idle", "--port", "0") == Code.DONE
    assert streamproc("coverage", "match@dlq-1") == Code.DONE
    assert streamproc("coverage", "match") == Code.INCOMPLETE
    detections = [r for r in records("detections") if not r.ended]
    here = {r.index: r.outcome for r in detections if r.stream == "match@dlq-1" and r.until_index is None}
    assert (here[6], here[7]) == ("done", "done")
    ours = [r for r in detections if r.stream == "match" and r.index in (6, 7, 8)]
    assert [r.outcome for r in ours] == ["failed"] * 3, "once each, as they were"
    verdicts = [r for r in records("verdicts") if r.stream == "match@dlq-1" and r.outcome == "done" and not r.ended]
    assert [r.label for r in verdicts] == ["blue box"]
    assert verdicts[0].start_ms >= 12_000, "at the time it was in the match"
    [again] = lines(capfd, "dlq", "replay", ids[0])
    assert again["stream"] == "match@dlq-2"


def test_what_is_refused_again_has_a_dead_letter_of_its_own(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    failed(match)
    first = lines(capfd, "dlq", "list")[0]["id"]
    assert streamproc("dlq", "replay", first) == Code.DONE
    assert streamproc("up", "--until-idle", "--port", "0") == Code.DONE
    [one] = lines(capfd, "dlq", "list", "--stream", "match@dlq-1")
    assert one["id"] == f"detect.{MODEL}/decode/match@dlq-1/0/6"
    [made] = lines(capfd, "dlq", "replay", one["id"])
    assert made["stream"] == "match@dlq-1-dlq-1", "a name has one @"


def test_a_row_that_a_fold_could_not_do_is_done_again_from_all_its_letters(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    model.says = lambda colours: BLUE if "blue" in colours else "None"
    given = ("--model", f"detect={MODEL}", "--model", "detect=observer")
    assert streamproc("run", match, *LABELS, *given) == Code.DONE
    row = [r for r in records("detections") if r.index == 7 and not r.ended]
    assert len(row) == 2
    publish([dead(r, service="dedup") for r in row])
    found = lines(capfd, "dlq", "list")
    assert [one["id"] for one in found] == ["dedup/decode/match/0/7"] * 2
    [made] = lines(capfd, "dlq", "replay", "dedup/decode/match/0/7")
    assert made["letters"] == 2
    assert streamproc("up", "--until-idle", "--port", "0") == Code.DONE
    assert streamproc("coverage", "match@dlq-1") == Code.DONE
    [event] = [
        r.event
        for r in records("events")
        if r.stream == "match@dlq-1" and r.event is not None and r.event.state == "close"
    ]
    assert {v.model for v in event.votes} == {MODEL, "observer"}


def test_a_context_that_cannot_be_read_keeps_no_letter_from_being_done_again(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    failed(match, "--set", "context.model=observer")
    publish([Entry("contexts", partition_of("match", 16), key_of("match", "0", "junk"), b"{")])
    letters = lines(capfd, "dlq", "list")
    assert streamproc("dlq", "replay", *(one["id"] for one in letters)) == Code.DONE
    assert any(r.stream == "match@dlq-1" for r in records("windows"))


@pytest.mark.parametrize(
    ("name", "service", "services"),
    [
        ("incidents", "describe.observer.12-11-6", ["locate.observer", "describe.observer.12-11-6", "ensemble"]),
        ("incidents", "ensemble", ["locate.observer", "describe.observer.12-11-6", "ensemble"]),
        (
            "captions",
            "locate.observer",
            ["caption.observer", "locate.observer", "describe.observer.12-11-6", "ensemble"],
        ),
    ],
)
def test_whoever_failed_the_services_behind_it_go_on_to_a_verdict(
    match: Path, name: str, service: str, services: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert streamproc("run", match, "--task", "dashcam") == Code.DONE
    first = next(r for r in records(name) if r.index == 0)
    publish([dead(first, service=service)])
    [letter] = lines(capfd, "dlq", "list")
    [made] = lines(capfd, "dlq", "replay", letter["id"])
    assert made["services"] == services
    assert streamproc("up", "--until-idle", "--port", "0") == Code.DONE
    assert streamproc("coverage", "match@dlq-1") == Code.DONE
    assert [r.index for r in records("verdicts") if r.stream == "match@dlq-1" and not r.ended] == [0]


def dead(record: Record, *, service: str) -> Entry:
    """As a runner buries it."""
    entry = wire.encode(record, partitions=16, time="2026-03-01T20:45:00Z")
    headers = (
        *entry.headers,
        ("error", b"no such rule"),
        ("error-class", b"Rejected"),
        ("attempts", b"1"),
        ("source-topic", entry.topic.encode()),
        ("source-partition", b"0"),
        ("source-offset", b"0"),
        ("service", service.encode()),
    )
    return Entry(f"{entry.topic}.dlq", entry.partition, entry.key, entry.value, headers)


def test_a_letter_of_which_nothing_can_be_read_is_shown_as_it_is_and_cannot_be_done_again(
    capfd: pytest.CaptureFixture[str],
) -> None:
    p = partition_of("x", 16)
    publish([Entry("windows.dlq", p, b"x", b"\xc1no window", (("attempts", b"many"), ("error", b"\xff\xfe")))])
    [one] = lines(capfd, "dlq", "list")
    assert one["id"] == one["place"] == f"windows.dlq/{p}/{one['place'].rpartition('/')[2]}"
    assert (one["attempts"], one["index"]) == (1, None)
    [whole] = lines(capfd, "dlq", "show", one["id"])
    assert whole["bytes"] == 10
    assert whole["unreadable"]
    assert streamproc("dlq", "replay", one["id"]) == Code.FAILED
    assert "cannot be read" in capfd.readouterr().err


def test_a_file_that_was_gone_is_looked_at_from_its_beginning_once_it_is_back(
    match: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    film_here = Path("here.mp4").absolute()
    film_here.write_bytes(match.read_bytes())
    assert streamproc("sources", "add", "door", film_here, *LABELS) == Code.DONE
    film_here.unlink()
    assert streamproc("up", "--until-idle", "--port", "0") == Code.DONE
    [one] = lines(capfd, "dlq", "list")
    assert (one["service"], one["topic"]) == ("decode", "sources")
    film_here.write_bytes(match.read_bytes())
    [made] = lines(capfd, "dlq", "replay", one["id"])
    assert made["stream"] == "door@dlq-1"
    assert streamproc("up", "--until-idle", "--port", "0") == Code.DONE
    assert streamproc("coverage", "door@dlq-1") == Code.DONE


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("dlq", "show", f"detect.{MODEL}/decode/match/0/66"), "did you mean"),
        (("dlq", "replay", "nonsense"), "no dead letter 'nonsense'"),
        (("dlq", "list", "--stream", "mtch"), "did you mean 'match'"),
    ],
)
def test_what_does_not_exist_is_told_with_the_nearest_that_does(
    match: Path, model: Scripted, arguments: tuple[str, ...], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    failed(match)
    capfd.readouterr()
    assert streamproc(*arguments) == Code.USAGE
    assert told in capfd.readouterr().err


def test_of_several_ids_one_of_which_does_not_exist_none_is_replayed(
    match: Path, model: Scripted, capfd: pytest.CaptureFixture[str]
) -> None:
    failed(match)
    first = lines(capfd, "dlq", "list")[0]["id"]
    assert streamproc("dlq", "replay", first, "nonsense") == Code.USAGE
    assert [s["stream"] for s in lines(capfd, "status")[0]["streams"]] == ["match"]
