"""Metrics for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "tfrs_dlrm_requests", "Requests answered.", ["api", "method", "code"], registry=registry
        )
        self.latency = Histogram(
            "tfrs_dlrm_request_seconds",
            "Time from the complete request to its answer.",
            ["api", "method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "tfrs_dlrm_batch_rows",
            "Rows of a run.",
            buckets=[2**n for n in range(13)],
            registry=registry,
        )
        self.batch_requests = Histogram(
            "tfrs_dlrm_batch_requests",
            "Requests merged into a run.",
            buckets=[2**n for n in range(9)],
            registry=registry,
        )
        self.in_flight = Gauge("tfrs_dlrm_requests_in_flight", "Requests being answered.", registry=registry)
        self.loaded = Gauge(
            "tfrs_dlrm_version_loaded", "1 for a version that is loaded.", ["model", "version"], registry=registry
        )
        self.log_rows = Counter("tfrs_dlrm_request_log_rows", "Rows logged.", ["model"], registry=registry)
        self.log_failed = Counter(
            "tfrs_dlrm_request_log_failed_rows",
            "Rows chosen for the log that could not be written.",
            ["model"],
            registry=registry,
        )
        self.refused = Counter("tfrs_dlrm_versions_refused", "Versions refused.", ["model"], registry=registry)

    def count_run(self, rows: int, requests: int) -> None:
        """Counts a run of merged requests."""
        self.batch_rows.observe(rows)
        self.batch_requests.observe(requests)

    def count_logged(self, model: str, written: int, failed: int) -> None:
        """Counts rows of the request log of a model."""
        self.log_rows.labels(model).inc(written)
        self.log_failed.labels(model).inc(failed)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
