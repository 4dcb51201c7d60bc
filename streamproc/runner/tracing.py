"""Traces for whoever collects them: spans of what the headers already tie together, sent by OTLP over HTTP.

Every outcome carries a `traceparent`; here the span that it names gets its times and what became of it, below the span of
the record it answers. It is told when the record is said; whether that lands, the span of the landing shows.

OpenTelemetry comes with the extra `otel`, and is imported when a collector is named, not before. Spans wait in a bounded
queue and leave it by a thread; where it is full they are dropped: watching holds nothing up.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamproc.messages import Answer, Record
from streamproc.wire import read_traceparent

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import SpanContext

log = logging.getLogger(__name__)

PATH = "/v1/traces"

Value = str | int | float


@asynccontextmanager
async def traced(
    collector: str | None, *, now: Callable[[], float], rng: random.Random | None = None
) -> AsyncIterator[Tracing | None]:
    """To the collector at this base URL, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it; what waits is sent at the end.

    None where no collector is named, or the extra is not installed.
    """
    processor = _exporting(collector) if collector else None
    if processor is None:
        yield None
        return
    try:
        yield Tracing(processor, now=now, rng=rng or random.Random())
    finally:
        await asyncio.to_thread(processor.shutdown)


def _exporting(collector: str) -> SpanProcessor | None:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as e:
        log.warning("no traces go to %s: %s. Install the extra: pip install 'streamproc[otel]'", collector, e)
        return None
    return BatchSpanProcessor(OTLPSpanExporter(collector.rstrip("/") + PATH))


@dataclass(slots=True)
class Handling:
    """What it took to come to an outcome."""

    parents: Sequence[str | None]
    """The traceparents of what it answers."""
    began_s: float | None = None
    attempts: int = 0

    def begins(self, now: Callable[[], float]) -> None:
        """Another attempt; the time of handling is counted from the first."""
        self.attempts += 1
        if self.began_s is None:
            self.began_s = now()


class Tracing:
    """Of one process, shared by its services."""

    def __init__(self, processor: SpanProcessor, *, now: Callable[[], float], rng: random.Random) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk import resources
        from opentelemetry.sdk.trace import ReadableSpan

        self._processor, self.now, self._rng = processor, now, rng
        self._otel, self._span, self._resource = trace, ReadableSpan, resources.Resource
        self._resources: dict[str, Resource] = {}

    def outcome(self, service: str, said: str | None, record: Record, *, index: int, handling: Handling) -> None:
        """A record that has been said, under `index`: the span that its `traceparent` names, and the call that it took."""
        span = read_traceparent(said)
        if span is None:
            return
        ended_s = self.now()
        began_s = ended_s if handling.began_s is None else handling.began_s
        first, *others = handling.parents or (None,)
        about: dict[str, Value] = {
            "streamproc.stream": record.stream,
            "streamproc.generation": record.generation,
            "streamproc.index": index,
            "streamproc.outcome": record.outcome,
            "streamproc.attempts": handling.attempts,
        }
        if record.reason:
            about["streamproc.reason"] = record.reason
        failed = (record.reason or "failed") if record.outcome == "failed" else None
        self._end(service, service, span, first, began_s, ended_s, about, failed, others)
        if isinstance(record, Answer) and record.model and record.seconds:
            self._call(service, record, span, max(began_s, ended_s - record.seconds.served), ended_s)

    def _call(self, service: str, answer: Answer, caller: tuple[int, int, int], began_s: float, ended_s: float) -> None:
        """The model's part. Its answer says how long that was, and no more: it is taken to end where the handling does."""
        trace, parent, flags = caller
        about: dict[str, Value] = {"gen_ai.request.model": answer.model or ""}
        if answer.tokens:
            about["gen_ai.usage.input_tokens"] = answer.tokens.into
            about["gen_ai.usage.output_tokens"] = answer.tokens.out
        if answer.seconds:
            about["streamproc.queued_s"] = answer.seconds.queued
        below = f"00-{trace:032x}-{parent:016x}-{flags:02x}"
        span = (trace, self._id(64), flags)
        self._end(f"call {answer.model}", service, span, below, began_s, ended_s, about, kind="CLIENT")

    def landing(
        self, service: str, partition: int, serial: int, *, records: int, size_bytes: int, took_s: float
    ) -> None:
        about: dict[str, Value] = {
            "streamproc.partition": partition,
            "streamproc.serial": serial,
            "streamproc.records": records,
            "streamproc.bytes": size_bytes,
        }
        ended_s = self.now()
        self._end(f"{service} land", service, (self._id(128), self._id(64), 1), None, ended_s - took_s, ended_s, about)

    def _id(self, bits: int) -> int:
        return self._rng.getrandbits(bits) or 1

    def _end(
        self,
        name: str,
        service: str,
        span: tuple[int, int, int],
        parent: str | None,
        began_s: float,
        ended_s: float,
        about: Mapping[str, Value],
        failed: str | None = None,
        others: Iterable[str | None] = (),
        *,
        kind: str = "INTERNAL",
    ) -> None:
        otel = self._otel
        status = otel.Status(otel.StatusCode.ERROR, failed) if failed else otel.Status()
        links = [otel.Link(found) for other in others if (found := self._context(read_traceparent(other), far=True))]
        self._processor.on_end(
            self._span(
                name,
                context=self._context(span),
                parent=self._context(read_traceparent(parent), far=True),
                resource=self._of(service),
                attributes={"streamproc.service": service, **about},
                links=links,
                kind=otel.SpanKind[kind],
                status=status,
                start_time=round(began_s * 1e9),
                end_time=round(ended_s * 1e9),
            )
        )

    def _context(self, span: tuple[int, int, int] | None, *, far: bool = False) -> SpanContext | None:
        if span is None:
            return None
        trace, own, flags = span
        return self._otel.SpanContext(trace, own, far, self._otel.TraceFlags(flags))

    def _of(self, service: str) -> Resource:
        """Each service is one to the collector, also where several share a process."""
        found = self._resources.get(service)
        if found is None:
            said = {"service.name": service, "service.namespace": "streamproc"}
            found = self._resources[service] = self._resource.create(said)
        return found
