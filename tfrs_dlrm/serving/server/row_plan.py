"""Rows of JSON as tensors in one pass, by a plan that is made once per signature.

Most requests are rows of single values. For these, a few operations on all columns of a type replace conversion and
checks of each column. Whatever the plan does not take, from a base64 string to an error, is left to `json_tensors` and
`request_checks`, which convert more and say what is wrong: a plan takes only what they take, with the same result.
That holds for rows of `json_bodies.parse_quickly` too: a plan takes no number that it may have changed.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.bundle.manifest import BundleManifest
from tfrs_dlrm.serving.protocol import is_rank
from tfrs_dlrm.serving.runtime.signature import Signature
from tfrs_dlrm.serving.runtime.tensors import STRING_BYTES
from tfrs_dlrm.serving.server.request_checks import Inputs, Limits, may_be_nan

_FLOATS, _INTEGERS = ({int, float}, {int})
_KINDS = "fiO"
_EXACT = 2.0**63  # a float from here on may be an integer that the parser made a float of


class RowPlan:
    """How the rows of a signature become tensors.

    Args:
      signature: whose inputs are all single values of a row, see `is_possible`.
      manifest: of the bundle.
      limits: of one request.
    """

    def __init__(self, signature: Signature, manifest: BundleManifest | None, limits: Limits):
        self._limits, self._width = limits, len(signature.inputs)
        by_type: dict[np.dtype[Any], list[str]] = {}
        for name, info in signature.inputs.items():
            by_type.setdefault(info.dtype, []).append(name)
        never_nan = {feature.name for feature in manifest.features if not may_be_nan(feature)} if manifest else set()
        self._groups = [_Group(dtype, names, limits, never_nan) for dtype, names in by_type.items()]

    @staticmethod
    def is_possible(name: str, signature: Signature) -> bool:
        """Returns whether a plan can be made: several inputs, each a number or string per row.

        Args:
          name: of the signature.
          signature: to be asked.
        """
        infos = signature.inputs.values()
        single = all(info.shape == (None,) and info.dtype.kind in _KINDS for info in infos)
        return single and len(infos) > 1 and not is_rank(name)

    def read(self, instances: Any) -> Inputs | None:
        """Returns the tensors of rows, checked; None if the plan does not take them.

        Args:
          instances: the value of `instances` in a request.
        """
        if not isinstance(instances, list) or not 0 < len(instances) <= self._limits.rows:
            return None
        arrays: dict[str, np.ndarray] = {}
        size = 0
        try:
            if set(map(len, instances)) != {self._width}:
                return None
            for group in self._groups:
                found = group.read(instances)
                if found is None:
                    return None
                arrays.update(zip(group.names, found[0], strict=True))
                size += found[1]
        except (TypeError, KeyError, UnicodeEncodeError, OverflowError):  # another row, another name, another value
            return None
        return Inputs(arrays, size, len(instances))


class _Group:
    """The columns of one type."""

    def __init__(self, dtype: np.dtype[Any], names: list[str], limits: Limits, never_nan: set[str]):
        self.names, self._dtype, self._limits = names, dtype, limits
        self._values: Callable[[Any], tuple[Any, ...]] = _getter(names)
        self._never_nan = np.array([name in never_nan for name in names])
        self._some_never_nan = bool(self._never_nan.any())
        if dtype.kind == "f":
            self._largest_whole = 2 ** (np.finfo(dtype).nmant + 1) - 1

    def read(self, instances: list[Mapping[str, Any]]) -> tuple[np.ndarray, int] | None:
        """Returns [columns, rows], and the bytes that they take."""
        values = [*itertools.chain.from_iterable(map(self._values, instances))]
        if self._dtype.kind == "O":
            return self._strings(values)
        numbers = self._floats(values) if self._dtype.kind == "f" else self._integers(values)
        if numbers is None:
            return None
        columns = numbers.reshape(-1, len(self.names)).T
        return columns.astype(self._dtype, order="C"), numbers.size * self._dtype.itemsize

    def _strings(self, values: list[Any]) -> tuple[np.ndarray, int] | None:
        encoded = [*map(str.encode, values)]
        lengths = [*map(len, encoded)]
        if max(lengths) > self._limits.string_bytes:
            return None
        array = np.empty(len(encoded), object)
        array[:] = encoded
        return array.reshape(-1, len(self.names)).T, STRING_BYTES * len(encoded) + sum(lengths)

    def _floats(self, values: list[Any]) -> np.ndarray | None:
        kinds = set(map(type, values))
        if not kinds <= _FLOATS:
            return None
        if int in kinds:
            largest = self._largest_whole
            if not all(-largest <= value <= largest for value in values if type(value) is int):
                return None
        numbers = np.array(values, np.float64)
        if np.fmax.reduce(np.abs(numbers)) >= _EXACT:  # NaN is left out
            return None
        if self._some_never_nan and np.isnan(numbers.reshape(-1, len(self.names))[:, self._never_nan]).any():
            return None
        return numbers

    def _integers(self, values: list[Any]) -> np.ndarray | None:
        if set(map(type, values)) != _INTEGERS:
            return None
        numbers, limits = np.array(values, np.int64), np.iinfo(self._dtype)
        return numbers if limits.min <= numbers.min() and numbers.max() <= limits.max else None


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Returns what takes the values of some names out of a row."""
    if len(names) == 1:
        return lambda row: (row[names[0]],)
    getter: Any = operator.itemgetter
    found: Callable[[Any], tuple[Any, ...]] = getter(*names)
    return found
