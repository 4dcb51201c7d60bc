"""`streamproc topics` on a real bus: what was published is listed, described and read, by stream and by time."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from streamproc.bus.claims import Claims, Folder
from streamproc.bus.embedded import Embedded
from streamproc.bus.kafka import Kafka
from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.messages import Caption, record_id
from streamproc.topics import all_topics, topic
from streamproc.wire import Entry, encode
from tests import brokers
from tests.topics import golden


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a folder, and so a bus, of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")  # also where a broker is named for other tests


def streamproc(*arguments: str) -> int:
    return exit_code(build(), ["topics", *arguments])


def published(entries: Iterable[Entry]) -> None:
    async def work() -> None:
        bus = await Embedded.open("streamproc.db", partitions=4)
        try:
            await bus.create([t for each in all_topics().values() for t in (each, each.dlq)])
            await bus.publish(list(entries))
        finally:
            await bus.close()

    asyncio.run(work())


def caption(stream: str, index: int, *, utc: str | None = None, text: str | None = None) -> Entry:
    record = Caption(
        id=record_id("caption", "decode", stream, 1, index),
        service="caption",
        root="decode",
        stream=stream,
        generation=1,
        revision=1,
        index=index,
        start_ms=60_000 * index,
        end_ms=60_000 * (index + 1),
        utc=utc,
        outcome="done",
        text=text or f"minute {index}",
    )
    return encode(record, partitions=4, time=golden.TIME)


def tailed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Any]:
    assert streamproc("tail", *arguments, "--json") == Code.DONE
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def texts(shown: list[Any]) -> list[str]:
    return [s["record"]["text"] for s in shown]


def test_topics_are_made_once_with_their_dead_letters(capsys: pytest.CaptureFixture[str]) -> None:
    assert streamproc("create", "--partitions", "3", "--json") == Code.DONE
    made = json.loads(capsys.readouterr().out)
    assert set(made["made"]) == {n for t in all_topics().values() for n in (t.name, t.dlq.name)}
    assert streamproc("create", "--json") == Code.DONE, "whoever does not say takes as many partitions as there are"
    assert json.loads(capsys.readouterr().out)["made"] == []
    assert streamproc("list", "--json") == Code.DONE
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {t["partitions"] for t in listed} == {3}


def test_another_number_of_partitions_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    streamproc("create", "--partitions", "3")
    assert streamproc("create", "--partitions", "4") == Code.USAGE
    assert "3 partitions" in capsys.readouterr().err


def test_a_dry_run_makes_nothing_not_even_a_bus(capsys: pytest.CaptureFixture[str]) -> None:
    assert streamproc("create", "--dry-run", "--json") == Code.DONE
    assert len(json.loads(capsys.readouterr().out)["missing"]) == 2 * len(all_topics())
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", [["list"], ["describe", "windows"], ["tail", "windows"]])
def test_a_bus_that_is_not_there_is_unreachable_and_is_not_made(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert streamproc(*command) == Code.UNREACHABLE
    assert "streamproc topics create" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_a_broker_that_does_not_answer_is_unreachable_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert streamproc("list", "--bus", "kafka://127.0.0.1:1") == Code.UNREACHABLE
    assert "127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("capton", "did you mean 'captions'?"),
        ("windows.dql", "did you mean 'windows.dlq'?"),
        ("zzz", "there are captions, "),
    ],
)
def test_an_unknown_topic_offers_the_nearest(name: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert streamproc("tail", name) == Code.USAGE
    assert told in capsys.readouterr().err


def test_a_topic_is_described_as_its_file_says_with_the_offsets_of_its_partitions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    published([caption("match1", 0), caption("match1", 1)])
    assert streamproc("describe", "captions", "--json") == Code.DONE
    told = json.loads(capsys.readouterr().out)
    captions = topic("captions")
    assert (told["topic"], told["record"], told["max_bytes"]) == ("captions", "Caption", captions.max_bytes)
    assert [p["partition"] for p in told["partitions"]] == [0, 1, 2, 3]
    assert sum(p["end"] - p["begin"] for p in told["partitions"]) == 2


def test_records_come_in_the_order_they_landed_over_all_partitions(capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(6):
        published([caption(f"match{i}", i)])
    assert texts(tailed(capsys, "captions")) == [f"minute {i}" for i in range(6)]


def test_one_streams_records_are_read_alone(capsys: pytest.CaptureFixture[str]) -> None:
    published(caption(f"match{i}", i) for i in range(40))
    assert texts(tailed(capsys, "captions", "--stream", "match7")) == ["minute 7"]
    assert tailed(capsys, "captions", "--stream", "nobody") == []


def test_a_files_records_are_chosen_by_stream_time(capsys: pytest.CaptureFixture[str]) -> None:
    published(caption("match1", i) for i in range(6))
    assert texts(tailed(capsys, "captions", "--from", "2:30", "--to", "240")) == ["minute 2", "minute 3"]
    assert texts(tailed(capsys, "captions", "--from", "4:00")) == ["minute 4", "minute 5"]


def test_a_feeds_records_are_chosen_by_the_clock(capsys: pytest.CaptureFixture[str]) -> None:
    published(caption("camera", i, utc=f"2026-03-01T20:{40 + i}:00Z") for i in range(6))
    found = tailed(capsys, "captions", "--from", "2026-03-01T20:42:30+00:00", "--to", "2026-03-01T20:44:00Z")
    assert texts(found) == ["minute 2", "minute 3"]


def test_what_knows_no_clock_is_chosen_by_when_it_landed(capsys: pytest.CaptureFixture[str]) -> None:
    published([caption("match1", 0)])
    assert texts(tailed(capsys, "captions", "--from", "2020-01-01")) == ["minute 0"]
    assert tailed(capsys, "captions", "--to", "2020-01-01") == []


def test_a_half_of_a_game_is_the_stream_of_that_half(capsys: pytest.CaptureFixture[str]) -> None:
    published([caption("game/1_720p", 1), caption("game/2_720p", 1), caption("game/2_720p", 2)])
    found = tailed(capsys, "captions", "--from", "2 - 1:00", "--to", "2 - 2:00")
    assert [s["key"] for s in found] == ["game/2_720p"]


def test_the_last_records_are_read_alone(capsys: pytest.CaptureFixture[str]) -> None:
    published(caption("match1", i) for i in range(6))
    assert texts(tailed(capsys, "captions", "--last", "2")) == ["minute 4", "minute 5"]


def test_pictures_are_base64_in_a_pipe_and_left_out_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    published([next(g for g in golden.everything() if g.name == "windows.done.msgpack").entry()])
    [shown] = tailed(capsys, "windows")
    assert [f["jpeg"][:4] for f in shown["record"]["frames"]] == ["/9j/"] * 4
    assert streamproc("tail", "windows") == Code.DONE
    told = capsys.readouterr().out
    assert "/9j/" not in told
    assert f'"jpeg":"<{len(golden.JPEG)} bytes>"' in told


@pytest.mark.parametrize("made", list(golden.everything()), ids=lambda g: g.name)
def test_every_kind_of_record_has_a_line_for_people(made: golden.Golden, capsys: pytest.CaptureFixture[str]) -> None:
    published([made.entry()])
    assert streamproc("tail", made.entry().topic) == Code.DONE
    [told] = capsys.readouterr().out.splitlines()
    assert made.record.stream in told


def test_what_a_model_said_is_one_bounded_line_for_people_and_whole_for_scripts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "a\u202eb\x9b1m\x1b[2J\n" + "word " * 1000
    published([caption("match1", 0, text=long)])
    assert texts(tailed(capsys, "captions")) == [long]
    assert streamproc("tail", "captions") == Code.DONE
    [told] = capsys.readouterr().out.split("\n")[:-1]
    assert told.isprintable()
    assert len(told) < 400


def test_what_cannot_be_read_is_shown_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    published([replace(caption("match1", 0), value=b"{")])
    [shown] = tailed(capsys, "captions")
    assert (shown["record"], shown["key"]) == (None, "match1")
    assert "value is no Caption" in shown["error"]
    assert streamproc("tail", "captions") == Code.DONE
    assert "value is no Caption" in capsys.readouterr().out


@pytest.mark.kafka
def test_on_kafka_it_is_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if (why := brokers.missing()) and not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    bootstrap, prefix = brokers.shared(), f"t{uuid.uuid4().hex[:8]}."
    monkeypatch.setenv("STREAMPROC_BUS", f"kafka://{bootstrap}")
    monkeypatch.setenv("STREAMPROC_TOPIC_PREFIX", prefix)
    monkeypatch.setenv("STREAMPROC_PARTITIONS", "4")
    assert streamproc("create", "--replication", "1", "--json") == Code.DONE
    assert len(json.loads(capsys.readouterr().out)["made"]) == 2 * len(all_topics())

    async def publish() -> None:
        bus = await Kafka.open(bootstrap, prefix=prefix, partitions=4)
        try:
            await bus.publish([caption(f"match{i}", i) for i in range(6)])
        finally:
            await bus.close()

    asyncio.run(publish())
    assert sorted(texts(tailed(capsys, "captions"))) == [f"minute {i}" for i in range(6)]
    assert texts(tailed(capsys, "captions", "--stream", "match3")) == ["minute 3"]
    assert streamproc("list", "--json") == Code.DONE
    listed = {t["topic"]: t for t in map(json.loads, capsys.readouterr().out.splitlines())}
    assert listed["captions"]["partitions"] == 4
    assert listed["captions"]["records"] >= 6
    assert exit_code(build(), ["status", "--json"]) == Code.DONE
    assert json.loads(capsys.readouterr().out) == {"services": [], "streams": [], "waits": [], "endpoints": []}


def test_a_claim_is_checked_out_where_the_store_is_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = next(g for g in golden.everything() if g.name == "windows.done.msgpack").entry()
    published([asyncio.run(Claims(Folder(Path("claims"))).check_in(entry, 1000))])
    [shown] = tailed(capsys, "windows")
    assert "Set claims.store" in shown["error"]
    monkeypatch.setenv("STREAMPROC_CLAIMS__STORE", "claims")
    [shown] = tailed(capsys, "windows")
    assert len(shown["record"]["frames"]) == 4
