"""Exports DLRM as this project does, and the obvious way: StringLookup layers, Keras embeddings, TFRS' Ranking.

python benchmarks/serving_export.py DIRECTORY     # benchmarks/serving.py runs it
"""

import os
import sys

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_recommenders as tfrs

import tfrs_dlrm as td
from tfrs_dlrm.data.encoding.vocabulary import vocabulary_file
from tfrs_dlrm.models.scorers import BroadcastScorer, CandidateScorer
from tfrs_dlrm.serving.exporting.serving_model import ServingModel

DENSE = [f"I{i}" for i in range(1, 14)]
CATEGORICAL = [f"C{i:02d}" for i in range(1, 27)]
VALUES = [3, 30, 300, 3000, 30_000]  # of one feature after the other
DIM, BOTTOM, TOP = 16, (512, 256, 16), (512, 256, 1)  # Criteo-Kaggle's in the DLRM paper
OWN = (3, 5, 10)  # of the categorical features, the last ones, those of a candidate
EVENTS, OF_USERS, WITH_HISTORY = 50, ("user", "city", "device"), ("DLRM", "DIN", "BST")
SHARING_OWN = 6  # of the models below, whose candidates share what is linear or a product of features of the context
SHARING = ("DLRM", "EmbeddingMLP", "DeepFM", "WideAndDeep", "DCN", "GDCN", "FinalNet", "FinalMLP", "MaskNet", "XDeepFM")
LINEAR_OWN = 5  # of a DLRM with a linear term, as configs/default.py has it


def value(feature: str, number: int) -> str:
    return f"{hash_of(feature, number):08x}"


def hash_of(feature: str, number: int) -> int:
    return (number * 2654435761 + CATEGORICAL.index(feature) * 40503) % 2**32


def prepared(directory: str) -> str:
    """A log in which every value occurs, prepared."""
    schema = td.Schema(
        td.Label("y"),
        dense=tuple(td.DenseFeature(name, transform="log1p") for name in DENSE),
        categorical=tuple(td.CategoricalFeature(name) for name in CATEGORICAL),
    ).with_dim(DIM)
    rng = np.random.default_rng(0)
    with open(os.path.join(directory, "log.csv"), "w", encoding="utf-8") as f:
        f.write(",".join(["y", *DENSE, *CATEGORICAL]) + "\n")
        for row in range(max(VALUES)):
            numbers = rng.integers(0, 1000, len(DENSE))
            ids = [value(name, row % VALUES[i % len(VALUES)]) for i, name in enumerate(CATEGORICAL)]
            f.write(",".join([str(row % 2), *map(str, numbers), *ids]) + "\n")
    output = os.path.join(directory, "prepared")
    td.prepare(schema, [os.path.join(directory, "log.csv")], output)
    return output


def export_ours(data: str, output: str, own: int, linear: bool = False) -> None:
    model = td.DLRM(td.Schema.load(f"{data}/schema.json"), BOTTOM, TOP, linear=linear)
    save(model, data, DENSE + CATEGORICAL[:-own], output)


def export_sharing(data: str, output: str, name: str) -> None:
    """Exports a model twice: with its candidate scorer, and with the one that copies the inputs of the context."""
    kind, schema = getattr(td, name), td.Schema.load(f"{data}/schema.json")

    class Copying(kind):
        def candidate_scorer(self, context: td.Schema, candidate: td.Schema) -> CandidateScorer:
            return BroadcastScorer(self.row_scorer(), self.schema, context, candidate)

    sizes = {"bottom_mlp": BOTTOM, "top_mlp": TOP} if name == "DLRM" else {}
    for folder, made in (("shared", kind), ("copied", Copying)):
        save(made(schema, **sizes), data, DENSE + CATEGORICAL[:-SHARING_OWN], f"{output}/{folder}-{name}")


def prepared_histories(directory: str) -> str:
    """A log of items with categories, and of the items and categories that a user saw before, prepared."""
    history = {"separator": "|", "sequence_length": EVENTS, "pooling": "target_attention"}
    schema = td.Schema(
        td.Label("y"),
        dense=(td.DenseFeature("age"), td.DenseFeature("price")),
        categorical=(
            *(td.CategoricalFeature(name) for name in (*OF_USERS, "item", "category")),
            td.CategoricalFeature("seen", history_of="item", **history),
            td.CategoricalFeature("seen_categories", history_of="category", parallel_to="seen", separator="|"),
        ),
    ).with_dim(DIM)
    rows, rng = max(VALUES), np.random.default_rng(0)
    log = {"y": np.arange(rows) % 2, "age": rng.integers(18, 80, rows), "price": rng.integers(1, 1000, rows)}
    log |= {name: [str(i % 100) for i in range(rows)] for name in OF_USERS}
    log |= {"item": [str(i) for i in range(rows)], "category": [str(i % 100) for i in range(rows)]}
    log |= {"seen": [str(i) for i in range(rows)], "seen_categories": [str(i % 100) for i in range(rows)]}
    output = os.path.join(directory, "prepared-histories")
    td.prepare(schema, pd.DataFrame(log), output)
    return output


def export_with_history(data: str, output: str, name: str) -> None:
    """Exports a model for candidates that are items: the user and what was seen before are the context."""
    schema = td.Schema.load(f"{data}/schema.json")
    model = {
        "DLRM": lambda: td.DLRM(schema, (64, DIM), (200, 80, 1)),
        "DIN": lambda: td.DIN(schema, (200, 80, 1)),
        "BST": lambda: td.BST(schema, (200, 80, 1)),
    }[name]()
    save(model, data, ["age", *OF_USERS, "seen"], output)


def save(model: td.RankingModel, data: str, context: list[str], output: str) -> None:
    model.build()
    serving = ServingModel(model, td.Encoder.load(data), context)

    def score(**raw: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probability": serving.score_raw(raw)}

    def rank(**raw: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": serving.score_candidates(raw)}

    signatures = {
        "serving_default": tf.function(score).get_concrete_function(**serving.raw_signature()),
        "rank": tf.function(rank).get_concrete_function(**serving.rank_signature()),
    }
    tf.saved_model.save(serving, output, signatures=signatures)


class _Ranking(tfrs.experimental.models.Ranking):
    """Also for a batch of 1, at which the original fails: it squeezes every dimension of 1."""

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        vectors = list(self._embedding_layer(inputs["sparse_features"]).values())
        dense = self._bottom_stack(inputs["dense_features"])
        products = self._feature_interaction([*vectors, dense])
        return self._top_stack(tf.concat([dense, products], axis=1))[:, 0]


class _Embeddings(tf.keras.layers.Layer):
    def __init__(self, rows: dict[str, int]):
        super().__init__()
        self._tables = {name: tf.keras.layers.Embedding(n, DIM) for name, n in rows.items()}

    def call(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: self._tables[name](ids) for name, ids in features.items()}


def export_obvious(data: str, output: str) -> None:
    words = {}
    for name in CATEGORICAL:
        with open(vocabulary_file(data, name), encoding="utf-8") as f:
            words[name] = f.read().splitlines()
    lookups = {name: tf.keras.layers.StringLookup(vocabulary=found) for name, found in words.items()}
    model = _Ranking(
        embedding_layer=_Embeddings({name: len(found) + 1 for name, found in words.items()}),
        bottom_stack=tfrs.layers.blocks.MLP(list(BOTTOM), final_activation="relu"),
        top_stack=tfrs.layers.blocks.MLP(list(TOP), final_activation="sigmoid"),
    )

    def score(**raw: tf.Tensor) -> dict[str, tf.Tensor]:
        dense = tf.math.log1p(tf.maximum(tf.stack([raw[name] for name in DENSE], axis=1), 0))
        ids = {name: lookups[name](raw[name]) for name in CATEGORICAL}
        return {"probability": model({"dense_features": dense, "sparse_features": ids})}

    specs = {name: tf.TensorSpec([None], tf.float32, name) for name in DENSE}
    specs |= {name: tf.TensorSpec([None], tf.string, name) for name in CATEGORICAL}
    module = tf.Module()
    module.lookups, module.model = lookups, model
    signature = tf.function(score).get_concrete_function(**specs)
    tf.saved_model.save(module, output, signatures={"serving_default": signature})


if __name__ == "__main__":
    there = prepared(sys.argv[1])
    for count in OWN:
        export_ours(there, os.path.join(sys.argv[1], f"ours-{count}"), count)
    export_ours(there, os.path.join(sys.argv[1], "linear"), LINEAR_OWN, linear=True)
    for kind in SHARING:
        export_sharing(there, sys.argv[1], kind)
    export_obvious(there, os.path.join(sys.argv[1], "obvious"))
    there = prepared_histories(sys.argv[1])
    for kind in WITH_HISTORY:
        export_with_history(there, os.path.join(sys.argv[1], f"history-{kind}"), kind)
