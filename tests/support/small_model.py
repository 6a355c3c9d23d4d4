"""A small compiled model, and all that it knows."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("price"),),
    categorical=(CategoricalFeature("site"), CategoricalFeature("user"), CategoricalFeature("slot")),
    tables=(Table("site", 4, 300), Table("user", 4, 200, dtype="bfloat16"), Table("slot", 4, 6)),
)


def make(seed: int = 0, optimizer=None, schema: Schema = SCHEMA, dense=None) -> td.DLRM:
    model = td.DLRM(schema, (8, 4), (8, 1), seed=seed)
    model.compile(dense or keras.optimizers.Adam(0.01), optimizer or td.RowWiseAdagrad(0.1), metrics=[])
    return model


def data(steps: int, seed: int = 0) -> tf.data.Dataset:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, [300, 200, 6], (steps * 24, 3)).astype(np.int32)
    features = {"dense": rng.normal(size=(steps * 24, 1)).astype(np.float32), "ids": ids}
    return tf.data.Dataset.from_tensor_slices((features, (ids[:, 0] % 2).astype(np.float32))).batch(24)


def train(model: td.DLRM, steps: int = 3, seed: int = 0) -> None:
    model.fit(data(steps, seed), verbose=0)


def everything(model: td.DLRM) -> dict[str, np.ndarray]:
    """Weights, tables, slots and counters by name, as float64."""
    out = {f"tables/{name}": table.numpy() for name, table in model.embeddings.tables.items()}
    out |= {f"dense/{i}": v.numpy() for i, v in enumerate(model.dense_variables)}
    if getattr(model, "embedding_optimizer", None) is not None:
        out["iterations"] = model.embedding_optimizer.iterations.numpy()
        out |= {f"optimizer/{i}": v.numpy() for i, v in enumerate(model.optimizer.variables)}
        for table, slots in model.embedding_optimizer.slots.items():
            out |= {f"slots/{table}/{slot}": v.numpy() for slot, v in slots.items()}
    return {name: np.asarray(value, np.float64) for name, value in out.items()}


def assert_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
