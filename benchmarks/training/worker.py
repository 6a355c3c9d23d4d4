r"""One variant in a process of its own: reads commands from standard input, answers each with a line of JSON.

PYTHONPATH=benchmarks python -m training.worker \
  '{"peer": "ours", "optimizer": "rowwise", "precision": "bf16", "workload": {...}}'

    losses N    the losses of the first N steps
    time N      the seconds that each of the next N steps takes, after two that are not counted
    memory      the highest resident memory so far, in bytes
    quit
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from typing import Any

from peers import PEERS
from workloads import Weights, Workload

_WARMUP = 2  # the other workers have had the caches since


class Session:
    def __init__(self, spec: dict[str, Any]):
        workload = Workload.from_dict(spec["workload"])
        module, name = PEERS[spec["peer"]]
        weights = Weights(workload) if spec.get("weights", True) else None
        peer = getattr(importlib.import_module(module), name)
        self._peer = peer(workload, spec["optimizer"], spec["precision"], weights)
        self._steps = 0
        gc.collect()
        gc.freeze()

    def _step(self) -> float:
        loss = self._peer.step(self._steps)
        self._steps += 1
        return loss

    def losses(self, steps: str) -> list[float]:
        return [self._step() for _ in range(int(steps))]

    def time(self, steps: str) -> list[float]:
        for _ in range(_WARMUP):
            self._step()
        seconds = []
        for _ in range(int(steps)):
            begin = time.perf_counter()
            self._step()
            seconds.append(time.perf_counter() - begin)
        return seconds

    def memory(self) -> int:
        return peak_resident()


def peak_resident() -> int:
    """Bytes."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))


def serve(make_session) -> None:
    """Answers commands, which are methods of the session, until `quit`."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere

    def answer(data: dict[str, Any]) -> None:
        answers.write(json.dumps(data) + "\n")
        answers.flush()

    try:
        session = make_session(json.loads(sys.argv[1]))
        answer({"value": "ready"})
        for line in sys.stdin:
            command, *arguments = line.split()
            if command == "quit":
                break
            answer({"value": getattr(session, command)(*arguments)})
    except Exception as e:
        answer({"error": f"{type(e).__name__}: {_line(e)}"})
        raise


def _line(error: Exception) -> str:
    """The message in one line; that of an error inside a traced function stands at the end of a traceback."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1].strip() if lines[0].startswith("in user code") else lines[0]


if __name__ == "__main__":
    serve(Session)
