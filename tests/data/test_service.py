"""Input workers in processes of their own: the batches of `dataset`, whatever becomes of the workers."""

import collections
import os
import signal
import socket
import sys
import time
from pathlib import Path

import click_log
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tfrs_dlrm.data.dataset import dataset
from tfrs_dlrm.data.service.client import InputService
from tfrs_dlrm.data.service.local import LocalService

ROOT = Path(__file__).parents[2]
GROUP, WINDOW, BATCH = 600, 1500, 64  # rows


def make(path, rows):
    """A prepared log with many row groups; `prepare` would make one of so few rows."""
    prepared = click_log.make(str(path), rows=rows)
    for shard in (Path(prepared) / "train").glob("*.parquet"):
        table = pq.read_table(shard)
        pq.write_table(table, shard, row_group_size=GROUP, write_page_checksum=True)
    return prepared


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make(tmp_path_factory.mktemp("log"), 40_000)


@pytest.fixture
def start():
    """Starts services, and ends them."""
    services = []

    def make_one(workers, port=0):
        environment, os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", ""), str(ROOT)
        service = LocalService(workers, port, [sys.executable, str(ROOT / "train/input_service.py")], lambda line: None)
        os.environ["PYTHONPATH"] = environment
        services.append(service)
        return service

    yield make_one
    for service in services:
        service.stop()


def plain(batch):
    return [t.numpy() for t in tf.nest.flatten(batch, expand_composites=True)]


def assert_equal(found, expected):
    """Batch for batch, to the last bit; returns how many there were."""
    count = 0
    for count, (a, b) in enumerate(zip(found, expected, strict=True), 1):
        for x, y in zip(plain(a), plain(b), strict=True):
            np.testing.assert_array_equal(x, y)
    return count


def rows(batch):
    """Each row of a batch, all its columns, as something to count."""
    features, *targets = batch
    columns = [features[name] for name in sorted(features)]
    lists = [c.to_list() if isinstance(c, tf.RaggedTensor) else c.numpy().tolist() for c in (*columns, *targets)]
    return [repr(row) for row in zip(*lists, strict=True)]


def test_batches_are_those_of_this_process_and_a_killed_worker_changes_none(directory, start):
    running = start(2)
    service = InputService(f"grpc://{running.address}", patience=2, capacity=3 << 20)

    def both(**kwargs):
        kwargs = {"shuffle_rows": WINDOW, **kwargs}
        return dataset(directory, BATCH, service=service, **kwargs), dataset(directory, BATCH, **kwargs)

    # From the middle of an epoch into the one after the next; ids sorted as for one device.
    found, expected = both(start_step=100, repeat=True, sort_ids=True, seed=3)
    per_epoch = 30_000 // BATCH
    assert assert_equal(found.take(2 * per_epoch), expected.take(2 * per_epoch)) == 2 * per_epoch
    assert service.received > 0 and service.read_here == 0
    # Windows of several blocks; the part of one of several pipelines; the order of the log.
    context = tf.distribute.InputContext(2, 1, 4)
    for kwargs in ({"shuffle_rows": 20_000}, {"context": context}, {"shuffle": False, "start_step": 5}):
        found, expected = both(**kwargs)
        assert_equal(found, expected)
    assert service.read_here == 0

    # Each iterator is the next epoch. In the second, one of the two workers dies in its middle.
    found, expected = both(drop_remainder=False)
    assert_equal(found, expected)
    counts, expected_rows = collections.Counter(), collections.Counter()
    for step, batch in enumerate(found):
        if step == 100:
            os.kill(running.workers[0].pid, signal.SIGKILL)
        counts.update(rows(batch))
    for batch in expected:
        expected_rows.update(rows(batch))
    assert counts == expected_rows and counts.total() == 30_000
    print(service.received, service.read_here)
    assert 1 <= service.read_here <= 6, "the windows that the dead one had in hand"
