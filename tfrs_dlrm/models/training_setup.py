"""The tables and the row optimizer of a model, and checks of what Keras may ask of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tf_keras as keras

from tfrs_dlrm.config import AUTO, automatic_row_optimizer
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.keras_optimizers import as_row_optimizer
from tfrs_dlrm.embeddings.per_table_optimizer import PerTableOptimizer
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import ShardedTable
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.models.label_tasks import label_name, of_labels
from tfrs_dlrm.models.tasks import Task, task_of
from tfrs_dlrm.schema import Schema


def make_tables(schema: Schema, seed: int, replicate_below: int | None, dtype: Any) -> EmbeddingTables:
    """Makes the tables of a schema, placed on the devices of the strategy in scope.

    Args:
      schema: of the model.
      seed: of the initial values.
      replicate_below: see `RankingModel`.
      dtype: the dtype policy of the vectors.

    Raises:
      ValueError: a table has no rows, the strategy is a TPU's, or the tables do not fit.
    """
    places = distribution_of().places(schema, replicate_below)
    return EmbeddingTables(schema, seed, places, dtype=dtype, name="embeddings")


def check_tables(
    tables: EmbeddingTables | TPUEmbeddingTables, needed: Schema, linear_weights: bool, features: Sequence[str] | None
) -> None:
    """Checks that existing tables have the rows that a model needs.

    Args:
      tables: the tables.
      needed: the schema that they should have.
      linear_weights: whether the model's rows end in linear weights.
      features: the features that have them; None for all.

    Raises:
      ValueError: the tables are others, or have rows of other lengths.
    """
    found, wanted = ({(t.name, t.dim) for t in schema.tables} for schema in (tables.schema, needed))
    if found != wanted:
        source = f"schema.with_linear_weights({list(features) if features else ''})" if linear_weights else "its schema"
        raise ValueError(
            f"embeddings: tables with rows of {dict(found - wanted)} numbers; the model needs {dict(wanted - found)};"
            f" make them for {source}"
        )


def make_row_optimizer(given: Any, tables: EmbeddingTables | TPUEmbeddingTables) -> RowOptimizer:
    """Returns the row optimizer for the `embedding_optimizer` of `RankingModel.compile`.

    Raises:
      ValueError: it is no row optimizer, and no name or Keras optimizer that stands for one.
    """
    default = automatic_row_optimizer(bool(tables.on_hardware))
    if isinstance(given, Mapping):
        return PerTableOptimizer(default, given)
    return as_row_optimizer(default if given is None or given == AUTO else given)


def keras_arguments(
    arguments: Mapping[str, Any], schema: Schema, dtype_policy: str, further_loss: str | None = None
) -> dict[str, Any]:
    """Returns the arguments of `RankingModel.compile` that Keras needs, after a check of all.

    Keras' `jit_compile` is left out: the shapes of lookups and of updates of rows depend on the ids, which XLA does not
    compile. Call this in the strategy's scope.

    Args:
      arguments: by name, as the user gave them.
      schema: of the model.
      dtype_policy: of the model.
      further_loss: of the model; see `RankingModel.further_loss`.

    Raises:
      ValueError: the loss is not the one of the labels; weights of losses or weighted metrics are given; `jit_compile`
        is true under a strategy of TPUs, of several replicas, or of a cluster, or if there is a further loss, which XLA
        would leave behind; or the policy is mixed_float16.
    """
    if arguments.get("loss") is not None:
        _check_loss(arguments["loss"], schema)
    for name in ("loss_weights", "weighted_metrics"):
        if arguments.get(name):
            raise ValueError(
                f"compile({name}=...) is not supported: the schema's labels set the losses and their weights, and all"
                f" metrics are weighted; leave {name} out"
            )
    if arguments.get("jit_compile") and further_loss:
        raise ValueError(f"jit_compile=True: XLA compiles the logits alone; {further_loss}")
    distribution = distribution_of()
    one_device = (
        not distribution.fixed_batches
        and not distribution.asynchronous
        and distribution.strategy.num_replicas_in_sync == 1
    )
    if arguments.get("jit_compile") and not one_device:
        raise ValueError(
            f"compile(jit_compile=True) is not supported under the strategy {distribution.name}: TPUs compile every"
            " step without it, and XLA compiles nothing that reads other devices; leave jit_compile out"
        )
    if dtype_policy == "mixed_float16":
        raise ValueError("dtype policy mixed_float16 needs loss scaling, which is not supported; use mixed_bfloat16")
    ours = ("loss", "loss_weights", "weighted_metrics", "jit_compile")
    return {name: value for name, value in arguments.items() if name not in ours}


def summary_of_tables(embeddings: EmbeddingTables | TPUEmbeddingTables, counted: int) -> list[str]:
    """Returns lines on the tables that are no weights of Keras, for `summary`: shards, and tables on TPU hardware.

    Args:
      embeddings: of the model.
      counted: the parameters that Keras counts.

    Returns:
      A line for each table and one with the total; nothing if Keras counts all tables.
    """
    lines, total = [], counted
    for table in embeddings.schema.tables:
        for name in table.parts:
            variable = embeddings.tables.get(name)
            if variable is None or isinstance(variable, ShardedTable):
                rows, dim = (table.vocabulary_size or 0, table.dim) if variable is None else variable.shape
                lines.append(f"  {name}: {rows:,} rows x {dim}, {table.dtype}, {rows * dim:,} parameters")
                total += rows * dim
    if not lines:
        return []
    return ["Tables shared out over devices, not counted above:", *lines, f"Total params with these tables: {total:,}"]


def _check_loss(given: Any, schema: Schema) -> None:
    """Checks that a loss for all labels, a list of a loss per label, or a mapping by label name is what they have.

    Raises:
      ValueError: it is not.
    """
    if isinstance(given, Mapping):
        losses = of_labels(f"compile(loss={given!r})", given, schema)
    elif isinstance(given, (list, tuple)):
        losses = list(given)
    else:
        losses = [given] * len(schema.labels)
    if len(losses) != len(schema.labels):
        raise ValueError(
            f"compile(loss={given!r}): {len(losses)} losses for {len(schema.labels)} labels; leave loss out"
        )
    for loss, label in zip(losses, schema.labels, strict=True):
        if not _is_loss(loss, task_of(label)):
            function, _ = task_of(label).keras_loss
            smoothing = isinstance(loss, keras.losses.Loss) and loss.get_config().get("label_smoothing")
            raise ValueError(
                f"compile(loss={loss!r}{f' with label_smoothing={smoothing}' if smoothing else ''}) is not supported:"
                f" the schema's labels set the losses, and the one of {label_name(label)!r} ({label.task}) is"
                f" {function.__name__}{', without label_smoothing' if smoothing else ''}; leave loss out"
            )


def _is_loss(given: Any, task: Task) -> bool:
    """Whether a Keras loss, or its name, is the one of a task; both kinds of `from_logits` are."""
    function, cls = task.keras_loss
    try:
        loss = keras.losses.get(given)
    except (TypeError, ValueError):
        return False
    if type(loss) is not cls:
        return loss is function
    config = loss.get_config()
    return config["reduction"] in ("auto", "sum_over_batch_size") and not config.get("label_smoothing")


@contextlib.contextmanager
def dtype_policy(policy: Any) -> Iterator[None]:
    """Sets the dtype policy under which layers are made: a name such as `mixed_bfloat16`, or a policy."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)
