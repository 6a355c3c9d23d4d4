"""Every way to save a model with every way to restore it, tables shared out in any number of shards."""

import os
import subprocess
import sys
from pathlib import Path

import daily_run
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


# A checkpoint holds whole tables, whoever saved it: so one device restores what was saved anywhere, and all others what
# one device saved, and what was saved in more and in fewer pieces than they have.
TRIPS = {
    "one_device": ("one_device", "mirrored-2", "mirrored-4", "ps-1", "ps-3", "tpu-V1", "tpu-SparseCore"),
    "mirrored-2": ("one_device", "mirrored-4"),
    "mirrored-4": ("mirrored-2", "ps-3", "tpu-V1"),
    "ps-1": ("one_device", "ps-3"),
    "ps-3": ("one_device", "ps-1", "mirrored-4", "tpu-SparseCore"),
}
# Other models, and from where to where: histories, and labels after one another that share experts.
OTHERS = [
    ("din", "mirrored-2", "one_device"),
    ("bst", "one_device", "mirrored-2"),
    ("mmoe", "mirrored-2", "one_device"),
    ("ple", "one_device", "mirrored-2"),
    ("ple", "one_device", "ps-3"),
    ("ple", "ps-3", "one_device"),
]
ALL_TRIPS = [*(("dlrm", there, here) for here, places in TRIPS.items() for there in places), *OTHERS]
# Replicas of any number are in tests/checkpoint/test_save.py.
FAST = {("dlrm", "tpu-V1", "one_device")}


class Trip:
    """Saves and restores in this process what a test asks for, once; see `travel`."""

    def __init__(self, path):
        self.path = path
        self.done = set()

    def saved(self, model, place):
        if (model, place) in self.done or place in CLUSTERS:
            return
        self.done.add((model, place))
        if place in TPUS:
            _save_from_tpu(self.path, f"{place}-{model}", TPUS[place])
        else:
            with HERE[place]().scope():
                travel.save(travel.make_model(model), str(self.path), f"{place}-{model}")

    def restored(self, model, place, by):
        self.saved(model, place)
        if (model, place, by) in self.done or by in CLUSTERS:
            return
        self.done.add((model, place, by))
        with HERE[by]().scope():
            travel.restore(travel.make_model(model), str(self.path), f"{place}-{model}", by)


@pytest.fixture(scope="module")
def trip(tmp_path_factory):
    return Trip(tmp_path_factory.mktemp("travel"))


@pytest.fixture(scope="module")
def clusters(trip):
    """The clusters have saved, and have restored what was saved anywhere."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = []
    for name, servers in CLUSTERS.items():
        to_restore = [f"{there}-{model}" for model, there, here in ALL_TRIPS if here == name]
        command = [sys.executable, travel.__file__, str(servers), str(trip.path), *to_restore]
        with open(trip.path / f"{name}.log", "wb") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        for model, there, here in ALL_TRIPS:
            if here in CLUSTERS:
                trip.saved(model, there)
        days = trip.path / "days"
        days.mkdir()
        daily_run.make(days)
        for process, name in zip(processes, CLUSTERS, strict=True):
            assert process.wait(600) == 0, (trip.path / f"{name}.log").read_text()[-3000:]
    finally:
        for process in processes:
            process.kill()


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
        patch.setattr(type(trained.embeddings), "logical_tables", lambda self, optimizer: stored)
        td.save_checkpoint(trained, str(path / name))
    travel.publish(str(path), f"{name}.saved", travel.state_and_answers(trained))
    travel.train(trained, travel.STEPS)
    travel.publish(str(path), f"{name}.continued", travel.state(trained))


def cases():
    for case in ALL_TRIPS:
        mark = pytest.mark.cluster if CLUSTERS.keys() & set(case) else pytest.mark.matrix
        yield pytest.param(*case, marks=() if case in FAST else mark)


@pytest.mark.parametrize(("model", "saved_on", "restored_on"), list(cases()))
def test_checkpoints_travel(trip, model, saved_on, restored_on, request):
    def read(name):
        return dict(np.load(trip.path / f"{saved_on}-{model}.{name}.npz"))

    if CLUSTERS.keys() & {saved_on, restored_on}:
        request.getfixturevalue("clusters")
    trip.restored(model, saved_on, restored_on)
    saved, restored = read("saved"), read(f"restored-{restored_on}")
    assert saved.keys() == restored.keys() and saved["steps"] == travel.STEPS
    np.testing.assert_allclose(restored.pop("logits"), saved["logits"], atol=1e-6)
    for name, values in restored.items():
        np.testing.assert_array_equal(values, saved[name], err_msg=name)
    # Training goes on as it would have where the checkpoint was written.
    uninterrupted, continued = read("continued"), read(f"continued-{restored_on}")
    assert uninterrupted["steps"] == continued["steps"] == 2 * travel.STEPS
    for name, values in uninterrupted.items():
        np.testing.assert_allclose(continued[name], values, atol=1e-5, rtol=1e-5, err_msg=name)
        if name.startswith("tables/"):
            assert not np.array_equal(values, saved[name])


@pytest.mark.cluster
@pytest.mark.parametrize("by", CLUSTERS)
@pytest.mark.usefixtures("clusters")
def test_a_run_moves_to_a_later_vocabulary(trip, by):
    """Weights and slots as on one device, and the same scores of rows whose values both vocabularies know."""
    found = dict(np.load(trip.path / f"{by}.moved.npz"))
    expected = daily_run.logits(trip.path / "days", 3)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found.pop("logits"), expected, atol=1e-6)
    weights = travel.state(daily_run.moved(trip.path / "days", 3))
    assert found.keys() == weights.keys()
    for name, values in weights.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_the_strategies_do_hold_the_tables_in_different_pieces():
    shards = {}
    for name, make in HERE.items():
        with make().scope():
            model = travel.make_model()
        shards[name] = [len(s.shards) for s in model.embeddings.logical_tables().values()]
    assert shards["one_device"] == [1, 1, 1] and max(shards["mirrored-4"]) > max(shards["mirrored-2"]) > 1


@pytest.mark.parametrize("strategy", [*HERE, *(pytest.param(name, marks=pytest.mark.cluster) for name in CLUSTERS)])
def test_the_planner_knows_what_each_device_holds(trip, strategy, request):
    """Dense weights, which TensorFlow deals out to the servers one by one, are the only part that is not exact."""
    if strategy in HERE:
        with HERE[strategy]().scope():
            planned, allocated = travel.planned_and_allocated()
    else:
        request.getfixturevalue("clusters")
        planned, allocated = (np.load(trip.path / f"{strategy}.memory.npz")[x] for x in ("planned", "allocated"))
    assert len(planned) == len(allocated) == int(strategy[-1] if strategy[-1].isdigit() else 1)
    np.testing.assert_allclose(planned, allocated, rtol=0.05)
    if strategy in HERE:
        np.testing.assert_array_equal(planned, allocated)
