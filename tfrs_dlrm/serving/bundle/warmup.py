"""Requests that TF Serving replays before a version answers others, so that no user waits for the first run.

TFRecord of PredictionLog (tensorflow_serving/servables/tensorflow/saved_model_warmup.cc): at most 1000, and one that
fails makes the load fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.bundle.manifest import WARMUP
from tfrs_dlrm.serving.runtime import protos, tensors
from tfrs_dlrm.serving.runtime.tfrecord import record

_BATCHES = (1, 8, 32)
_CANDIDATES = (8, 32)


def write_warmup(
    path: str,
    raw: Mapping[str, np.ndarray],
    encoded: Mapping[str, np.ndarray],
    context: frozenset[str] | None,
    classifies: bool = True,
) -> int:
    """Writes the requests of the version at `path`; returns how many.

    Args:
      path: of the version.
      raw: real rows, at least one, as `serving_default` takes them.
      encoded: the same rows as `encoded` takes them.
      context: the raw inputs that candidates share; None where the model does not rank.
      classifies: whether it has the signature `classify`.
    """
    logs = list(_logs(raw, encoded, context, classifies))
    with open(os.path.join(path, WARMUP), "wb") as f:
        f.writelines(record(log.SerializeToString()) for log in logs)
    return len(logs)


def to_examples(raw: Mapping[str, np.ndarray]) -> list[Any]:
    """The rows as tf.Examples."""
    rows = len(next(iter(raw.values())))
    return [_example({name: values[row] for name, values in raw.items()}) for row in range(rows)]


def _logs(
    raw: Mapping[str, np.ndarray], encoded: Mapping[str, np.ndarray], context: frozenset[str] | None, classifies: bool
) -> Iterator[Any]:
    for size in _BATCHES:
        some = {name: _repeated(values, size) for name, values in raw.items()}
        examples = to_examples(some)
        serialized = np.empty(size, object)
        serialized[:] = [e.SerializeToString() for e in examples]
        yield _predict("serving_default", some)
        yield _predict("serialized_examples", {"examples": serialized})
        yield _predict("encoded", {name: _repeated(values, size) for name, values in encoded.items()})
        log = protos.prediction_log.PredictionLog()
        log.regress_log.request.model_spec.signature_name = "regress"
        log.regress_log.request.input.example_list.examples.extend(examples)
        yield log
        if classifies:
            log = protos.prediction_log.PredictionLog()
            log.classify_log.request.model_spec.signature_name = "classify"
            log.classify_log.request.input.example_list.examples.extend(examples)
            yield log
    for size in _CANDIDATES if context is not None else ():
        request = rank_request({name: _repeated(values, size) for name, values in raw.items()}, context or frozenset())
        yield _predict("rank", request)
        yield _predict("rank_top_k", request | {"k": np.array([min(10, size)], np.int32)})


def rank_request(rows: Mapping[str, np.ndarray], context: frozenset[str]) -> dict[str, np.ndarray]:
    """The context of the first row with the candidates of all: one context, as many candidates as rows."""
    return {name: v[:1] if name in context else v[np.newaxis] for name, v in rows.items()}


def _predict(signature: str, inputs: Mapping[str, np.ndarray]) -> Any:
    log = protos.prediction_log.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tensors.to_proto(values))
    return log


def _repeated(values: np.ndarray, count: int) -> np.ndarray:
    return np.resize(values, (count, *values.shape[1:]))


def _example(row: Mapping[str, Any]) -> Any:
    example = protos.example.Example()
    for name, value in row.items():
        values = np.atleast_1d(np.asarray(value, object if isinstance(value, bytes) else None))
        feature = example.features.feature[name]
        if values.dtype.kind == "O":
            feature.bytes_list.value.extend(values.tolist())
        elif values.dtype.kind == "f":
            feature.float_list.value.extend(values.tolist())
        else:
            feature.int64_list.value.extend(values.tolist())
    return example
