"""Many clients of the local server at once, over REST and gRPC, while the version is switched and the server restarted.

python benchmarks/serving_load.py exports/quickstart     # a directory of versions; 70 seconds

The newest version is copied to a temporary directory, and copied again, under the next number, each time that the
version is switched. After half of the time the server gets SIGTERM, and once it has ended another is started on the
same ports; --norestart leaves that out. Clients send again what was refused with UNAVAILABLE or 503, or could not be
sent since nobody listened: the server took neither. They also send again over REST if a connection is closed without an
answer, which happens to one that was opened and not used before the server ended. Every other error is a failure.

Clients and server share the machine, and the clients, in one process of Python, are the slower side: what they see is
mostly how long they keep each other waiting. So the server's own times, from a whole request to its answer, are
reported as well, as the bounds of its histogram, for the time after the restart.
"""

import asyncio
import collections
import json
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import grpc
import httpx
import numpy as np
from absl import app, flags

from tfrs_dlrm.serving.runtime import protos, tensors

_SECONDS = flags.DEFINE_integer("seconds", 60, "How long the clients ask.")
_CLIENTS = flags.DEFINE_integer("clients", 200, "How many ask at once: half by REST, half by gRPC.")
_SWITCH = flags.DEFINE_integer("switch", 10, "Seconds between versions.")
_OUTPUT = flags.DEFINE_string("output", "", "Where to write the results as JSON.")
_RESTART = flags.DEFINE_bool("restart", True, "Ends the server after half of the time, and starts another.")
_NAME = "model"
_RECONNECT = [("grpc.max_reconnect_backoff_ms", 1000)]
_PATIENCE = 300  # seconds for which a client sends a request again


class Load:
    """What the clients saw: seconds of each answer, what failed, memory of the server in MB."""

    def __init__(self, request: dict[str, Any], dtypes: dict[str, str]):
        self.seconds: dict[str, list[float]] = {"REST": [], "gRPC": []}
        self.failed: list[str] = []
        self.memory: list[float] = []
        self.versions: set[int] = set()
        self.retried: collections.Counter[str] = collections.Counter()
        self.again: dict[str, list[float]] = {"REST": [], "gRPC": []}  # seconds of requests that were sent again
        self.end = time.monotonic() + _SECONDS.value
        self._json = request
        self._proto = protos.predict.PredictRequest()
        self._proto.model_spec.name = _NAME
        for name, value in request["instances"][0].items():
            array = np.empty(1, object if dtypes[name] == "string" else dtypes[name])
            array[0] = value.encode() if isinstance(value, str) else value
            self._proto.inputs[name].CopyFrom(tensors.to_proto(array))

    async def rest(self, client: httpx.AsyncClient, url: str) -> None:
        try:
            answer = await client.post(url, content=json.dumps(self._json))
        except httpx.ConnectError as e:
            raise NotTaken("nobody listens") from e
        except (httpx.ReadError, httpx.RemoteProtocolError) as e:
            raise NotTaken("closed without an answer") from e
        if answer.status_code == 503:
            raise NotTaken("503")
        if answer.status_code != 200:
            raise ValueError(answer.text)

    async def grpc(self, stub: Any) -> None:
        try:
            answer = await stub.Predict(self._proto, timeout=60)
        except grpc.aio.AioRpcError as e:
            if e.code() == grpc.StatusCode.UNAVAILABLE:
                raise NotTaken("UNAVAILABLE") from e
            raise
        self.versions.add(answer.model_spec.version.value)

    async def ask(self, kind: str, call: Any) -> None:
        while time.monotonic() < self.end:
            begin, retries = time.perf_counter(), 0
            while True:
                try:
                    await call()
                except NotTaken as e:
                    self.retried[f"{kind} {e}"] += 1
                    retries += 1
                    if time.perf_counter() - begin < _PATIENCE:
                        await asyncio.sleep(min(2, 0.05 * 2**retries) * random.uniform(0.5, 1))
                        continue
                    self.failed.append(f"{kind}: sent again for {_PATIENCE} s: {e}")
                except Exception as e:  # whatever it is, it is counted
                    self.failed.append(f"{kind}: {e!r}"[:300])
                break
            (self.again if retries else self.seconds)[kind].append(time.perf_counter() - begin)


class NotTaken(Exception):
    """The server did not take a request, which can be sent again."""


class Server:
    """The local server as a process.

    Args:
      base: the directory of versions.
    """

    def __init__(self, base: str):
        self._base, self.ended = base, ""
        self.rest = self.address = ""
        self.start(0, 0)

    def start(self, rest_port: int, grpc_port: int) -> None:
        here = os.path.dirname(os.path.abspath(__file__))
        program = os.path.join(here, "..", "export", "serve.py")
        command = [sys.executable, program, self._base, f"--rest_port={rest_port}", f"--grpc_port={grpc_port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.rest, self.address = _addresses(self.process)

    def restart(self) -> None:
        """Ends the server by SIGTERM and starts another on its ports."""
        ports = [int(address.rpartition(":")[2]) for address in (self.rest, self.address)]
        begin = time.monotonic()
        self.process.terminate()
        code = self.process.wait(120)
        ended = time.monotonic() - begin
        self.start(*ports)
        self.ended = (
            f"exit code {code} {ended:.1f} s after SIGTERM, answers again {time.monotonic() - begin:.1f} s after it"
        )


async def run(load: Load, server: Server, switch: Any) -> None:
    begin = time.monotonic()
    load.end = begin + _SECONDS.value
    half = _CLIENTS.value // 2
    limits = httpx.Limits(max_connections=half, max_keepalive_connections=half)
    url = f"{server.rest}/v1/models/{_NAME}:predict"
    async with (
        httpx.AsyncClient(limits=limits, timeout=60) as client,
        grpc.aio.insecure_channel(server.address, _RECONNECT) as channel,
    ):
        stub = protos.services()[0].PredictionServiceStub(channel)
        clients = [load.ask("REST", lambda: load.rest(client, url)) for _ in range(half)]
        clients += [load.ask("gRPC", lambda: load.grpc(stub)) for _ in range(half)]

        async def switches() -> None:
            while time.monotonic() < load.end:
                load.memory.append(_memory(server.process.pid))
                await asyncio.sleep(min(_SWITCH.value, max(0, load.end - time.monotonic())))
                if load.end - time.monotonic() > 1:
                    await asyncio.to_thread(switch)
                now = time.monotonic()
                if _RESTART.value and not server.ended and now - begin >= _SECONDS.value / 2:
                    await asyncio.to_thread(server.restart)
                    load.end += time.monotonic() - now  # as many seconds after it as before
            load.memory.append(_memory(server.process.pid))

        await asyncio.gather(switches(), *clients)


def _memory(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024


def main(argv: list[str]) -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)  # which would name every request
    root = argv[1]
    newest = max((n for n in os.listdir(root) if n.isdecimal()), key=int)
    with open(os.path.join(root, newest, "assets.extra", "example_request.json"), encoding="utf-8") as f:
        request = json.load(f)
    with open(os.path.join(root, newest, "assets.extra", "bundle.json"), encoding="utf-8") as f:
        inputs = json.load(f)["signatures"]["serving_default"]["inputs"]
    with tempfile.TemporaryDirectory() as directory:
        base = os.path.join(directory, _NAME)
        shutil.copytree(os.path.join(root, newest), os.path.join(base, "1"))

        def switch() -> None:
            number = 1 + max(int(n) for n in os.listdir(base) if n.isdecimal())
            shutil.copytree(os.path.join(root, newest), os.path.join(directory, "next"))
            os.rename(os.path.join(directory, "next"), os.path.join(base, str(number)))

        server = Server(base)
        try:
            load = Load(request, {name: spec["dtype"] for name, spec in inputs.items()})
            asyncio.run(run(load, server, switch))
            metrics = httpx.get(f"{server.rest}/metrics").text
        finally:
            server.process.terminate()
            server.process.wait(120)
    _show(load, metrics)
    if server.ended:
        print(f"restart: {server.ended}")


def _addresses(server: subprocess.Popen) -> tuple[str, str]:
    """The URL of REST and the address of gRPC, as the server prints them."""
    rest = address = ""
    assert server.stdout is not None
    while not (rest and address):
        line = server.stdout.readline()
        if not line:
            raise RuntimeError("the server ended before it served")
        rest = rest or "".join(re.findall(r"https?://[\d.]+:\d+", line)[:1])
        if "gRPC" in line:
            address = address or "".join(re.findall(r"[\d.]+:\d+", line)[:1])
    return rest, address


def _show(load: Load, metrics: str) -> None:
    report: dict[str, Any] = {"failed": len(load.failed), "memory_mb": load.memory, "versions": sorted(load.versions)}
    print(f"{'':6}{'requests':>10}{'p50':>9}{'p99':>9}{'p50 and p99 in the server':>30}   milliseconds")
    for kind, seconds in load.seconds.items():
        p50, p99 = (float(x) * 1e3 for x in np.percentile(seconds, [50, 99]))
        inside = {f"p{q}_ms_in_server_at_most": _bound(metrics, kind.lower(), q / 100) * 1e3 for q in (50, 99)}
        report[kind] = {"requests": len(seconds), "p50_ms": p50, "p99_ms": p99, **inside}
        at_most = " ".join(f"<= {ms:g}" for ms in inside.values())
        print(f"{kind:<6}{len(seconds):>10,}{p50:9.1f}{p99:9.1f}{at_most:>30}")
    for kind, seconds in load.again.items():
        if seconds:
            report[kind] |= {"sent_again": len(seconds), "longest_s": max(seconds)}
            print(f"{kind}: {len(seconds)} requests were sent again until answered, {max(seconds):.1f} s at most")
    print(f"refused, and sent again: {dict(load.retried)}")
    print(f"failed: {len(load.failed)} {load.failed[:3]}; versions that answered: {sorted(load.versions)}")
    print(f"memory of the server, MB: {', '.join(f'{m:.0f}' for m in load.memory)}")
    if _OUTPUT.value:
        with open(_OUTPUT.value, "w", encoding="utf-8") as f:
            json.dump(report, f, indent=2)


def _bound(metrics: str, api: str, share: float) -> float:
    """The upper end, in seconds, of the bucket of the server's histogram in which that share of requests is reached."""
    line = rf'request_seconds_bucket{{(?=[^}}]*api="{api}")(?=[^}}]*method="predict")[^}}]*le="([^"]+)"[^}}]*}} (\S+)'
    counts: collections.Counter[float] = collections.Counter()
    for upper, count in re.findall(line, metrics):  # of all versions
        counts[float(upper)] += float(count)
    buckets = sorted(counts.items())
    return next((end for end, count in buckets if count >= share * buckets[-1][1]), float("nan"))


if __name__ == "__main__":
    app.run(main)
