"""The page at `/` and the catalog of models that it shows. No file comes from elsewhere.

The catalog has the value of a feature as the text of its JSON: browsers round integers beyond 2**53, and their JSON has
no NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from importlib import resources
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfrs_dlrm.serving.bundle.manifest import BundleFeature
from tfrs_dlrm.serving.protocol import DEFAULT_SIGNATURE
from tfrs_dlrm.serving.runtime.signature import TensorInfo
from tfrs_dlrm.serving.runtime.tensors import type_name
from tfrs_dlrm.serving.server.inference import Inference
from tfrs_dlrm.serving.server.served_model import ServedModel
from tfrs_dlrm.serving.server.served_version import ServedVersion, State

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES = ("index.html", "page.css", "icon.svg", "page.js", "api.js", "dom.js", "model.js", "form.js", "score.js")
_URLS = {f"/page/{name}" if name != "index.html" else "/": name for name in _FILES}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

# The page asks for the token, so its files need none. Its content comes from CATALOG, which needs the token.
OPEN_PATHS = tuple(_URLS)
CATALOG = "/catalog"
_OF_A_BUNDLE = ("model", "checkpoint", "created", "tensorflow", "tables", "accuracy")
_OF_A_FEATURE = ("kind", "separator", "may_be_missing", "context", "size")


def routes(service: Inference) -> list[Route]:
    """Returns the routes of the page, its files and the catalog of models."""

    async def describe(request: Request) -> Response:
        # Not JSONResponse: a manifest may have NaN, for instance the AUC of one class.
        return Response(json.dumps(catalog(service.models.values())), media_type="application/json", headers=_HEADERS)

    return [Route(CATALOG, describe), *(_file(url, name) for url, name in _URLS.items())]


def _file(url: str, name: str) -> Route:
    content = resources.files(__package__).joinpath("page").joinpath(name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, media_type=_TYPES[name.rpartition(".")[2]], headers=_HEADERS)

    return Route(url, send)


def catalog(models: Iterable[ServedModel]) -> dict[str, Any]:
    """Describes all models for the page."""
    return {"models": [_model(model) for model in models]}


def _model(model: ServedModel) -> dict[str, Any]:
    labels: dict[int, list[str]] = {}
    for label, number in model.labels.items():
        labels.setdefault(number, []).append(label)
    versions = sorted(model.versions.values(), key=lambda version: -version.number)
    return {"name": model.name, "versions": [_version(v, labels.get(v.number, [])) for v in versions]}


def _version(version: ServedVersion, labels: list[str]) -> dict[str, Any]:
    manifest = version.manifest
    return {
        "version": str(version.number),
        "state": State.State.Name(version.state),
        "error": version.error or version.warning,
        "labels": labels,
        "bundle": {key: getattr(manifest, key) or None for key in _OF_A_BUNDLE} if manifest else None,
        "signatures": sorted(version.model.signatures) if version.model else [],
        "features": _features(version),
        "output": _output(version),
    }


def _output(version: ServedVersion) -> str:
    """Returns what `serving_default` calls its answer for the first label; "score" if that is unknown."""
    signature = version.model.signatures.get(DEFAULT_SIGNATURE) if version.model else None
    names = list(signature.outputs) if signature else []
    others = version.manifest.more_outputs if version.manifest else {}
    names = [name for name in names if name not in others]
    return names[0] if len(names) == 1 else "score"


def _features(version: ServedVersion) -> list[dict[str, Any]]:
    """Describes the inputs of `serving_default` in the manifest's order, then further inputs of the signature."""
    if version.model is None or DEFAULT_SIGNATURE not in version.model.signatures:
        return []
    inputs = version.model.signatures[DEFAULT_SIGNATURE].inputs
    known = {feature.name: feature for feature in (version.manifest.features if version.manifest else ())}
    names = [name for name in known if name in inputs] + sorted(inputs.keys() - known.keys())
    return [_feature(name, inputs[name], known.get(name)) for name in names]


def _feature(name: str, info: TensorInfo, known: BundleFeature | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": name,
        "dtype": type_name(info.dtype),
        "rank": None if info.shape is None else len(info.shape),
        "missing": None,
        "example": None,
    }
    if known is None:
        return described
    described |= {key: getattr(known, key) for key in _OF_A_FEATURE}
    for key, value in (("missing", known.missing), ("example", known.example)):
        described[key] = [_text(v, info.dtype) for v in value] if isinstance(value, list) else _text(value, info.dtype)
    return described


def _text(value: Any, dtype: np.dtype[Any]) -> str:
    """Returns the JSON of a value; a float32 has the fewest digits that distinguish it."""
    if dtype.kind == "f":
        if value is None:
            return "NaN"
        if isinstance(value, int | float) and math.isfinite(value):
            value = float(str(dtype.type(value)))
    return json.dumps(value)
