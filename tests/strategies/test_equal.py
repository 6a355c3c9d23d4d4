"""The same data under every strategy that runs on one machine."""

import sys
from pathlib import Path

import click_log
import numpy as np
import pytest

from tfrs_dlrm.cluster import LocalCluster
from tfrs_dlrm.strategy import make_strategy

sys.path.insert(0, str(Path(__file__).parent))
import tiny_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return click_log.make(str(tmp_path_factory.mktemp("log")), rows=6000)


def in_processes(strategy, data, path, workers, servers=0):
    program = [sys.executable, str(Path(__file__).parent / "tiny_run.py"), strategy, data, str(path / "result.npz")]
    ended = []
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    code = LocalCluster(strategy, workers, servers, program, str(path), environment).run(ended.append)
    assert code == 0 and not ended, ended
    return dict(np.load(path / "result.npz"))


def test_every_strategy_trains_alike(data, tmp_path):
    expected = tiny_run.run(make_strategy("one_device"), data)
    mirrored = tiny_run.run(make_strategy("mirrored", 4), data)
    (tmp_path / "workers").mkdir()
    together = in_processes("multi_worker", data, tmp_path / "workers", 2)
    for found in (mirrored, together):
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, atol=1e-5, rtol=1e-5, err_msg=name)
    asynchronous = in_processes("parameter_server", data, tmp_path, 2, 2)
    assert abs(asynchronous["eval/auc"] - expected["eval/auc"]) < 0.01
    assert asynchronous["steps"] == expected["steps"] == tiny_run.STEPS
