"""`save_checkpoint` and `restore_checkpoint` on a compiled model."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_model
import tensorflow as tf
import tf_keras as keras
from cases import matrix
from small_model import assert_equal, everything, make, train

import tfrs_dlrm as td
from tfrs_dlrm.checkpoint import table_rows as rows
from tfrs_dlrm.distribute import placement
from tfrs_dlrm.embeddings.storage import ShardedTable


@pytest.fixture
def saved(tmp_path):
    """A trained model and its checkpoint."""
    model = make()
    train(model)
    path = str(tmp_path / "saved")
    td.save_checkpoint(model, path)
    return model, path


def strategy(replicas: int) -> tf.distribute.Strategy:
    if replicas == 1:
        return tf.distribute.get_strategy()
    # Collective ops, the default, do not bear strategies of several sizes in one process.
    devices, ops = [f"CPU:{i}" for i in range(replicas)], tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, ops)


@pytest.mark.parametrize("saved_on", matrix([1, 2, 3, 4], fast=[1, 3]))
@pytest.mark.slow
def test_any_number_of_replicas_to_any_other(tmp_path, monkeypatch, saved_on):
    """Tables shared out, slots included; on one device the next steps are as if uninterrupted."""
    monkeypatch.setattr(placement, "REPLICATE_BELOW", dict.fromkeys(placement.REPLICATE_BELOW, 1000))
    path = str(tmp_path / "saved")
    with strategy(saved_on).scope():
        model = make()
    train(model)
    td.save_checkpoint(model, path)
    at_save = everything(model)
    train(model, seed=1)
    after = everything(model)
    for restored_on in (1, 2, 3, 4):
        with strategy(restored_on).scope():
            again = make(seed=5)
        assert isinstance(again.embeddings.tables["site"], ShardedTable) == (restored_on > 1)
        td.restore_checkpoint(again, path)
        assert_equal(everything(again), at_save)
        if restored_on == 1:
            train(again, seed=1)
            for name, value in everything(again).items():
                # Replicas add up in another order, and bfloat16 is rounded at random.
                atol = 0 if saved_on == 1 else 1e-2 if name == "tables/user" else 1e-3
                np.testing.assert_allclose(value, after[name], rtol=0, atol=atol, err_msg=name)


def test_evaluation_needs_no_optimizer(saved):
    model, path = saved
    again = td.DLRM(small_model.SCHEMA, (8, 4), (8, 1), seed=5)
    td.restore_checkpoint(again, path)
    batch = next(iter(small_model.data(1, seed=3)))[0]
    np.testing.assert_array_equal(again(batch), model(batch))
    with pytest.raises(ValueError, match=r"only the checkpoint has slots/site/acc.*, only the model has nothing"):
        td.restore_checkpoint(make(optimizer=td.SGD(0.1)), path)


def test_a_model_that_holds_its_tables_twice_saves_them_once(tmp_path):
    """What is written for layers is small, however a model of one's own keeps its layers."""
    model = make()
    model.my_layers = [model.embeddings, model.top_mlp, model.embeddings.tables["site"]]
    model.extra = {"more": tf.Variable([1.0, 2.0])}
    td.save_checkpoint(model, str(tmp_path / "a"))
    shapes = tf.train.load_checkpoint(str(tmp_path / "a" / "dense")).get_variable_to_shape_map()
    assert not [name for name, shape in shapes.items() if shape[:1] in ([300], [200], [6])]
    again = make(seed=5)
    again.extra = {"more": tf.Variable([0.0, 0.0])}
    td.restore_checkpoint(again, str(tmp_path / "a"))
    assert again.extra["more"].numpy().tolist() == [1.0, 2.0]
    assert_equal(everything(again), everything(model))


def test_nothing_is_overwritten_and_nothing_half_written_stays(saved, tmp_path, monkeypatch):
    model, path = saved
    with pytest.raises(FileExistsError, match="choose another name"):
        td.save_checkpoint(model, path)

    def full(**_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.raw_ops, "MergeV2Checkpoints", full)
    with pytest.raises(OSError, match=r"the disk is full; .* free some space, then save again"):
        td.save_checkpoint(model, str(tmp_path / "other"))
    assert os.listdir(tmp_path) == ["saved"]


def test_another_schema_or_shape_is_refused_by_name(saved, tmp_path):
    _, path = saved
    schema = small_model.SCHEMA.with_vocabulary_sizes({"site": 301})
    with pytest.raises(ValueError, match=r"saved: of another schema: table 'site' vocabulary_size: 300 != 301"):
        td.restore_checkpoint(make(schema=schema), path)
    manifest = json.loads(Path(path, "manifest.json").read_text())
    manifest["schema"]["tables"][0]["vocabulary_size"] = 301
    Path(path, "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"site is float32 \[300, 4\] in the checkpoint, and float32 \[301, 4\] in"):
        td.restore_checkpoint(make(schema=schema), path)
    wider = td.DLRM(small_model.SCHEMA, (9, 4), (8, 1))
    wider.compile()
    manifest["schema"]["tables"][0]["vocabulary_size"] = 300
    Path(path, "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"saved: damaged, or of another model: .*shape"):
        td.restore_checkpoint(wider, path)
    manifest["format"] = 2
    Path(path, "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="a checkpoint of format 2; this version reads 1"):
        td.restore_checkpoint(make(), path)
    with pytest.raises(FileNotFoundError, match=r"nothing: not a checkpoint \(no manifest.json\)"):
        td.restore_checkpoint(make(), str(tmp_path / "nothing"))


def damage(file: Path, how: str, rng: np.random.Generator) -> None:
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "cut short":
        file.write_bytes(content[: int(rng.integers(1, len(content)))])
    elif how == "zeros at the end":
        file.write_bytes(content[: len(content) // 2] + b"\0" * (len(content) - len(content) // 2))
    else:
        place = int(rng.integers(len(content)))
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << int(rng.integers(8)))]) + content[place + 1 :])


@pytest.mark.parametrize("how", ["missing", "empty", "cut short", "zeros at the end", "a flipped bit"])
def test_damaged_files_of_every_kind_are_refused(saved, tmp_path, how):
    """A flipped bit may be in bytes that mean nothing, as padding; then what is restored must be right."""
    model, path = saved
    original, again = everything(model), make(seed=5)
    rng = np.random.default_rng(0)
    for name in sorted(os.listdir(path)):
        for attempt in range(8 if how == "a flipped bit" else 1):
            copy = tmp_path / f"{name}-{attempt}"
            shutil.copytree(path, copy)
            damage(copy / name, how, rng)
            try:
                td.restore_checkpoint(again, str(copy))
            except (ValueError, FileNotFoundError) as e:
                assert str(copy) in str(e)
            else:
                assert how == "a flipped bit", name
                assert_equal(everything(again), original)


def test_what_other_programs_may_read(saved):
    """The names are a promise."""
    model, path = saved
    table = tf.train.load_checkpoint(f"{path}/rows")
    assert sorted(table.get_variable_to_shape_map()) == [
        *(f"slots/{name}/accumulator" for name in ("site", "slot", "user")),
        *(f"tables/{name}" for name in ("site", "slot", "user")),
    ]
    np.testing.assert_array_equal(table.get_tensor("tables/site"), model.embeddings.tables["site"].numpy())
    names = {name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for name, _ in tf.train.list_variables(f"{path}/dense")}
    assert {"model/bottom_mlp/dense_layers/0/kernel", "model/embedding_optimizer/iterations"} < names
    manifest = json.loads(Path(path, "manifest.json").read_text())
    assert manifest["step"] == 3 and manifest["rows"]["tables/user"]["dtype"] == "bfloat16"
    assert set(manifest["files"]) == set(os.listdir(path)) - {"manifest.json"}


def test_other_optimizers_slots_and_parts_travel(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "PART_BYTES", 500)
    tables = tuple(dataclasses.replace(t, remainders=7) if t.name == "site" else t for t in small_model.SCHEMA.tables)
    schema = dataclasses.replace(small_model.SCHEMA, tables=tables)

    def compiled(seed):
        return make(
            seed, td.PerTableOptimizer(td.LazyAdam(), {"user": td.FTRL(0.1)}), schema, keras.optimizers.SGD(0.1)
        )

    model, again = compiled(0), compiled(5)
    train(model)
    td.save_checkpoint(model, str(tmp_path / "a"))
    td.restore_checkpoint(again, str(tmp_path / "a"))
    assert {"slots/user/linear", "slots/site__quotient/m"} < set(everything(again))
    assert_equal(everything(again), everything(model))


_PEAKS = """
import resource, sys
import tensorflow as tf
import tfrs_dlrm as td
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table
features = tuple(CategoricalFeature(name) for name in ("a", "b"))
tables = (Table("a", 64, (256 << 20) // 256), Table("b", 64, (128 << 20) // 256))
model = td.DLRM(Schema(Label("y"), (), features, tables), top_mlp=(1,))
model.compile(embedding_optimizer=td.SGD(0.1))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
peaks = [peak()]
td.save_checkpoint(model, sys.argv[1])
peaks.append(peak())
for table in model.embeddings.tables.values():
    table.scatter_update(tf.IndexedSlices(tf.zeros([1, 64]), tf.constant([5])))
td.restore_checkpoint(model, sys.argv[1])
print("RESULT", *peaks, peak())
"""


@pytest.mark.process
def test_memory_beside_tables_is_bounded(tmp_path):
    """384 MiB of tables. What `tf.train.Checkpoint` does with them takes as much again."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _PEAKS, str(tmp_path / "saved")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    before, saved, restored = map(int, done.stdout.split("RESULT")[1].split())
    assert before > 384
    assert saved - before < 250, (before, saved, restored)
    assert restored - before < 350, (before, saved, restored)
