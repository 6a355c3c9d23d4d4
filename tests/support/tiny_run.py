"""A small run under one strategy, and all that it leaves; also the program of the processes of a cluster.

python tiny_run.py STRATEGY PREPARED OUTPUT STEPS [PREPARED_WITH_GROUPS]
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.distribute import cluster
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.storage import LogicalTable
from tfrs_dlrm.training.centering import center
from tfrs_dlrm.training.evaluation import score
from tfrs_dlrm.training.inputs import distributed_dataset, evaluation_dataset

BATCH = 64


def run(strategy: tf.distribute.Strategy, prepared: str, steps: int) -> dict[str, np.ndarray]:
    """Trains, evaluates and returns weights, slots and metrics by name.

    Synchronous strategies get the batches of one device; each worker of an asynchronous one reads for itself.
    """
    with strategy.scope():
        # Half of the tables are shared out where a strategy can.
        model = td.DLRM(td.Schema.load(f"{prepared}/schema.json"), (16, 8), (16, 1), replicate_below=1000)
        model.compile(keras.optimizers.Adagrad(0.05), td.Adagrad(0.05))
        history = model.fit(_batches(strategy, prepared), steps_per_epoch=steps, verbose=0).history
        scores = score(model, evaluation_dataset(prepared, 700))
        trained = [v.numpy() for v in model.dense_variables]
        move = center(model, prepared, rows=10**6, batch_size=700, seed=0)
        again = center(model, prepared, rows=10**6, batch_size=700, seed=0)
    out = {f"table/{name}": whole(table) for name, table in model.embeddings.tables.items()}
    for name, slots in model.embedding_optimizer.slots.items():
        out |= {f"slot/{name}/{slot}": whole(rows) for slot, rows in slots.items()}
    out |= {f"dense/{i}": weights for i, weights in enumerate(trained)}
    out |= {"center": move, "center again": again}
    out |= {f"fit/{name}": np.array(values) for name, values in history.items()}
    out |= {f"eval/{name}": np.array(value) for name, value in scores.metrics().items()}
    return out | {"steps": model.embedding_optimizer.iterations.numpy()}


def ranked(strategy: tf.distribute.Strategy, prepared: str, steps: int) -> dict[str, np.ndarray]:
    """Trains by the order of the rows of each group, and returns all weights.

    Each of two processes reads groups of its own, and one device those of both, side by side in a batch.
    """
    with strategy.scope():
        schema = td.Schema.load(f"{prepared}/schema.json")
        model = td.EmbeddingMLP(schema, (16, 1), replicate_below=1000, list_loss="softmax", list_loss_weight=0.75)
        model.compile(keras.optimizers.Adagrad(0.05), td.Adagrad(0.05))
        if distribution_of(strategy).several_processes:
            data = distributed_dataset(prepared, BATCH, repeat=True, whole_groups=True)
        else:
            data = tf.data.Dataset.zip(tuple(_as_read_by(i, prepared) for i in range(2))).map(
                lambda *two: tf.nest.map_structure(lambda *x: tf.concat(x, axis=0), *two)
            )
        loss = model.fit(data, steps_per_epoch=steps, verbose=0).history["loss"]
    found = {f"ranked/{name}": whole(table) for name, table in model.embeddings.tables.items()}
    return found | {f"ranked/{i}": v.numpy() for i, v in enumerate(model.dense_variables)} | {"ranked/loss": loss}


def _as_read_by(process: int, prepared: str) -> tf.data.Dataset:
    """The batches of one of two processes, whose groups are none of the other's, also if they are of one value."""

    def apart(features: dict, label: tf.Tensor, weight: tf.Tensor) -> tuple:
        return features | {"group": 2 * features["group"] + process}, label, weight

    context = tf.distribute.InputContext(2, process, 2)
    return td.dataset(prepared, BATCH, repeat=True, context=context).map(apart)


def whole(rows: object) -> np.ndarray:
    """A table or slot in one array."""
    return np.concatenate([shard.read(shard.begin, shard.end).numpy() for shard in LogicalTable.of(rows).shards])


def _batches(strategy: tf.distribute.Strategy, prepared: str) -> object:
    distribution = distribution_of(strategy)
    if distribution.asynchronous:
        return distributed_dataset(prepared, BATCH)
    if not distribution.several_processes:
        return td.dataset(prepared, BATCH, repeat=True)

    def own_part(context: tf.distribute.InputContext) -> tf.data.Dataset:
        size = BATCH // context.num_replicas_in_sync
        begin = context.input_pipeline_id * size
        data = td.dataset(prepared, BATCH, repeat=True)
        return data.map(lambda *batch: tf.nest.map_structure(lambda x: x[begin : begin + size], batch))

    return strategy.distribute_datasets_from_function(own_part)


def main(name: str, prepared: str, output: str, steps: str, with_groups: str = "") -> None:
    """What each process of a cluster does."""
    if name == "parameter_server" and cluster.task()[0] != "chief":
        cluster.serve()
    strategy = td.make_strategy(name)
    found = run(strategy, prepared, int(steps))
    if with_groups:
        found |= ranked(strategy, with_groups, int(steps))
    if distribution_of(strategy).is_chief:
        np.savez(output, **found)
    os._exit(0)  # servers and workers have no goodbye


if __name__ == "__main__":
    main(*sys.argv[1:])
