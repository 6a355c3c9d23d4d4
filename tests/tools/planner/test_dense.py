"""The dense half, by hand and beside real models."""

import numpy as np
import pytest
import tf_keras as keras

from tfrs_dlrm.config import DENSE_OPTIMIZERS, MODELS, ModelConfig, OptimizerConfig
from tfrs_dlrm.models.registry import build_model
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.tools.planner.dense import DENSE_SLOTS, DenseHalf, dense_half
from tfrs_dlrm.training.factory import make_optimizers


def schema_of(dims, dense=2):
    names = [f"c{i}" for i in range(len(dims))]
    return Schema(
        Label("y"),
        dense=tuple(DenseFeature(f"d{i}", indicator=i == 0) for i in range(dense)),
        categorical=tuple(CategoricalFeature(n) for n in names),
        tables=tuple(Table(n, dim, vocabulary_size=5) for n, dim in zip(names, dims, strict=True)),
    )


def test_by_hand():
    schema = Schema(
        Label("y"), (DenseFeature("d"), DenseFeature("e")), (CategoricalFeature("a"), CategoricalFeature("b"))
    )
    half = dense_half(schema.with_dim(4), ModelConfig(4, (3, 4), (5, 1)))
    # Three vectors of 4 make 3 products; with the bottom vector, the top MLP has 7 inputs.
    kernels, biases = 2 * 3 + 3 * 4 + 7 * 5 + 5 * 1, 3 + 4 + 5 + 1
    activations = (3 + 4) + (4 + 4) + 3 * 4 + 3 * 3 + 3 + 7 + (5 + 1)
    assert half == DenseHalf(kernels + biases, 2 * kernels + biases + 2 * 3 * 3 * 4, activations)


@pytest.mark.parametrize(
    "schema, model",
    [
        (schema_of([4, 4]), ModelConfig(0, (3, 4), (5, 1))),
        (schema_of([4, 2, 8]), ModelConfig(0, (8,), (6, 5, 1), self_interaction=True)),
        (schema_of([4, 2, 8], dense=0), ModelConfig(0, (99,), (6, 1))),
        (schema_of([4, 2, 8]), ModelConfig(0, (7, 5), (6, 5, 1), interaction="cat", batch_norm=True, dropout=0.1)),
        (schema_of([4, 2, 8], dense=0), ModelConfig(0, (5,), (6, 5, 1), interaction="cat")),
        *(
            (schema_of([4, 4, 4], dense), ModelConfig(8, (8,), (6, 5, 1), name=name, user="c0", item="c2"))
            for name in MODELS
            for dense in (0, 2)
        ),
        (schema_of([4, 2, 8]), ModelConfig(0, (5,), (6, 1), name="wide_and_deep", batch_norm=True)),
        (schema_of([4, 2, 8]), ModelConfig(0, (5,), (6, 1), name="dcn", cross_rank=3, cross_structure="parallel")),
        (schema_of([4, 2, 8]), ModelConfig(0, (5,), (6, 1), name="dcn", dense_mlp=(7, 4), batch_norm=True)),
        (schema_of([4, 2, 8], dense=0), ModelConfig(0, (5,), (6, 1), name="dcn", dense_mlp=(7, 4))),
    ],
)
def test_weights_are_those_of_real_models(schema, model):
    schema = model.schema(schema)
    real = build_model(model, schema, seed=0)
    real.build()
    half = dense_half(schema, model)
    assert half.weights == sum(np.prod(v.shape) for v in real.dense_variables)
    assert half.flops >= half.weights - 1
    assert half.activations >= sum(v.shape[1] for v in real.embeddings.tables.values())


@pytest.mark.parametrize("name", DENSE_OPTIMIZERS)
def test_slots_are_those_of_keras(name):
    optimizer, _ = make_optimizers(OptimizerConfig(dense=name))
    layer = keras.layers.Dense(3)
    layer.build([None, 7])
    before = len(optimizer.variables)
    optimizer.build(layer.trainable_weights)
    numbers = sum(np.prod(v.shape) for v in optimizer.variables[before:])
    assert numbers == DENSE_SLOTS[name] * (7 * 3 + 3)
