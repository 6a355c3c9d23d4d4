"""Bytes of tables and slots, beside the variables of real runs and TensorFlow's own layout of SparseCore tables."""

import numpy as np
import pytest
from tensorflow.python.tpu import _pywrap_sparse_core_layout  # no public name

from tfrs_dlrm.config import EMBEDDING_OPTIMIZERS, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.distribute.placement import Topology, place
from tfrs_dlrm.distribute.strategies import make_strategy
from tfrs_dlrm.embeddings.optimizers import ROW_OPTIMIZERS
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.tools.planner import plan
from tfrs_dlrm.tools.planner.memory import ROW_SLOTS, stored_tables
from tfrs_dlrm.tools.planner.topologies import device_of, parse_topology
from tfrs_dlrm.training.factory import make_model, make_optimizers

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("d"),),
    categorical=tuple(CategoricalFeature(n) for n in ("plain", "half", "made", "hashed")),
    tables=(
        Table("plain", vocabulary_size=1000),
        Table("half", vocabulary_size=500, dtype="bfloat16"),
        Table("made", vocabulary_size=1003, remainders=10),
        Table("hashed", vocabulary_size=10_000, stored_in="store"),
        Table("store", dim=4, vocabulary_size=99),
    ),
)


@pytest.mark.parametrize("name", EMBEDDING_OPTIMIZERS)
def test_slots_are_those_of_the_row_optimizers(name):
    slots = ROW_OPTIMIZERS[name]().slot_types().values()
    assert ROW_SLOTS[name] == (sum(not s.per_row for s in slots), sum(s.per_row for s in slots))


@pytest.mark.parametrize("embedding", EMBEDDING_OPTIMIZERS)
def test_one_device_holds_what_a_real_model_does(embedding):
    config = RunConfig(
        model=DLRMConfig(8, bottom_mlp=(4, 8), top_mlp=(4, 1)),
        optimizer=OptimizerConfig(embedding=embedding, embedding_per_table="made=lazy_adam,store=ftrl"),
    )
    model = make_model(config.model, SCHEMA, seed=0)
    model.build()
    dense, rows = make_optimizers(config.optimizer)
    rows.build(model.embeddings.tables)
    counters = len(dense.variables)
    dense.build(model.dense_variables)

    def size(variables):
        return sum(np.prod(v.shape) * v.dtype.size for v in variables)

    (memory,) = plan(SCHEMA, config, Topology("one_device", chip="CPU")).memory
    assert memory.tables == size(model.embeddings.tables.values())
    assert memory.slots == size(v for slots in rows.slots.values() for v in slots.values())
    assert memory.dense_weights == size(model.dense_variables)
    assert memory.dense_slots == size(dense.variables[counters:])
    assert memory.total == sum((memory.tables, memory.slots, memory.dense_weights, memory.dense_slots, memory.step))


def test_mirrored_devices_hold_what_real_ones_do():
    tables = (
        Table("copied", vocabulary_size=1000),
        Table("split", vocabulary_size=300_001),
        Table("half", vocabulary_size=200_000, dtype="bfloat16"),
        Table("made", vocabulary_size=1_000_003, remainders=2),
    )
    schema = Schema(Label("y"), SCHEMA.dense, tuple(CategoricalFeature(t.name) for t in tables), tables)
    config = RunConfig(
        model=DLRMConfig(16, bottom_mlp=(16,), top_mlp=(4, 1)),
        optimizer=OptimizerConfig(embedding="adagrad", embedding_per_table="half=rowwise_adagrad"),
    )
    with make_strategy("mirrored", 2).scope():
        model = make_model(config.model, schema, seed=0)
        model.build()
        dense, rows = make_optimizers(config.optimizer)
        rows.build(model.embeddings.tables)
        counters = len(dense.variables)
        dense.build(model.dense_variables)

    def on(device, stored):
        """The bytes on a device; what is shared out or copied has several variables."""
        parts = (v for whole in stored for v in getattr(whole, "variables", [whole]))
        copies = (v for part in parts for v in getattr(part, "values", [part]))
        return sum(np.prod(v.shape) * v.dtype.size for v in copies if v.device.endswith(f"CPU:{device}"))

    planned = plan(schema, config, Topology("mirrored", 2))
    assert [t.placed.kind for t in planned.tables] == ["replicated", *["sharded"] * 3, "replicated"]
    for device, memory in enumerate(planned.memory):
        assert memory.tables == on(device, model.embeddings.tables.values())
        assert memory.slots == on(device, (v for slots in rows.slots.values() for v in slots.values()))
        assert memory.dense_weights == on(device, model.dense_variables)
        assert memory.dense_slots == on(device, dense.variables[counters:])


@pytest.mark.parametrize("name", ["v5p-8", "v5p-64", "v6e-1", "v6e-256"])
def test_sparse_core_tables_are_padded_as_tensorflow_does(name):
    topology = parse_topology("tpu", name)
    device = device_of(topology)
    sizes = {"a": (20_000_003, 13), "b": (70_001, 16), "c": (8_192, 128), "d": (300_000, 1)}
    tables = tuple(Table(n, dim, vocabulary_size=rows) for n, (rows, dim) in sizes.items())
    schema = Schema(Label("y"), categorical=tuple(CategoricalFeature(n) for n in sizes), tables=tables)
    stored = stored_tables(place(schema, topology), OptimizerConfig(embedding="ftrl"), device)
    stacker = _pywrap_sparse_core_layout.SparseCoreLayoutStacker(topology.devices, False, device.sparse_cores)
    for n, (rows, dim) in sizes.items():
        stacker.AddTable(n, rows, dim, "group", 256, 1)
    padded = {layout.table_name: list(layout.unsharded_padded_shape) for layout in stacker.GetLayouts().tables}
    for table in stored:
        assert table.placed.kind == "tpu_embedding"
        rows, dim = padded[table.placed.name]
        assert sum(table.rows_on) == rows and len(set(table.rows_on)) == 1
        assert table.row == 4 * dim and table.slots_row == 2 * 4 * dim


def test_on_tpus_row_wise_adagrad_has_full_slots_and_copies_are_for_each_core():
    table = Table("big", 12, vocabulary_size=1_000_001), Table("small", 12, vocabulary_size=10)
    schema = Schema(Label("y"), categorical=(CategoricalFeature("big"), CategoricalFeature("small")), tables=table)
    config = RunConfig(
        model=DLRMConfig(0, bottom_mlp=(12,), top_mlp=(1,)),
        optimizer=OptimizerConfig(embedding="rowwise_adagrad"),
        train=TrainConfig(batch_size=64),
    )
    v3 = plan(schema, config, parse_topology("tpu", "v3-8"))
    big, small = v3.tables
    # 12 numbers take 16; four chips; two cores, each with a copy.
    assert big.rows_on == (250_001,) * 4 and big.row == big.slots_row == 64
    assert "by adagrad, not row-wise" in big.placed.why
    assert small.rows_on == (20,) * 4 and (small.row, small.slots_row) == (48, 4)
    assert v3.memory[0].dense_weights == 2 * 4 * v3.dense.weights
    assert v3.host_memory == 2 * 1_000_001 * 64  # on the one host


def test_optimizers_of_unknown_tables_are_refused():
    config = RunConfig(
        model=DLRMConfig(8, bottom_mlp=(8,), top_mlp=(1,)), optimizer=OptimizerConfig(embedding_per_table="hashed=sgd")
    )
    with pytest.raises(ValueError, match="table 'hashed' stores no rows; name one of plain, half, made__quotient"):
        plan(SCHEMA, config, Topology("one_device", chip="CPU"))
