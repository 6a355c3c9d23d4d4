"""Kills the dispatcher and workers of an input service again and again, and compares every batch with the right one.

make bench-input-service-kills     # 200 repetitions beside a process that keeps a processor busy: about 30 minutes

Each repetition has a new service of one or two workers, and two trainers, whose windows have different sizes, take
batches in turns. At a random step the dispatcher is killed, and sometimes a worker, with SIGKILL, and restarted after
a random time. Other workers may be held. The second trainer may come after that. A repetition prints its seed;
`--seed=SEED --repetitions=1` makes the same random choices.
"""

import contextlib
import multiprocessing
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import machine
import numpy as np
import psutil
from absl import app, flags, logging

_REPETITIONS = flags.DEFINE_integer("repetitions", 200, "How many times.")
_SEED = flags.DEFINE_integer("seed", None, "The seed of the first repetition; the next has the next; default: random.")
_HOGS = flags.DEFINE_integer("hogs", 1, "Processes that keep a processor busy meanwhile.")
_BATCH, _ROWS, _GROUP = 256, 18_000, 300
_WINDOWS = (300, 700, 1500, 5000)
_AFTER = 100  # batches to read after the kill, of each dataset
_ENOUGH = 8  # or windows that workers delivered after it


class Forks:
    """Dispatchers and workers, forked from one process that has loaded TensorFlow: they start within a moment."""

    def __init__(self) -> None:
        command = [sys.executable, os.path.abspath(__file__), "--fork"]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._started: list[psutil.Process] = []

    def start(self, role: str, address: str, dispatcher: str = "") -> psutil.Process:
        """Starts a dispatcher or worker; returns its process when it accepts connections."""
        from tfrs_dlrm.distribute.cluster import unreachable

        self._parent.stdin.write(f"{role} {address.rpartition(':')[2]} {dispatcher}\n")
        self._parent.stdin.flush()
        process = psutil.Process(int(self._parent.stdout.readline()))
        self._started.append(process)
        while unreachable([address]):
            if not process.is_running():
                raise RuntimeError(f"the {role} at {address} did not start")
            time.sleep(0.02)
        return process

    def stop(self) -> None:
        """Ends all of them."""
        for process in self._started:
            kill(process)
        self._parent.stdin.close()
        self._parent.wait()


def fork_on_demand() -> None:
    """Forks a process per line of standard input; they end with this one."""
    from tfrs_dlrm.data.reading.service.server import run_dispatcher, run_worker

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        role, port, *rest = line.split()
        parent = os.getpid()
        if (pid := os.fork()) == 0:
            if role == "dispatcher":
                run_dispatcher(int(port), lambda line: None, parent)
            else:
                run_worker(rest[0], "127.0.0.1", int(port), lambda line: None, parent)
            os._exit(0)
        print(pid, flush=True)


def kill(process: psutil.Process) -> None:
    """Kills a process, and returns when it is gone; psutil leaves another one alone that has its number by now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
    while process.is_running():
        time.sleep(0.005)


def wake(process: psutil.Process) -> None:
    """Lets a process go on that was held."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


class Running:
    """A dispatcher and workers."""

    def __init__(self, forks: Forks, workers: int) -> None:
        from tfrs_dlrm.distribute.local_cluster import free_ports

        self._forks, self._ports = forks, free_ports
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self.dispatcher = forks.start("dispatcher", self.address)
        self.workers = [self._worker() for _ in range(workers)]

    def _worker(self) -> psutil.Process:
        return self._forks.start("worker", f"127.0.0.1:{self._ports(1)[0]}", self.address)

    def restart(self, pause: float, worker: int | None, held: float) -> None:
        """Kills the dispatcher, and a worker, and starts them again after a pause.

        The other workers are held from before the kill until `held` seconds after the start, as on a machine that has
        other work: they tell the new dispatcher late what work they have.
        """
        kept = [process for i, process in enumerate(self.workers) if i != worker]
        for process in kept if held else []:
            process.suspend()
        kill(self.dispatcher)
        if worker is not None:
            kill(self.workers[worker])
        time.sleep(pause)
        self.dispatcher = self._forks.start("dispatcher", self.address)
        if worker is not None:
            self.workers[worker] = self._worker()
        for process in kept if held else []:
            threading.Timer(held, wake, [process]).start()


def prepared(work: str) -> str:
    """Prepares synthetic rows with many row groups."""
    import pyarrow.parquet as pq

    from tfrs_dlrm.data.preparing.manifest import PreparedManifest
    from tfrs_dlrm.data.preparing.prepare import prepare
    from tfrs_dlrm.data.synthetic.synthetic import generate
    from tfrs_dlrm.schema import Schema

    raw, out = os.path.join(work, "raw"), os.path.join(work, "prepared")
    generate(raw, _ROWS, 1000)
    prepare(Schema.load(os.path.join(raw, "schema.json")), [os.path.join(raw, "train.tsv")], out)
    for shard in PreparedManifest.load(out).shards("train"):
        path = os.path.join(out, shard.path)
        pq.write_table(pq.read_table(path), path, row_group_size=_GROUP, write_page_checksum=True)
    return out


def arrays(batches) -> Iterator[list[np.ndarray]]:
    """Yields the arrays of each batch."""
    import tensorflow as tf

    for batch in batches:
        yield [x.numpy() for x in tf.nest.flatten(batch, expand_composites=True)]


class Trainer:
    """Reads a dataset through the service, and the same dataset without it."""

    def __init__(self, chosen: random.Random, address: str, directory: str, window: int) -> None:
        from tfrs_dlrm.data.reading.dataset import dataset
        from tfrs_dlrm.data.reading.service.input_service import InputService

        patience, retry = chosen.uniform(0.1, 1), chosen.uniform(0, 0.5)
        self.service = InputService(f"grpc://{address}", patience=patience, retry=retry, capacity=1 << 17)
        more = {"seed": chosen.randrange(3), "start_step": chosen.randrange(50), "shuffle_rows": window, "repeat": True}
        self._found = arrays(dataset(directory, _BATCH, service=self.service, **more))
        self._expected = arrays(dataset(directory, _BATCH, **more))
        self._window, self._step = window, 0

    def difference(self) -> str:
        """Reads a batch; returns a text if it differs."""
        self._step += 1
        for a, b in zip(next(self._found), next(self._expected), strict=True):
            if a.shape != b.shape:
                return f"windows of {self._window}: batch {self._step} has the shape {a.shape} in place of {b.shape}"
            if not np.array_equal(a, b):
                row = int(np.argmax((a != b).reshape(len(a), -1).any(axis=1)))
                return f"windows of {self._window}: batch {self._step} differs from row {row} on"
        return ""


def repeat(seed: int, running: Running, directory: str) -> tuple[int, int, str]:
    """Runs a repetition; returns the windows received and read by trainers, and the first difference, if any."""
    chosen = random.Random(seed)
    windows = chosen.sample(_WINDOWS, 2)
    before = chosen.choice([1, 1, 2])  # the other trainer comes after the kill
    trainers = [Trainer(chosen, running.address, directory, size) for size in windows[:before]]
    kill_at, received = chosen.randrange(2, 12), 0
    for step in range(kill_at + _AFTER):
        if step == kill_at:
            worker = chosen.choice([None] * 3 + [len(running.workers) - 1])
            running.restart(chosen.uniform(0, 1), worker, chosen.choice([0, chosen.uniform(0, 2)]))
            trainers += [Trainer(chosen, running.address, directory, size) for size in windows[before:]]
            received = sum(t.service.received for t in trainers)
        if found := next(filter(None, (trainer.difference() for trainer in trainers)), ""):
            break
        if step > kill_at + 20 and sum(t.service.received for t in trainers) > received + _ENOUGH:
            break
        time.sleep(chosen.uniform(0, 0.1) if step >= kill_at else 0)
    return sum(t.service.received for t in trainers), sum(t.service.read_here for t in trainers), found


def burn() -> None:
    """Keeps a processor busy."""
    while True:
        pass


def main(argv: list[str]) -> None:
    del argv
    print(machine.describe(machine.machine()))
    logging.set_verbosity(logging.ERROR)
    forks = Forks()
    hogs = [multiprocessing.get_context("spawn").Process(target=burn, daemon=True) for _ in range(_HOGS.value)]
    first = random.SystemRandom().randrange(10**6) if _SEED.value is None else _SEED.value
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="tfrs-dlrm-bench-") as work:
        try:
            for hog in hogs:
                hog.start()
            directory = prepared(work)
            for seed in range(first, first + _REPETITIONS.value):
                begin = time.perf_counter()
                running = Running(forks, 1 + seed % 2)
                received, here, difference = repeat(seed, running, directory)
                for process in (*running.workers, running.dispatcher):
                    kill(process)
                wrong += bool(difference)
                said = difference or f"{received} windows received, {here} read here"
                print(f"seed {seed}: {said} ({time.perf_counter() - begin:.1f} s)", flush=True)
        finally:
            forks.stop()
            for hog in hogs:
                hog.kill()
    print(f"{_REPETITIONS.value} repetitions, {_HOGS.value} busy processes: {wrong} with other batches")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    if sys.argv[1:] == ["--fork"]:
        fork_on_demand()
    else:
        app.run(main)
