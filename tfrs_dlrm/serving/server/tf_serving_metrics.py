"""The metrics that TF Serving's dashboards read, under its names and with its labels and buckets.

Sources, below tensorflow_serving/: servables/tensorflow/util.cc (names, labels, buckets),
model_servers/prediction_service_impl.cc (what is counted) and util/prometheus_exporter.cc (the text).
"""

from __future__ import annotations

import bisect
import itertools

from tfrs_dlrm.serving.server.admission import Call

_MICROSECONDS = tuple(10 * 1.8**n for n in range(33))
_EXAMPLES = tuple(2.0**n for n in range(15))
_ENTRYPOINTS = {"grpc": "GRPC", "rest": "REST"}
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_METHODS = ("predict", "regress", "classify")


class _Histogram:
    def __init__(self, limits: tuple[float, ...]):
        self.limits, self.counts, self.sum = limits, [0] * (len(limits) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_right(self.limits, value)] += 1
        self.sum += value


class TfServingMetrics:
    """Counts the requests of a server."""

    def __init__(self) -> None:
        self._requests: dict[str, int] = {}
        self._examples: dict[str, int] = {}
        self._latency: dict[str, _Histogram] = {}
        self._runtime: dict[str, _Histogram] = {}
        self._example_counts: dict[str, _Histogram] = {}

    def count(self, call: Call) -> None:
        """Counts a request: of `predict`, `regress` or `classify`, and of a known model, so that it makes no series."""
        if call.method not in _METHODS or not call.model:
            return
        labels = _labels(model_name=call.model, status=call.code)
        self._requests[labels] = self._requests.get(labels, 0) + 1
        if call.code == "OK":
            called = call.method.capitalize() if call.api == "grpc" else call.method
            labels = _labels(model_name=call.model, API=called, entrypoint=_ENTRYPOINTS[call.api])
            self._latency.setdefault(labels, _Histogram(_MICROSECONDS)).add(call.seconds * 1e6)

    def count_run(self, model: str, method: str, seconds: float, examples: int) -> None:
        """Counts the run of a request.

        Args:
          model: its model.
          method: `predict`, `regress` or `classify`.
          seconds: of TensorFlow, with the wait for a place in a batch.
          examples: tf.Examples of the request; 0 for a request of tensors.
        """
        labels = _labels(model_name=model, API=method.capitalize(), runtime="TF1")
        self._runtime.setdefault(labels, _Histogram(_MICROSECONDS)).add(seconds * 1e6)
        if examples:
            labels = _labels(model=model)
            self._examples[labels] = self._examples.get(labels, 0) + examples
            self._example_counts.setdefault(labels, _Histogram(_EXAMPLES)).add(examples)

    def text(self) -> str:
        """Returns all metrics in Prometheus' text format."""
        lines = _counter("request_count", self._requests)
        lines += _counter("request_example_count_total", self._examples)
        lines += _histogram("request_latency", self._latency)
        lines += _histogram("runtime_latency", self._runtime)
        lines += _histogram("request_example_counts", self._example_counts)
        return "".join(f"{line}\n" for line in lines)


def _labels(**labels: str) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())


def _counter(name: str, series: dict[str, int]) -> list[str]:
    if not series:
        return []
    name = f":tensorflow:serving:{name}"
    return [f"# TYPE {name} counter", *(f"{name}{{{labels}}} {count}" for labels, count in series.items())]


def _histogram(name: str, series: dict[str, _Histogram]) -> list[str]:
    if not series:
        return []
    name = f":tensorflow:serving:{name}"
    lines = [f"# TYPE {name} histogram"]
    for labels, histogram in series.items():
        ends = [f"{limit:.6g}" for limit in histogram.limits] + ["+Inf"]
        totals = list(itertools.accumulate(histogram.counts))
        lines += [f'{name}_bucket{{{labels},le="{end}"}} {total}' for end, total in zip(ends, totals, strict=True)]
        lines += [f"{name}_sum{{{labels}}} {histogram.sum:.6g}", f"{name}_count{{{labels}}} {totals[-1]}"]
    return lines
