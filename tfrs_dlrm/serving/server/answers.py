"""Answers of TF Serving's APIs that both REST and gRPC give: status, metadata, classes, errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import json_format

from tfrs_dlrm.serving.protocol import NotFound
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.server.served_model import ServedModel
from tfrs_dlrm.serving.server.served_version import ServedVersion

# Bytes. Errors may quote the request, and gRPC clients take 8 KiB of headers, in which a byte may take three.
_LONGEST_ERROR = 1500


def error_text(error: Exception | str) -> str:
    """Returns the message of an error, cut to a length that clients take; half a surrogate pair becomes `?`."""
    data = str(error).encode(errors="replace")
    return data.decode() if len(data) <= _LONGEST_ERROR else data[:_LONGEST_ERROR].decode(errors="ignore") + " ..."


def status(models: Mapping[str, ServedModel], name: str, number: int | None = None, label: str | None = None) -> Any:
    """Returns the GetModelStatusResponse of all versions of a model, newest first, or of one.

    Raises:
      NotFound: the model or the version does not exist.
      InvalidRequest: the label is unknown.
    """
    model = models.get(name)
    if model is None or not model.versions:
        raise NotFound(f"Could not find any versions of model {name[:200]}; the models are {', '.join(models)}")
    if label is not None:
        number = model.choose(None, label).number
    response = protos.status.GetModelStatusResponse()
    for version in sorted(model.versions.values(), key=lambda version: -version.number):
        if number in (None, version.number):
            added = response.model_version_status.add(version=version.number, state=version.state)
            if version.error:
                added.status.error_code = protos.error_codes.FAILED_PRECONDITION
            added.status.error_message = version.error or version.warning
    if number is not None and not response.model_version_status:
        raise NotFound(f"Could not find version {number} of model {name}")
    return response


def metadata(name: str, version: ServedVersion) -> Any:
    """Returns the GetModelMetadataResponse with the signatures."""
    response = protos.metadata.GetModelMetadataResponse()
    response.model_spec.name = name
    response.model_spec.version.value = version.number
    response.metadata["signature_def"].Pack(_signatures(version))
    return response


def metadata_json(name: str, version: ServedVersion) -> dict[str, Any]:
    """Returns the metadata as JSON for REST."""
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version.number)},
        "metadata": {"signature_def": to_json(_signatures(version))},
    }


def _signatures(version: ServedVersion) -> Any:
    listed = protos.metadata.SignatureDefMap()
    for name in version.loaded.signatures:
        listed.signature_def[name].CopyFrom(version.loaded.meta_graph.signature_def[name])
    return listed


def to_json(message: Any) -> dict[str, Any]:
    """Converts a proto to JSON with the names of the proto, and with defaults."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def classes(outputs: Mapping[str, np.ndarray]) -> list[list[tuple[str, float]]]:
    """Returns, by row, the label and the score of each class from the outputs of a `classify` signature."""
    scores = outputs["scores"].tolist()
    labels = outputs["classes"].tolist() if "classes" in outputs else [[b""] * len(row) for row in scores]
    return [
        [(label.decode(errors="replace"), score) for label, score in zip(names, values, strict=True)]
        for names, values in zip(labels, scores, strict=True)
    ]
