"""Requests that TF Serving replays before a version answers others, so that no user waits for the first run.

TFRecord of PredictionLog (tensorflow_serving/servables/tensorflow/saved_model_warmup.cc): at most 1000 records. If one
fails, the version is not loaded.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from tfrs_dlrm.serving.bundle.manifest import WARMUP
from tfrs_dlrm.serving.protocol import DEFAULT_SIGNATURE, InvalidRequest
from tfrs_dlrm.serving.runtime import protos, requests, tensors
from tfrs_dlrm.serving.runtime.saved_model import RunError, SavedModel
from tfrs_dlrm.serving.runtime.tfrecord import read_records, record

_BATCHES = (1, 8, 32)
_CANDIDATES = (8, 32)
_MOST_RECORDS = 1000  # as in TF Serving


def write_warmup(
    path: str,
    raw: Mapping[str, np.ndarray],
    encoded: Mapping[str, np.ndarray],
    context: frozenset[str] | None,
    classifies: bool = True,
) -> int:
    """Writes the requests of the version at `path`; returns their number.

    Args:
      path: of the version.
      raw: rows of the log, at least one, as inputs of `serving_default`.
      encoded: the same rows, as inputs of `encoded`.
      context: the raw inputs that candidates share; None if the model does not rank.
      classifies: whether the model has the signature `classify`.
    """
    logs = list(_logs(raw, encoded, context, classifies))
    with open(os.path.join(path, WARMUP), "wb") as f:
        f.writelines(record(log.SerializeToString()) for log in logs)
    return len(logs)


def replay_warmup(model: SavedModel, path: str) -> list[str]:
    """Runs the requests of the version at `path`, if it has any; returns the signatures that they asked.

    Raises:
      ValueError: a record is broken or cannot be run, or the records are too many.
    """
    file, signatures = os.path.join(path, WARMUP), list[str]()
    if not os.path.exists(file):
        return signatures
    try:
        for data in itertools.islice(read_records(file), _MOST_RECORDS + 1):
            if len(signatures) == _MOST_RECORDS:
                raise ValueError(f"{file} has more than {_MOST_RECORDS} records, which TF Serving refuses")
            signatures.append(_replay(model, protos.prediction_log.PredictionLog.FromString(data)))
    except (DecodeError, InvalidRequest, KeyError, ValueError, RunError, OSError) as e:
        where = "" if str(e).startswith(file) else f"{file}: record {len(signatures)}: "
        raise ValueError(f"{where}{e}") from e
    return signatures


def rank_request(rows: Mapping[str, np.ndarray], context: frozenset[str]) -> dict[str, np.ndarray]:
    """Returns the context of the first row with the candidates of all rows, as inputs of `rank`."""
    return {name: v[:1] if name in context else v[np.newaxis] for name, v in rows.items()}


def repeat_rows(rows: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Returns `count` rows: the given ones, from the first again after the last."""
    return {name: np.resize(values, (count, *values.shape[1:])) for name, values in rows.items()}


def _logs(
    raw: Mapping[str, np.ndarray], encoded: Mapping[str, np.ndarray], context: frozenset[str] | None, classifies: bool
) -> Iterator[Any]:
    for size in _BATCHES:
        rows = repeat_rows(raw, size)
        examples = requests.to_examples(rows)
        serialized = np.empty(size, object)
        serialized[:] = [e.SerializeToString() for e in examples]
        yield _predict(DEFAULT_SIGNATURE, rows)
        yield _predict("serialized_examples", {"examples": serialized})
        yield _predict("encoded", repeat_rows(encoded, size))
        for method in ("regress", "classify") if classifies else ("regress",):
            log = protos.prediction_log.PredictionLog()
            request = getattr(log, f"{method}_log").request
            request.model_spec.signature_name = method
            request.input.example_list.examples.extend(examples)
            yield log
    for size in _CANDIDATES if context is not None else ():
        request = rank_request(repeat_rows(raw, size), context or frozenset())
        yield _predict("rank", request)
        yield _predict("rank_top_k", request | {"k": np.array([min(10, size)], np.int32)})


def _predict(signature: str, inputs: Mapping[str, np.ndarray]) -> Any:
    log = protos.prediction_log.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tensors.to_proto(values))
    return log


def _replay(model: SavedModel, log: Any) -> str:
    kind = log.WhichOneof("log_type")
    if kind not in ("predict_log", "regress_log", "classify_log"):
        raise InvalidRequest(f"a {kind or 'record without a request'} cannot be replayed")
    request, method = getattr(log, kind).request, kind.removesuffix("_log")
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise InvalidRequest(f"the model has no signature {name!r}")
    signature = model.signatures[name]
    if method == "predict":
        inputs = requests.predict_inputs(request)
    else:
        inputs = requests.example_inputs(method, name, signature, requests.serialized_examples(request.input))
    missing = [key for key in signature.inputs if key not in inputs]
    if missing:
        raise InvalidRequest(f"input {missing[0]!r} of signature {name!r} is missing")
    unknown = [key for key in inputs if key not in signature.inputs]
    if unknown:  # TF Serving refuses it too
        raise InvalidRequest(f"signature {name!r} has no input {unknown[0]!r}; it has {', '.join(signature.inputs)}")
    model.run(name, inputs)
    return name
