"""What a bundle can be asked: the signatures of its SavedModel, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.rows import MISSING_INT
from tfrs_dlrm.serving.model import ServingModel

Signatures = dict[str, Any]

# What TF Serving's Regress and Classify ask for; the others are of its Predict.
METHODS = {"regress": "tensorflow/serving/regress", "classify": "tensorflow/serving/classify"}


def make_signatures(model: ServingModel) -> Signatures:
    """All signatures of a model; those that rank are there where it has a context.

    Raises:
      ValueError: a feature has a name that an input of another kind has.
    """
    for name in ("self", "k") if model.context else ("self",):  # Python's own, and that of `rank_top_k`
        if name in model.raw_signature():
            raise ValueError(
                f"feature {name!r}: a served model needs this name for itself; give the feature another name in the"
                f" schema, with column={name!r} where the log has it so, and prepare and train again"
            )
    raw, encoded = model.raw_signature(), model.encoded_signature()
    examples = {"examples": tf.TensorSpec([None], tf.string, "examples")}
    inputs = {"inputs": tf.TensorSpec([None], tf.string, "inputs")}
    signatures = {
        "serving_default": _concrete(lambda **x: {"probability": model.score_raw(x)}, raw),
        "serialized_examples": _concrete(
            lambda **x: {"probability": model.score_raw(parse(x["examples"], raw))}, examples
        ),
        "regress": _concrete(lambda **x: {"outputs": model.score_raw(parse(x["inputs"], raw))}, inputs),
        "classify": _concrete(lambda **x: _classes(model.score_raw(parse(x["inputs"], raw))), inputs),
        "encoded": _concrete(lambda **x: {"probability": model.score_encoded(finite(x))}, encoded),
    }
    if model.context:
        rank = model.rank_signature()
        signatures["rank"] = _concrete(lambda **x: _ordered(model.score_candidates(x)), rank)
        top_k = rank | {"k": tf.TensorSpec([None], tf.int32, "k")}
        signatures["rank_top_k"] = _concrete(lambda **x: _best(model.score_candidates(x), x["k"]), top_k)
    return signatures


def set_methods(path: str, names: Mapping[str, Any]) -> None:
    """Says in the SavedModel at `path` which signatures are asked by Regress and Classify."""
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(path)
    for name in METHODS.keys() & names.keys():
        updater.replace_method_name(signature_key=name, method_name=METHODS[name])
    updater.save()


def parse(examples: tf.Tensor, raw: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """Serialized tf.Examples [B] as the raw inputs; a feature that an example does not have is a missing value."""
    missing: dict[tf.DType, Any] = {tf.float32: np.nan, tf.string: "", tf.int64: MISSING_INT}
    features: dict[str, Any] = {}
    for name, spec in raw.items():
        if spec.shape.rank == 1:
            features[name] = tf.io.FixedLenFeature([], spec.dtype, missing[spec.dtype])
        else:
            features[name] = tf.io.RaggedFeature(spec.dtype)
    parsed = tf.io.parse_example(examples, features)
    filled = missing | {tf.float32: 0.0}  # weights, of values that are not there
    return {
        name: value.to_tensor(filled[value.dtype]) if isinstance(value, tf.RaggedTensor) else value
        for name, value in parsed.items()
    }


def finite(encoded: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The same, refused by name where a number is NaN or infinite: it would be the score."""
    checks = [
        tf.debugging.Assert(
            tf.reduce_all(tf.math.is_finite(value)), [f"input {name}: NaN or infinite; encoded values are finite"]
        )
        for name, value in encoded.items()
        if value.dtype.is_floating
    ]
    with tf.control_dependencies([c for c in checks if c is not None]):
        return {name: tf.identity(value) for name, value in encoded.items()}


def _concrete(function: Callable[..., dict[str, tf.Tensor]], specs: Mapping[str, tf.TensorSpec]) -> Any:
    return tf.function(function).get_concrete_function(**specs)


def _classes(probability: tf.Tensor) -> dict[str, tf.Tensor]:
    labels = tf.constant([["0", "1"]])
    return {
        "scores": tf.stack([1 - probability, probability], axis=1),
        "classes": tf.tile(labels, [tf.size(probability), 1]),
    }


def _ordered(scores: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"scores": scores, "order": tf.argsort(scores, direction="DESCENDING", stable=True)}


def _best(scores: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
    best, indices = tf.math.top_k(scores, tf.clip_by_value(tf.reduce_max(k), 0, tf.shape(scores)[1]))
    return {"scores": best, "indices": indices}
