"""Loads one version of a bundle, or says why it is refused."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.runtime import RunError, SavedModel
from tfrs_dlrm.serving.runtime.tfrecord import read_records
from tfrs_dlrm.serving.server import requests
from tfrs_dlrm.serving.server.errors import InvalidRequest

MANIFEST = os.path.join("assets.extra", "bundle.json")
WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")
MOST_WARMUP_RECORDS = 1000  # as in TF Serving


class Refused(Exception):
    """A version is not fit to be served; the message says why."""


def load(path: str, threads: int | None = None) -> tuple[SavedModel, dict[str, Any]]:
    """The model, warmed up, and its manifest (empty for a SavedModel that is no bundle).

    Args:
      path: the directory of the version.
      threads: of TensorFlow's pools.

    Raises:
      Refused: a file is missing or of another size, the model cannot be loaded, or a warmup record is broken.
    """
    manifest = _manifest(path)
    _check_files(path, manifest)
    try:
        model = SavedModel(path, threads)
    except RunError as e:
        raise Refused(f"{path}: TensorFlow cannot load it: {e}") from e
    try:
        warm_up(model, os.path.join(path, WARMUP))
    except BaseException:
        model.close()
        raise
    return model, manifest


def _manifest(path: str) -> dict[str, Any]:
    file = os.path.join(path, MANIFEST)
    if not os.path.exists(file):
        return {}
    try:
        with open(file, encoding="utf-8") as f:
            manifest = json.load(f)
    except (OSError, ValueError) as e:
        raise Refused(f"{file} cannot be read: {e}") from e
    if not isinstance(manifest, dict) or manifest.get("format") != 1:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise Refused(f"{file} is of format {found!r}; this server reads format 1: export the model again")
    features = manifest.get("features", [])
    if not isinstance(features, list) or not all(isinstance(f, dict) and type(f.get("name")) is str for f in features):
        raise Refused(f"{file}: 'features' is no list of objects with a 'name': export the model again")
    return manifest


def _check_files(path: str, manifest: dict[str, Any]) -> None:
    for name, expected in manifest.get("files", {}).items():
        file = os.path.join(path, name)
        if not os.path.isfile(file):
            raise Refused(f"{path}: {name} is missing, which {MANIFEST} lists")
        size = os.path.getsize(file)
        if size != expected["bytes"]:
            raise Refused(f"{path}: {name} has {size} bytes; {MANIFEST} says {expected['bytes']}")
    if not os.path.isfile(os.path.join(path, "saved_model.pb")):
        raise Refused(f"{path}: saved_model.pb is missing")


def warm_up(model: SavedModel, file: str) -> list[str]:
    """Replays a file of warmup requests; returns the signatures that they asked.

    Raises:
      Refused: a record is broken or cannot be run, or there are too many.
    """
    signatures: list[str] = []
    if not os.path.exists(file):
        return signatures
    try:
        for record in itertools.islice(read_records(file), MOST_WARMUP_RECORDS + 1):
            if len(signatures) == MOST_WARMUP_RECORDS:
                raise Refused(f"{file} has more than {MOST_WARMUP_RECORDS} records, which TF Serving refuses")
            signatures.append(_replay(model, protos.prediction_log.PredictionLog.FromString(record)))
    except (DecodeError, InvalidRequest, KeyError, ValueError, RunError, OSError) as e:
        where = "" if str(e).startswith(file) else f"{file}: record {len(signatures)}: "
        raise Refused(f"{where}{e}") from e
    return signatures


def _replay(model: SavedModel, log: Any) -> str:
    kind = log.WhichOneof("log_type")
    methods: dict[str, Callable[[], Any]] = {
        "predict_log": lambda: log.predict_log.request,
        "regress_log": lambda: log.regress_log.request,
        "classify_log": lambda: log.classify_log.request,
    }
    if kind not in methods:
        raise InvalidRequest(f"a {kind or 'record without a request'} cannot be replayed")
    request, method = methods[kind](), kind.removesuffix("_log")
    name = request.model_spec.signature_name or requests.DEFAULT_SIGNATURE
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
