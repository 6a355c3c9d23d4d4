"""The bundle under verification: what the first checks read of it, for later ones."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tfrs_dlrm.serving.bundle.manifest import REFERENCE, BundleFeature, BundleManifest, Tolerance
from tfrs_dlrm.serving.protocol import DEFAULT_SIGNATURE
from tfrs_dlrm.serving.runtime.saved_model import SavedModel
from tfrs_dlrm.serving.verification.verification_report import Failed
from tfrs_dlrm.stores.files import read_json_lines

_TYPES: dict[str | None, Any] = {"float32": np.float32, "int64": np.int64, "int32": np.int32, "string": object}


class Runtime(Protocol):
    """A loaded SavedModel: in TensorFlow's C++ runtime, or in its Python right after an export."""

    signatures: Any  # the names, at least

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name.

        Raises:
          RunError: TensorFlow refuses the values.
        """


@dataclasses.dataclass(frozen=True)
class Reference:
    """Raw rows with the answers of the training side: probabilities or, for a regression, predicted numbers.

    Attributes:
      raw: by name of the input, [N] or [N, L].
      answers: by name of the output, float32 [N].
      odd: bool [N], rows whose values are missing, unseen or malformed.
    """

    raw: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]
    odd: np.ndarray


@dataclasses.dataclass
class Subject:
    """A version of a bundle.

    Attributes:
      path: its directory.
      data: the prepared directory to compare with, or None.
      allowed: operations that the graph may have in addition to the usual ones.
      manifest: empty until it is read.
      runtime: that answers, once the SavedModel is loaded.
      reference: once its rows are read.
      largest_difference: between two answers that should be equal, of all `compare` calls.
    """

    path: str
    data: str | None = None
    allowed: frozenset[str] = frozenset()
    manifest: BundleManifest = dataclasses.field(default_factory=BundleManifest)
    runtime: Runtime | None = None
    reference: Reference | None = None
    largest_difference: float = 0.0

    @property
    def saved_model(self) -> SavedModel:
        """The SavedModel in TensorFlow's C++ runtime."""
        if not isinstance(self.runtime, SavedModel):
            raise Failed("the SavedModel is not loaded")
        return self.runtime

    @property
    def rows(self) -> Reference:
        """The reference rows, which must have been read."""
        if self.reference is None:
            raise Failed(f"{REFERENCE} was not read")
        return self.reference

    @property
    def signatures(self) -> frozenset[str]:
        """The names of the signatures."""
        return frozenset(self.runtime.signatures if self.runtime else ())

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name."""
        if self.runtime is None:
            raise Failed("the SavedModel is not loaded")
        return self.runtime.run(signature, inputs)

    def score(self, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the answers of `serving_default`, float32 [N], by name of the output."""
        return self.run(DEFAULT_SIGNATURE, raw)

    def raw_inputs(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Converts rows of JSON values to inputs of `serving_default`; see `to_array`."""
        return {f.name: to_array([row[f.name] for row in rows], f) for f in self.manifest.features}

    def compare(
        self, found: np.ndarray, expected: np.ndarray, tolerance: Tolerance, whose: str, place: Callable[[int], str]
    ) -> str:
        """Returns a sentence about the difference of two arrays of scores.

        Args:
          found: float32 [N].
          expected: float32 [N].
          tolerance: the allowed difference.
          whose: names the expected scores in the message.
          place: names a row by its number.

        Raises:
          Failed: the difference is larger; the message names the worst row.
        """
        if found.shape != expected.shape:
            raise Failed(f"{list(found.shape)} scores for {len(expected)} rows; one a row is expected")
        with np.errstate(invalid="ignore"):  # infinite ones are reported below
            differences = np.abs(found.astype(np.float64) - expected)
        met = tolerance.met(found, expected)
        if not met.all():
            worst = int(np.argmax(np.where(met, -1.0, np.nan_to_num(differences, nan=np.inf))))
            advice = ": look for NaN in the weights" if np.isnan(found[worst]) else ""
            raise Failed(
                f"{(~met).sum()} of {len(expected)} scores differ from {whose} by more than {tolerance}; the worst is"
                f" {place(worst)}: {found[worst]:.7g} instead of {expected[worst]:.7g}{advice}."
                " The bundle is not the model that it was made of: export the model again"
            )
        self.largest_difference = max(self.largest_difference, float(differences.max()))
        return f"{len(expected)} scores within {differences.max():.1e} of {whose} (allowed: {tolerance})"


def read_reference(subject: Subject) -> str:
    """Reads assets.extra/reference.jsonl."""
    file, outputs = os.path.join(subject.path, REFERENCE), list(subject.manifest.tolerances)
    if not os.path.isfile(file):
        raise Failed(f"{REFERENCE} is missing, so scores cannot be compared; export the model again")
    try:
        rows = list(read_json_lines(file, then="copy the bundle again, or export the model again"))
    except ValueError as e:
        raise Failed(str(e)) from e
    for number, row in enumerate(rows, 1):
        _check_reference_row(subject, row, outputs, f"{REFERENCE}, line {number}")
    if not rows:
        raise Failed(f"{REFERENCE} is empty, so scores cannot be compared; export the model again")
    odd = np.array([bool(row.get("odd")) for row in rows])
    answers = {name: np.array([row[name] for row in rows], np.float32) for name in outputs}
    subject.reference = Reference(subject.raw_inputs([row["inputs"] for row in rows]), answers, odd)
    return f"{len(rows) - odd.sum()} rows, and {odd.sum()} of missing, unseen and malformed values"


def _check_reference_row(subject: Subject, row: Mapping[str, Any], outputs: Sequence[str], where: str) -> None:
    check_inputs(subject, row.get("inputs"), where)
    for name in outputs:
        if type(row.get(name)) not in (int, float):
            raise Failed(f"{where}: {name!r} is {row.get(name)!r}; a number is expected: export the model again")


def check_inputs(subject: Subject, inputs: Any, where: str) -> None:
    """Checks that the inputs of a row are an object with the features of the bundle.

    Args:
      subject: whose manifest is read.
      inputs: of JSON.
      where: the place of the row, for the message.

    Raises:
      Failed: they are not.
    """
    names = {f.name for f in subject.manifest.features}
    if not isinstance(inputs, dict):
        raise Failed(f"{where} has no object of inputs; export the model again")
    if inputs.keys() != names:
        differ = ", ".join(sorted(inputs.keys() ^ names))
        raise Failed(f"{where} has other features than bundle.json lists: {differ}")


def to_array(values: Sequence[Any], feature: BundleFeature) -> np.ndarray:
    """Converts JSON values of a feature: null is the missing value, and lists are padded with it.

    Returns:
      [N], or [N, L] for rank 2; text is of type object, as bytes.
    """

    def plain(value: Any) -> Any:
        value = feature.missing_number if value is None else value
        return value.encode() if isinstance(value, str) else value

    if any((feature.rank == 2) != isinstance(value, list) for value in values if value is not None):
        given, wanted = ("one value", "lists") if feature.rank == 2 else ("lists", "one value a row")
        raise Failed(f"feature {feature.name!r} has {given} where bundle.json says that it has {wanted}")
    if feature.rank == 2:
        lists = [[plain(v) for v in value or []] for value in values]
        width = feature.size or max(map(len, lists), default=0)
        if feature.size and any(len(row) not in (0, width) for row in lists):
            raise Failed(f"feature {feature.name!r} has a list of other than {width} numbers, the size of its vectors")
        padded = [v for row in lists for v in row + [plain(None)] * (width - len(row))]
        return _array(padded, feature).reshape(len(lists), width)
    return _array([plain(value) for value in values], feature)


def _array(values: Sequence[Any], feature: BundleFeature) -> np.ndarray:
    """Returns an array of numbers or bytes, and refuses values of another kind by the feature's name."""
    if feature.dtype not in _TYPES:
        raise Failed(f"feature {feature.name!r}: bundle.json gives no 'dtype' of it; export the model again")
    kinds = {"string": (bytes,), "float32": (int, float)}.get(feature.dtype or "", (int,))
    for value in values:
        if not isinstance(value, kinds) or isinstance(value, bool):
            shown = repr(value.decode() if isinstance(value, bytes) else value)
            raise Failed(f"feature {feature.name!r}: {shown} is no {feature.dtype}; export the model again")
    array = np.empty(len(values), _TYPES[feature.dtype])
    try:
        array[:] = values
    except OverflowError as e:
        raise Failed(f"feature {feature.name!r}: a value is outside the range of {feature.dtype}") from e
    return array
