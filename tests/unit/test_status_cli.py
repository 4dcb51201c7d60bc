"""`streamproc status`: what is on the bus is what is told, and what stands still is named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from streamproc.bus.contract import Bus, Landing
from streamproc.bus.embedded import Embedded
from streamproc.cli import build
from streamproc.cli.frame import Code, exit_code
from streamproc.cli.status import Status, look
from streamproc.messages import Coverage, Grid, Source, Window, record_id
from streamproc.topics import all_topics, partition_of
from streamproc.wire import Entry, encode
from tests.topics.golden import TIME

PARTITIONS = 4


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMPROC_BUS", "embedded:./streamproc.db")


async def on_a_bus(work: Callable[[Bus], Awaitable[Any]]) -> Any:
    bus = await Embedded.open("streamproc.db", partitions=PARTITIONS)
    try:
        await bus.create(list(all_topics().values()))
        return await work(bus)
    finally:
        await bus.close()


def source(
    stream: str = "match1",
    *,
    revision: int = 1,
    state: Any = "active",
    services: tuple[str, ...] = ("decode", "caption", "dedup", "detect.m", "ensemble"),
) -> Entry:
    record = Source(
        id=record_id("cli", "cli", stream, 1, revision),
        service="cli",
        root="cli",
        stream=stream,
        generation=1,
        revision=revision,
        index=revision,
        start_ms=0,
        end_ms=0,
        outcome="done",
        uri=f"{stream}.mp4",
        live=False,
        state=state,
        from_index=0,
        grid=Grid(root="decode", origin="0", step="2", first=0),
        task={},
        services=services,
        readers={
            "sources": ("decode",),
            "windows": ("caption", "detect.m"),
            "detections": ("dedup",),
            "events": ("ensemble",),
        },
        lag="block",
    )
    return encode(record, partitions=PARTITIONS, time=TIME, sub=(f"1.{revision}",))


def coverage(service: str, *, hour: int = 0, generation: int = 1, **said: Any) -> Entry:
    base: dict[str, Any] = {
        "root": "decode",
        "ended": False,
        "done": (),
        "failed": (),
        "skipped": (),
        "missing": (),
        "taken": (),
    }
    record = Coverage(
        id=f"{service}/decode/match1/{generation}/{hour}",
        stream="match1",
        service=service,
        generation=generation,
        hour=hour,
        **(base | said),
    )
    return encode(record, partitions=PARTITIONS, time=TIME, sub=(service, "decode", str(generation), str(hour)))


def window(index: int) -> Entry:
    place: dict[str, Any] = {"stream": "match1", "generation": 1, "revision": 1, "index": index, "outcome": "done"}
    identity = record_id("decode", "decode", "match1", 1, index)
    record = Window(
        id=identity, service="decode", root="decode", start_ms=2000 * index, end_ms=2000 * index + 4000, **place
    )
    return encode(record, partitions=PARTITIONS, time=TIME)


async def test_lag_is_what_a_service_has_not_done_and_who_holds_what_is_told() -> None:
    async def work(bus: Bus) -> Status:
        await bus.publish([source(), *(window(i) for i in range(5))])
        home = partition_of("match1", PARTITIONS)
        async with bus.join("caption", ["windows"], weights=lambda: [1] * PARTITIONS) as membership:
            leases = membership.leases()
            async for lease in leases:
                if lease.partition == home:
                    first = (await bus.span("windows", home)).begin
                    await lease.land(Landing(serial=1, progress={"windows": first + 2}))
                    break
            found = await look(bus)
            await membership.leave()
        return found

    found = await on_a_bus(work)
    by = {s.service: s for s in found.services}
    assert by["caption"].lag == 3
    assert list(by["caption"].members.values()) == [[0, 1, 2, 3]]
    assert by["detect.m"].lag == 5, "a service that never landed has everything to do"
    assert by["detect.m"].members == {}
    assert by["decode"].reads == ["sources"]


async def test_coverage_is_told_by_service_in_seconds_over_all_its_hours() -> None:
    async def work(bus: Bus) -> Status:
        await bus.publish(
            [
                source(),
                coverage("decode", done=((0, 3_600_000),), taken=((0, 1800),)),
                coverage(
                    "decode", hour=1, done=((3_600_000, 3_610_000),), taken=((1800, 1806),), ended=True, count=1805
                ),
                coverage(
                    "caption", done=((0, 8000),), failed=((8000, 10_000),), taken=((0, 5),), missing=((10_000, 12_000),)
                ),
                coverage("caption", generation=0, done=((0, 99_000),)),
            ]
        )
        return await look(bus)

    [stream] = (await on_a_bus(work)).streams
    by = {a.service: a for a in stream.accounts}
    assert (by["decode"].done_s, by["decode"].behind_s, by["decode"].complete) == (3610, 0, True)
    told = by["caption"]
    assert (told.done_s, told.failed_s, told.missing_s, told.behind_s, told.complete) == (8, 2, 2, 3600, False)
    assert (by["dedup"].done_s, by["dedup"].behind_s) == (0, 3610), "named, and silent so far"


async def test_between_numbers_that_are_no_times_nothing_is_missing() -> None:
    async def work(bus: Bus) -> Status:
        first = source()
        judge = coverage("ensemble", root="dedup", done=((4000, 8000), (90_000, 94_000)), missing=((8000, 90_000),))
        await bus.publish([first, coverage("decode", done=((0, 100_000),), taken=((0, 50),)), judge])
        return await look(bus)

    [stream] = (await on_a_bus(work)).streams
    by = {a.service: a for a in stream.accounts}
    assert (by["ensemble"].done_s, by["ensemble"].missing_s, by["ensemble"].behind_s) == (8, 0, None)
    assert by["decode"].behind_s == 0


def test_endpoints_of_the_settings_are_told_with_whether_they_answer(capsys: pytest.CaptureFixture[str]) -> None:
    async def nothing(bus: Bus) -> None:
        return

    asyncio.run(on_a_bus(nothing))
    Path("streamproc.toml").write_text(
        '[endpoints.gone]\ncard = "openai-compatible"\nurls = ["http://127.0.0.1:9/v1"]\n'
    )
    assert exit_code(build(), ["status", "--json"]) == Code.DONE
    [told] = json.loads(capsys.readouterr().out)["endpoints"]
    assert told["endpoint"] == "gone at http://127.0.0.1:9/v1"
    assert told["reachable"] is False


def test_a_url_that_nobody_named_is_not_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may call the model elsewhere; that its card's usual place is silent says nothing."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    async def work(bus: Bus) -> None:
        await bus.publish([source(services=("decode", "detect.qwen2.5-vl-7b"))])

    asyncio.run(on_a_bus(work))
    assert exit_code(build(), ["status", "--json"]) == Code.DONE
    [told] = json.loads(capsys.readouterr().out)["endpoints"]
    assert (told["endpoint"], told["reachable"]) == ("qwen2.5-vl-7b", None)
    assert "no URL is named for it here" in told["seen"]
    assert exit_code(build(), ["status"]) == Code.DONE
    assert "qwen2.5-vl-7b  not asked  no URL" in capsys.readouterr().out
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert exit_code(build(), ["status", "--json"]) == Code.DONE
    [told] = json.loads(capsys.readouterr().out)["endpoints"]
    assert (told["endpoint"], told["reachable"]) == ("qwen2.5-vl-7b at http://127.0.0.1:9/v1", False)


async def test_who_was_never_asked_is_told_apart_from_who_is_behind() -> None:
    async def work(bus: Bus) -> Status:
        await bus.publish([source(), coverage("caption", done=((0, 2000),), taken=((0, 1),))])
        async with bus.join("dedup", ["detections"], weights=lambda: [1] * PARTITIONS) as membership:
            found = await look(bus)
            await membership.leave()
        return found

    [stream] = (await on_a_bus(work)).streams
    assert {a.service for a in stream.accounts if a.asked} == {"caption", "dedup"}


def test_coverage_names_those_that_were_never_asked(capsys: pytest.CaptureFixture[str]) -> None:
    async def work(bus: Bus) -> None:
        done = coverage("caption", done=((0, 2000),), taken=((0, 2),), ended=True, count=1)
        await bus.publish(
            [source(services=("caption", "dedup", "detect.m")), done, coverage("dedup", failed=((0, 9),))]
        )

    asyncio.run(on_a_bus(work))
    assert exit_code(build(), ["coverage", "match1"]) == Code.INCOMPLETE
    told = {row.split()[0]: " ".join(row.split()[5:]) for row in capsys.readouterr().out.splitlines() if row}
    assert (told["caption"], told["dedup"], told["detect.m"]) == ("yes", "", "not asked so far")


async def test_what_stands_still_is_named_with_whom_it_waits_for() -> None:
    async def work(bus: Bus) -> Status:
        await bus.publish([source(), window(0)])
        async with bus.join("dedup", ["detections"], weights=lambda: [1] * PARTITIONS) as membership:
            found = await look(bus)
            await membership.leave()
        return found

    waits = (await on_a_bus(work)).waits
    assert "detect.m has 1 records to do, and nobody works in it" in waits
    assert "match1: dedup waits for detect.m, and nobody works in it" in waits
    assert not [w for w in waits if "dedup has" in w]


async def test_nobody_is_waited_for_where_a_stream_was_removed_and_its_rows_have_gone() -> None:
    async def work(bus: Bus) -> Status:
        await bus.publish([source(state="removed")])
        async with bus.join("dedup", ["detections"], weights=lambda: [1] * PARTITIONS) as membership:
            found = await look(bus)
            await membership.leave()
        return found

    found = await on_a_bus(work)
    assert [(s.stream, s.state, s.accounts) for s in found.streams] == [("match1", "removed", [])]
    assert found.waits == []


async def test_the_newest_revision_of_a_source_is_the_one_that_counts() -> None:
    async def work(bus: Bus) -> Status:
        await bus.publish([source(revision=2, state="paused"), source(revision=1)])
        return await look(bus)

    [stream] = (await on_a_bus(work)).streams
    assert stream.state == "paused"


def test_status_is_one_json_document_and_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    async def work(bus: Bus) -> None:
        await bus.publish([source(), window(0), coverage("decode", done=((0, 2000),), taken=((0, 1),))])

    asyncio.run(on_a_bus(work))
    assert exit_code(build(), ["status", "--json"]) == Code.DONE
    told = json.loads(capsys.readouterr().out)
    assert {s["service"] for s in told["services"]} == {"caption", "decode", "dedup", "detect.m", "ensemble"}
    assert told["streams"][0]["stream"] == "match1"
    assert exit_code(build(), ["status"]) == Code.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["service", "members", "partitions", "held", "lag", "reads"]
    assert any(row.split()[:4] == ["match1", "active", "decode", "2.0"] for row in lines)


def test_on_an_empty_bus_there_is_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    async def nothing(bus: Bus) -> None:
        return

    asyncio.run(on_a_bus(nothing))
    assert exit_code(build(), ["status"]) == Code.DONE
    assert "nothing to do" in capsys.readouterr().out
