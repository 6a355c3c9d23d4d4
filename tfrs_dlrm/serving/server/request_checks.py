"""Checks that tensors fit a signature; each error names the feature."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np
from google.protobuf.message import DecodeError

from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.serving.bundle.manifest import BundleFeature, BundleManifest
from tfrs_dlrm.serving.protocol import InvalidRequest, is_rank
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.signature import Signature, TensorInfo
from tfrs_dlrm.serving.runtime.tensors import type_name


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of one request.

    Attributes:
      rows: of a batch.
      candidates: of one `rank` request, over all its contexts; also the values of one list.
      string_bytes: of one string.
    """

    rows: int = 5000
    candidates: int = 5000
    string_bytes: int = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The tensors of a request.

    Attributes:
      arrays: by name.
      size: bytes that they take.
      rows: how many, if they are known to fit the signature; None if `check` has to find out.
    """

    arrays: dict[str, np.ndarray]
    size: int
    rows: int | None = None


def check(
    name: str, signature: Signature, inputs: Mapping[str, np.ndarray], manifest: BundleManifest | None, limits: Limits
) -> int:
    """Returns the number of rows of inputs that fit the signature.

    Args:
      name: of the signature.
      signature: with the expected inputs.
      inputs: by name.
      manifest: of the bundle.
      limits: of one request.

    Raises:
      InvalidRequest: the inputs do not fit.
    """
    check_names(name, signature, inputs)
    for key, info in signature.inputs.items():
        _check_shape(key, info, inputs[key])
    rows = _rows(signature, inputs, limits)
    for key, info in signature.inputs.items():
        _check_sizes(key, info, inputs[key], is_rank(name), limits)
    if is_rank(name) and manifest:
        _check_candidates(signature, inputs, manifest.context_inputs, limits)
    for key, array in inputs.items():  # value by value, once their number is checked
        if array.dtype.kind == "O":
            takes_examples = len(signature.inputs) == 1 and key in ("examples", "inputs")
            (_check_examples if takes_examples else _check_strings)(key, array, limits)
    for feature in manifest.features if manifest else ():
        _check_missing(feature, inputs.get(feature.name))
    return rows


def check_names(name: str, signature: Signature, inputs: Collection[str]) -> None:
    """Raises InvalidRequest if the names of the inputs are not those of the signature.

    Args:
      name: of the signature.
      signature: with the expected inputs.
      inputs: the names that were given.
    """
    for key in inputs:
        if key not in signature.inputs:
            hint = unknown("input", key, f"signature {name!r}", signature.inputs)
            raise InvalidRequest(f"{_sizes(signature, inputs)}{hint}")
    missing = [key for key in signature.inputs if key not in inputs]
    if missing:
        raise InvalidRequest(
            f"{_sizes(signature, inputs)}input {missing[0]!r} is missing: signature {name!r} needs"
            f" {', '.join(signature.inputs)}" + (f"; also missing: {', '.join(missing[1:])}" if missing[1:] else "")
        )


def _sizes(signature: Signature, inputs: Collection[str]) -> str:
    """Returns what TF Serving says of another number of inputs (servables/tensorflow/predict_util.cc)."""
    given, needed = ({name[:200] for name in names} for names in (inputs, signature.inputs))
    if len(inputs) == len(signature.inputs):
        return ""
    lists = [",".join(sorted(names)) for names in (given, needed, given - needed, needed - given)]
    return (
        f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} len({{{lists[0]}}}) !="
        f" len({{{lists[1]}}}). Sent extra: {{{lists[2]}}}. Missing but required: {{{lists[3]}}}. "
    )


def unknown(what: str, given: str, where: str, known: Collection[str]) -> InvalidRequest:
    """Returns the error that `where` has no `what` of the given name, with a proposal."""
    hint = did_you_mean(given, known, 1)
    return InvalidRequest(f"unknown {what} {given[:200]!r}: {hint}{' ' if hint else ''}{where} has {', '.join(known)}")


def _check_shape(key: str, info: TensorInfo, array: np.ndarray) -> None:
    if array.dtype != info.dtype:
        raise InvalidRequest(f"input {key!r} is of type {type_name(array.dtype)}; {type_name(info.dtype)} is expected")
    if info.shape is not None and array.ndim != len(info.shape):
        raise InvalidRequest(
            f"input {key!r} has rank {array.ndim} (shape {list(array.shape)}); rank {len(info.shape)} is expected,"
            f" {info}"
        )
    for axis, (given, expected) in enumerate(zip(array.shape, info.shape or (), strict=False)):
        if expected is not None and given != expected:
            raise InvalidRequest(
                f"input {key!r} has {given} values on axis {axis} (shape {list(array.shape)}); {info} is expected"
            )


def _rows(signature: Signature, inputs: Mapping[str, np.ndarray], limits: Limits) -> int:
    counts = {key: inputs[key].shape[0] for key, i in signature.inputs.items() if i.shape and i.shape[0] is None}
    if not counts:
        return 1
    first, rows = next(iter(counts.items()))
    for key, count in counts.items():
        if count == 0:
            raise InvalidRequest(f"input {key!r} is an empty batch; at least one row is expected")
        if count != rows:
            raise InvalidRequest(f"unequal batch sizes: input {key!r} has {count} rows and input {first!r} has {rows}")
    if rows > limits.rows:
        raise InvalidRequest(f"input {first!r} has {rows} rows; at most {limits.rows} are allowed in one request")
    return rows


def _check_sizes(key: str, info: TensorInfo, array: np.ndarray, rank: bool, limits: Limits) -> None:
    for axis, size in enumerate(array.shape[1:], 1):
        if (info.shape is None or info.shape[axis] is None) and size > limits.candidates:
            what = "candidates" if rank and axis == 1 else "values in a row"
            raise InvalidRequest(f"input {key!r} has {size} {what}; at most {limits.candidates} are allowed")


def _check_strings(key: str, array: np.ndarray, limits: Limits) -> None:
    for place, value in enumerate(array.ravel().tolist()):
        if len(value) > limits.string_bytes:
            row = place // max(1, array.size // array.shape[0]) if array.ndim else 0
            raise InvalidRequest(f"input {key!r}, row {row}: {_too_long(value, limits)}")


def _check_examples(key: str, array: np.ndarray, limits: Limits) -> None:
    """Parses each Example, since TensorFlow's parser takes some bytes for an Example without features."""
    for row, serialized in enumerate(array.ravel().tolist()):
        try:
            example = protos.example.Example.FromString(serialized)
        except DecodeError as e:
            raise InvalidRequest(f"input {key!r}, row {row}: it cannot be parsed as a serialized tf.Example") from e
        if len(serialized) <= limits.string_bytes:
            continue
        for name, feature in example.features.feature.items():
            for value in feature.bytes_list.value:
                if len(value) > limits.string_bytes:
                    raise InvalidRequest(f"input {key!r}, row {row}, feature {name!r}: {_too_long(value, limits)}")


def _too_long(value: bytes, limits: Limits) -> str:
    return f"a string of {len(value)} bytes; at most {limits.string_bytes} are allowed"


def _check_candidates(
    signature: Signature, inputs: Mapping[str, np.ndarray], shared: Collection[str], limits: Limits
) -> None:
    of_candidates = [key for key in signature.inputs if key not in shared and inputs[key].ndim > 1]
    if not shared or not of_candidates:
        return
    first = of_candidates[0]
    for key in of_candidates:
        given, expected = inputs[key].shape[1], inputs[first].shape[1]
        if given == 0:
            raise InvalidRequest(f"input {key!r} has no candidates; at least one is expected")
        if given != expected:
            raise InvalidRequest(f"input {key!r} has {given} candidates and input {first!r} has {expected}")
    contexts, each = inputs[first].shape[:2]
    if contexts * each > limits.candidates:
        raise InvalidRequest(
            f"input {first!r} has {contexts} contexts with {each} candidates each, {contexts * each} in all; at most"
            f" {limits.candidates} are allowed in one request"
        )
    if "k" in signature.inputs and inputs["k"].min() < 1:
        raise InvalidRequest(f"input 'k' is {inputs['k'].min()}; at least 1 is expected")


def may_be_nan(feature: BundleFeature) -> bool:
    """Returns whether NaN is a value of a feature: a missing one, which weights do not have."""
    return feature.may_be_missing and feature.kind != "weights"


def _check_missing(feature: BundleFeature, array: np.ndarray | None) -> None:
    if array is None or array.dtype.kind != "f" or may_be_nan(feature):
        return
    if np.isnan(array).any():
        raise InvalidRequest(f"input {feature.name!r} has a NaN; the schema has no value for a missing one")
