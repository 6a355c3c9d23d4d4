"""A small model under any strategy, saved after some steps, restored, and trained on; also the program of a cluster.

python travel.py SERVERS DIRECTORY PLACE-MODEL...    saves what these models are on this cluster, then restores every
                                                     PLACE-MODEL once it is there, and moves the run in DIRECTORY/days,
                                                     of `daily_run`, to the vocabulary of its last day
"""

import dataclasses
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")

import daily_run
import numpy as np
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.config import DLRMConfig, OptimizerConfig, RunConfig
from tfrs_dlrm.distribute.local_cluster import free_ports
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.storage import copies
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.tools.planner import plan
from tfrs_dlrm.training.factory import make_model as make_model_of
from tfrs_dlrm.training.factory import make_optimizers

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("x"), DenseFeature("z")),
    categorical=(
        CategoricalFeature("user"),
        CategoricalFeature("words", multi_valued=True, weights="w"),
        CategoricalFeature("site"),
        CategoricalFeature("seen", history_of="site", sequence_length=3, pooling="target_attention"),
    ),
    tables=(Table("user", 8, 301), Table("words", 8, 120), Table("site", 8, 11)),
)
# ESMM: the second label comes after the first.
FUNNEL = dataclasses.replace(SCHEMA, more_labels=(Label("z", after="y"),))
EXPERTS = {"experts": 2, "task_experts": 1, "expert_mlp": (8,), "loss_weights": "uncertainty"}
MODELS = {
    "dlrm": lambda **tables: td.DLRM(SCHEMA, (16, 8), (16, 1), **tables),
    "din": lambda **tables: td.DIN(SCHEMA, (16, 1), **tables),
    "bst": lambda **tables: td.BST(SCHEMA, (16, 1), **tables),
    "mmoe": lambda **tables: td.EmbeddingMLP(FUNNEL, (16, 1), sharing="mmoe", **EXPERTS, **tables),
    "ple": lambda **tables: td.EmbeddingMLP(FUNNEL, (16, 1), sharing="ple", **EXPERTS, **tables),
}
STEPS, BATCH = 4, 16


def make_model(name="dlrm"):
    """Under the strategy in scope."""
    model = MODELS[name](replicate_below=1000)
    model.compile(keras.optimizers.Adagrad(0.05), td.Adagrad(0.05))
    return model


def train(model, first):
    """STEPS steps from batch number `first` on."""

    def batches(context=None):
        del context
        examples = _examples(model.schema).skip(first * BATCH).batch(BATCH, drop_remainder=True)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return examples.with_options(options)

    asynchronous = distribution_of(model.distribute_strategy).asynchronous
    data = keras.utils.experimental.DatasetCreator(batches) if asynchronous else batches()
    model.fit(data, steps_per_epoch=STEPS, verbose=0)


def _examples(schema):
    rng = np.random.default_rng(0)
    size = 3 * STEPS * BATCH
    lengths = rng.integers(0, 4, size)
    words = tf.RaggedTensor.from_row_lengths(rng.integers(0, 120, lengths.sum()).astype(np.int32), lengths)
    seen = words.with_values(tf.constant(rng.integers(0, 11, lengths.sum()), tf.int32))
    features = {
        "dense": rng.random((size, 2), np.float32),
        "ids": np.stack([rng.integers(0, 301, size), rng.integers(0, 11, size)], axis=1).astype(np.int32),
        "words": words,
        "seen": seen,
        "words_weights": words.with_values(tf.constant(rng.uniform(0.5, 2, lengths.sum()), tf.float32)),
    }
    labels = rng.integers(0, 2, size).astype(np.float32)
    if schema.more_labels:  # 0 after a 0, and sometimes missing after a 1
        labels = np.stack([labels, labels * rng.choice([0, 1, np.nan], size)], axis=1).astype(np.float32)
        labels[labels[:, 0] == 0] = 0
    return tf.data.Dataset.from_tensor_slices((features, labels))


def state(model):
    """All weights and slots by name."""
    stored = model.embeddings.logical_tables(model.embedding_optimizer)
    out = {name: np.concatenate([p.read(p.begin, p.end).numpy() for p in s.shards]) for name, s in stored.items()}
    dense = [*model.dense_variables, *(v for v in model.optimizer.variables if v.shape.rank)]
    out |= {f"dense/{i}": v.numpy() for i, v in enumerate(dense)}
    return out | {"steps": np.array(model.embedding_optimizer.iterations.numpy())}


def state_and_answers(model):
    """And the logits of a batch."""
    features, _ = next(iter(_examples(model.schema).batch(BATCH)))
    return state(model) | {"logits": model.logits(features).numpy()}


def save(model, directory, name):
    """After STEPS steps; and what the model is then, and would be after as many more."""
    train(model, 0)
    td.save_checkpoint(model, os.path.join(directory, name))
    publish(directory, f"{name}.saved", state_and_answers(model))
    train(model, STEPS)
    publish(directory, f"{name}.continued", state(model))


def restore(model, directory, name, by):
    """What is restored, and what becomes of it."""
    td.restore_checkpoint(model, os.path.join(directory, name))
    publish(directory, f"{name}.restored-{by}", state_and_answers(model))
    train(model, STEPS)
    publish(directory, f"{name}.continued-{by}", state(model))


def move(directory, by):
    """What a model of a later vocabulary has of a run, and the logits of rows whose values both know."""
    days = Path(directory, "days")
    model = daily_run.moved(days, 3)
    publish(directory, f"{by}.moved", state(model) | {"logits": daily_run.logits(days, 3, model)})


LARGE = Schema(
    Label("y"),
    dense=(DenseFeature("x"),),
    categorical=tuple(CategoricalFeature(name) for name in ("a", "b", "c", "d")),
    tables=(Table("a", 16, 300_001), Table("b", 16, 90_000), Table("c", 16, 80_000), Table("d", 16, 500)),
)


def planned_and_allocated():
    """Bytes of tables, slots, dense weights and their slots by device: what the planner says, and what there is."""
    config = RunConfig(
        model=DLRMConfig(16, bottom_mlp=(64, 16), top_mlp=(64, 1)),
        optimizer=OptimizerConfig("adagrad", embedding="rowwise_adagrad"),
    )
    memory = plan(LARGE, config, distribution_of().topology).memory
    planned = [m.tables + m.slots + m.dense_weights + m.dense_slots for m in memory]
    model = make_model_of(config.model, LARGE, seed=0)
    model.compile(*make_optimizers(config.optimizer), metrics=[])
    variables = [v for v in model.optimizer.variables if v.shape.rank] + model.dense_variables
    variables = [copy for v in variables for copy in copies(v)]
    for stored in model.embeddings.logical_tables(model.embedding_optimizer).values():
        variables += [copy for shard in stored.shards for copy in shard.copies]
    allocated = {}
    for v in variables:
        allocated[v.device] = allocated.get(v.device, 0) + v.shape.num_elements() * v.dtype.size
    return np.array(planned), np.array([allocated[device] for device in sorted(allocated)])


def publish(directory, name, arrays):
    """Writes a file that is whole once it is there."""
    path = os.path.join(directory, name)
    np.savez(f"{path}.tmp.npz", **arrays)
    os.replace(f"{path}.tmp.npz", f"{path}.npz")


def cluster_of(servers):
    """A parameter-server strategy whose servers, and one worker, are threads of this process."""

    worker, *ps = [f"127.0.0.1:{port}" for port in free_ports(1 + servers)]
    spec = tf.train.ClusterSpec({"worker": [worker], "ps": ps})
    for job in spec.jobs:
        for i in range(spec.num_tasks(job)):
            tf.distribute.Server(spec, job_name=job, task_index=i, start=True)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, rpc_layer="grpc")
    return tf.distribute.experimental.ParameterServerStrategy(resolver)


def _wait_for(path):
    deadline = time.monotonic() + 600
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.1)


def main(servers, directory, *names):
    """See the module."""
    by = f"ps-{servers}"
    with cluster_of(int(servers)).scope():
        publish(directory, f"{by}.memory", dict(zip(("planned", "allocated"), planned_and_allocated(), strict=True)))
        models = [name.rpartition("-")[2] for name in names]
        for model in sorted(set(models)):
            save(make_model(model), directory, f"{by}-{model}")
        for name, model in zip(names, models, strict=True):
            _wait_for(os.path.join(directory, f"{name}.saved.npz"))
            restore(make_model(model), directory, name, by)
        _wait_for(os.path.join(directory, "days/run/result.json"))
        move(directory, by)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
