"""The models of the family in all their forms, small, with batches for them."""

import dataclasses

import numpy as np
import tensorflow as tf
from any_model import any_model

import tfrs_dlrm as td
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("price"), DenseFeature("age", indicator=True)),
    categorical=(
        CategoricalFeature("user"),
        CategoricalFeature("tags", multi_valued=True, weights="tag_weights"),
        CategoricalFeature("item"),
        CategoricalFeature("last_item", table="item"),
    ),
    tables=(Table("user", 3, 12), Table("tags", 5, 7, combiner="sqrtn"), Table("item", 4, 9)),
)
# With a vector among the numbers, which is projected.
PROJECTED = dataclasses.replace(
    SCHEMA, dense=(SCHEMA.dense[0], DenseFeature("title", size=3, projected=True), SCHEMA.dense[1])
)
# A history and a list that is parallel to it.
HISTORIES = dataclasses.replace(
    PROJECTED,
    categorical=(
        *SCHEMA.categorical,
        CategoricalFeature("seen", history_of="item", sequence_length=2, pooling="target_attention"),
        CategoricalFeature("seen_by", history_of="user", parallel_to="seen"),
    ),
)
NO_DENSE = Schema(Label("y"), (), SCHEMA.categorical, SCHEMA.tables)
DEEP = {"top_mlp": (6, 5, 1), "embedding_dim": 4, "bottom_mlp": (5, 4)}
STREAMS = {"embedding_dim": 4, "first_mlp": (6, 4), "second_mlp": (6,), "gate_mlp": (3,), "heads": 2}
MASKS = DEEP | {"mask_blocks": 2, "mask_units": 5}
FORMS = {
    "dlrm": DEEP,
    "dlrm cat": DEEP | {"interaction": "cat", "bottom_mlp": (5, 3), "batch_norm": True, "dropout": 0.3},
    "dlrm autodis": DEEP | {"numbers": "autodis", "self_interaction": True},
    "dlrm linear": DEEP | {"linear": True},
    "logistic_regression": {},
    "matrix_factorization": {"embedding_dim": 4},
    "factorization_machine": {"embedding_dim": 4},
    "deepfm": DEEP,
    "wide_and_deep": DEEP | {"embedding_dim": 0, "batch_norm": True},
    "mlp": DEEP | {"embedding_dim": 0, "dropout": 0.5},
    "dcn": DEEP,
    "dcn low_rank, parallel": DEEP | {"cross_rank": 2, "cross_structure": "parallel"},
    "dcn of mlperf": DEEP | {"cross_rank": 2, "dense_mlp": (5, 4), "batch_norm": True},
    "dcn low rank": DEEP | {"cross_rank": 3, "cross_layers": 2, "top_mlp": (1,)},
    "gdcn": DEEP | {"embedding_dim": 0, "batch_norm": True},
    "gdcn stacked": DEEP | {"cross_structure": "stacked", "cross_layers": 1},
    "final_mlp": STREAMS | {"first_context": ("user",), "second_context": ("tags", "user"), "dropout": 0.3},
    "mask_net": MASKS | {"batch_norm": True},
    "mask_net serial": MASKS | {"mask_structure": "serial", "mask_reduction": 1.5, "top_mlp": (1,)},
    "auto_int": DEEP | {"attention_layers": 2, "attention_dim": 2},
    "final_net": DEEP | {"embedding_dim": 0, "batch_norm": True, "dropout": 0.2},
    "final_net plain": DEEP,
    "final_net of two blocks": DEEP | {"second_mlp": (3,), "batch_norm": True},
    "din": DEEP | {"embedding_dim": 0, "batch_norm": True},
    "bst": DEEP | {"embedding_dim": 0, "dropout": 0.3},
    "xdeepfm": DEEP | {"interaction_maps": (3, 2)},
    "final_mlp one gate for all": STREAMS | {"heads": 1, "gate_mlp": (), "embedding_dim": 0},
}
# Models of several labels, which share experts.
EXPERTS = {"experts": 2, "task_experts": 1, "expert_mlp": (5, 4), "loss_weights": "uncertainty"}
OF_SEVERAL_LABELS = {
    "mlp mmoe": DEEP | EXPERTS | {"sharing": "mmoe"},
    "dlrm ple": DEEP | EXPERTS | {"sharing": "ple"},
}
# The first form of each model, for tests that take long.
ONE_EACH = {form.split()[0]: form for form in reversed(FORMS)}.values()


def make(form: str, schema: Schema = SCHEMA) -> td.RankingModel:
    """A model of random weights, all of which matter."""
    config = any_model(form.split()[0], **(FORMS | OF_SEVERAL_LABELS)[form])
    model = config.build(config.schema(schema), seed=1)
    model.build()
    rng = np.random.default_rng(5)
    for v in model.variables:
        if v.dtype == tf.float32:
            v.assign(rng.uniform(0.2, 1, v.shape) if "variance" in v.name else rng.normal(0, 0.8, v.shape))
    return model


def batch(schema: Schema = SCHEMA, size: int = 6) -> dict[str, tf.Tensor | tf.RaggedTensor]:
    rng = np.random.default_rng(0)
    lengths = np.array([2, 0, 1, 3, 1, 2])[:size]
    features = {
        "ids": tf.constant(rng.integers(0, [12, 9, 9], [6, 3])[:size], tf.int32),
        "tags": tf.RaggedTensor.from_row_lengths(rng.integers(0, 7, 9).astype(np.int32)[: lengths.sum()], lengths),
        "tags_weights": tf.RaggedTensor.from_row_lengths(rng.uniform(0.5, 2, 9).astype("f")[: lengths.sum()], lengths),
    }
    if schema.histories:
        events = tf.RaggedTensor.from_row_lengths(np.arange(9, dtype=np.int32)[: lengths.sum()], lengths)
        features |= {"seen": events, "seen_by": events + 3}
    if schema.dense:
        features["dense"] = tf.constant(rng.normal(size=(6, schema.dense_width))[:size], tf.float32)
    return features
