"""The arithmetic of a model's dense layers, counted from their shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfrs_dlrm.schema import Schema
from tfrs_dlrm.schema.histories import parts_of_events


@dataclasses.dataclass(frozen=True)
class DenseCost:
    """The cost of a model's dense layers: MLPs, projections and interactions, without the embedding tables.

    Attributes:
      weights: the number of trained kernels, biases and scales, without the moving averages of batch normalization.
      flops: the additions and multiplications of the forward pass of one example.
      activations: how many numbers the forward pass of one example writes.
    """

    weights: int = 0
    flops: int = 0
    activations: int = 0

    def __add__(self, other: DenseCost) -> DenseCost:
        return DenseCost(self.weights + other.weights, self.flops + other.flops, self.activations + other.activations)

    def times(self, count: int) -> DenseCost:
        """Returns the cost of `count` such layers."""
        return DenseCost(count * self.weights, count * self.flops, count * self.activations)


def vector_dims(schema: Schema) -> list[int]:
    """Returns the dimension of each categorical feature's vector."""
    return [schema.table_of(f).dim for f in schema.categorical]


def interacting_dims(schema: Schema) -> list[int]:
    """Returns the dimension of each vector: of categorical features, then of projected ones."""
    dims = vector_dims(schema)
    return [*dims, *(max(dims) for _ in schema.projected)]


def input_width(schema: Schema) -> int:
    """Returns the width of all vectors and numbers concatenated."""
    return sum(interacting_dims(schema)) + schema.unprojected_width


def pooled_histories(schema: Schema, attended: bool = False) -> DenseCost:
    """Counts the vectors of the events of histories, and their pooling to one vector each.

    That vector itself is among the vectors that lookups write.

    Args:
      schema: the schema of the tables.
      attended: whether all are pooled by attention, whatever their `pooling`.
    """
    total = DenseCost()
    for f in schema.histories:
        dim = schema.table_of(f).dim
        events = (f.sequence_length or 0) * dim
        divided = dim if f.pooling == "mean" and not attended else 0
        total += DenseCost(flops=2 * events + divided, activations=2 * events + divided)  # looked up and masked
    return total


def target_attention(schema: Schema, histories: Sequence[str], units: Sequence[int] = (36,)) -> DenseCost:
    """Counts the layers that weigh the events of histories.

    Args:
      schema: of the model, whose tables have no linear weights.
      histories: the names of those that are weighed; see `attended_histories`.
      units: outputs of the hidden layers.
    """
    total = DenseCost()
    events = parts_of_events(schema.categorical)
    for parts in (events[name] for name in histories):
        length = parts[0].sequence_length or 0
        dim, first = sum(schema.table_of(f).dim for f in parts), units[0]
        kernel = dim * first
        total += DenseCost(3 * kernel + first, 2 * kernel + first, dim + first)
        each = DenseCost(flops=4 * kernel + dim + 4 * first, activations=2 * dim + 4 * first + 1)
        rest = mlp(first, (*units[1:], 1), False, 0.0)
        total += (each + DenseCost(flops=rest.flops + 1, activations=rest.activations)).times(length)
        total += DenseCost(weights=rest.weights)
    return total


def transformer_block(places: int, dim: int, heads: int, hidden: int, dropout: float) -> DenseCost:
    """Counts self-attention between `places` vectors of `dim` numbers, and an MLP on each, as `BehaviorTransformer`."""
    joined = heads * -(-dim // heads)
    products = 4 * dim * joined  # query, key, value and output
    norms = DenseCost(4 * dim, 16 * dim, 12 * dim)
    dropped = DenseCost(flops=2 * dim, activations=2 * dim) if dropout else DenseCost()
    each = DenseCost(products, 2 * products + 2 * dim, 8 * joined + 3 * dim) + norms + dropped
    each += mlp(dim, (hidden, dim), False, 0.0)
    pairs = DenseCost(flops=places**2 * (4 * joined + 5 * heads), activations=places**2 * 4 * heads)
    return DenseCost(each.weights, places * each.flops, places * each.activations) + pairs


def projections(schema: Schema, dim: int) -> DenseCost:
    """Counts the split of the dense inputs, and the projections of vectors to `dim` numbers."""
    widths = [len(f.encoded_columns) for f in schema.projected]
    numbers = schema.unprojected_width
    return DenseCost(
        weights=sum((width + 1) * dim for width in widths),
        flops=sum((2 * width + 1) * dim for width in widths),
        activations=sum(widths) + len(widths) * 2 * dim + numbers,  # parts; products, and sums with the bias
    )


def concatenation(width: int) -> DenseCost:
    """Counts a concatenation to `width` numbers."""
    return DenseCost(activations=width)


def mlp(inputs: int, units: Sequence[int], batch_norm: bool, dropout: float, all_hidden: bool = False) -> DenseCost:
    """Counts an MLP whose hidden layers, perhaps all of them, may be normalized and dropped."""
    kernels = sum(a * b for a, b in zip([inputs, *units], units, strict=False))
    hidden = sum(units if all_hidden else units[:-1])
    normalized, dropped = (hidden if on else 0 for on in (batch_norm, dropout))
    return DenseCost(
        weights=kernels + sum(units) + 2 * normalized,
        flops=2 * kernels + sum(units) + 4 * normalized + dropped,
        activations=sum(units) + 2 * normalized + dropped,
    )


def logit(width: int, schema: Schema) -> DenseCost:
    """Counts a linear layer of `width` numbers without bias, whose outputs, one for each label, are added to logits."""
    labels = len(schema.labels)
    return DenseCost(labels * width, 2 * labels * width, 2 * labels)


def mixture(inputs: int, experts: int, width: int) -> DenseCost:
    """Counts a softmax gate of `inputs` numbers, and the sum of the outputs [width] of experts that it weighs."""
    gate = DenseCost(inputs * experts, 2 * inputs * experts + 3 * experts, 2 * experts)
    return gate + DenseCost(flops=2 * experts * width, activations=width)


def auto_dis(width: int, dim: int, buckets: int = 16) -> DenseCost:
    """Counts soft buckets of `width` numbers, with vectors of `dim` numbers."""
    each = DenseCost(
        weights=buckets * (1 + buckets + dim),
        flops=2 * buckets * (buckets + dim) + 8 * buckets,  # and slopes, ReLU, skip, temperature, softmax
        activations=6 * buckets + dim,
    )
    return each.times(width)


def stacked(schema: Schema, dim: int) -> DenseCost:
    """Counts the vectors of all features as one tensor, with a trained vector of `dim` numbers for each number."""
    numbers = schema.unprojected_width
    vectors = len(interacting_dims(schema)) + numbers
    return DenseCost(numbers * dim, numbers * dim, (vectors + numbers) * dim)


def linear_term(vectors: int, width: int, labels: int) -> DenseCost:
    """Counts a linear term of all `vectors` numbers of vectors and of `width` dense features, for each label."""
    inputs = vectors + width
    sums = labels * (2 if width else 1)
    return DenseCost(inputs * labels, 2 * inputs * labels + sums, vectors + 2 * sums)


def linear_part(schema: Schema) -> DenseCost:
    """Counts a linear weight of each dense feature, and the sum of all linear terms."""
    width, terms = schema.unprojected_width, len(schema.categorical) + len(schema.projected)
    return DenseCost(weights=width, flops=2 * width + terms, activations=width + 2)


def factorization_machine(schema: Schema) -> DenseCost:
    """Counts linear terms and the products of all pairs of vectors, in time linear in the number of features."""
    dim, width = max(vector_dims(schema)), schema.unprojected_width
    rows, row = len(schema.categorical) + len(schema.projected) + width, dim + 1
    return DenseCost(
        weights=width * row,
        flops=width * row + rows + 3 * rows * dim + 3 * dim,  # sums of vectors, of their squares, their difference
        activations=width * row + rows * row + rows * dim + 3 * dim + 3,
    )
