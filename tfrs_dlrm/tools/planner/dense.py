"""The dense half of a model in numbers: its weights, its arithmetic and its activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfrs_dlrm.config import ModelConfig
from tfrs_dlrm.schema import Schema

# Slots of the Keras optimizers: numbers for each weight. SGD has one for the momentum even without any.
DENSE_SLOTS = {"adagrad": 1, "adam": 2, "sgd": 1}


@dataclasses.dataclass(frozen=True)
class DenseHalf:
    """All that a model has beside its tables: MLPs, projections, the interaction.

    Attributes:
      weights: numbers that are trained, in kernels, biases and the like. Moving averages of batch normalization are
        left out.
      flops: of the forward pass of one example; additions and multiplications count one each.
      activations: numbers that the forward pass of one example writes.
    """

    weights: int
    flops: int
    activations: int

    def __add__(self, other: DenseHalf) -> DenseHalf:
        return DenseHalf(self.weights + other.weights, self.flops + other.flops, self.activations + other.activations)


def dense_half(schema: Schema, model: ModelConfig) -> DenseHalf:
    """What the model of a configuration has besides the tables.

    Args:
      schema: of the model, with the final dimensions of all tables.
      model: the rest.
    """
    count = {
        "dlrm": _dlrm,
        "logistic_regression": _logistic_regression,
        "matrix_factorization": _matrix_factorization,
        "factorization_machine": _factorization_machine,
        "deepfm": _deepfm,
        "wide_and_deep": _wide_and_deep,
        "mlp": _embedding_mlp,
        "dcn": _dcn,
    }[model.name]
    # What is looked up is written once, whatever becomes of it.
    return DenseHalf(0, 0, sum(_dims(schema))) + count(schema, model)


def _dlrm(schema: Schema, model: ModelConfig) -> DenseHalf:
    dims = _dims(schema)
    dim = model.bottom_mlp[-1] if schema.dense else max(dims)
    bottom = _mlp(schema.dense_width, model.bottom_mlp, model) if schema.dense else DenseHalf(0, 0, 0)
    own = dim if schema.dense else 0
    top = _top(schema, model)
    if model.interaction == "cat":
        return bottom + _concat(own + sum(dims)) + _mlp(own + sum(dims), top, model)
    vectors = len(dims) + bool(schema.dense)
    pairs = vectors * (vectors + 1 if model.self_interaction else vectors - 1) // 2
    projected = {f.table: schema.table_of(f).dim for f in schema.categorical if schema.table_of(f).dim != dim}
    projections = DenseHalf(
        weights=sum(d * dim for d in projected.values()),
        flops=sum(2 * d * dim for d in dims if d != dim),
        activations=sum(dim for d in dims if d != dim),
    )
    interaction = DenseHalf(
        weights=0,
        flops=2 * vectors * vectors * dim,  # every pair both ways, and each with itself
        activations=vectors * dim  # stacked
        + vectors * vectors
        + pairs
        + (dim + pairs if schema.dense else 0),  # concatenated
    )
    return bottom + projections + interaction + _mlp(own + pairs, top, model)


def _logistic_regression(schema: Schema, model: ModelConfig) -> DenseHalf:
    width = schema.dense_width
    return DenseHalf(width + 1, 2 * width + len(schema.categorical) + 1, width + 2)


def _matrix_factorization(schema: Schema, model: ModelConfig) -> DenseHalf:
    dim = max(_dims(schema)) - 1
    return DenseHalf(1, 2 * dim + 3, dim + 4)


def _factorization_machine(schema: Schema, model: ModelConfig) -> DenseHalf:
    return _linear_and_pairs(schema) + DenseHalf(1, 1, 1)


def _linear_and_pairs(schema: Schema) -> DenseHalf:
    row, width = max(_dims(schema)), schema.dense_width
    rows, dim = len(schema.categorical) + width, row - 1
    return DenseHalf(
        weights=width * row,
        flops=width * row + rows + 3 * rows * dim + 3 * dim,  # sums of vectors, of their squares, their difference
        activations=width * row + rows * row + rows * dim + 3 * dim + 3,
    )


def _deepfm(schema: Schema, model: ModelConfig) -> DenseHalf:
    width = (len(schema.categorical) + schema.dense_width) * (max(_dims(schema)) - 1)
    return _linear_and_pairs(schema) + _concat(width) + _mlp(width, model.top_mlp, model)


def _wide_and_deep(schema: Schema, model: ModelConfig) -> DenseHalf:
    width = _side_by_side(schema) - len(schema.categorical)
    wide = DenseHalf(schema.dense_width, 2 * schema.dense_width + len(schema.categorical), schema.dense_width + 2)
    return wide + _concat(width) + _mlp(width, model.top_mlp, model)


def _embedding_mlp(schema: Schema, model: ModelConfig) -> DenseHalf:
    width = _side_by_side(schema)
    return _concat(width) + _mlp(width, _top(schema, model), model)


def _dcn(schema: Schema, model: ModelConfig) -> DenseHalf:
    width, rank, first = _side_by_side(schema), model.cross_rank, DenseHalf(0, 0, 0)
    if schema.dense and model.dense_mlp:
        width += model.dense_mlp[-1] - schema.dense_width
        first = _mlp(schema.dense_width, model.dense_mlp, model)
    kernel = 2 * width * rank if rank else width * width
    layer = DenseHalf(kernel + width, 2 * kernel + 3 * width, 3 * width + rank)
    crossed = DenseHalf(*(model.cross_layers * n for n in dataclasses.astuple(layer)))
    logits = len(schema.labels) if model.cross_structure == "parallel" else 0
    logit = DenseHalf(logits * width, 2 * logits * width, 2 * logits)
    return first + _concat(width) + crossed + logit + _mlp(width, _top(schema, model), model)


def _top(schema: Schema, model: ModelConfig) -> tuple[int, ...]:
    """The units of a top MLP, which has an output for each label."""
    return (*model.top_mlp[:-1], len(schema.labels))


def _dims(schema: Schema) -> list[int]:
    return [schema.table_of(f).dim for f in schema.categorical]


def _side_by_side(schema: Schema) -> int:
    return sum(_dims(schema)) + schema.dense_width


def _concat(width: int) -> DenseHalf:
    return DenseHalf(0, 0, width)


def _mlp(inputs: int, units: Sequence[int], model: ModelConfig) -> DenseHalf:
    kernels, hidden = sum(a * b for a, b in zip([inputs, *units], units, strict=False)), sum(units[:-1])
    normalized, dropped = (hidden if on else 0 for on in (model.batch_norm, model.dropout))
    return DenseHalf(
        weights=kernels + sum(units) + 2 * normalized,
        flops=2 * kernels + sum(units) + 4 * normalized + dropped,
        activations=sum(units) + 2 * normalized + dropped,
    )
