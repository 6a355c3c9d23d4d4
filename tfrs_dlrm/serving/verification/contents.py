"""Checks the files of a bundle: bundle.json, and that all files and signatures agree with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.bundle.batching_parameters import BATCHING, check_batching_parameters
from tfrs_dlrm.serving.bundle.manifest import EXAMPLE, MANIFEST, WARMUP, files_of, read_manifest, sha256_of
from tfrs_dlrm.serving.bundle.warmup import replay_warmup
from tfrs_dlrm.serving.runtime.signature import Signature, TensorInfo, shape_text
from tfrs_dlrm.serving.runtime.tensors import type_name
from tfrs_dlrm.serving.verification.subject import Subject, check_inputs
from tfrs_dlrm.serving.verification.verification_report import Failed
from tfrs_dlrm.stores.files import read_json

_AGAIN = "copy the bundle again or export the model again"
_METHOD = "tensorflow/serving/"


def check_manifest(subject: Subject) -> str:
    """Reads bundle.json."""
    manifest = read_manifest(subject.path)
    for key in ("features", "signatures", "files", "tolerance"):
        if not getattr(manifest, key):
            raise Failed(f"{MANIFEST}: {key!r} is missing or empty: {_AGAIN}")
    subject.manifest = manifest
    return f"{manifest.model} {manifest.name!r}, {len(manifest.features)} features"


def check_files(subject: Subject) -> str:
    """Compares the files with the list in bundle.json."""
    listed, existing = subject.manifest.files, set(files_of(subject.path)) - {MANIFEST}
    problems, size = [], 0
    for name, wanted in sorted(listed.items()):
        if name not in existing:
            problems.append(f"{name} is missing")
            continue
        file = os.path.join(subject.path, name)
        found = os.path.getsize(file)
        size += found
        if found != wanted["bytes"]:
            problems.append(f"{name} has {found} bytes instead of {wanted['bytes']}")
        elif sha256_of(file) != wanted["sha256"]:
            problems.append(f"{name} was changed: its SHA-256 is another")
    problems += [f"{name} exists but is not listed in {MANIFEST}" for name in sorted(existing - listed.keys())]
    if problems:
        raise Failed(f"{'; '.join(problems)}: {_AGAIN}")
    return f"{len(listed)} files, {size:,} bytes, every SHA-256 as listed"


def check_signatures(subject: Subject) -> str:
    """Compares the signatures: names, methods, and names, types and shapes of inputs and outputs."""
    listed, found = subject.manifest.signatures, subject.saved_model.signatures
    problems = _missing("signature", listed, found)
    if "serving_default" not in found:
        problems.append("signature 'serving_default' is missing, which clients ask by default")
    for name in sorted(listed.keys() & found.keys()):
        problems += [f"signature {name!r}: {problem}" for problem in _differences(listed[name], found[name])]
    inputs = found["serving_default"].inputs.keys() if "serving_default" in found else frozenset()
    features = {f.name for f in subject.manifest.features}
    if inputs and inputs != features:
        differ = ", ".join(sorted(inputs ^ features))
        problems.append(f"features of bundle.json and inputs of 'serving_default' differ: {differ}")
    if problems:
        raise Failed(
            f"{'; '.join(problems)}. Clients go by bundle.json: export the model again, or change back what was edited"
        )
    return f"{len(found)} as bundle.json says: {', '.join(sorted(found))}"


def check_warmup(subject: Subject) -> str:
    """Replays the warmup file."""
    if not os.path.isfile(os.path.join(subject.path, WARMUP)):
        raise Failed(f"{WARMUP} is missing: the first requests would be slow; export the model again")
    replayed = replay_warmup(subject.saved_model, subject.path)
    cold = sorted(subject.signatures - set(replayed))
    if cold:
        raise Failed(f"{WARMUP} has no request for {', '.join(cold)}, whose first answer would be slow")
    return f"{len(replayed)} requests, for each of {len(set(replayed))} signatures"


def check_batching(subject: Subject) -> str:
    """Reads batching_params.pbtxt as TensorFlow Serving does."""
    file = os.path.join(subject.path, BATCHING)
    if not os.path.isfile(file):
        return f"the bundle has no {BATCHING}, so TensorFlow Serving batches as its flags say"
    with open(file, encoding="utf-8", errors="replace") as f:
        return check_batching_parameters(f.read())


def check_example(subject: Subject) -> str:
    """Asks what assets.extra/example_request.json asks, which people copy."""
    file = os.path.join(subject.path, EXAMPLE)
    if not os.path.isfile(file):
        raise Failed(f"{EXAMPLE} is missing: {_AGAIN}")
    try:
        body = read_json(file, then=_AGAIN)
    except ValueError as e:
        raise Failed(str(e)) from e
    rows = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not rows:
        raise Failed(f'{EXAMPLE} has no rows: {{"instances": [{{...}}]}} is expected: {_AGAIN}')
    for i, row in enumerate(rows):
        check_inputs(subject, row, f"{EXAMPLE}, instances[{i}]")
    try:
        answers = subject.score(subject.raw_inputs(rows))
    except Failed as e:
        raise Failed(f"{EXAMPLE}: {e}") from e
    for name, values in answers.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise Failed(f"{EXAMPLE}: its {name} is {values.tolist()}: look for NaN in the weights")
    return f"{len(rows)} row answered: " + ", ".join(f"{k} {v.ravel()[0]:.6g}" for k, v in answers.items())


def _missing(kind: str, listed: Iterable[str], found: Iterable[str]) -> list[str]:
    only_listed, only_found = sorted(set(listed) - set(found)), sorted(set(found) - set(listed))
    return [
        *(f"{kind} {name!r} is only in bundle.json" for name in only_listed),
        *(f"{kind} {name!r} is only in the SavedModel" for name in only_found),
    ]


def _differences(listed: Mapping[str, Any], found: Signature) -> list[str]:
    problems = []
    if _METHOD + listed["method"] != found.method:
        problems.append(f"its method is {found.method}, not {_METHOD}{listed['method']}")
    for kind, tensors in (("input", found.inputs), ("output", found.outputs)):
        wanted = listed[f"{kind}s"]
        problems += _missing(kind, wanted, tensors)
        for name in sorted(wanted.keys() & tensors.keys()):
            if not _same(wanted[name], tensors[name]):
                shape = wanted[name]["shape"]
                said = f"{wanted[name]['dtype']} {shape_text(None if shape is None else tuple(shape))}"
                problems.append(f"{kind} {name!r} is {tensors[name]}; bundle.json says {said}")
    return problems


def _same(wanted: Mapping[str, Any], found: TensorInfo) -> bool:
    shape = None if found.shape is None else list(found.shape)
    return wanted["dtype"] == type_name(found.dtype) and wanted["shape"] == shape
