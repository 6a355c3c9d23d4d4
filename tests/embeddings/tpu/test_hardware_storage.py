"""Tables and slots in the layouts of TPU training."""

import numpy as np
import pytest
import tensorflow as tf
from fake_tpu import tables_in_layout

from tfrs_dlrm.embeddings import FTRL, SGD, Adagrad, EmbeddingTables, LazyAdam, PerTableOptimizer
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

# Numbers of rows that no number of hosts or cores divides, and rows that SparseCores make longer.
SIZES = {"a": (101, 8), "b": (7, 8), "c": (1003, 8), "narrow": (65, 5), "wide": (333, 16)}
SCHEMA = Schema(
    label=Label("y"),
    categorical=tuple(CategoricalFeature(name) for name in SIZES),
    tables=tuple(Table(name, dim, rows) for name, (rows, dim) in SIZES.items()),
)
LAYOUTS = [("V1", 1), ("V1", 2), ("SparseCore", 1)]
OPTIMIZERS = {"sgd": SGD, "adagrad": Adagrad, "adam": LazyAdam, "ftrl": lambda: FTRL(initial_accumulator=0.5)}


def whole(stored):
    return np.concatenate([shard.read(shard.begin, shard.end).numpy() for shard in stored.shards])


def write(stored, values, step=37):
    for shard in stored.shards:
        for first in range(shard.begin, shard.end, step):
            last = min(first + step, shard.end)
            shard.write(first, tf.constant(values[first:last], stored.dtype))


def random(shape, seed):
    """Numbers of which some are 0, as those of slots are."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(size=shape) * rng.integers(0, 2, size=[shape[0], 1])).astype(np.float32)


@pytest.mark.parametrize(("kind", "hosts"), LAYOUTS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_tables_and_slots_begin_as_on_one_device(kind, hosts, optimizer):
    one_device, own = EmbeddingTables(SCHEMA, seed=3), OPTIMIZERS[optimizer]()
    one_device.compile(own)
    expected = one_device.logical_tables(own)
    translated = OPTIMIZERS[optimizer]()
    with tables_in_layout(kind, SCHEMA, translated, seed=3, hosts=hosts) as tables:
        assert sorted(tables.hardware.tables) == sorted(SIZES)
        found = tables.logical_tables(translated)
        assert found.keys() == expected.keys()
        for key, stored in found.items():
            assert (stored.shape, stored.dtype) == (expected[key].shape, expected[key].dtype)
            np.testing.assert_array_equal(whole(stored), whole(expected[key]), err_msg=key)
    assert any(whole(expected[f"tables/{name}"]).any() for name in SIZES)


@pytest.mark.parametrize(("kind", "hosts"), LAYOUTS)
def test_what_is_written_is_read_in_any_parts(kind, hosts):
    optimizer = PerTableOptimizer(Adagrad(), {"c": LazyAdam(), "b": SGD()})
    with tables_in_layout(kind, SCHEMA, optimizer, hosts=hosts) as tables:
        stored = tables.logical_tables(optimizer)
        values = {key: random(s.shape, i) for i, (key, s) in enumerate(stored.items())}
        for key, s in stored.items():
            write(s, values[key], step=31 if "slots" in key else s.shape[0])
        # Only after all of them: tables of a stack are neighbours.
        for key, s in stored.items():
            np.testing.assert_array_equal(whole(s), values[key], err_msg=key)
            for shard in s.shards:
                first, last = shard.begin + 1, max(shard.begin + 2, shard.end - 1)
                np.testing.assert_array_equal(shard.read(first, last), values[key][first:last], err_msg=key)


@pytest.mark.parametrize(("kind", "hosts"), LAYOUTS)
def test_rows_are_where_tensorflow_puts_them(kind, hosts, tmp_path):
    """TensorFlow's own checkpoint of the hardware, restored into its own tables for CPUs."""
    optimizer = Adagrad()
    with tables_in_layout(kind, SCHEMA, optimizer, hosts=hosts) as tables:
        values = {name: random(shape, i) for i, (name, shape) in enumerate(SIZES.items())}
        for name, stored in tables.logical_tables().items():
            write(stored, values[name.removeprefix("tables/")])
        path = tf.train.Checkpoint(api=tables.hardware.api).save(str(tmp_path / "tf"))
        dims = {name: (t.table.vocabulary_size, t.table.dim) for name, t in tables.hardware.tables.items()}
    api = tf.tpu.experimental.embedding
    configs = {name: api.TableConfig(*shape, name=name) for name, shape in dims.items()}
    on_cpu = api.TPUEmbeddingForServing({n: api.FeatureConfig(c, name=n) for n, c in configs.items()}, api.Adagrad())
    tf.train.Checkpoint(api=on_cpu).restore(
        path
    ).expect_partial()  # before the tables are made, or SparseCore's stay as they are
    for config, variable in on_cpu.embedding_tables.items():
        np.testing.assert_array_equal(variable, values[config.name], err_msg=config.name)


def test_bfloat16_tables_are_float32_on_the_hardware_and_keep_their_type_outside():
    schema = Schema(Label("y"), categorical=(CategoricalFeature("a"),), tables=(Table("a", 8, 50, dtype="bfloat16"),))
    for kind, _ in LAYOUTS:
        with tables_in_layout(kind, schema, SGD()) as tables:
            stored = tables.logical_tables()["tables/a"]
            assert stored.dtype == tf.bfloat16
            np.testing.assert_array_equal(whole(stored), EmbeddingTables(schema).tables["a"].numpy())


def test_zeros_in_accumulators_never_reach_the_hardware():
    """It divides by their root."""
    optimizer = Adagrad(epsilon=1e-9)
    with tables_in_layout("V1", SCHEMA, optimizer) as tables:
        (accumulator,) = tables.hardware.api._variables["b"]["accumulators"].variables[:1]
        np.testing.assert_allclose(accumulator, 1e-18)
        stored = tables.logical_tables(optimizer)["slots/b/accumulator"]
        write(stored, np.zeros(stored.shape, np.float32))
        np.testing.assert_allclose(accumulator, 1e-18)
        np.testing.assert_array_equal(whole(stored), 0)
