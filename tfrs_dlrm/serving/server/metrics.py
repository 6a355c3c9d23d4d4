"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tfrs_dlrm.serving.runtime.signature import Signature
from tfrs_dlrm.serving.server.admission import Call
from tfrs_dlrm.serving.server.tf_serving_metrics import TfServingMetrics

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """The counters of one server.

    A request that names no model, version or signature that is served has empty labels, so that it makes no new series.
    """

    def __init__(self) -> None:
        self._tf_serving = TfServingMetrics()
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "tfrs_dlrm_requests",
            "Requests answered.",
            ["api", "method", "code", "model", "version", "signature"],
            registry=registry,
        )
        self.latency = Histogram(
            "tfrs_dlrm_request_seconds",
            "Time from the complete request to its answer.",
            ["api", "method", "model", "signature"],
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

    def count_request(self, call: Call) -> None:
        """Counts a request that was answered or refused."""
        version = "" if call.version is None else str(call.version)
        self.requests.labels(call.api, call.method, call.code, call.model, version, call.signature).inc()
        self.latency.labels(call.api, call.method, call.model, call.signature).observe(call.seconds)
        self._tf_serving.count(call)

    def count_answer(self, model: str, signature: Signature, seconds: float, rows: int) -> None:
        """Counts the run of a request, with the wait for a place in a batch."""
        method = signature.method.rpartition("/")[2]
        self._tf_serving.count_run(model, method, seconds, rows if method in ("regress", "classify") else 0)

    def forget_versions(self, model: str, known: Collection[int]) -> None:
        """Ends the series of the versions of a model that are not known any more."""
        kept = {str(number) for number in known}
        for metric in (self.requests, self.loaded):
            samples = [sample for family in metric.collect() for sample in family.samples]
            versions = {sample.labels["version"] for sample in samples if sample.labels["model"] == model}
            for version in versions - kept - {""}:
                metric.remove_by_labels({"model": model, "version": version})

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

    def tf_serving_text(self) -> bytes:
        """Returns the metrics under TF Serving's names, and then all others."""
        return self._tf_serving.text().encode() + self.text()

    def texts(self, tf_serving: bool) -> bytes:
        """Returns `tf_serving_text` or `text`."""
        return self.tf_serving_text() if tf_serving else self.text()
