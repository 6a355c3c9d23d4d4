"""Prepared data as a strategy wants them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.data.preparing.manifest import Split
from tfrs_dlrm.data.reading.dataset import SHUFFLE_ROWS, dataset, steps_per_epoch
from tfrs_dlrm.data.reading.record_dataset import record_dataset
from tfrs_dlrm.data.reading.records import write_records
from tfrs_dlrm.data.reading.service.input_service import InputService
from tfrs_dlrm.distribute.replicas import is_multi_worker, is_parameter_server, is_tpu
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.training.tpu import tpu_dataset


def distributed_dataset(
    directory: str,
    batch_size: int,
    *,
    split: Split = "train",
    seed: int = 0,
    start_step: int = 0,
    repeat: bool = False,
    shuffle_rows: int = SHUFFLE_ROWS,
    tables: EmbeddingTables | TPUEmbeddingTables | None = None,
    service: InputService | None = None,
) -> Any:
    """What `model.fit` and `model.evaluate` take under the strategy in scope.

    - One process (one device, mirrored): `dataset`, whose batches Keras splits over the replicas.
    - Several processes: each reads its own part of the rows.
    - Parameter servers: every worker reads all rows, for ever and in an order of its own, from a copy of the data that
      needs no Python to be read and is made where it is missing. So `fit` needs `steps_per_epoch`. There `start_step`
      and `repeat` mean nothing, and `batch_size` is that of a step of one worker.
    - TPUs: see `tpu_dataset`, which is for training.

    Args:
      directory: what `prepare` wrote; under several processes all of them see it under this name.
      batch_size: over all replicas together.
      split: `train` or `eval`.
      seed: of the order.
      start_step: the number of batches to leave out; see `dataset`.
      repeat: goes on for ever.
      shuffle_rows: how many rows are shuffled at a time.
      tables: `model.embeddings`, needed on TPUs.
      service: what `input_service` gave.

    Raises:
      FileNotFoundError, ValueError: as `dataset`.
    """
    strategy = tf.distribute.get_strategy()
    if is_tpu(strategy):
        if not isinstance(tables, TPUEmbeddingTables) or split != "train":
            raise ValueError("on TPUs this is for training: give tables=model.embeddings")
        kwargs = {"seed": seed, "start_step": start_step, "shuffle_rows": shuffle_rows}
        return tpu_dataset(directory, batch_size, tables, **kwargs)

    def read(context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        return dataset(
            directory,
            batch_size,
            split=split,
            seed=seed,
            start_step=start_step * (1 if context is None else _local_replicas(context)),
            repeat=repeat,
            context=context,
            shuffle_rows=shuffle_rows,
            sort_ids=split == "train" and context is None and strategy.num_replicas_in_sync == 1,
            service=service,
        )

    if is_parameter_server(strategy):
        return keras.utils.experimental.DatasetCreator(worker_dataset(directory, batch_size, split, shuffle_rows))
    if is_multi_worker(strategy):
        return strategy.distribute_datasets_from_function(read)
    return read()


def input_service(url: str) -> InputService | None:
    """The input workers that read and shuffle training data under the strategy in scope; None for an empty `url`.

    Raises:
      ValueError: under this strategy nothing would use them.
      ConnectionError: they do not answer.
    """
    strategy = tf.distribute.get_strategy()
    if url and (is_parameter_server(strategy) or is_tpu(strategy)):
        why = "every worker reads records of its own, in TensorFlow" if is_parameter_server(strategy) else "not yet"
        raise ValueError(
            f"config.data.service={url!r} is for one_device, mirrored and multi_worker, not for"
            f" {'parameter_server' if is_parameter_server(strategy) else 'tpu'} ({why}); leave it out"
        )
    return InputService(url) if url else None


def worker_dataset(directory: str, batch_size: int, split: Split, shuffle_rows: int = SHUFFLE_ROWS) -> Any:
    """The `dataset_fn` of a worker of a parameter-server cluster; see `distributed_dataset`."""
    write_records(directory, shuffle_rows=shuffle_rows)

    @tf.autograph.experimental.do_not_convert
    def read(context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        del context  # workers do not know of each other
        full = split == "train"
        return record_dataset(
            directory, batch_size, split=split, repeat=True, drop_remainder=full, shuffle_rows=shuffle_rows
        )

    return read


def evaluation_dataset(directory: str, batch_size: int, split: Split = "eval") -> tf.data.Dataset:
    """What `tfrs_dlrm.training.evaluation.score` takes under the strategy in scope: this process' part, in order."""
    strategy, context = tf.distribute.get_strategy(), None
    if is_multi_worker(strategy):
        resolver = strategy.cluster_resolver
        context = tf.distribute.InputContext(resolver.cluster_spec().num_tasks("worker"), resolver.task_id)
    return dataset(directory, batch_size, split=split, shuffle=False, context=context)


def epoch_steps(directory: str, batch_size: int) -> int:
    """The steps of an epoch over the training set under the strategy in scope."""
    strategy = tf.distribute.get_strategy()
    if not is_multi_worker(strategy):
        return steps_per_epoch(directory, batch_size)
    workers, replicas = strategy.cluster_resolver.cluster_spec().num_tasks("worker"), strategy.num_replicas_in_sync
    return steps_per_epoch(directory, batch_size, pipelines=workers, replicas=replicas) // (replicas // workers)


def _local_replicas(context: tf.distribute.InputContext) -> int:
    """How many batches of its pipeline a step takes: one for each replica of the process."""
    return context.num_replicas_in_sync // context.num_input_pipelines
