"""What others see of a process: `/health/live`, `/health/ready` (also `/health`), `/metrics`.

Runners count in plain integers; here they are read when somebody asks, so that being watched costs nothing per record.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Histogram, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamproc.runner.health import Health
from streamproc.runner.runner import Runner
from streamproc.runner.service import Service
from streamproc.stage import Follow

SESSION_S = 10.0
NOTICED_S = 1.0
"""A service that is started later is watched from then on."""
LANDING_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

HERE = """/health (as /health/ready): 200 where every service here can work, else 503 and why; /health/live: 200
/metrics: for Prometheus
"""

COUNTERS = {
    "records_in": "Records read",
    "records_out": "Outcomes written",
    "passed_over": "Records of streams that do not name the service",
    "duplicate": "Records dropped because their number had been taken",
    "late": "Records that came after their row had gone without them, and services rows did not wait for",
    "dead": "Dead letters",
    "failed": "Outcomes: failed",
    "skipped": "Outcomes: skipped",
    "expired": "Records or offsets that expired unread",
    "bugs": "Errors raised by stages that are none of ours",
    "landings": "Landings",
    "landed": "Records landed, dead letters among them, coverage not",
    "landed_bytes": "Bytes landed, outputs only",
    "unseen_ends": "Landings whose end nobody saw",
    "fenced": "Leases lost to another owner",
    "handed_over": "Leases finished and released because another member should have them",
    "cut": "Drains and hand-overs that gave up on calls still in flight",
}


class Services(Collector):
    """All services of this process as metrics."""

    def __init__(self, services: Sequence[Service], *, session_s: float = SESSION_S) -> None:
        self.services = services
        self._session_s = session_s
        self._health: dict[str, Health] = {}
        self.landing = Histogram(
            "streamproc_landing_seconds",
            "From cut to landed",
            ["service"],
            buckets=LANDING_BUCKETS_S,
            registry=None,
        )

    def health(self, service: Service) -> Health:
        if service.name not in self._health:
            self._health[service.name] = Health(service, session_s=self._session_s)
        return self._health[service.name]

    def collect(self) -> Iterable[Metric]:
        yield from self._counters()
        yield from self._gauges()
        yield self._feeds()
        for service in self.services:
            seconds, service.shared.counts.landing_s = service.shared.counts.landing_s, []
            for one in seconds:
                self.landing.labels(service.name).observe(one)
        yield from self.landing.collect()

    def _counters(self) -> Iterator[Metric]:
        for name, about in COUNTERS.items():
            family = CounterMetricFamily(f"streamproc_{name}", about, labels=["service"])
            for service in self.services:
                family.add_metric([service.name], getattr(service.shared.counts, name))
            yield family
        retried = CounterMetricFamily("streamproc_retried", "Calls tried again", labels=["service"])
        for service in self.services:
            retried.add_metric([service.name], service.shared.attempts.retried)
        yield retried

    def _gauges(self) -> Iterator[Metric]:
        said: dict[tuple[str, str], dict[str, float]] = {}
        for service in self.services:
            runners, health = list(service.runners.values()), self.health(service)
            for key, value in {
                ("in_flight", "Calls under way"): service.shared.slots.used,
                ("in_flight_limit", "Calls that may be under way at once"): service.shared.slots.count,
                ("in_flight_bytes", "Bytes of records in hand"): service.shared.load.bytes,
                ("parked", "Records that wait in the state, for a table or for their turn"): _parked(runners),
                ("unlanded", "Entries and changes waiting for the next landing"): sum(r.book.size for r in runners),
                ("leases", "Partitions held"): float(len(runners)),
                ("circuit_open", "1: the endpoint is out, no calls but one that looks"): service.shared.circuit.open,
                ("ready", "1: has joined, the bus answers, and it works on what it holds"): not health.why_not(),
                ("landing_under_way_seconds", "Since the oldest landing under way began; 0: none is"): health.landing_s,
            }.items():
                said.setdefault(key, {})[service.name] = float(value)
            for key, known in {
                ("lag_records", "Records landed and not done, over the partitions held; absent: unknown"): health.lag,
                (
                    "lag_stream_seconds",
                    "Stream time read and not accounted for, of the stream that is furthest behind; absent: unknown",
                ): max((r.behind_ms for r in runners), default=0) / 1000 if health.known else None,
            }.items():
                if known is not None:
                    said.setdefault(key, {})[service.name] = known
        for (name, about), values in said.items():
            family = GaugeMetricFamily(f"streamproc_{name}", about, labels=["service"])
            for service_name, value in values.items():
                family.add_metric([service_name], value)
            yield family

    def _feeds(self) -> Metric:
        """A series per feed that this process follows, and none of others."""
        about = "Since the last frame of a feed that is decoded here came, or since it has been followed in vain"
        family = GaugeMetricFamily("streamproc_feed_last_frame_seconds", about, labels=["stream"])
        for service in self.services:
            if isinstance(service.stage, Follow):
                for stream, silent_s in service.stage.silent_s().items():
                    family.add_metric([stream], silent_s)
        return family

    async def watch(self) -> None:
        """Each service by itself: one whose topic does not answer keeps no other waiting."""
        watched = set[str]()
        async with asyncio.TaskGroup() as tasks:
            while True:
                for service in self.services:
                    if service.name not in watched:
                        watched.add(service.name)
                        tasks.create_task(self.health(service).watch())
                await asyncio.sleep(NOTICED_S)


def _parked(runners: Sequence[Runner]) -> int:
    return sum(len(r.book.parked) for r in runners)


def app(services: Services, registry: CollectorRegistry) -> FastAPI:
    registry.register(services)
    api = FastAPI(title="streamproc", docs_url=None, redoc_url=None, openapi_url=None)

    @api.get("/")
    async def here() -> PlainTextResponse:
        return PlainTextResponse(HERE)

    @api.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @api.get("/health")
    @api.get("/health/ready")
    async def is_ready() -> JSONResponse:
        why = {s.name: services.health(s).why_not() for s in services.services}
        said: dict[str, Any] = {"ready": not any(why.values()), "services": {name: not no for name, no in why.items()}}
        if any(why.values()):
            said["why"] = {name: no for name, no in why.items() if no}
        return JSONResponse(said, 503 if "why" in said else 200)

    @api.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition.generate_latest(registry), media_type=exposition.CONTENT_TYPE_LATEST)

    return api


class _Server(uvicorn.Server):
    """Leaves the process's signals alone: draining is the business of whoever runs the services."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listening(host: str, port: int) -> socket.socket:
    """Where to serve; at any free port where `port` is 0. Raises OSError."""
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


@contextlib.asynccontextmanager
async def observed(
    services: Sequence[Service],
    *,
    at: socket.socket,
    registry: CollectorRegistry | None = None,
    session_s: float = SESSION_S,
) -> AsyncIterator[None]:
    """Serve for as long as the context lasts. `registry`: what else of the process is to be seen; `session_s` of the bus."""
    collector = Services(services, session_s=session_s)
    api = app(collector, registry or CollectorRegistry())
    # Its own set-up of logging would close the handlers of everybody else in the process.
    config = uvicorn.Config(api, log_config=None, log_level="warning", access_log=False, lifespan="off")
    server = _Server(config)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve([at]))
        watching = tasks.create_task(collector.watch())
        while not server.started:  # noqa: ASYNC110  # it has no event to wait for
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            watching.cancel()
            server.should_exit = True
