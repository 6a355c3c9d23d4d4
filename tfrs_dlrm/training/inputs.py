"""Prepared data in the form that each strategy takes."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.preparing.manifest import Split
from tfrs_dlrm.data.reading.dataset import SHUFFLE_ROWS, dataset, steps_per_epoch
from tfrs_dlrm.data.reading.labels import kept_share
from tfrs_dlrm.data.reading.model_rows import with_model_rows
from tfrs_dlrm.data.reading.record_dataset import record_dataset
from tfrs_dlrm.data.reading.records import write_records
from tfrs_dlrm.data.reading.row_groups import reading_order
from tfrs_dlrm.data.reading.service.input_service import InputService
from tfrs_dlrm.distribute.strategies import Distribution, distribution_of
from tfrs_dlrm.embeddings import kernels
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import local_copy


@checked
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
    whole_groups: bool = False,
) -> Any:
    """Returns what `model.fit` and `model.evaluate` take under the strategy in scope.

    - One process (one device, mirrored): `dataset`, whose batches Keras splits over the replicas.
    - Several processes: each reads a part of the rows.
    - Parameter servers: every worker reads all rows, without end and in another order, from records that are written if
      they are missing. So `fit` needs `steps_per_epoch`, `start_step` and `repeat` have no effect, and `batch_size` is
      per step of one worker.
    - TPUs: training batches without end. A single host reads Parquet; several read records, each a part of them.

    Args:
      directory: what `prepare` wrote; under several processes all of them see it under this name.
      batch_size: over all replicas together.
      split: `train` or `eval`.
      seed: of the order.
      start_step: the number of batches to leave out; see `dataset`.
      repeat: has no end.
      shuffle_rows: how many rows are shuffled at a time.
      tables: `model.embeddings`, needed on TPUs.
      service: the result of `input_service`.
      whole_groups: keeps the groups of the schema whole in each replica; see `dataset`.

    Raises:
      FileNotFoundError, ValueError: as `dataset`; or groups cannot be kept whole under the strategy.
    """
    distribution = distribution_of()
    if distribution.asynchronous:
        return distribution.feed(worker_dataset(directory, batch_size, split, shuffle_rows, whole_groups))
    if distribution.fixed_batches:
        if not isinstance(tables, TPUEmbeddingTables) or split != "train":
            raise ValueError("on TPUs this is for training: give tables=model.embeddings")
        return _fixed_batches(distribution, directory, batch_size, tables, seed, start_step, shuffle_rows, whole_groups)

    def read(context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        return dataset(
            directory,
            batch_size,
            split=split,
            seed=seed,
            start_step=start_step * _batches_per_step(context),
            repeat=repeat,
            context=context,
            shuffle_rows=shuffle_rows,
            sort_ids=split == "train" and distribution.only_one_device and not kernels.find(),
            service=service,
            whole_groups=whole_groups,
        )

    return distribution.feed(read)


def _fixed_batches(
    distribution: Distribution,
    directory: str,
    batch_size: int,
    tables: TPUEmbeddingTables,
    seed: int,
    start_step: int,
    shuffle_rows: int,
    whole_groups: bool,
) -> Any:
    """Returns endless training batches in the form of the tables; several hosts each read a part of the records."""
    source = record_dataset if distribution.reads_records else functools.partial(dataset, whole_groups=whole_groups)
    if distribution.reads_records:
        _check_records(whole_groups)
        write_records(directory, shuffle_rows=shuffle_rows)

    def read(context: tf.distribute.InputContext | None) -> tf.data.Dataset:
        first = start_step * _batches_per_step(context)
        more: Any = {"seed": seed, "start_step": first, "shuffle_rows": shuffle_rows, "repeat": True}
        data = source(directory, batch_size, context=context, **more)
        return data.map(tables.map_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)

    return distribution.feed(read)


def input_service(url: str) -> InputService | None:
    """Returns the input workers that read training data under the strategy in scope; None for an empty `url`.

    Raises:
      ValueError: under this strategy nothing would use them.
      ConnectionError: they do not answer.
    """
    distribution = distribution_of()
    if url and distribution.no_input_service:
        raise ValueError(
            f"config.data.service={url!r} is for one_device, mirrored and multi_worker, not for"
            f" {distribution.name} ({distribution.no_input_service}); leave it out"
        )
    return InputService(url) if url else None


def _check_records(whole_groups: bool) -> None:
    """Raises a ValueError if groups were to be kept whole: records are of single rows in a random order."""
    if whole_groups:
        raise ValueError(
            f"a list loss needs batches of whole groups, and under the strategy {distribution_of().name} rows are read"
            " from records, in an order that scatters groups; leave out config.model.list_loss, or choose one_device,"
            " mirrored or multi_worker"
        )


def worker_dataset(
    directory: str, batch_size: int, split: Split, shuffle_rows: int = SHUFFLE_ROWS, whole_groups: bool = False
) -> Any:
    """Returns the `dataset_fn` of a worker of a parameter-server cluster; see `distributed_dataset`."""
    _check_records(whole_groups)
    write_records(directory, shuffle_rows=shuffle_rows)

    @tf.autograph.experimental.do_not_convert
    def read(context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        del context  # workers do not know of each other
        full = split == "train"
        return record_dataset(
            directory, batch_size, split=split, repeat=True, drop_remainder=full, shuffle_rows=shuffle_rows
        )

    return read


def evaluation_dataset(
    directory: str, batch_size: int, split: Split = "eval", model_rows: Mapping[str, np.ndarray] | None = None
) -> tf.data.Dataset:
    """Returns what `tfrs_dlrm.training.evaluation.score` takes: the part that this process scores, in order.

    If `prepare` kept a share of the negative training rows, each of them weighs 1 / share, as many as it stands for.

    Args:
      directory: what `prepare` wrote.
      batch_size: over all replicas together.
      split: which rows.
      model_rows: by table, the model's row of each row of the data, int32 [rows]; see `Workdir.model_rows`. None is
        the same.
    """
    data = dataset(directory, batch_size, split=split, shuffle=False, context=distribution_of().evaluation_part)
    schema = Schema.load(os.path.join(local_copy(directory), SCHEMA_FILE))
    share = kept_share(schema, split)
    if model_rows is not None:
        of_model = with_model_rows(schema, model_rows)
        data = data.map(lambda features, *rest: (of_model(features), *rest), num_parallel_calls=1, deterministic=True)
    if share == 1:
        return data

    def weighted(features: Any, labels: tf.Tensor, weights: tf.Tensor | None = None) -> Any:
        first = labels if labels.shape.rank == 1 else labels[:, 0]
        stands_for = tf.where(first > 0, 1.0, 1.0 / share)
        return features, labels, stands_for if weights is None else weights * stands_for

    return data.map(weighted)


def evaluation_order(directory: str, split: Split = "eval") -> np.ndarray | None:
    """Returns the numbers of the rows of `evaluation_dataset`, int64 [N], of one process after the other.

    None means that a single process reads all of them in order.
    """
    part = distribution_of().evaluation_part
    return None if part is None else reading_order(directory, split, part.num_input_pipelines)


def epoch_steps(directory: str, batch_size: int) -> int:
    """Returns the steps of an epoch over the training set under the strategy in scope.

    Raises:
      ValueError: the rows are too few for one step.
    """
    processes, batches = distribution_of().epoch_share
    steps = steps_per_epoch(directory, batch_size, pipelines=processes, replicas=processes * batches) // batches
    if not steps:
        rows = steps_per_epoch(directory, 1)
        raise ValueError(
            f"{directory}: {rows} train rows are too few for a batch of {batch_size}; lower it by"
            f" --config.train.batch_size={max(1, rows // 10)}"
        )
    return steps


def _batches_per_step(context: tf.distribute.InputContext | None) -> int:
    """Returns how many batches of its part a process takes in a step: one for each of its replicas."""
    return 1 if context is None else context.num_replicas_in_sync // context.num_input_pipelines
