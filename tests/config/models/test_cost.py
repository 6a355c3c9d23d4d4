"""The cost of a model's layers, by hand and compared with real models."""

import dataclasses

import numpy as np
import pytest
import tf_keras as keras
from any_model import any_model

from tfrs_dlrm.config import (
    DENSE_OPTIMIZERS,
    MODELS,
    DCNConfig,
    DeepFMConfig,
    DLRMConfig,
    FinalMLPConfig,
    MaskNetConfig,
    OptimizerConfig,
    WideAndDeepConfig,
)
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.tools.planner.memory import DENSE_SLOTS
from tfrs_dlrm.training.factory import make_optimizers


def schema_of(dims, dense=2, vectors=0):
    names = [f"c{i}" for i in range(len(dims))]
    projected = (DenseFeature(f"v{i}", size=3, projected=True, indicator=i == 0) for i in range(vectors))
    return Schema(
        Label("y"),
        dense=(*(DenseFeature(f"d{i}", indicator=i == 0) for i in range(dense)), *projected),
        categorical=tuple(CategoricalFeature(n) for n in names),
        tables=tuple(Table(n, dim, vocabulary_size=5) for n, dim in zip(names, dims, strict=True)),
    )


def test_by_hand():
    schema = Schema(
        Label("y"), (DenseFeature("d"), DenseFeature("e")), (CategoricalFeature("a"), CategoricalFeature("b"))
    )
    found = DLRMConfig(4, bottom_mlp=(3, 4), top_mlp=(5, 1)).dense_cost(schema.with_dim(4))
    # Three vectors of 4 make 3 products; with the bottom vector, the top MLP has 7 inputs.
    kernels, biases = 2 * 3 + 3 * 4 + 7 * 5 + 5 * 1, 3 + 4 + 5 + 1
    activations = (3 + 4) + (4 + 4) + 3 * 4 + 3 * 3 + 3 + 7 + (5 + 1)
    assert found == DenseCost(kernels + biases, 2 * kernels + biases + 2 * 3 * 3 * 4, activations)


def test_histories_by_hand():
    def cost(**history):
        categories = (CategoricalFeature("a"), CategoricalFeature("h", multi_valued=True, **history))
        schema = Schema(Label("y"), (DenseFeature("d"),), categories, () if history else (Table("h"),))
        return DeepFMConfig(4, top_mlp=(5, 1)).dense_cost(DeepFMConfig(4, top_mlp=(5, 1)).schema(schema))

    # Rows of 4 numbers and a linear weight, of 3 events: looked up, masked, added up, and divided for a mean.
    bag, events = cost(), 3 * (4 + 1)
    assert cost(history_of="a", sequence_length=3, pooling="sum") == bag + DenseCost(0, 2 * events, 2 * events)
    assert cost(history_of="a", sequence_length=3) == bag + DenseCost(0, 2 * events + 5, 2 * events + 5)
    attention = cost(history_of="a", sequence_length=3, pooling="target_attention")
    assert attention.weights == bag.weights + 3 * 4 * 36 + 36 + 36 + 1


def test_target_attention_weighs_as_many_numbers_as_it_has():
    base = schema_of([4, 4])
    histories = (
        CategoricalFeature("h", history_of="c0", sequence_length=3, pooling="target_attention", multi_valued=True),
        CategoricalFeature("side", history_of="c1", parallel_to="h", multi_valued=True),
    )
    schema = dataclasses.replace(base, categorical=(*base.categorical, *histories))
    for name in MODELS:
        config = any_model(name, embedding_dim=4, bottom_mlp=(4,), top_mlp=(6, 1), user="c0", item="c1")
        made = config.schema(schema)
        real = config.build(made, seed=0)
        real.build()
        found = config.dense_cost(made)
        assert found.weights == sum(np.prod(v.shape) for v in real.dense_variables), name
        assert found.flops > found.weights


@pytest.mark.parametrize(
    "schema, model",
    [
        (schema_of([4, 4]), DLRMConfig(0, bottom_mlp=(3, 4), top_mlp=(5, 1))),
        (schema_of([4, 2, 8]), DLRMConfig(0, bottom_mlp=(8,), top_mlp=(6, 5, 1), self_interaction=True)),
        (schema_of([4, 2, 8], dense=0), DLRMConfig(0, bottom_mlp=(99,), top_mlp=(6, 1))),
        (
            schema_of([4, 2, 8]),
            DLRMConfig(0, bottom_mlp=(7, 5), top_mlp=(6, 5, 1), interaction="cat", batch_norm=True, dropout=0.1),
        ),
        (schema_of([4, 2, 8], dense=0), DLRMConfig(0, bottom_mlp=(5,), top_mlp=(6, 5, 1), interaction="cat")),
        (schema_of([4, 2, 8]), DLRMConfig(0, bottom_mlp=(8,), top_mlp=(6, 1), linear=True)),
        (schema_of([4, 2, 8], dense=0), DLRMConfig(0, top_mlp=(6, 1), linear=True, interaction="cat")),
        (schema_of([4, 2, 8]), DLRMConfig(0, top_mlp=(6, 1), numbers="autodis", interaction="cat")),
        (schema_of([4, 8], dense=3), DLRMConfig(0, top_mlp=(6, 1), numbers="autodis", self_interaction=True)),
        *(
            (
                schema_of([4, 4, 4], dense, vectors),
                any_model(name, embedding_dim=8, bottom_mlp=(8,), top_mlp=(6, 5, 1), user="c0", item="c2"),
            )
            for name in MODELS
            for dense, vectors in ((0, 0), (2, 0), (2, 2), (0, 1))
        ),
        (schema_of([4, 2, 8], vectors=2), DLRMConfig(0, bottom_mlp=(7, 5), top_mlp=(6, 1), linear=True)),
        (schema_of([], vectors=1), DLRMConfig(0, bottom_mlp=(7, 5), top_mlp=(6, 1))),
        (schema_of([4, 2, 8], vectors=1), DLRMConfig(0, top_mlp=(6, 1), numbers="autodis")),
        (schema_of([4, 2, 8]), WideAndDeepConfig(0, top_mlp=(6, 1), batch_norm=True)),
        (schema_of([4, 2, 8]), DCNConfig(0, top_mlp=(6, 1), cross_rank=3, cross_structure="parallel")),
        (schema_of([4, 2, 8]), DCNConfig(0, top_mlp=(6, 1), dense_mlp=(7, 4), batch_norm=True)),
        (schema_of([4, 2, 8], dense=0), DCNConfig(0, top_mlp=(6, 1), dense_mlp=(7, 4))),
        (
            schema_of([4, 2, 8]),
            FinalMLPConfig(0, first_mlp=(6, 4), second_mlp=(2,), heads=2, first_context=("c0", "c2")),
        ),
        (schema_of([4, 2, 8], vectors=1), FinalMLPConfig(0, first_context=("c0", "d0"), second_context=("v0",))),
        (schema_of([4, 4]), MaskNetConfig(0, top_mlp=(1,), mask_structure="serial", mask_units=5, mask_reduction=1.5)),
    ],
)
def test_weights_are_those_of_real_models(schema, model):
    schema = model.schema(schema)
    real = model.build(schema, seed=0)
    real.build()
    assert (real.schema, real.embeddings.schema) == (schema, model.table_schema(schema))
    found = model.dense_cost(schema)
    assert found.weights == sum(np.prod(v.shape) for v in real.dense_variables)
    assert found.flops >= found.weights - 1
    assert found.activations >= sum(v.shape[1] for v in real.embeddings.tables.values())


@pytest.mark.parametrize("name", DENSE_OPTIMIZERS)
def test_slots_are_those_of_keras(name):
    optimizer, _ = make_optimizers(OptimizerConfig(dense=name))
    layer = keras.layers.Dense(3)
    layer.build([None, 7])
    before = len(optimizer.variables)
    optimizer.build(layer.trainable_weights)
    numbers = sum(np.prod(v.shape) for v in optimizer.variables[before:])
    assert numbers == DENSE_SLOTS[name] * (7 * 3 + 3)
