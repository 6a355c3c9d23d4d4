"""The dense half of a DLRM in numbers: its weights, its arithmetic and its activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfrs_dlrm.config import ModelConfig
from tfrs_dlrm.schema import Schema

# Slots of the Keras optimizers: numbers for each weight. SGD has one for the momentum even without any.
DENSE_SLOTS = {"adagrad": 1, "adam": 2, "sgd": 1}


@dataclasses.dataclass(frozen=True)
class DenseHalf:
    """MLPs, projections and the interaction.

    Attributes:
      weights: numbers in kernels and biases.
      flops: of the forward pass of one example; additions and multiplications count one each.
      activations: numbers that the forward pass of one example writes.
    """

    weights: int
    flops: int
    activations: int


def dense_half(schema: Schema, model: ModelConfig) -> DenseHalf:
    """What `DLRM(schema, ...)` has besides the tables.

    Args:
      schema: with the final dimensions of all tables.
      model: the rest.
    """
    dims = [schema.table_of(f).dim for f in schema.categorical]
    dim = model.bottom_mlp[-1] if schema.dense else max(dims)
    vectors = len(dims) + bool(schema.dense)
    pairs = vectors * (vectors + 1 if model.self_interaction else vectors - 1) // 2
    bottom = _mlp(schema.dense_width, model.bottom_mlp) if schema.dense else DenseHalf(0, 0, 0)
    top = _mlp(pairs + (dim if schema.dense else 0), (*model.top_mlp[:-1], len(schema.labels)))
    projected = {f.table: schema.table_of(f).dim for f in schema.categorical if schema.table_of(f).dim != dim}
    return DenseHalf(
        weights=bottom.weights + top.weights + sum(d * dim for d in projected.values()),
        flops=bottom.flops
        + top.flops
        + 2 * vectors * vectors * dim  # every pair both ways, and each with itself
        + sum(2 * d * dim for d in dims if d != dim),
        activations=bottom.activations
        + top.activations
        + sum(dims)
        + sum(dim for d in dims if d != dim)
        + vectors * dim  # stacked
        + vectors * vectors
        + pairs
        + (dim + pairs if schema.dense else 0),  # concatenated
    )


def _mlp(inputs: int, units: Sequence[int]) -> DenseHalf:
    kernels = sum(a * b for a, b in zip([inputs, *units], units, strict=False))
    return DenseHalf(weights=kernels + sum(units), flops=2 * kernels + sum(units), activations=sum(units))
