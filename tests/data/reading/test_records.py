"""Records: the rows of `dataset` to the last bit, in any process, or an error that says what to do."""

import collections
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click_log
import pytest
import tensorflow as tf
from cases import matrix

from tfrs_dlrm.data.reading import records as records_module
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.data.reading.record_dataset import record_dataset
from tfrs_dlrm.data.reading.records import RecordIndex, write_records
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema

ONLY_DENSE = Schema(Label("clicked"), dense=(DenseFeature("price"),))
ONLY_LISTS = Schema(Label("clicked"), categorical=(CategoricalFeature("tags", separator="|"),))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = click_log.make(str(tmp_path_factory.mktemp("log")))
    write_records(path)
    return path


@pytest.fixture
def copy(directory, tmp_path):
    """A prepared directory with records to break."""
    return shutil.copytree(directory, tmp_path / "prepared")


def rows_of(batches):
    """Each row with all its columns, as tuples of plain values."""
    rows = []
    for features, *targets in batches:
        columns = [features[name] for name in sorted(features)]
        plain = [c.to_list() if isinstance(c, tf.RaggedTensor) else c.numpy().tolist() for c in (*columns, *targets)]
        rows += [repr(row) for row in zip(*plain, strict=True)]
    return rows


def contents(path):
    """What the files in a directory hold."""
    return {
        str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in path.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("batch_size", matrix([1, 100, 256, 700], fast=[100]))
def test_evaluation_is_what_dataset_gives(directory, batch_size):
    data, expected = (f(directory, batch_size, split="eval") for f in (record_dataset, dataset))
    assert data.element_spec == expected.element_spec and len(data) == len(expected)
    assert rows_of(data) == rows_of(expected)
    assert [b[-1].shape for b in data] == [b[-1].shape for b in expected]


@pytest.mark.parametrize("schema", [ONLY_DENSE, ONLY_LISTS])
def test_a_schema_without_some_kinds_of_feature(tmp_path, schema):
    path = click_log.make(str(tmp_path), rows=800, schema=schema)
    write_records(path)
    data, expected = (f(path, 100, split="eval", drop_remainder=True) for f in (record_dataset, dataset))
    assert data.element_spec == expected.element_spec
    assert rows_of(data) == rows_of(expected) != []


def test_the_training_rows_are_stored_in_the_order_of_an_epoch(directory, tmp_path):
    stored = rows_of(record_dataset(directory, 100, shuffle=False))
    assert stored == rows_of(dataset(directory, 100, drop_remainder=False))
    assert stored != rows_of(dataset(directory, 100, shuffle=False))


def test_every_row_once_an_epoch_and_each_epoch_in_another_order(directory):
    whole = collections.Counter(rows_of(dataset(directory, 100, drop_remainder=False)))
    data = record_dataset(directory, 64, drop_remainder=False)
    epochs = [rows_of(data) for _ in range(2)]
    assert [collections.Counter(e) for e in epochs] == [whole, whole] and epochs[0] != epochs[1]
    training, expected = record_dataset(directory, 64), dataset(directory, 64)
    assert training.element_spec == expected.element_spec  # a static batch
    assert len(list(training)) == len(training) == len(expected)
    assert not collections.Counter(rows_of(training)) - whole
    assert record_dataset(directory, 64, repeat=True).cardinality() == tf.data.INFINITE_CARDINALITY


def test_a_seed_decides_the_order(directory):
    def epochs(seed, **kwargs):
        data = record_dataset(directory, 50, seed=seed, **kwargs)
        return [rows_of(data) for _ in range(2)]

    assert epochs(5) == epochs(5)
    assert len({str(e) for e in [*epochs(5), *epochs(6), *epochs(None), *epochs(None)]}) == 8


@pytest.mark.parametrize("epochs", matrix([0, 1, 2], fast=[1]))
def test_start_step_is_skipping(directory, epochs):
    def batches(start):
        data = record_dataset(directory, 100, seed=3, repeat=True, start_step=start)
        return rows_of(data.take(steps + 3))

    steps = len(record_dataset(directory, 100))
    whole = rows_of(record_dataset(directory, 100, seed=3, repeat=True).take(5 * steps))
    for start in (epochs * steps, epochs * steps + 1, (epochs + 1) * steps - 1):
        assert batches(start) == whole[100 * start : 100 * (start + steps + 3)]


@pytest.mark.parametrize("pipelines", matrix([2, 3], fast=[3]))
@pytest.mark.parametrize("split", matrix(["train", "eval"], fast=["train"]))
def test_input_pipelines_share_the_rows(directory, pipelines, split):
    def part(i, **kwargs):
        context = tf.distribute.InputContext(pipelines, i, num_replicas_in_sync=2 * pipelines)
        return record_dataset(directory, 20 * pipelines, split=split, context=context, **kwargs)

    whole = rows_of(dataset(directory, 100, split=split, shuffle=False, drop_remainder=False))
    rows = [row for i in range(pipelines) for row in rows_of(part(i, drop_remainder=False))]
    assert collections.Counter(rows) == collections.Counter(whole), "a row in two pipelines or in none"
    training = [part(i, drop_remainder=True) for i in range(pipelines)]
    assert {batch[-1].shape for data in training for batch in data} == {(10,)}
    assert len({len(list(data)) for data in training}) == 1, "replicas would wait for each other"


def test_files_are_bounded(directory, copy, monkeypatch):
    """Many small files for a small split; larger ones up to a bound."""
    whole = RecordIndex.load(directory)
    assert [f.blocks for f in whole.train] == [1] * 9 and sum(f.rows for f in whole.train) == 2242
    monkeypatch.setattr(records_module, "_FILES", 1)
    shutil.rmtree(copy / "records")
    write_records(copy, seed=1)
    assert [f.blocks for f in RecordIndex.load(copy).train] == [9]
    orders = [rows_of(record_dataset(copy, 99, shuffle=s, drop_remainder=False)) for s in (False, True, True)]
    assert sorted(orders[0]) == sorted(orders[1]), "a row is missing"
    assert orders[0] != orders[1] != orders[2], "the blocks of a file are not shuffled"
    bound, block = 40_000, max(f.bytes for f in whole.train)
    monkeypatch.setattr(records_module, "_MAX_FILE_BYTES", bound)
    shutil.rmtree(copy / "records")
    write_records(copy, seed=0)
    assert all(bound < f.bytes < bound + block for f in RecordIndex.load(copy).train[:-1])
    assert rows_of(record_dataset(copy, 99, shuffle=False)) == rows_of(record_dataset(directory, 99, shuffle=False))


def test_written_again_only_where_something_changed(copy):
    home, other = Path(copy, "records"), Path(copy.parent, "other")
    before, times = contents(home), {p: p.stat().st_mtime_ns for p in home.iterdir()}
    assert write_records(copy) == str(home) and {p: p.stat().st_mtime_ns for p in home.iterdir()} == times
    write_records(copy, seed=1)
    assert contents(home) == before, "records that another run may be reading were written anew for another order"
    shutil.rmtree(home)
    write_records(copy, seed=1)
    assert contents(home) != before
    shutil.rmtree(home)
    write_records(copy)
    assert contents(home) == before  # equal arguments, equal bytes
    shutil.copytree(home, other / "records")
    shutil.copytree(click_log.make(str(copy.parent / "new"), seed=1), other, dirs_exist_ok=True)
    with pytest.raises(
        ValueError, match=r"records\.json: made from other prepared data .*write_records makes them again"
    ):
        record_dataset(other, 10)
    write_records(other)
    assert rows_of(record_dataset(other, 50, split="eval")) == rows_of(dataset(other, 50, split="eval"))
    assert not Path(other, "records.unfinished").exists()


def test_records_that_another_process_wrote_before_it_gave_the_lock_back_stay(copy, monkeypatch):
    shutil.rmtree(copy / "records")
    lock, times = records_module.directory_lock, {}

    def late(*args):
        monkeypatch.setattr(records_module, "directory_lock", lock)
        write_records(copy)
        times.update({p: p.stat().st_mtime_ns for p in (copy / "records").iterdir()})
        return lock(*args)

    monkeypatch.setattr(records_module, "directory_lock", late)
    write_records(copy)
    assert times and {p: p.stat().st_mtime_ns for p in (copy / "records").iterdir()} == times


_KILLED = """
import os, signal, sys
from tfrs_dlrm.data.reading.records import write_records
write_records(sys.argv[1], progress=lambda stage, done, *_: done > 1000 and os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.process
def test_killed_while_writing(directory, copy):
    shutil.rmtree(copy / "records")
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(copy)], env=_environment(), capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list((copy / "records.unfinished").glob("*.tfrecord"))) > 3
    with pytest.raises(FileNotFoundError, match=r"the data have no records .*write_records makes them"):
        record_dataset(copy, 10)
    told = []
    write_records(copy, progress=lambda *call: told.append(call))
    assert contents(copy / "records") == contents(Path(directory, "records"))
    assert not (copy / "records.unfinished").exists()
    assert told[0] == ("records", 0, 3000, 0) and told[-1] == ("records", 3000, 3000, 3000)


def test_a_full_disk(copy, monkeypatch):
    def write(self, record):
        raise tf.errors.ResourceExhaustedError(None, None, "records.unfinished/x; No space left on device")

    monkeypatch.setattr(tf.io.TFRecordWriter, "write", write)
    shutil.rmtree(copy / "records")
    with pytest.raises(
        OSError, match=r"the disk is full; .*prepared: free some space, then run the same command again"
    ):
        write_records(copy, seed=1)
    assert not list(copy.glob("records*"))  # what was written is given back


@pytest.mark.parametrize("split", ["train", "eval"])
def test_damage(directory, copy, split):
    path = Path(copy, "records", f"{split}-00001.tfrecord")
    good = path.read_bytes()
    middle = len(good) // 2
    path.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"00001\.tfrecord: damaged; remove its directory and let"):
        list(record_dataset(copy, 10, split=split))
    path.write_bytes(good)
    data = record_dataset(copy, 10, split=split)
    path.unlink()
    with pytest.raises(tf.errors.NotFoundError, match=r"00001\.tfrecord; No such file"):
        list(data)
    with pytest.raises(
        ValueError, match=rf"00001\.tfrecord: no such file, {len(good)} bytes are expected; .*makes the records again"
    ):
        record_dataset(copy, 10, split=split)
    path.write_bytes(good[:-1])
    with pytest.raises(ValueError, match=rf"00001\.tfrecord: {len(good) - 1} bytes, {len(good)} bytes are expected"):
        record_dataset(copy, 10)
    write_records(copy)
    assert contents(copy / "records") == contents(Path(directory, "records"))


def test_messages(directory, tmp_path):
    with pytest.raises(FileNotFoundError, match="no prepared data"):
        write_records(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no prepared data"):
        record_dataset(str(tmp_path), 1)
    with pytest.raises(ValueError, match="batch_size=0 and start_step=0: give at least 1 and 0"):
        record_dataset(directory, 0)
    with pytest.raises(ValueError, match="2242 train rows are too few for a batch of 2300"):
        record_dataset(directory, 2300)
    with pytest.raises(ValueError, match="start_step=1 needs repeat=True, and a seed where the rows are shuffled"):
        record_dataset(directory, 1, start_step=1, repeat=True)
    context = tf.distribute.InputContext(10, 0, num_replicas_in_sync=10)
    with pytest.raises(ValueError, match="9 files of records cannot be shared by 10 input pipelines"):
        record_dataset(directory, 10, context=context)
    with pytest.raises(ValueError, match="split='test' is unknown; give 'train' or 'eval'"):
        record_dataset(directory, 1, split="test")


# A worker and a parameter server of nothing but TensorFlow.
_SERVERS = """
import json, sys
sys.modules["tfrs_dlrm"] = sys.modules["pyarrow"] = None  # importing them is an error
import tensorflow as tf
cluster = tf.train.ClusterSpec(json.loads(sys.argv[1]))
servers = [tf.distribute.Server(cluster, job_name=job, task_index=0) for job in ("worker", "ps")]
servers[0].join()
"""

# The coordinator: two epochs, each from its own iterator, on the worker; prints rows as lists of columns.
_COORDINATOR = """
import json, sys
import tfrs_dlrm
import tensorflow as tf
from tfrs_dlrm.data.reading.record_dataset import record_dataset

tf.random.set_seed(1)
cluster = tf.train.ClusterSpec(json.loads(sys.argv[1]))
resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")
coordinator = tf.distribute.coordinator.ClusterCoordinator(tf.distribute.ParameterServerStrategy(resolver))
data = coordinator.create_per_worker_dataset(lambda: record_dataset("prepared", 100, drop_remainder=False))

@tf.function
def step(iterator):
    features, label, weight = next(iterator)
    tags = [features[name].to_tensor(-1) for name in ("tags", "tags_weights")]
    return features["dense"], features["ids"], *tags, label, weight

for _ in range(2):
    batches = [coordinator.schedule(step, args=(iterator,)) for iterator in [iter(data)] for _ in range(23)]
    coordinator.join()
    print("EPOCH", json.dumps([[column.tolist() for column in batch.fetch()] for batch in batches]), flush=True)
"""


def _environment():
    root = str(Path(records_module.__file__).parents[3])
    return {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.mark.cluster
def test_workers_read_without_python(directory, tmp_path):
    """Under ParameterServerStrategy, in another process, which cannot import this package and has another folder."""
    ports = [_free_port() for _ in range(2)]
    cluster = json.dumps({"worker": [f"127.0.0.1:{ports[0]}"], "ps": [f"127.0.0.1:{ports[1]}"]})
    servers = subprocess.Popen(
        [sys.executable, "-c", _SERVERS, cluster], cwd=tmp_path, env={**_environment(), "PYTHONPATH": ""}
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", _COORDINATOR, cluster],
            cwd=Path(directory).parent,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert servers.poll() is None
    finally:
        servers.kill()
        servers.wait()
    epochs = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("EPOCH ")]
    rows = [[_unpadded(row) for batch in epoch for row in zip(*batch, strict=True)] for epoch in epochs]
    expected = []
    for features, label, weight in dataset(directory, 100, drop_remainder=False):
        names = ("dense", "ids", "tags", "tags_weights")
        columns = [
            c.to_list() if isinstance(c, tf.RaggedTensor) else c.numpy().tolist() for c in map(features.get, names)
        ]
        expected += map(repr, zip(*columns, label.numpy().tolist(), weight.numpy().tolist(), strict=True))
    assert [sorted(r) for r in rows] == [sorted(expected)] * 2, "not every row once an epoch"
    assert rows[0] != rows[1], "both iterators have the same order, because of tf.random.set_seed"


def _unpadded(row):
    dense, ids, tags, weights, label, weight = row
    count = sum(t != -1 for t in tags)
    return repr((dense, ids, tags[:count], weights[:count], label, weight))


def _free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
