"""Whether the SavedModel can be asked what bundle.json says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfrs_dlrm.serving.runtime.runtime import Signature, TensorInfo, shape_text
from tfrs_dlrm.serving.runtime.tensors import type_name
from tfrs_dlrm.serving.verification.subject import Subject
from tfrs_dlrm.serving.verification.verification_report import Failed

_METHOD = "tensorflow/serving/"


def check(subject: Subject) -> str:
    """Compares the signatures: names, methods, and names, types and shapes of inputs and outputs."""
    listed, found = subject.manifest["signatures"], subject.model.signatures
    problems = [f"signature {name!r} is only in bundle.json" for name in sorted(listed.keys() - found.keys())]
    problems += [f"signature {name!r} is only in the SavedModel" for name in sorted(found.keys() - listed.keys())]
    if "serving_default" not in found:
        problems.append("there is no signature 'serving_default', which clients ask where they name none")
    for name in sorted(listed.keys() & found.keys()):
        problems += [f"signature {name!r}: {problem}" for problem in _differences(listed[name], found[name])]
    inputs = found["serving_default"].inputs.keys() if "serving_default" in found else frozenset()
    features = {f["name"] for f in subject.manifest["features"]}
    if inputs and inputs != features:
        problems.append(f"features of bundle.json and inputs of 'serving_default' differ: {_names(inputs ^ features)}")
    if problems:
        raise Failed(
            f"{'; '.join(problems)}. Clients go by bundle.json: export the model again, or change back what was edited"
        )
    return f"{len(found)} as bundle.json says: {', '.join(sorted(found))}"


def _differences(listed: Mapping[str, Any], found: Signature) -> list[str]:
    problems = []
    if _METHOD + listed["method"] != found.method:
        problems.append(f"its method is {found.method}, not {_METHOD}{listed['method']}")
    for kind, there in (("input", found.inputs), ("output", found.outputs)):
        wanted = listed[f"{kind}s"]
        problems += [f"{kind} {name!r} is only in bundle.json" for name in sorted(wanted.keys() - there.keys())]
        problems += [f"{kind} {name!r} is only in the SavedModel" for name in sorted(there.keys() - wanted.keys())]
        for name in sorted(wanted.keys() & there.keys()):
            if not _same(wanted[name], there[name]):
                shape = wanted[name]["shape"]
                said = f"{wanted[name]['dtype']} {shape_text(None if shape is None else tuple(shape))}"
                problems.append(f"{kind} {name!r} is {there[name]}; bundle.json says {said}")
    return problems


def _same(wanted: Mapping[str, Any], found: TensorInfo) -> bool:
    shape = None if found.shape is None else list(found.shape)
    return wanted["dtype"] == type_name(found.dtype) and wanted["shape"] == shape


def _names(names: Any) -> str:
    return ", ".join(sorted(names))
