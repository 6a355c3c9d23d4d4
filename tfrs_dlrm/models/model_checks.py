"""What models ask of their schema and of their MLPs."""

from __future__ import annotations

from collections.abc import Sequence

from tfrs_dlrm.schema import CategoricalFeature, Schema, Table


def looked_up(schema: Schema) -> list[Table]:
    """The tables that features look up."""
    names = dict.fromkeys(f.table for f in schema.categorical)
    return [schema.table(name) for name in names]


def check_no_sequences(model: str, schema: Schema) -> None:
    """Makes sure that each feature has one vector an example.

    Raises:
      ValueError: one has a sequence of them.
    """
    for f in schema.categorical:
        if f.sequence_length is not None:
            raise ValueError(
                f"feature {f.name!r} is a sequence, which {model} has no use for: remove sequence_length, so that its"
                " values are combined, or write a RankingModel whose compute_logits takes sequences"
            )


def check_one_label(model: str, schema: Schema) -> None:
    """Makes sure that there is one label, for models whose answer is one sum.

    Raises:
      ValueError: there are more.
    """
    if schema.more_labels:
        raise ValueError(
            f"{model} answers for one label and the schema has {len(schema.labels)}; DLRM, DCN and EmbeddingMLP learn"
            " several at once"
        )


def check_top_mlp(units: Sequence[int]) -> None:
    """Makes sure that an MLP ends in a logit.

    Raises:
      ValueError: it does not.
    """
    if not units or units[-1] != 1:
        raise ValueError(f"top_mlp={list(units)} must end in 1, the logit")


def vector_dim(model: str, schema: Schema, features: Sequence[CategoricalFeature]) -> int:
    """D, where the rows of the features' tables are a vector of D numbers and, as the last one, a linear weight.

    Raises:
      ValueError: there are no features, their tables have different dimensions, or no room for both.
    """
    dims = {schema.table_of(f).name: schema.table_of(f).dim for f in features}
    if not dims:
        raise ValueError(f"the schema has no categorical features, whose vectors {model} multiplies")
    if len(set(dims.values())) > 1 or min(dims.values()) < 2:
        raise ValueError(
            f"tables of dimensions {dims}: {model} needs D + 1 for all, vectors of one dimension D and a linear weight;"
            " Schema.with_dim makes them equal"
        )
    return next(iter(dims.values())) - 1
