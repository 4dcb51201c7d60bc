"""Spans at a real collector: OTLP over HTTP, decoded with OpenTelemetry's own messages."""

from __future__ import annotations

import asyncio
import gzip
import logging
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from streamproc.errors import Rejected, Retryable
from streamproc.messages import Detection, Record, Seconds, Source, Tokens, Window
from streamproc.runner.tracing import traced
from streamproc.stage import Each, Look, Row
from tests.runner.rig import Rig
from tests.runner.test_fold import Collect
from tests.runner.test_state import Count


@dataclass
class Collector:
    """What an OpenTelemetry collector does at `/v1/traces`: take, decode, keep."""

    spans: list[tuple[str, Span]] = field(default_factory=list)
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        said = ExportTraceServiceRequest.FromString(body)
        for of in said.resource_spans:
            name = next(a.value.string_value for a in of.resource.attributes if a.key == "service.name")
            self.spans += [(name, span) for scope in of.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Collector]:
        collector, app = cls(), web.Application()
        app.router.add_post("/v1/traces", collector.take)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield collector
        finally:
            await runner.cleanup()

    def of(self, service: str, name: str | None = None) -> list[Span]:
        return [span for said, span in self.spans if said == service and span.name == (name or service)]


def about(span: Span) -> dict[str, Any]:
    return {a.key.removeprefix("streamproc."): getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


class Ask(Each):
    """Window 1 takes two attempts, window 2 is rejected."""

    reads, writes = ("windows",), ("detections",)

    def __init__(self) -> None:
        self.refused = False

    async def handle(self, record: Window, look: Look) -> Detection:
        await asyncio.sleep(0.05)
        if record.index == 1 and not self.refused:
            self.refused = True
            raise Retryable("500")
        if record.index == 2:
            raise Rejected("400: too many images")
        seconds, tokens = Seconds(queued=0.01, served=0.02), Tokens(into=100, out=7)
        return Detection.of(record, events=(), model="qwen", seconds=seconds, tokens=tokens)


class Quiet(Collect):
    """Tells nothing of row 0."""

    async def fold(self, row: Row, state: Any, look: Look) -> tuple[Sequence[Record], Any]:
        return ([], None) if row.index == 0 else await super().fold(row, state, look)


async def run(rig: Rig, source: Source, url: str | None) -> None:
    loop = asyncio.get_running_loop()
    stages = {"decode": Count(), "detect.a": Ask(), "dedup": Quiet("detect.a")}
    async with traced(url, now=loop.time, rng=random.Random(3)) as tracing:
        services = [rig.service(name, s, tracing=tracing, rng=random.Random(name)) for name, s in stages.items()]
        tasks = [asyncio.create_task(s.run()) for s in services]
        await rig.until(lambda: any(r.ended for r in rig.records("events")), every_s=0.02)
        for service in services:
            await service.drain()
        await asyncio.gather(*tasks)


async def test_every_outcome_is_a_span_below_that_of_what_it_answers_and_every_landing_is_one() -> None:
    rig = Rig.of()
    async with Collector.running() as collector:
        await run(rig, rig.source("m", "decode", "detect.a", "dedup", count=3), collector.url + "/")
    windows, detections, rows = (collector.of(s) for s in ("decode", "detect.a", "dedup"))
    assert [len(spans) for spans in (windows, detections, rows)] == [4, 4, 4]
    said = {
        about(span)["index"]: (about(span)["stream"], about(span)["outcome"], about(span)["attempts"])
        for span in detections
    }
    assert said == {0: ("m", "done", 1), 1: ("m", "done", 2), 2: ("m", "failed", 1), 3: ("m", "done", 0)}
    (failed,) = [span for span in detections if about(span)["index"] == 2]
    assert (failed.status.code, failed.status.message) == (2, "400: too many images")
    assert about(failed)["reason"] == "400: too many images"
    by_id = {span.span_id: span for _, span in collector.spans}
    for span in (*detections, *rows):
        parent = by_id[span.parent_span_id]
        assert parent.trace_id == span.trace_id
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    assert {by_id[span.parent_span_id].name for span in detections} == {"decode"}
    assert {by_id[span.parent_span_id].name for span in rows} == {"detect.a"}
    assert all(not span.parent_span_id for span in windows)
    for name, spans in (("windows", windows), ("detections", detections)):
        headers = {(s.header("traceparent") or b"").decode() for s in rig.records_at(name)}
        assert headers == {f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" for span in spans}
    landings = collector.of("detect.a", "detect.a land")
    assert sum(about(span)["records"] for span in landings) >= 4
    assert len({(about(span)["partition"], about(span)["serial"]) for span in landings}) == len(landings)


async def test_a_model_call_is_a_span_of_its_own_below_its_outcome() -> None:
    rig = Rig.of()
    async with Collector.running() as collector:
        await run(rig, rig.source("m", "decode", "detect.a", "dedup", count=3), collector.url)
    calls = collector.of("detect.a", "call qwen")
    outcomes = {span.span_id: span for span in collector.of("detect.a")}
    assert sorted(about(outcomes[call.parent_span_id])["index"] for call in calls) == [0, 1]
    for call in calls:
        above = outcomes[call.parent_span_id]
        assert above.start_time_unix_nano <= call.start_time_unix_nano < call.end_time_unix_nano
        assert call.end_time_unix_nano - call.start_time_unix_nano == pytest.approx(20_000_000, abs=1000)
        assert about(call)["gen_ai.usage.input_tokens"] == 100


async def test_hostile_parents_begin_a_trace_of_their_own_and_an_unsampled_one_is_left_out() -> None:
    rig = Rig.of()
    source = rig.source("m", "detect.a", count=9)
    parents = [
        b"00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01",
        b"\xff\xfe",
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00",
    ]
    for index, parent in zip((0, 3, 4), parents, strict=True):
        entry = rig.window(source, index)
        rig.log.append([replace(entry, headers=(*entry.headers, ("traceparent", parent)))])
    async with (
        Collector.running() as collector,
        traced(collector.url, now=asyncio.get_running_loop().time) as tracing,
        rig.running("detect.a", Ask(), tracing=tracing),
    ):
        await rig.until(lambda: len(rig.records("detections")) >= 4, every_s=0.02)
    spans = collector.of("detect.a")
    assert sorted(about(span)["index"] for span in spans) == [0, 1, 3], "1 and 2 are a hole, 4 is not sampled"
    assert all(not span.parent_span_id and any(span.trace_id) for span in spans)


async def test_a_collector_that_is_out_of_reach_holds_nothing_up(
    caplog: pytest.LogCaptureFixture, unused_tcp_port: int
) -> None:
    rig = Rig.of()
    caplog.set_level(logging.CRITICAL)
    await run(rig, rig.source("m", "decode", "detect.a", "dedup", count=3), f"http://127.0.0.1:{unused_tcp_port}")
    assert any(r.ended for r in rig.records("events"))


def test_nothing_of_opentelemetry_is_imported_where_no_collector_is_named() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import asyncio, sys, time; from streamproc.runner.tracing import traced; from streamproc.runner import Service\n"
            "assert asyncio.run(traced(None, now=time.time).__aenter__()) is None\n"
            "print([m for m in sys.modules if m.startswith('opentelemetry')])",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert said.stdout.strip() == "[]"


def test_without_the_extra_the_missing_package_is_named_and_work_goes_on() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import asyncio, sys, time; sys.modules['opentelemetry.sdk.trace.export'] = None\n"
            "from streamproc.runner.tracing import traced\n"
            "assert asyncio.run(traced('http://127.0.0.1:1', now=time.time).__aenter__()) is None",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "pip install 'streamproc[otel]'" in said.stderr
