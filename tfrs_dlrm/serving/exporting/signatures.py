"""The signatures of a bundle's SavedModel, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.models.tasks import BinaryClassification
from tfrs_dlrm.serving.bundle.wholeness import EXPORTER, GRAPH
from tfrs_dlrm.serving.exporting.serving_model import ServingModel
from tfrs_dlrm.serving.runtime import protos

Signatures = dict[str, Any]

# For TF Serving's Regress and Classify; the other signatures are for its Predict.
METHODS = {"regress": "tensorflow/serving/regress", "classify": "tensorflow/serving/classify"}


def make_signatures(model: ServingModel) -> Signatures:
    """Makes all signatures of a model: `classify` for a label of two classes, `rank` and `rank_top_k` with a context.

    With several labels, `regress` and `classify` answer for the first, and candidates are ordered by it.

    Raises:
      ValueError: a feature has the name of another input.
    """
    for name in ("self", "k") if model.context else ("self",):  # of a method, and an input of `rank_top_k`
        if name in model.raw_signature():
            raise ValueError(
                f"feature {name!r}: the name is reserved in served models; rename the feature in the schema, with"
                f" column={name!r} to read the column of the log, and prepare and train again"
            )
    raw = model.raw_signature()
    examples = {"examples": tf.TensorSpec([None], tf.string, "examples")}
    inputs = {"inputs": tf.TensorSpec([None], tf.string, "inputs")}
    tasks = model.tasks

    def first(serialized: tf.Tensor) -> tf.Tensor:
        return tasks.columns(model.score_raw(parse(serialized, raw)))[0]

    def candidates(request: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        answers = tasks.with_rates(model.score_candidates(request))
        return {f"scores{suffix}": scores for suffix, scores in answers.items()}

    signatures = {
        "serving_default": _concrete(model, lambda **x: tasks.named(model.score_raw(x)), raw),
        "serialized_examples": _concrete(
            model, lambda **x: tasks.named(model.score_raw(parse(x["examples"], raw))), examples
        ),
        "regress": _concrete(model, lambda **x: {"outputs": first(x["inputs"])}, inputs),
        "encoded": make_encoded(model),
    }
    if isinstance(tasks.first, BinaryClassification):
        signatures["classify"] = _concrete(model, lambda **x: _classes(first(x["inputs"])), inputs)
    if model.context:
        rank = model.rank_signature()
        signatures["rank"] = _concrete(model, lambda **x: _ordered(candidates(x)), rank)
        top_k = rank | {"k": tf.TensorSpec([None], tf.int32, "k")}
        signatures["rank_top_k"] = _concrete(model, lambda **x: _best(candidates(x), x["k"]), top_k)
    return signatures


def make_encoded(model: ServingModel) -> Any:
    """Makes the signature `encoded` alone, which scores rows that are encoded already."""
    return _concrete(model, lambda **x: model.tasks.named(model.score_encoded(finite(x))), model.encoded_signature())


def finish_graph(path: str, names: Mapping[str, Any]) -> None:
    """Writes the methods for Regress and Classify, and the exporter, into the SavedModel at `path`.

    With the exporter in the graph, a server does not take a bundle whose manifest is missing for a plain SavedModel.
    """
    file = os.path.join(path, GRAPH)
    with open(file, "rb") as f:
        saved = protos.saved_model.SavedModel.FromString(f.read())
    for graph in saved.meta_graphs:
        graph.meta_info_def.meta_graph_version = EXPORTER
        for name in METHODS.keys() & names.keys():
            graph.signature_def[name].method_name = METHODS[name]
    with open(file, "wb") as f:
        f.write(saved.SerializeToString(deterministic=True))


def parse(examples: tf.Tensor, raw: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """Parses serialized tf.Examples [B] to raw inputs; features that an example does not have are missing values."""
    missing: dict[tf.DType, Any] = {tf.float32: np.nan, tf.string: "", tf.int64: MISSING_INT}
    features: dict[str, Any] = {}
    for name, spec in raw.items():
        shape = spec.shape[1:]
        if shape.is_fully_defined():  # one value is a vector of shape []
            features[name] = tf.io.FixedLenFeature(shape, spec.dtype, [missing[spec.dtype]] * shape.num_elements())
        else:
            features[name] = tf.io.RaggedFeature(spec.dtype)
    parsed = tf.io.parse_example(examples, features)
    filled = missing | {tf.float32: 0.0}  # the weights of missing values
    return {
        name: value.to_tensor(filled[value.dtype]) if isinstance(value, tf.RaggedTensor) else value
        for name, value in parsed.items()
    }


def finite(encoded: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the inputs, and fails with the name of an input that has NaN or infinity, which would be the score."""
    checks = [
        tf.debugging.Assert(
            tf.reduce_all(tf.math.is_finite(value)), [f"input {name}: NaN or infinite; encoded values are finite"]
        )
        for name, value in encoded.items()
        if value.dtype.is_floating
    ]
    with tf.control_dependencies([c for c in checks if c is not None]):
        return {name: tf.identity(value) for name, value in encoded.items()}


def _concrete(
    model: ServingModel, function: Callable[..., dict[str, tf.Tensor]], specs: Mapping[str, tf.TensorSpec]
) -> Any:
    return tf.function(model.as_written(function)).get_concrete_function(**specs)


def _classes(probability: tf.Tensor) -> dict[str, tf.Tensor]:
    labels = tf.constant([["0", "1"]])
    return {
        "scores": tf.stack([1 - probability, probability], axis=1),
        "classes": tf.tile(labels, [tf.size(probability), 1]),
    }


def _ordered(scores: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Adds the order by the first label."""
    return scores | {"order": tf.argsort(scores["scores"], direction="DESCENDING", stable=True)}


def _best(scores: dict[str, tf.Tensor], k: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the best candidates by the first label."""
    first = scores["scores"]
    best, indices = tf.math.top_k(first, tf.clip_by_value(tf.reduce_max(k), 0, tf.shape(first)[1]))
    others = {name: tf.gather(values, indices, batch_dims=1) for name, values in scores.items() if name != "scores"}
    return {"scores": best, **others, "indices": indices}
