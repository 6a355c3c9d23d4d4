"""Tables that begin with the vectors of a file, compared with the file, before and after training."""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, RunConfig, TrainConfig
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.loop import train_and_evaluate

VECTORS = {"red": [1.0, 2, 3], "blue": [4.0, 5, 6], "never seen": [7.0, 8, 9]}


@pytest.fixture(scope="module")
def log():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "y": rng.integers(0, 2, 60),
            "x": rng.normal(size=60),
            "color": rng.choice(["red", "blue", "green"], 60),
            "tags": rng.choice(["red|blue", "green"], 60),
            "slot": rng.integers(0, 4, 60),
        }
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The vectors of `VECTORS` in Parquet, and those of four ids in NumPy."""
    path = tmp_path_factory.mktemp("vectors")
    table = pa.table({"color": list(VECTORS), "id": [1, 2, 3], "vector": list(VECTORS.values())})
    pq.write_table(table, path / "colors.parquet")
    np.save(path / "slots.npy", np.arange(8.0).reshape(4, 2))
    return path


def schema(files, **color):
    return Schema(
        Label("y"),
        (DenseFeature("x"),),
        (
            CategoricalFeature("color"),
            CategoricalFeature("tags", separator="|", table="tags"),
            CategoricalFeature("slot", encoding="ids", dtype="int64"),
        ),
        (
            Table("color", 3, init_from=f"{files}/colors.parquet", **color),
            Table("tags", 4),
            Table("slot", 2, 4, init_from=f"{files}/slots.npy", trainable=False),
        ),
    )


def by_value(model, encoder, table="color"):
    rows, _ = encoder.rows(encoder.schema.categorical[0], tf.constant(["red", "blue", "green", "other"]))
    return model.embeddings.tables[table].numpy()[rows.numpy()]


@pytest.mark.parametrize("make", [td.DLRM, td.WideAndDeep])
def test_rows_follow_their_values_and_the_others_stay(log, files, make):
    encoder = td.fit_encoder(schema(files), log)
    model = make(encoder.schema, top_mlp=(4, 1), **({"bottom_mlp": (4,)} if make is td.DLRM else {}))
    before = by_value(model, encoder)
    lines = td.init_rows(model, encoder)
    after = by_value(model, encoder)
    np.testing.assert_array_equal(after[:2, :3], [VECTORS["red"], VECTORS["blue"]])
    np.testing.assert_array_equal(after[2:], before[2:])
    np.testing.assert_array_equal(after[:, 3:], before[:, 3:])  # the linear weights of WideAndDeep
    np.testing.assert_array_equal(model.embeddings.tables["slot"].numpy()[:, :2], np.arange(8).reshape(4, 2))
    assert "'color': 2 of 4 rows" in lines[0] and "does not change" in lines[1]


def test_only_trainable_rows_train(log, files):
    encoder = td.fit_encoder(schema(files), log)
    model = td.DLRM(encoder.schema, (4,), (4, 1))
    td.init_rows(model, encoder)
    model.compile(keras.optimizers.SGD(0.1), td.Adagrad(0.1, weight_decay=0.1), metrics=[])
    model.fit(td.dataset(log, 20, encoder=encoder, shuffle=False), verbose=0)
    np.testing.assert_array_equal(model.embeddings.tables["slot"].numpy(), np.arange(8).reshape(4, 2))
    assert (by_value(model, encoder)[:3, :3] != [*list(VECTORS.values())[:2], [0, 0, 0]]).all()


def test_a_run_begins_with_them_and_keeps_their_dimension(log, files, tmp_path):
    data = str(tmp_path / "data")
    td.prepare(schema(files, trainable=False), log, data, eval_fraction=0.3)
    config = RunConfig(
        DataConfig(path=data),
        DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(4, 1)),
        train=TrainConfig(batch_size=20, epochs=1, tensorboard=False),
    )
    train_and_evaluate(config, str(tmp_path / "run"))
    model, _, _ = load_run(str(tmp_path / "run"))
    assert {name: v.shape[1] for name, v in model.embeddings.tables.items()} == {"color": 3, "tags": 4, "slot": 2}
    encoder = td.Encoder.load(data)
    np.testing.assert_array_equal(by_value(model, encoder)[:2], [VECTORS["red"], VECTORS["blue"]])


def test_refuses(log, files, tmp_path):
    def error(**color):
        given = schema(files)
        given = dataclasses.replace(given, tables=(dataclasses.replace(given.tables[0], **color), *given.tables[1:]))
        encoder = td.fit_encoder(given, log)
        model = td.DLRM(encoder.schema, (4,), (4, 1))
        with pytest.raises((ValueError, FileNotFoundError)) as e:
            td.init_rows(model, encoder)
        return str(e.value)

    assert '3 numbers and the table of 5; set "dim": 3' in error(dim=5)
    assert "there is no such file" in error(init_from="absent.parquet")
    assert "neither in .npy nor in .parquet" in error(init_from="a.csv")
    assert "write a Parquet file" in error(init_from=f"{files}/slots.npy")
    for name, columns, said in (
        ("none", {"color": ["red"], "v": [1.0]}, "a list column of vectors"),
        ("two", {"a": ["red"], "b": ["red"], "v": [[1.0, 2, 3]]}, "a column 'color' of values"),
        ("ragged", {"color": ["red", "blue"], "v": [[1.0, 2, 3], [1.0]]}, "all need the same number"),
        ("nan", {"color": ["red"], "v": [[1.0, 2, np.nan]]}, "NaN or infinite"),
    ):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        assert said in error(init_from=str(tmp_path / f"{name}.parquet"))
    with pytest.raises(ValueError, match="rows of a compressed table share theirs"):
        Schema(Label("y"), (), (CategoricalFeature("c"),), (Table("c", 3, remainders=2, init_from="x.npy"),))
