"""Whole train steps for TPUs, traced on a CPU: the ops that would run on the chips, on the hosts, and between them."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from cases import matrix
from fake_tpu import CORES_PER_CHIP, KINDS, encoded_batch, fake_tpu, make_tables

import tfrs_dlrm as td
from tfrs_dlrm.embeddings import Adagrad, LazyAdam, PerTableOptimizer
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.training.factory import precision
from tfrs_dlrm.training.schedules import ScaledRate

BATCH = 8
DENSE = (DenseFeature("x"), DenseFeature("z"))
ONE_HOT = Schema(
    label=Label("y"),
    dense=DENSE,
    categorical=tuple(CategoricalFeature(name) for name in ("large", "huge", "small")),
    tables=(Table("large", 8, 500), Table("huge", 8, 2000), Table("small", 8, 20)),
)
# Bags, weighted and not, on both sides; two features of a table; pieces of vectors; places of sequences.
RAGGED = Schema(
    label=Label("y"),
    dense=DENSE,
    categorical=(
        CategoricalFeature("large"),
        CategoricalFeature("bag", multi_valued=True, weights="w", table="huge"),
        CategoricalFeature("bag2", multi_valued=True, table="huge"),
        CategoricalFeature("bag3", multi_valued=True, weights="w3", table="small"),
        CategoricalFeature("hashed", multi_valued=True),
    ),
    tables=(
        Table("large", 8, 500),
        Table("huge", 8, 2000, combiner="sqrtn"),
        Table("small", 8, 20),
        Table("hashed", 7, 5000, stored_in="home"),
        Table("home", 4, 600),
    ),
)
# Histories of a table on the hardware and of a replicated one, with and without a parallel list.
HISTORIES = Schema(
    label=Label("y"),
    dense=DENSE,
    categorical=(
        CategoricalFeature("large"),
        CategoricalFeature("small"),
        CategoricalFeature("seen", history_of="large", sequence_length=3, pooling="target_attention"),
        CategoricalFeature("kinds", history_of="small", parallel_to="seen"),
        CategoricalFeature("recent", history_of="small", sequence_length=2),
    ),
    tables=(Table("large", 8, 500), Table("small", 8, 20)),
)
LATER = (td.GDCN, td.FinalMLP, td.MaskNet, td.AutoInt, td.XDeepFM, td.FinalNet)
SIZES = {
    td.DLRM: {"bottom_mlp": (16, 8), "top_mlp": (16, 1)},
    td.FinalMLP: {"first_mlp": (16, 8), "second_mlp": (16, 8)},
}
SCHEMAS = {"one-hot": ONE_HOT, "ragged": RAGGED}
ABOVE = 2000  # bytes: `small` is replicated, all others are not


def spec_of(values):
    if isinstance(values, tf.RaggedTensor):
        return tf.RaggedTensorSpec([values.shape[0], None], values.dtype, 1, values.row_splits.dtype)
    return tf.TensorSpec.from_tensor(values)


class Trace:
    """A train step, or an evaluation step, of `model.fit` as Keras traces it from a distributed dataset."""

    def __init__(self, strategy, model, schema, training=True):
        batch = encoded_batch(schema, BATCH)
        elements = ({key: spec_of(values) for key, values in batch.items()}, tf.TensorSpec([BATCH]))

        def batches(context):
            data = tf.data.Dataset.from_generator(lambda: iter([(batch, np.ones(BATCH))]), output_signature=elements)
            data = data.repeat().apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
            return data.map(model.embeddings.map_batch)

        options = tf.distribute.InputOptions(experimental_fetch_to_device=False)
        iterator = iter(strategy.distribute_datasets_from_function(batches, options))
        function = model.make_train_function() if training else model.make_test_function()
        self.ops = function.get_concrete_function(iterator).graph.get_operations()
        # Everything of the replicated computation but what is taken out of it, to run on the hosts.
        inside = [o for o in self.ops if "_tpu_replicate" in o.node_def.attr]
        self.on_chip = [o for o in inside if "_xla_outside_compilation" not in o.node_def.attr]
        self.on_host = [o for o in inside if "_xla_outside_compilation" in o.node_def.attr]

    def count(self, *types, where=None):
        counts = collections.Counter(o.type for o in (self.ops if where is None else where))
        return [counts[t] for t in types]


def make_model(kind, schema, optimizer, dense_optimizer=None):
    tables = make_tables(kind, schema, replicate_below=ABOVE, batch_size=BATCH)
    model = td.DLRM(schema, [16, 8], [16, 1], embeddings=tables)
    model.compile(dense_optimizer or keras.optimizers.Adam(0.01), optimizer)
    return model


def check_chips(trace):
    """Nothing on the chips that they cannot do: strings, float64, shapes that depend on values."""
    forbidden = {"Unique", "UniqueV2", "Where", "StringFormat", "AsString", "Assert", "DynamicPartition", "TopKV2"}
    assert not forbidden & {o.type for o in trace.on_chip}
    outputs = [t for o in trace.on_chip for t in o.outputs if o.type not in ("TPUReplicatedInput", "Identity")]
    assert not {tf.string, tf.float64} & {t.dtype for t in outputs}
    unknown = [t.op.type for t in outputs if not t.shape.is_fully_defined()]
    assert set(unknown) <= {"TPUAnnotateTensorsWithDynamicShape", "TPUCopyWithDynamicShape"}, unknown


@pytest.mark.parametrize(
    ("kind", "dtype", "data"),
    matrix(
        itertools.product(KINDS, ["float32", "bfloat16"], SCHEMAS),
        fast=[("V1", "float32", "ragged"), ("SparseCore", "bfloat16", "ragged")],
    ),
)
def test_train_step(kind, dtype, data):
    with precision(dtype), fake_tpu(kind) as strategy, strategy.scope():
        model = make_model(kind, SCHEMAS[data], Adagrad(0.1))
        trace = Trace(strategy, model, SCHEMAS[data])
        metrics = sum(len(m.variables) for m in model.metrics)
    lookups, stacks = len(model.embeddings._lookups), 1
    v1 = ["EnqueueTPUEmbeddingArbitraryTensorBatch", "RecvTPUEmbeddingActivations", "SendTPUEmbeddingGradients"]
    sparse_core = {
        "ConvertToListOfSparseCoreCooTensors": lookups,
        "SortListOfSparseCoreCooTensors": stacks * CORES_PER_CHIP,
        "ConvertToSparseCoreCsrWrappedCooTensor": stacks,
        "XlaSparseDenseMatmulWithStaticBufferSize": stacks,
        "XlaSparseDenseMatmulGradWithAdagradAndStaticBufferSize": stacks,
    }
    assert trace.count(*v1) == ([1, 1, 1] if kind == "V1" else [0, 0, 0])
    assert trace.count(*sparse_core) == (list(sparse_core.values()) if kind == "SparseCore" else [0] * 5)
    # The hosts do nothing but the enqueuing, and what goes before it on SparseCores.
    hosts_work = {"": [], "V1": v1[:1], "SparseCore": list(sparse_core)[:3]}[kind]
    assert [n > 0 for n in trace.count(*hosts_work, where=trace.on_host)] == [True] * len(hosts_work)
    assert bool(trace.on_host) == bool(hosts_work)

    # Gradients of the dense weights, of the replicated tables (with counts and batch size), and the metrics' sums.
    replicated = 1 if kind else len(model.embeddings.tables)
    sums = len(model.dense_variables) + 3 * replicated + metrics
    assert trace.count("CrossReplicaSum", where=trace.on_chip) == [sums]

    check_chips(trace)
    # The MLPs compute in the dtype of the policy; tables, their gradients and the hardware's activations are float32.
    products = {o.outputs[0].dtype for o in trace.on_chip if o.type in ("MatMul", "BatchMatMulV2")}
    assert products == {tf.as_dtype(dtype)}
    if kind == "V1":
        received, sent = (next(o for o in trace.on_chip if o.type == t) for t in v1[1:])
        tables = {x.key: model.schema.table(x.table) for x in model.embeddings._lookups}
        shapes = [[BATCH, tables[key].dim] for key in sorted(tables)]
        # The learning rate, which may be set, is behind the gradients.
        assert [t.shape for t in received.outputs] == [t.shape for t in sent.inputs[:-1]] == shapes
        assert sent.inputs[-1].shape == []
        assert {t.dtype for t in (*received.outputs, *sent.inputs)} == {tf.float32}


@pytest.mark.parametrize(
    ("model", "kind", "dtype", "training"),
    matrix(
        [
            *((td.BST, kind, "float32", True) for kind in KINDS),
            *((td.DIN, kind, "bfloat16", True) for kind in ("V1", "SparseCore")),
            (td.DLRM, "SparseCore", "float32", False),
            *zip(LATER, itertools.cycle(KINDS), itertools.cycle(["float32", "bfloat16"]), [True] * 6, strict=False),
        ],
        fast=[(td.BST, "V1", "float32", True)],
    ),
)
def test_steps_of_other_models(model, kind, dtype, training):
    """Of events on both sides: their number of an example is known when the batch is made, and never on the chips."""
    with precision(dtype), fake_tpu(kind) as strategy, strategy.scope():
        rows = HISTORIES.with_linear_weights() if model is td.XDeepFM else HISTORIES
        tables = make_tables(kind, rows, ABOVE, BATCH)
        made = model(HISTORIES, dropout=0.2, embeddings=tables, **SIZES.get(model, {"top_mlp": (16, 1)}))
        made.compile(keras.optimizers.Adam(0.01), Adagrad(0.1))
        trace = Trace(strategy, made, HISTORIES, training)
    assert bool(tables.on_hardware) == bool(kind)
    check_chips(trace)
    assert {o.outputs[0].dtype for o in trace.on_chip if o.type in ("MatMul", "BatchMatMulV2")} == {tf.as_dtype(dtype)}


def test_lookup_and_update_of_v1_belong_together():
    """By name, from which TensorFlow also sees that an evaluation step is no training."""
    with fake_tpu("V1") as strategy, strategy.scope():
        model = make_model("V1", ONE_HOT, Adagrad(0.1))
        traces = [Trace(strategy, model, ONE_HOT, training) for training in (True, False)]
    names = [
        {o.type: o.get_attr("_tpu_embedding_layer") for o in t.ops if "_tpu_embedding_layer" in o.node_def.attr}
        for t in traces
    ]
    assert len(names[0]) == 3 and len(set(names[0].values())) == 1
    assert set(names[1]) == {"EnqueueTPUEmbeddingArbitraryTensorBatch", "RecvTPUEmbeddingActivations"}
    assert set(names[0].values()) != set(names[1].values())


def test_evaluation_on_sparse_cores_updates_nothing():
    with fake_tpu("SparseCore") as strategy, strategy.scope():
        trace = Trace(strategy, make_model("SparseCore", ONE_HOT, Adagrad(0.1)), ONE_HOT, training=False)
    assert trace.count("XlaSparseDenseMatmulWithStaticBufferSize") == [1]
    assert not [o for o in trace.ops if "MatmulGrad" in o.type]


def test_schedules_reach_the_hardware_as_one_rate_for_each_optimizer():
    """One with a variable among them, as evaluations cut it."""
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, 100)
    with fake_tpu("V1") as strategy, strategy.scope():
        scaled = ScaledRate(schedule, tf.Variable(1.0))
        optimizer = PerTableOptimizer(Adagrad(scaled), {"huge": LazyAdam(0.01)})
        model = make_model("V1", ONE_HOT, optimizer, keras.optimizers.Adam(scaled))
        trace = Trace(strategy, model, ONE_HOT)
    proto = model.embeddings.hardware.api._config_proto
    descriptors = {d.name: d.optimization_parameters for d in proto.table_descriptor}
    assert [descriptors[n].learning_rate.dynamic.tag for n in ("huge", "large")] in ([0, 1], [1, 0])
    (sent,) = (o for o in trace.ops if o.type == "SendTPUEmbeddingGradients")
    assert sent.get_attr("NN") == 2


@pytest.mark.parametrize("kind", matrix(["", "SparseCore"], fast=["SparseCore"]))
def test_a_rate_that_evaluations_cut_is_read_on_the_chips(kind):
    with fake_tpu(kind) as strategy, strategy.scope():
        scaled = ScaledRate(0.1, tf.Variable(1.0, name="factor"))
        trace = Trace(strategy, make_model(kind, ONE_HOT, Adagrad(scaled), keras.optimizers.Adam(scaled)), ONE_HOT)
    read = [i.name for o in trace.on_chip if o.type == "ReadVariableOp" for i in o.inputs[0].op.inputs]
    assert any(name.startswith("factor/") for name in read)


@pytest.mark.parametrize(("kind", "hosts"), [("V1", 1), ("V1", 2), ("SparseCore", 1)])
def test_configuration_of_the_hardware(kind, hosts):
    with fake_tpu(kind, replicas=4, hosts=hosts) as strategy, strategy.scope():
        tables = make_tables(kind, RAGGED, ABOVE, BATCH, replicas=4)
        tables.compile(Adagrad(0.1, initial_accumulator=0.25))
        api = tables.hardware.api
    assert sorted(tables.hardware.tables) == ["home", "huge", "large"]
    configs = {name: f.table for name, f in api._feature_config.items()}
    assert {name: c.combiner for name, c in configs.items()} == {
        "bag": "sqrtn",
        "bag2": "sqrtn",
        "large": "sum",
        "hashed/0": "mean",
        "hashed/1": "mean",
    }
    assert configs["bag"] is configs["bag2"] and configs["hashed/0"] is configs["hashed/1"]
    assert configs["bag"].optimizer.initial_accumulator_value == 0.25
    if kind == "V1":
        proto = api._config_proto
        assert (proto.num_hosts, proto.num_tensor_cores) == (hosts, 4)
        shapes = {d.name: (d.vocabulary_size, d.dimension) for d in proto.table_descriptor}
        assert shapes == {"large": (500, 8), "huge": (2000, 8), "home": (600, 4)}
        assert {
            d.optimization_parameters.learning_rate.WhichOneof("learning_rate") for d in proto.table_descriptor
        } == {"dynamic"}
        assert {d.optimization_parameters.WhichOneof("parameters") for d in proto.table_descriptor} == {"adagrad"}
        assert {tuple(d.input_shape) for d in proto.feature_descriptor} == {(BATCH,)}
        assert len(api._variables["large"]["parameters"].variables) == hosts
    else:
        cores = 4 * CORES_PER_CHIP
        (stack,) = api.embedding_tables
        layouts = api.embedding_layouts
        # Rows padded to 8 on each core, the narrow table to 8 numbers, and all of one optimizer on one stack.
        padded = {name: tuple(x.unsharded_padded_shape) for name, x in layouts.items()}
        assert padded == {"large": (512, 8), "huge": (2048, 8), "home": (640, 8)}
        assert api.embedding_tables[stack].shape == [512 + 2048 + 640, 8]
        assert {x.num_sparse_cores for x in layouts.values()} == {cores}
        assert len({x.sparse_core_shard_rotation for x in layouts.values()}) == 3
        config = api._sparse_core_embedding_config
        assert config.max_ids_per_table.keys() == config.max_unique_ids_per_table.keys() == {stack}
        assert not config.allow_id_dropping


def test_batches_of_another_kind_or_size_are_refused():
    with fake_tpu("V1") as strategy, strategy.scope():
        tables = make_model("V1", ONE_HOT, Adagrad(0.1)).embeddings
        with pytest.raises(ValueError, match=r"go through the host_map of the tables"):
            tables.prepare(encoded_batch(ONE_HOT, BATCH))
        with pytest.raises(ValueError, match="replica has 6 examples; TPUs are set up for batches of 8, all alike"):
            tables.prepare(tables.host_map(encoded_batch(ONE_HOT, 6)))
        with pytest.raises(ValueError, match="set up for one only"):
            tables.compile(Adagrad(0.2))
