"""What a bundle can be asked: the signatures of its SavedModel, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.models.tasks import BinaryClassification
from tfrs_dlrm.serving.exporting.serving_model import ServingModel

Signatures = dict[str, Any]

# What TF Serving's Regress and Classify ask for; the others are of its Predict.
METHODS = {"regress": "tensorflow/serving/regress", "classify": "tensorflow/serving/classify"}


def make_signatures(model: ServingModel) -> Signatures:
    """All signatures of a model; `classify` of clicks only, and those that rank where it has a context.

    Where there are several labels, `regress` and `classify` answer for the first, and candidates are ordered by it.

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
    tasks = model.tasks

    def first(serialized: tf.Tensor) -> tf.Tensor:
        return tasks.columns(model.score_raw(parse(serialized, raw)))[0]

    def candidates(request: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        scores = tasks.columns(model.score_candidates(request))
        return {f"scores{suffix}": column for suffix, column in zip(tasks.suffixes, scores, strict=True)}

    signatures = {
        "serving_default": _concrete(lambda **x: tasks.named(model.score_raw(x)), raw),
        "serialized_examples": _concrete(lambda **x: tasks.named(model.score_raw(parse(x["examples"], raw))), examples),
        "regress": _concrete(lambda **x: {"outputs": first(x["inputs"])}, inputs),
        "encoded": _concrete(lambda **x: tasks.named(model.score_encoded(finite(x))), encoded),
    }
    if isinstance(tasks.first, BinaryClassification):
        signatures["classify"] = _concrete(lambda **x: _classes(first(x["inputs"])), inputs)
    if model.context:
        rank = model.rank_signature()
        signatures["rank"] = _concrete(lambda **x: _ordered(candidates(x)), rank)
        top_k = rank | {"k": tf.TensorSpec([None], tf.int32, "k")}
        signatures["rank_top_k"] = _concrete(lambda **x: _best(candidates(x), x["k"]), top_k)
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


def _ordered(scores: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """By the first label."""
    return scores | {"order": tf.argsort(scores["scores"], direction="DESCENDING", stable=True)}


def _best(scores: dict[str, tf.Tensor], k: tf.Tensor) -> dict[str, tf.Tensor]:
    """By the first label."""
    first = scores["scores"]
    best, indices = tf.math.top_k(first, tf.clip_by_value(tf.reduce_max(k), 0, tf.shape(first)[1]))
    others = {name: tf.gather(values, indices, batch_dims=1) for name, values in scores.items() if name != "scores"}
    return {"scores": best, **others, "indices": indices}
