"""Every way to save a model with every way to restore it, tables shared out in any number of shards."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import travel
from fake_tpu import tables_in_layout

import tfrs_dlrm as td
from tfrs_dlrm.distribute.strategies import make_strategy

HERE = {
    "one_device": lambda: make_strategy("one_device"),
    "mirrored-2": lambda: make_strategy("mirrored", 2),
    "mirrored-4": lambda: make_strategy("mirrored", 4),
}
CLUSTERS = {"ps-1": 1, "ps-3": 3}
TPUS = {"tpu-V1": "V1", "tpu-SparseCore": "SparseCore"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Where everything was saved, restored and trained on under every strategy; see `travel`."""
    path = tmp_path_factory.mktemp("travel")
    names = [*HERE, *TPUS, *CLUSTERS]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = []
    for name, servers in CLUSTERS.items():
        command = [sys.executable, travel.__file__, str(servers), str(path), *names]
        with open(path / f"{name}.log", "wb") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        for name, make in HERE.items():
            with make().scope():
                travel.save(travel.make_model(), str(path), name)
        for name, kind in TPUS.items():
            _save_from_tpu(path, name, kind)
        for process, name in zip(processes, CLUSTERS, strict=True):
            assert process.wait(300) == 0, (path / f"{name}.log").read_text()[-3000:]
        for by, make in HERE.items():
            for name in names:
                with make().scope():
                    travel.restore(travel.make_model(), str(path), name, by)
    finally:
        for process in processes:
            process.kill()
    return path


def _save_from_tpu(path, name, kind):
    """A checkpoint written from tables in the layout of TPU training, which are those of a run on one device."""
    optimizer = td.Adagrad(0.05)
    with make_strategy("one_device").scope():
        trained = travel.make_model()
        travel.train(trained, 0)
    rows = trained.embeddings.logical_tables(trained.embedding_optimizer)
    with tables_in_layout(kind, travel.SCHEMA, optimizer) as tables:
        assert sorted(tables.hardware.tables) == ["site", "user", "words"]
        stored = tables.logical_tables(optimizer)
        for key, own in stored.items():
            values = np.concatenate([p.read(p.begin, p.end).numpy() for p in rows[key].shards])
            for shard in own.shards:
                shard.write(shard.begin, tf.constant(values[shard.begin : shard.end]))
    # All but the tables is the same on any device: only those of the trained model are exchanged.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(trained.embeddings), "stored", lambda self, optimizer: stored)
        td.save_checkpoint(trained, str(path / name))
    travel.publish(str(path), f"{name}.saved", travel.state(trained))
    travel.train(trained, travel.STEPS)
    travel.publish(str(path), f"{name}.continued", travel.state(trained))


@pytest.mark.parametrize("restored_on", [*HERE, *CLUSTERS])
@pytest.mark.parametrize("saved_on", [*HERE, *TPUS, *CLUSTERS])
def test_checkpoints_travel(directory, saved_on, restored_on):
    def read(name):
        return dict(np.load(directory / f"{name}.npz"))

    saved, restored = read(f"{saved_on}.saved"), read(f"{saved_on}.restored-{restored_on}")
    assert saved.keys() == restored.keys() and saved["steps"] == travel.STEPS
    for name, values in saved.items():
        np.testing.assert_array_equal(restored[name], values, err_msg=name)
    # Training goes on as it would have where the checkpoint was written.
    uninterrupted, continued = read(f"{saved_on}.continued"), read(f"{saved_on}.continued-{restored_on}")
    assert uninterrupted["steps"] == continued["steps"] == 2 * travel.STEPS
    for name, values in uninterrupted.items():
        np.testing.assert_allclose(continued[name], values, atol=1e-5, rtol=1e-5, err_msg=name)
        if name.startswith("tables/"):
            assert not np.array_equal(values, saved[name])


def test_the_strategies_do_hold_the_tables_in_different_pieces():
    shards = {}
    for name, make in HERE.items():
        with make().scope():
            model = travel.make_model()
        shards[name] = [len(s.shards) for s in model.embeddings.logical_tables().values()]
    assert shards["one_device"] == [1, 1, 1] and max(shards["mirrored-4"]) > max(shards["mirrored-2"]) > 1


@pytest.mark.parametrize("strategy", [*HERE, *CLUSTERS])
def test_the_planner_knows_what_each_device_holds(directory, strategy):
    """Dense weights, which TensorFlow deals out to the servers one by one, are the only part that is not exact."""
    if strategy in HERE:
        with HERE[strategy]().scope():
            planned, allocated = travel.planned_and_allocated()
    else:
        planned, allocated = (np.load(directory / f"{strategy}.memory.npz")[x] for x in ("planned", "allocated"))
    assert len(planned) == len(allocated) == int(strategy[-1] if strategy[-1].isdigit() else 1)
    np.testing.assert_allclose(planned, allocated, rtol=0.05)
    if strategy in HERE:
        np.testing.assert_array_equal(planned, allocated)
