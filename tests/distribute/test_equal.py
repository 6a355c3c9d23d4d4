"""The same data under every strategy that runs on one machine."""

import dataclasses
import sys
from pathlib import Path

import click_log
import numpy as np
import pytest
import tiny_run
from cases import matrix

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig
from tfrs_dlrm.distribute.local_cluster import LocalCluster
from tfrs_dlrm.distribute.placement import Topology
from tfrs_dlrm.distribute.strategies import make_strategy
from tfrs_dlrm.tools.planner import plan


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return click_log.make(str(tmp_path_factory.mktemp("log")), rows=16000)


def in_processes(strategy, data, path, steps, workers, servers=0, with_groups=""):
    path.mkdir()
    program = [sys.executable, tiny_run.__file__, strategy, data, str(path / "result.npz"), str(steps), with_groups]
    ended = []
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    code = LocalCluster(strategy, workers, servers, program, str(path), environment, terminal=False).run(ended.append)
    assert code == 0 and not ended, (ended, *(f.read_text()[-2000:] for f in path.glob("*.log")))
    return dict(np.load(path / "result.npz"))


@pytest.fixture(scope="module")
def expected(data):
    """Weights, slots and metrics after 50 steps on one device."""
    return tiny_run.run(make_strategy("one_device"), data, 50)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5, rtol=1e-5, err_msg=name)


# 64 examples are 16 for each of four replicas; 22, 22 and 20 for three.
@pytest.mark.parametrize("replicas", matrix([3, 4], fast=[3]))
@pytest.mark.slow
def test_replicas_equal_one_device(data, expected, replicas):
    assert_equal(tiny_run.run(make_strategy("mirrored", replicas), data, 50), expected)


@pytest.mark.cluster
def test_workers_equal_one_device(data, expected, tmp_path):
    """Metrics too: those of all replicas, not summed over processes. And list losses, whose groups no worker shares."""
    grouped = dataclasses.replace(click_log.SCHEMA, group="user")
    lists = click_log.make(str(tmp_path / "lists"), rows=2000, schema=grouped)
    workers = in_processes("multi_worker", data, tmp_path / "workers", 50, workers=2, with_groups=lists)
    assert_equal(workers, expected | tiny_run.ranked(make_strategy("one_device"), lists, 50))

    # All tables and slots are on every worker, and take what the planner says.
    config = RunConfig(
        DataConfig("there"),
        DLRMConfig(8, bottom_mlp=(16, 8), top_mlp=(16, 1)),
        OptimizerConfig("adagrad", 0.1, "adagrad"),
    )
    planned = plan(td.Schema.load(f"{data}/schema.json"), config, Topology("multi_worker", 2)).memory[1]
    sizes = {
        kind: sum(v.nbytes for n, v in workers.items() if n.startswith(kind)) for kind in ("table", "slot", "dense")
    }
    assert list(sizes.values()) == [planned.tables, planned.slots, planned.dense_weights]


@pytest.mark.cluster
def test_asynchronous_training_learns_as_well(data, tmp_path):
    """Each worker in an order of its own: 300 steps, where AUCs of other orders differ by 0.002 on one device."""
    expected = tiny_run.run(make_strategy("one_device"), data, 300)
    found = in_processes("parameter_server", data, tmp_path / "cluster", 300, workers=2, servers=2)
    assert abs(found["eval/auc"] - expected["eval/auc"]) < 0.01
    assert found["steps"] == expected["steps"] == 300
    # The metrics of the run are of all workers: their log loss is that of the examples, not a sum over workers.
    for name in ("log_loss", "auc", "calibration"):
        np.testing.assert_allclose(found[f"fit/{name}"], expected[f"fit/{name}"], rtol=0.05)
