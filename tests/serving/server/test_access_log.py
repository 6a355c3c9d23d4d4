"""Who asked what: the access log, JSON lines, trace contexts, and the metrics by TF Serving's names."""

import json
import logging
import re

import grpc
import numpy as np
import pytest
import serving_bundles
from absl import logging as absl_logging
from serving_bundles import predict_request
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tfrs_dlrm.serving.server.access_log import JsonFormatter, traceparent
from tfrs_dlrm.serving.server.admission import Admission, Call
from tfrs_dlrm.serving.server.metrics import Metrics
from tfrs_dlrm.serving.server.tf_serving_metrics import TfServingMetrics

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ROW = {"price": 4.0, "site": "abc", "slot": 8}


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (TRACE, TRACE),
        (TRACE.encode(), TRACE),
        (None, ""),
        ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", ""),
        ("ff" + TRACE[2:], ""),
        (TRACE.upper(), ""),
        (TRACE + "\n", ""),
        ("x" * 100_000, ""),
    ],
)
def test_only_trace_contexts_are_passed_on(given, passed):
    assert traceparent(given) == passed


def test_requests_are_logged_and_counted_by_tf_servings_names(tmp_path):
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            if hasattr(record, "fields"):
                lines.append(JsonFormatter().format(record))

    handler, verbosity = Lines(), absl_logging.get_verbosity()
    absl_logging.get_absl_logger().addHandler(handler)
    absl_logging.set_verbosity(absl_logging.INFO)
    serving_bundles.make(tmp_path / "clicks", 3)
    try:
        with serving_bundles.running(tmp_path / "clicks", access_log=True) as server:
            url, headers = f"{server.rest}/v1/models", {"traceparent": TRACE, "x-request-id": 'a"b'}
            answer = server.http.post(
                f"{url}/clicks:predict", content=json.dumps({"instances": [ROW]}), headers=headers
            )
            assert answer.headers["traceparent"] == TRACE
            examples = {"signature_name": "regress", "examples": [ROW, ROW]}
            server.http.post(f"{url}/clicks:regress", content=json.dumps(examples))
            server.http.post(f"{url}/clicks:predict", content="{")
            server.http.post(f"{url}/other:predict", content="{}")
            with grpc.insecure_channel(server.grpc) as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                row = {"price": np.float32([4]), "site": [b"abc"], "slot": np.int64([8])}
                _, call = stub.Predict.with_call(predict_request(row), metadata=(("traceparent", TRACE),))
            assert dict(call.trailing_metadata())["traceparent"] == TRACE
            text = server.http.get("/monitoring/prometheus/metrics").text
            assert ":tensorflow" not in server.http.get("/metrics").text
    finally:
        absl_logging.get_absl_logger().removeHandler(handler)
        absl_logging.set_verbosity(verbosity)
    logged = [json.loads(line) for line in lines]
    first = {key: value for key, value in logged[0].items() if key not in ("time", "source", "milliseconds")}
    assert first == {
        "severity": "INFO", "message": "request", "api": "rest", "method": "predict", "code": "OK", "model": "clicks",
        "version": 3, "signature": "serving_default", "rows": 1, "request_id": 'a"b', "traceparent": TRACE,
        "peer": "127.0.0.1",
    }  # fmt: skip
    assert [line["code"] for line in logged] == ["OK", "OK", "INVALID_ARGUMENT", "NOT_FOUND", "OK"]
    assert logged[4]["api"] == "grpc" and "model" not in logged[3]
    # tensorflow_serving/servables/tensorflow/util.cc and util/prometheus_exporter.cc
    for line in (
        "# TYPE :tensorflow:serving:request_count counter",
        ':tensorflow:serving:request_count{model_name="clicks",status="OK"} 3',
        ':tensorflow:serving:request_count{model_name="clicks",status="INVALID_ARGUMENT"} 1',
        "# TYPE :tensorflow:serving:request_latency histogram",
        ':tensorflow:serving:request_latency_count{model_name="clicks",API="predict",entrypoint="REST"} 1',
        ':tensorflow:serving:request_latency_count{model_name="clicks",API="Predict",entrypoint="GRPC"} 1',
        ':tensorflow:serving:runtime_latency_count{model_name="clicks",API="Predict",runtime="TF1"} 2',
        ':tensorflow:serving:request_example_count_total{model="clicks"} 2',
        ':tensorflow:serving:request_example_counts_bucket{model="clicks",le="2"} 0',
        ':tensorflow:serving:request_example_counts_bucket{model="clicks",le="4"} 1',
    ):
        assert line in text.splitlines(), line
    assert '{model_name="clicks",API="predict",entrypoint="REST",le="708235"}' in text and 'le="+Inf"' in text
    assert "other" not in re.sub(r"# HELP.*", "", text), "a name that anyone may send makes no series"


def test_labels_are_escaped_and_old_versions_leave_the_metrics():
    served = TfServingMetrics()
    call = Call(Admission(1, 1, 1), "grpc", "predict")
    call.model = 'a"\\b\n'
    served.count(call)
    assert ':request_count{model_name="a\\"\\\\b\\n",status="OK"} 1' in served.text()
    metrics = Metrics()
    for version in ("1", "2"):
        metrics.requests.labels("rest", "predict", "OK", "clicks", version, "rank").inc()
        metrics.loaded.labels("clicks", version).set(0)
    metrics.forget_versions("clicks", {2})
    text = metrics.text().decode()
    assert 'version="2"' in text and 'version="1"' not in text
