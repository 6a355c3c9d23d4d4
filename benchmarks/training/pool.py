"""Workers that take turns, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from workloads import Workload

_BENCHMARKS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_TIMEOUT = 1800.0  # seconds for one answer
_PROCESS_BYTES = 0.9e9  # a process without tables: libraries, activations, batches


# glibc's malloc gives large blocks back to the kernel and asks for them again in every step, when the kernel clears
# them. All workers that are timed keep them: PyTorch, which has no allocator of its own on CPUs, gains up to a tenth.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}


class WorkerLost(Exception):
    """A worker could not do what it was asked; the message is why, in one line."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """What one worker trains. `precision` is `fp32` or `bf16`, `optimizer` is `sgd`, `adagrad` or `rowwise`."""

    peer: str
    optimizer: str
    precision: str
    workload: Workload
    weights: bool = True  # the common initial weights; otherwise those that the peer makes itself
    keep_memory: bool = True  # from step to step; for peaks of memory it is left as it is

    @property
    def name(self) -> str:
        return f"{self.peer} {self.optimizer} {self.precision}"

    @property
    def table_bytes(self) -> int:
        """Of the tables and their slots."""
        return self.workload.table_bytes + sum(self.workload.rows) * self.slot_bytes_per_row

    @property
    def slot_bytes_per_row(self) -> int:
        return {"sgd": 0, "adagrad": 4 * self.workload.dim, "rowwise": 4}[self.optimizer]

    @property
    def expected_bytes(self) -> float:
        """About what its process needs at most."""
        dense_gradients = 2 * self.workload.table_bytes if self.peer == "Keras 3" else 0
        initial = 4 * max(self.workload.rows) * self.workload.dim
        lookups = len(self.workload.rows) * self.workload.batch * max(1, self.workload.longest_bag / 2)
        return _PROCESS_BYTES + self.table_bytes + dense_gradients + max(initial, 6 * 4 * self.workload.dim * lookups)


class Worker:
    """A process that answers commands; see worker.py.

    Args:
      program: a module of this folder that calls `worker.serve`.
      spec: what it is to do.
    """

    def __init__(self, program: str, spec: dict[str, Any]):
        peer = spec.get("peer")
        paths = [_BENCHMARKS, os.environ.get("PYTHONPATH")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TF_USE_LEGACY_KERAS": "0" if peer == "Keras 3" else "1",
            "KERAS_BACKEND": "tensorflow",
            "CUDA_VISIBLE_DEVICES": "",
            **(_KEEP_MEMORY if spec.get("keep_memory", True) else {}),
        }
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"training.{program}", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )

    @classmethod
    def of(cls, variant: Variant) -> Worker:
        return cls("worker", dataclasses.asdict(variant))

    def ready(self) -> None:
        """Waits until it is; raises WorkerLost."""
        self._answer()

    def ask(self, command: str) -> Any:
        """The answer; raises WorkerLost."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        if not select.select([self._process.stdout], [], [], _TIMEOUT)[0]:
            raise WorkerLost(f"no answer in {_TIMEOUT:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise WorkerLost(
                "killed, perhaps out of memory" if code == -9 else f"exit code {code}: {self._last_error()}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerLost(answer["error"])
        return answer["value"]

    def _last_error(self) -> str:
        self._errors.seek(0)
        return (self._errors.read().strip().splitlines() or ["no message"])[-1]

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()  # it holds nothing that could be lost
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()


@contextlib.contextmanager
def workers(makers: dict[str, Any], lost: dict[str, str]) -> Iterator[dict[str, Worker]]:
    """Starts workers, two at a time, and ends them. Those that fail to start go to `lost`, with the reason."""
    alive: dict[str, Worker] = {}
    try:
        names = list(makers)
        for begin in range(0, len(names), 2):
            pair = names[begin : begin + 2]
            for name in pair:
                alive[name] = makers[name]()
            for name in pair:
                try:
                    alive[name].ready()
                except WorkerLost as e:
                    lose(name, e, alive, lost)
        yield alive
    finally:
        for worker in alive.values():
            worker.close()


def lose(name: str, error: WorkerLost, alive: dict[str, Worker], lost: dict[str, str]) -> None:
    lost[name] = str(error)
    alive.pop(name).close()
    print(f"    {name}: LOST, {error}", flush=True)


def take_turns(
    makers: dict[str, Any], losses: int, rounds: int, steps: int, memory: bool = False, until: float | None = None
) -> dict[str, dict[str, Any]]:
    """Runs all workers: first `losses` steps each, then `rounds` times `steps` timed steps each in turn.

    Args:
      makers: functions that start the workers, by name.
      losses: steps at the beginning.
      rounds: turns of each worker.
      steps: timed steps in a turn.
      memory: whether to ask for the peak of memory at the end.
      until: the `time.perf_counter` after which no further round begins; there are two in any case, because changes
        between runs are judged by what differs between rounds.

    Returns:
      For each name `losses`, `seconds` (a list for each round), with `memory` the `peak` resident bytes, and `error`
      where it was lost.
    """
    results: dict[str, dict[str, Any]] = {name: {"losses": [], "seconds": []} for name in makers}
    lost: dict[str, str] = {}

    def turn(alive: dict[str, Worker], command: str, use) -> None:
        for name in list(alive):
            try:
                use(results[name], alive[name].ask(command))
            except WorkerLost as e:
                lose(name, e, alive, lost)

    with workers(makers, lost) as alive:
        if losses:
            turn(alive, f"losses {losses}", lambda result, answer: result.update(losses=answer))
        for number in range(rounds):
            if until is not None and number >= 2 and time.perf_counter() >= until:
                break
            turn(alive, f"time {steps}", lambda result, answer: result["seconds"].append(answer))
        if memory:
            turn(alive, "memory", lambda result, answer: result.update(peak=answer))
    for name, reason in lost.items():
        results[name]["error"] = reason
    return results


def budget() -> float:
    """Bytes that all workers together may take."""
    with open("/proc/meminfo") as f:
        available = next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))
    return min(18e9, 0.85 * available)


def fits(variants: Sequence[Variant]) -> bool:
    """Whether these can be alive together."""
    return sum(v.expected_bytes for v in variants) <= budget()
