"""Every call in numbers for Prometheus: what went out to which model, how it ended, how long it took, what it cost.

Labels are bounded by the settings: models, URLs and classes of errors. No stream, no prompt, no key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamproc.models.budget import Budgets
from streamproc.models.desk import Record
from streamproc.models.pool import Pool, Status

BUCKETS: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)
"""A small model answers in a tenth of a second, one that thinks in minutes."""

CIRCUIT: Final = {"closed": 0, "trying": 1, "open": 2}


class Meter:
    """Give it to the pool as `record`, and `watch` the pool."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._calls = Counter(
            "streamproc_endpoint_calls", "Calls sent, by how they ended.", ["model", "outcome"], registry=registry
        )
        self._hedges = Counter(
            "streamproc_endpoint_hedges", "Calls that went a second time, elsewhere.", ["model"], registry=registry
        )
        self._seconds = Histogram(
            "streamproc_endpoint_call_seconds",
            "From sending a call to its answer.",
            ["model"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._tokens = Counter(
            "streamproc_endpoint_tokens", "Tokens; `in` has the cached ones too.", ["model", "kind"], registry=registry
        )
        self._sent = Counter("streamproc_endpoint_sent_bytes", "Bodies of calls.", ["model"], registry=registry)

    def record(self, record: Record) -> None:
        self._calls.labels(record.model, record.outcome).inc(record.calls)
        if record.hedge:
            self._hedges.labels(record.model).inc()
        if record.outcome == "done":
            self._seconds.labels(record.model).observe(record.seconds)
            self._sent.labels(record.model).inc(record.sent_bytes)
        if (tokens := record.tokens) is not None:
            for kind, count in (("in", tokens.into), ("cached", tokens.cached), ("out", tokens.out)):
                self._tokens.labels(record.model, kind).inc(count)

    def watch(self, pool: Pool) -> None:
        self._registry.register(_Standing(pool.status))
        self._registry.register(_Purse(pool.budgets))


class _Purse(Collector):
    """Budgets of sources and tasks, as the settings name them."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets

    def collect(self) -> Iterable[Metric]:
        share = GaugeMetricFamily("streamproc_budget_spent_ratio", "1: nothing is left.", labels=["budget"])
        smaller = CounterMetricFamily("streamproc_budget_smaller", "Calls made smaller for it.", labels=["budget"])
        left_out = CounterMetricFamily("streamproc_budget_left_out", "Calls not made for it.", labels=["budget"])
        for name, spent in self._budgets.spent.items():
            share.add_metric([name], self._budgets.share(name))
            smaller.add_metric([name], spent.smaller)
            left_out.add_metric([name], spent.left_out)
        return [share, smaller, left_out]


class _Standing(Collector):
    """What holds at the moment somebody looks."""

    def __init__(self, status: Callable[[], tuple[Status, ...]]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        def gauge(name: str, text: str, labels: list[str]) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"streamproc_endpoint_{name}", text, labels=labels)

        in_flight = gauge("in_flight", "Calls under way.", ["model", "url"])
        limit = gauge("limit", "Calls at a time, as found.", ["model", "url"])
        circuit = gauge("circuit", "0 closed, 1 trying, 2 open.", ["model", "url"])
        waiting = gauge("waiting", "Calls in line.", ["model"])
        quota = gauge("quota_wait_seconds", "Until a spent quota begins anew, or is looked at again.", ["model"])
        for status in self._status():
            for replica in status.replicas:
                labels = [status.model, replica.url]
                in_flight.add_metric(labels, replica.in_flight)
                limit.add_metric(labels, replica.limit)
                circuit.add_metric(labels, CIRCUIT[replica.circuit])
            waiting.add_metric([status.model], sum(r.waiting for r in status.replicas))
            quota.add_metric([status.model], status.waits_s)
        return [in_flight, limit, circuit, waiting, quota]
