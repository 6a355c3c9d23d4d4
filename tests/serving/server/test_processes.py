"""Several processes on the same ports: one answer to all questions, replaced if they end, and ended together."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import serving_bundles
from prometheus_client import parser
from serving_bundles import by_hand, predict_request
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc
from waiting import wait_for

from tfrs_dlrm.serving.server.metric_peers import summed
from tfrs_dlrm.serving.server.metrics import Metrics

ROW = {"price": 4.0, "site": "abc", "slot": 8}
REQUEST = predict_request({"price": np.float32([4]), "site": [b"abc"], "slot": np.int64([8])})


in_proc = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="finds the processes in /proc")


def test_metrics_are_sums_and_creation_times_the_earliest():
    first = b"""# HELP a Asked.
# TYPE a counter
a{model="x y"} 2.0
a{model="z"} 1.0
# TYPE a_created gauge
a_created{model="x y"} 50.0
"""
    second = b"""# HELP a Asked.
# TYPE a counter
a{model="x y"} 5
# TYPE a_created gauge
a_created{model="x y"} 40.0
# TYPE b gauge
b 0.5
"""
    expected = b"""# HELP a Asked.
# TYPE a counter
a{model="x y"} 7.0
a{model="z"} 1.0
# TYPE a_created gauge
a_created{model="x y"} 40.0
# TYPE b gauge
b 0.5
"""
    assert summed([first, b"", second]) == expected
    metrics = Metrics()
    metrics.count_run(3, 2)
    once = parser.text_string_to_metric_families(metrics.text().decode())
    assert [*parser.text_string_to_metric_families(summed([metrics.text()]).decode())] == [*once]
    assert b"tfrs_dlrm_batch_rows_sum 6.0" in summed([metrics.text(), metrics.text()])


def sample(server, name):
    """The value of a sample of the metrics, 0 if there is none."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", server.http.get("/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def loaded(server, version):
    """How many processes have loaded a version."""
    return sample(server, f'tfrs_dlrm_version_loaded{{model="clicks",version="{version}"}}')


def asked(server):
    return server.http.post("/v1/models/clicks:predict", json={"instances": [ROW]}).json()["predictions"]


def processes(server):
    """The ids of the processes that serve."""
    parent = server.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(pid) for pid in children if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()}


def runs(pid):
    """Whether a process runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.process
@in_proc
def test_processes_answer_as_one_and_are_replaced_and_ended(tmp_path):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1)
    with (
        serving_bundles.program(root, "--processes=2", "--lame_duck_seconds=0") as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        for _ in range(20):  # each on its own connection
            assert asked(server) == [by_hand(1, **ROW)]
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(REQUEST)
        assert answer.outputs["probability"].float_val[0] == by_hand(1, **ROW)
        labels = 'api="rest",code="OK",method="predict",model="clicks",signature="serving_default",version="1"'
        wait_for(lambda: sample(server, f"tfrs_dlrm_requests_total{{{labels}}}") == 20, "all 20 are counted")
        wait_for(lambda: loaded(server, 1) == 2, "both processes have loaded the version")
        first = 'tfrs_dlrm_requests_total{api="rest",code="OK",method="predict"'
        assert first in server.http.get("/monitoring/prometheus/metrics").text

        with pytest.raises(grpc.RpcError) as raised:
            reload = model_management_pb2.ReloadConfigRequest()
            model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(reload)
        assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "this server has 2 processes" in raised.value.details()

        serving_bundles.make(root, 2)
        wait_for(lambda: (loaded(server, 1), loaded(server, 2)) == (0, 2), "both processes serve version 2")
        assert asked(server) == [by_hand(2, **ROW)]

        before = processes(server)
        assert len(before) == 2
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: "another takes its place" in server.log.read_text(), "the parent misses a process")
        wait_for(lambda: loaded(server, 2) == 2 and len(processes(server)) == 2, "another took its place")
        assert killed not in processes(server)
        assert asked(server) == [by_hand(2, **ROW)]

        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(300) == 0
        assert not any(runs(pid) for pid in before) and "Traceback" not in server.log.read_text()


@pytest.mark.process
@in_proc
def test_processes_end_if_their_parent_is_killed(tmp_path):
    serving_bundles.make(tmp_path / "clicks", 1)
    with serving_bundles.program(tmp_path / "clicks", "--processes=2", "--lame_duck_seconds=0") as server:
        before = processes(server)
        assert len(before) == 2 and all(map(runs, before))
        server.process.kill()
        wait_for(lambda: not any(map(runs, before)), "the processes end")


@pytest.mark.process
def test_what_keeps_a_process_from_starting_is_the_error_of_all(tmp_path):
    def error(*given):
        command = [sys.executable, "export/serve.py", str(tmp_path), "--processes=2", "--grpc_port=0", *given]
        repository = Path(__file__).parents[3]
        environment = {**os.environ, "PYTHONPATH": str(repository)}
        ran = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 1 and "Traceback" not in ran.stderr, ran.stderr
        return ran.stderr

    text = error("--rest_port=0")
    assert re.search(rf"error: process [01] of the server could not start, so all end: {tmp_path} has no version", text)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"error: cannot listen on 127.0.0.1:{port}" in error(f"--rest_port={port}")
