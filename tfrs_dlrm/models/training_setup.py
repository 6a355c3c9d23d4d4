"""The tables and the row optimizer of a model, and checks of what Keras may ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.optimizers import RowWiseAdagrad
from tfrs_dlrm.embeddings.per_table_optimizer import PerTableOptimizer
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import ShardedTable
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.schema import Schema


def make_tables(schema: Schema, seed: int, replicate_below: int | None) -> EmbeddingTables:
    """Makes the tables of a schema, placed on the devices of the strategy in scope.

    Raises:
      ValueError: a table has no rows, the strategy is a TPU's, or the tables do not fit.
    """
    places = distribution_of().places(schema, replicate_below)
    return EmbeddingTables(schema, seed, places, name="embeddings")


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


def make_row_optimizer(given: RowOptimizer | Mapping[str, RowOptimizer] | None) -> RowOptimizer:
    """Returns the row optimizer for the `embedding_optimizer` of `RankingModel.compile`.

    Raises:
      ValueError: it is not a `RowOptimizer`.
    """
    if given is None:
        return RowWiseAdagrad()
    if isinstance(given, Mapping):
        return PerTableOptimizer(RowWiseAdagrad(), given)
    if not isinstance(given, RowOptimizer):
        raise ValueError(
            f"embedding_optimizer={given!r} is not a row optimizer; give td.RowWiseAdagrad(rate), td.SGD(rate) or"
            " another RowOptimizer, which updates looked-up rows only"
        )
    return given


def check_compile(arguments: Mapping[str, Any], dtype_policy: str) -> None:
    """Checks the Keras arguments of `RankingModel.compile`, and the model's dtype policy.

    Raises:
      ValueError: a loss or weighted metrics are given, or the policy is mixed_float16.
    """
    for name in {"loss", "loss_weights", "weighted_metrics"} & set(arguments):
        raise ValueError(
            f"compile({name}=...) is not supported: the schema's labels set the losses and their weights, and all"
            f" metrics are weighted; leave {name} out"
        )
    if dtype_policy == "mixed_float16":
        raise ValueError("dtype policy mixed_float16 needs loss scaling, which is not supported; use mixed_bfloat16")


def check_not_sharded(tables: EmbeddingTables | TPUEmbeddingTables) -> None:
    """Checks that Keras' weights include the tables.

    Raises:
      ValueError: a table is sharded over devices.
    """
    sharded = [name for name, t in tables.tables.items() if isinstance(t, ShardedTable)]
    if sharded:
        raise ValueError(
            f"tables {', '.join(sharded)} are sharded over devices, and Keras' weights do not include them; use"
            " td.save_checkpoint and td.restore_checkpoint (or replicate_below, to copy tables to each device)"
        )
