"""Input workers in processes of their own: the batches of `dataset`, whatever becomes of workers and dispatcher."""

import collections
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import click_log
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tfrs_dlrm.config import DataConfig, LogisticRegressionConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.reading.dataset import dataset, steps_per_epoch
from tfrs_dlrm.data.reading.service import buffer as buffer_module
from tfrs_dlrm.data.reading.service import input_service
from tfrs_dlrm.data.reading.service.buffer import ReorderBuffer
from tfrs_dlrm.data.reading.service.input_service import InputService
from tfrs_dlrm.data.reading.service.local import LocalService
from tfrs_dlrm.data.reading.service.worker_graph import LOST, REFUSED, WindowBlock
from tfrs_dlrm.distribute.strategies import ParameterServer
from tfrs_dlrm.training import inputs, loop
from tfrs_dlrm.training.loop import train_and_evaluate

ROOT = Path(__file__).parents[4]
PROGRAM = [sys.executable, str(ROOT / "train/input_service.py")]
GROUP, WINDOW, BATCH = 300, 1500, 256  # rows


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A prepared log with many row groups; `prepare` would make one of so few rows."""
    prepared = click_log.make(str(tmp_path_factory.mktemp("log")), rows=24_000)
    for shard in (Path(prepared) / "train").glob("*.parquet"):
        table = pq.read_table(shard)
        pq.write_table(table, shard, row_group_size=GROUP, write_page_checksum=True)
    return prepared


@pytest.fixture(scope="module")
def running():
    """Two workers. Tests that kill processes come last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        service = LocalService(2, 0, PROGRAM, lambda line: None)
        yield service
        service.stop()


def connect(running, **kwargs):
    return InputService(f"grpc://{running.address}", **{"patience": 20, **kwargs})


def both(directory, service, **kwargs):
    """The dataset with and without a service."""
    kwargs = {"shuffle_rows": WINDOW, **kwargs}
    return dataset(directory, BATCH, service=service, **kwargs), dataset(directory, BATCH, **kwargs)


def assert_equal(found, expected):
    """Batch for batch, to the last bit; returns how many there were."""
    count = 0
    for batches in zip(found, expected, strict=True):
        assert_same(*batches)
        count += 1
    return count


def assert_same(found, expected):
    a, b = (tf.nest.flatten(batch, expand_composites=True) for batch in (found, expected))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.numpy(), y.numpy())


def rows(batch):
    """Each row of a batch, all its columns, as something to count."""
    features, *targets = batch
    columns = [features[name] for name in sorted(features)]
    lists = [c.to_list() if isinstance(c, tf.RaggedTensor) else c.numpy().tolist() for c in (*columns, *targets)]
    return [repr(row) for row in zip(*lists, strict=True)]


@pytest.mark.slow
def test_batches_are_those_of_this_process(directory, running):
    service = connect(running)
    # From the middle of an epoch into the one after the next; ids sorted as for one device.
    found, expected = both(directory, service, start_step=50, repeat=True, sort_ids=True, seed=3)
    steps = 2 * steps_per_epoch(directory, BATCH) - 30
    assert assert_equal(found.take(steps), expected.take(steps)) == steps
    assert service.received >= 2 * PreparedManifest.load(directory).rows("train") // (GROUP + WINDOW) - 4
    # A window of several blocks; the part of one of several pipelines; the order of the log.
    context = tf.distribute.InputContext(2, 1, 4)
    for kwargs in ({"shuffle_rows": 1 << 19}, {"context": context}, {"shuffle": False, "start_step": 5}):
        assert_equal(*both(directory, service, **kwargs))
    # Little room for what comes before its turn: workers wait for the trainer, or it reads what it cannot wait for.
    assert_equal(*both(directory, connect(running, capacity=1)))
    assert service.read_here == 0


class Asked(Exception):
    pass


@pytest.mark.process
def test_a_run_asks_the_service_of_its_configuration(directory, running, tmp_path, monkeypatch):
    """Batches through `fit` are those of `distributed_dataset`, which the next test compares."""

    def ask(*args, service, **kwargs):
        raise Asked(service.address)

    monkeypatch.setattr(loop, "distributed_dataset", ask)
    data = DataConfig(path=directory, service=f"grpc://{running.address}")
    train = TrainConfig(batch_size=BATCH, steps=20, tensorboard=False)
    with pytest.raises(Asked, match=running.address):
        train_and_evaluate(RunConfig(data, LogisticRegressionConfig(), train=train), str(tmp_path))


@pytest.mark.process
def test_one_process_with_several_replicas(directory, running):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        service = inputs.input_service(f"grpc://{running.address}")
        found, expected = (
            inputs.distributed_dataset(directory, BATCH, shuffle_rows=WINDOW, service=s) for s in (service, None)
        )
        assert_equal(found, expected)
    assert service.received and not service.read_here


@pytest.mark.process
def test_other_data_on_the_workers(directory, running, monkeypatch):
    monkeypatch.setattr(input_service, "prepared_fingerprint", lambda directory: "something else")
    message = f"input worker .*: ValueError: {directory}: not the prepared data that the trainer sees under this name"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        next(iter(dataset(directory, BATCH, service=connect(running))))


def test_a_strategy_that_reads_otherwise(monkeypatch):
    assert inputs.input_service("") is None
    monkeypatch.setattr(inputs, "distribution_of", lambda: ParameterServer(tf.distribute.get_strategy()))
    with pytest.raises(ValueError, match="is for one_device, mirrored and multi_worker, not for parameter_server"):
        inputs.input_service("grpc://127.0.0.1:1")


def test_no_dispatcher():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        begin = time.monotonic()
        with pytest.raises(
            ConnectionError, match=f"no input service at 127.0.0.1:{port} within 0.5 .*`tfrs-dlrm input-service "
        ):
            InputService(f"grpc://127.0.0.1:{port}", answer_within=0.5)
        s.listen()
        with pytest.raises(ConnectionError, match=f"what listens at 127.0.0.1:{port} is no dispatcher"):
            InputService(f"grpc://127.0.0.1:{port}", answer_within=0.5)
        assert time.monotonic() - begin < 10


def block(item, number, worker="a", data=b"12345"):
    return WindowBlock(item, number, worker, data)


class Clock:
    """Moves by a tenth of a second, and does one thing of its script, each time the buffer waits; else stands still."""

    def __init__(self, buffer):
        self.now, self.script = 0.0, []
        wait = buffer._changed.wait

        def step(timeout=None):
            if timeout is None or not self.script:
                return wait(timeout)
            self.now += 0.1
            return self.script.pop(0)()

        buffer._changed.wait = step

    def monotonic(self):
        return self.now


def test_the_buffer_by_hand(monkeypatch):
    buffer = ReorderBuffer(first=2, patience=0.25, capacity=15)
    clock = Clock(buffer)
    monkeypatch.setattr(buffer_module, "time", clock)
    assert buffer.take(1, 0) is None and "asked for later windows" in buffer.reason
    for b in (block(3, 0), block(2, 0), block(2, 0, "b", b"twice")):
        assert buffer.put(b)
    assert buffer.take(2, 0) == b"12345" and buffer.late == 1
    assert buffer.put(block(2, 1)) and buffer.take(2, 1) == b"12345"
    # Worker a is at item 3 and b is not heard of: its item 4 is waited for, its item 5 is not, since a is past it.
    assert buffer.take(3, 0) == b"12345" and buffer.put(block(7, 0))
    clock.script = [lambda: buffer.put(block(6, 0)), int, int]
    assert buffer.take(4, 0) is None and "within 0.25 seconds" in buffer.reason
    assert buffer.take(5, 0) is None and "all remaining input workers have passed it" in buffer.reason
    assert buffer.take(6, 0) == b"12345"
    # Full: one more has to wait, unless it is the next.
    assert buffer.put(block(8, 0)) and buffer.put(block(9, 0))
    waiting = threading.Thread(target=buffer.put, args=[block(10, 0)])
    waiting.start()
    assert buffer.take(6, 1) is None and "other blocks arrived first" in buffer.reason and waiting.is_alive()
    assert [buffer.take(i, 0) for i in (7, 8, 9, 10)] == [b"12345"] * 4
    waiting.join()
    # A window that a worker could not read, and a job that it cannot do.
    buffer.put(block(11, LOST, "c", b"OSError: disk"))
    assert buffer.take(11, 0) is None and buffer.reason == "input worker c: OSError: disk"
    # Silence: it is waited for once, and what comes too late then asks for a new beginning.
    clock.now += 1
    clock.script = [int, int, int]
    assert buffer.take(12, 0) is None and buffer.away and not buffer.useless
    assert buffer.take(13, 0) is None and "no input worker sends anything" in buffer.reason
    clock.now += 1
    buffer.put(block(12, 0))
    assert buffer.useless
    buffer.put(block(14, 0))
    assert not buffer.away and buffer.take(14, 0) == b"12345"
    buffer.put(block(15, REFUSED, "c", b"ValueError: no"))
    with pytest.raises(ValueError, match="input worker c: ValueError: no"):
        buffer.take(15, 0)
    buffer.close()
    assert not buffer.put(block(16, 0))


def test_blocks_of_another_request_are_dropped(monkeypatch):
    """A worker may still answer a request of the dispatcher that ran before; then the service is asked again."""
    monkeypatch.setattr(input_service, "unreachable", lambda addresses: {})
    monkeypatch.setattr(tf.data.experimental.service, "distribute", lambda **kwargs: lambda data: data)
    answers = [[0, 1, 2], [0, 0, 0], ["w", "w", "w"], ["right", "wrong", "right"], ["mine", "other", "mine"]]
    data = tf.data.Dataset.from_tensor_slices(tuple(map(tf.constant, answers)))
    buffer = ReorderBuffer(first=0, patience=5)
    input_service._receive("127.0.0.1:1", data, "mine", buffer)
    assert buffer.take(0, 0) == b"right" and buffer.take(1, 0) is None and buffer.useless
    assert buffer.reason == "input worker w still answers a request of an earlier dispatcher"


@pytest.mark.process
def test_a_worker_is_killed_in_the_middle_of_an_epoch(directory, running):
    service = connect(running, patience=2, capacity=1 << 17)
    # 60 windows, far more than can be on their way, so that the dead one has some in hand.
    found, expected = both(directory, service, shuffle_rows=GROUP, drop_remainder=False)
    counts, expected_counts = collections.Counter(), collections.Counter()
    for step, batch in enumerate(found):
        if step == 3:
            os.kill(running.workers[0].pid, signal.SIGKILL)
        counts.update(rows(batch))
    for batch in expected:
        expected_counts.update(rows(batch))
    assert counts == expected_counts and counts.total() == PreparedManifest.load(directory).rows("train")
    assert service.read_here >= 1, "the windows that it had in hand"
    assert_equal(found, expected)  # the next epoch, from the other one
    del running.workers[0]


@pytest.mark.process
def test_the_dispatcher_is_killed_and_comes_back(directory, running):
    service = connect(running, patience=1, retry=1, capacity=1 << 17)
    received, deadline = 0, time.monotonic() + 300
    for step, batches in enumerate(zip(*both(directory, service, repeat=True), strict=True)):
        assert_same(*batches)
        if step == 20:
            os.kill(running.dispatcher.pid, signal.SIGKILL)
            running.dispatcher.wait()
        if service.read_here >= 2 and not received:
            received = service.received
            assert running.watch() and running.dispatcher.poll() is None
        if received and service.received >= received + 2:
            break
        assert time.monotonic() < deadline, (service.received, service.read_here)
        time.sleep(0.2 if received else 0)  # little to do until it is back


@pytest.mark.process
def test_a_worker_with_the_work_of_an_earlier_dispatcher(directory, monkeypatch):
    """The new dispatcher numbers tasks from the beginning, and the worker, held meanwhile, has one of that number."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    running = LocalService(1, 0, PROGRAM, lambda line: None)
    try:
        earlier, _ = both(directory, connect(running), shuffle_rows=GROUP, seed=1, repeat=True)
        keep = iter(earlier)
        next(keep)
        os.kill(running.workers[0].pid, signal.SIGSTOP)
        running.dispatcher.kill()
        running.dispatcher.wait()
        assert running.watch()
        service = connect(running, patience=0.5, retry=0.5, answer_within=300)
        deadline = time.monotonic() + 300
        for step, batches in enumerate(zip(*both(directory, service, seed=2, repeat=True), strict=True)):
            if step == 12:  # the third window: its request is with the dispatcher
                os.kill(running.workers[0].pid, signal.SIGCONT)
            assert_same(*batches)
            if service.received >= 6:  # about two of them are still on their way to us
                break
            assert time.monotonic() < deadline, (service.received, service.read_here)
            time.sleep(0.1 if step > 12 else 0)
    finally:
        os.kill(running.workers[0].pid, signal.SIGCONT)
        running.stop()
