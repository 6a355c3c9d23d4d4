"""What the page shows of the models: their versions, and what signature and manifest say of their features.

A value of a feature is given as the text of its JSON: browsers round integers beyond 2**53, and have no NaN in JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.runtime.runtime import TensorInfo
from tfrs_dlrm.serving.runtime.tensors import type_name
from tfrs_dlrm.serving.server.requests import DEFAULT_SIGNATURE
from tfrs_dlrm.serving.server.versions import Model, State, Version

_OF_THE_BUNDLE = ("model", "checkpoint", "created", "tensorflow", "tables", "accuracy")
_OF_A_FEATURE = ("kind", "separator", "may_be_missing", "context")


def catalog(models: Iterable[Model]) -> dict[str, Any]:
    """All models, as the page takes them."""
    return {"models": [_model(model) for model in models]}


def _model(model: Model) -> dict[str, Any]:
    labels: dict[int, list[str]] = {}
    for label, number in model.labels.items():
        labels.setdefault(number, []).append(label)
    versions = sorted(model.versions.values(), key=lambda version: -version.number)
    return {"name": model.name, "versions": [_version(v, labels.get(v.number, [])) for v in versions]}


def _version(version: Version, labels: list[str]) -> dict[str, Any]:
    manifest = version.manifest
    return {
        "version": str(version.number),
        "state": State.State.Name(version.state),
        "error": version.error,
        "labels": labels,
        "bundle": {key: manifest.get(key) for key in _OF_THE_BUNDLE} if manifest else None,
        "signatures": sorted(version.model.signatures) if version.model else [],
        "features": _features(version),
        "output": _output(version),
    }


def _output(version: Version) -> str:
    """What `serving_default` calls its answer for the first label; "score" where that is not known."""
    signature = version.model.signatures.get(DEFAULT_SIGNATURE) if version.model else None
    names = list(signature.outputs) if signature else []
    others = version.manifest.get("more_outputs") or {}
    names = [name for name in names if name not in others]
    return names[0] if len(names) == 1 else "score"


def _features(version: Version) -> list[dict[str, Any]]:
    """The inputs of `serving_default`, in the manifest's order; where it says nothing, from the signature alone."""
    if version.model is None or DEFAULT_SIGNATURE not in version.model.signatures:
        return []
    inputs = version.model.signatures[DEFAULT_SIGNATURE].inputs
    known = {feature["name"]: feature for feature in version.manifest.get("features", ())}
    names = [name for name in known if name in inputs] + sorted(inputs.keys() - known.keys())
    return [_feature(name, inputs[name], known.get(name)) for name in names]


def _feature(name: str, info: TensorInfo, known: Mapping[str, Any] | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": name,
        "dtype": type_name(info.dtype),
        "rank": None if info.shape is None else len(info.shape),
        "missing": None,
        "example": None,
    }
    if known is None:
        return described
    described |= {key: known.get(key) for key in _OF_A_FEATURE}
    for key in {"missing", "example"} & known.keys():
        value = known[key]
        described[key] = [_text(v, info.dtype) for v in value] if isinstance(value, list) else _text(value, info.dtype)
    return described


def _text(value: Any, dtype: np.dtype[Any]) -> str:
    """The JSON of a value; of a number of type float32, the fewest digits that tell it from others."""
    if dtype.kind == "f":
        if value is None:
            return "NaN"
        if isinstance(value, int | float) and math.isfinite(value):
            value = float(str(dtype.type(value)))
    return json.dumps(value)
