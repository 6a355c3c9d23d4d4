"""Requests a second that the local server answers, over REST and gRPC, by the number of requests in flight.

python benchmarks/serving_rates.py exports/quickstart     # a directory of versions; 40 seconds, needs wrk

Each client sends the bundle's example request again as soon as it has its answer: over REST as a connection of wrk,
over gRPC as a task of one process of Python, which takes more of the machine than wrk. Clients and server share the
machine, so the server's CPU seconds per request are reported as well.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

import grpc
import numpy as np
from absl import app, flags
from machine import describe, machine

from tfrs_dlrm.serving.runtime import protos, tensors

_SECONDS = flags.DEFINE_integer("seconds", 5, "How long to ask, for each number of clients.")
_PROCESSES = flags.DEFINE_integer("processes", 1, "As of the server.")
_OUTPUT = flags.DEFINE_string("output", "", "Where to write the results as JSON.")
_IN_FLIGHT = (1, 8, 64)


def main(argv: list[str]) -> None:
    root = os.path.abspath(argv[1])
    name = os.path.basename(root)
    extra = os.path.join(root, max((n for n in os.listdir(root) if n.isdecimal()), key=int), "assets.extra")
    with open(os.path.join(extra, "example_request.json"), encoding="utf-8") as f:
        request = json.load(f)
    with open(os.path.join(extra, "bundle.json"), encoding="utf-8") as f:
        dtypes = {n: spec["dtype"] for n, spec in json.load(f)["signatures"]["serving_default"]["inputs"].items()}
    report: dict[str, Any] = {"machine": machine()}
    print(describe(report["machine"]))
    server, url, address = _start(root)
    try:
        proto = _proto(name, request, dtypes)
        for api in ("REST", "gRPC"):
            for clients in _IN_FLIGHT:
                for seconds in (1, _SECONDS.value):  # the first warms up
                    before = _cpu(server.pid)
                    if api == "REST":
                        found = _wrk(f"{url}/v1/models/{name}:predict", request, clients, seconds)
                    else:
                        found = asyncio.run(_grpc(address, proto, clients, seconds))
                found["server_cpu_ms"] = 1e3 * (_cpu(server.pid) - before) / found["requests"]
                report[f"{api} {clients}"] = found
                rate, p50, p99, cpu = found["requests"] / seconds, *list(found.values())[1:]
                print(
                    f"{api:5}{clients:4} in flight {rate:8,.0f} requests/s, {cpu:.2f} ms of the server's CPU each",
                    end="",
                )
                print(f"   p50 {p50:7.2f} ms   p99 {p99:7.2f} ms")
    finally:
        server.terminate()
        server.wait(120)
    if _OUTPUT.value:
        with open(_OUTPUT.value, "w", encoding="utf-8") as f:
            json.dump(report, f, indent=2)


def _start(root: str) -> tuple[subprocess.Popen, str, str]:
    """The server as a process, its URL of REST and its address of gRPC."""
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "export", "serve.py")
    ports = ["--rest_port=0", "--grpc_port=0", "--lame_duck_seconds=0", f"--processes={_PROCESSES.value}"]
    server = subprocess.Popen(
        [sys.executable, program, root, *ports], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    url = ""
    assert server.stdout is not None
    for line in server.stdout:
        url = url or "".join(re.findall(r"http://[\d.]+:\d+", line)[:1])
        if "gRPC" in line:
            return server, url, line.split()[-1]
    raise RuntimeError("the server ended before it served")


def _cpu(pid: int) -> float:
    """CPU seconds of a process and its children so far."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        own = sum(map(int, f.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as f:
        return own + sum(_cpu(int(child)) for child in f.read().split())


def _wrk(url: str, request: dict[str, Any], clients: int, seconds: int) -> dict[str, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "POST"\nwrk.body = [[{json.dumps(request)}]]\n')
        script.write('wrk.headers["Content-Type"] = "application/json"\n')
        script.write("done = function(summary, latency, requests)\n")
        script.write(
            "  local e = summary.errors\n  local failed = e.connect + e.read + e.write + e.status + e.timeout\n"
        )
        script.write(
            '  print("found", summary.requests, latency:percentile(50), latency:percentile(99), failed)\nend\n'
        )
        script.flush()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-s", script.name, url]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    count, p50, p99, failed = (float(text) for text in re.findall(r"^found\t(.*)$", out, re.M)[0].split("\t"))
    if failed:
        raise ValueError(f"{failed:.0f} requests over REST failed")
    return {"requests": count, "p50_ms": p50 / 1e3, "p99_ms": p99 / 1e3}


def _proto(name: str, request: dict[str, Any], dtypes: dict[str, str]) -> Any:
    proto = protos.predict.PredictRequest()
    proto.model_spec.name = name
    for feature, value in request["instances"][0].items():
        array = np.empty(1, object if dtypes[feature] == "string" else dtypes[feature])
        array[0] = value.encode() if isinstance(value, str) else value
        proto.inputs[feature].CopyFrom(tensors.to_proto(array))
    return proto


async def _grpc(address: str, proto: Any, clients: int, seconds: int) -> dict[str, float]:
    times: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = protos.services()[0].PredictionServiceStub(channel)
        end = time.perf_counter() + seconds

        async def client() -> None:
            while time.perf_counter() < end:
                begin = time.perf_counter()
                await stub.Predict(proto, timeout=60)
                times.append(time.perf_counter() - begin)

        await asyncio.gather(*(client() for _ in range(clients)))
    p50, p99 = (1e3 * float(x) for x in np.percentile(times, [50, 99]))
    return {"requests": len(times), "p50_ms": p50, "p99_ms": p99}


if __name__ == "__main__":
    app.run(main)
