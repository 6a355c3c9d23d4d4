"""The bundle under verification: what the first checks read of it, for those after them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfrs_dlrm.serving.bundle.manifest import REFERENCE
from tfrs_dlrm.serving.bundle.tolerance import Tolerance
from tfrs_dlrm.serving.runtime.runtime import SavedModel
from tfrs_dlrm.serving.verification.verification_report import Failed

_TYPES: dict[str, Any] = {"float32": np.float32, "int64": np.int64, "int32": np.int32, "string": object}


@dataclasses.dataclass(frozen=True)
class Reference:
    """Raw rows with the answers of the training side: probabilities or, of a regression, predicted numbers.

    Attributes:
      raw: by name of the input, [N] or [N, L].
      answers: by name of the output, float32 [N].
      odd: bool [N], where values are missing, unseen or malformed.
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
      allowed: operations beyond the usual that the graph may have.
      manifest: empty where it could not be read.
    """

    path: str
    data: str | None = None
    allowed: frozenset[str] = frozenset()
    manifest: dict[str, Any] = dataclasses.field(default_factory=dict)
    loaded: SavedModel | None = None
    reference: Reference | None = None

    @property
    def model(self) -> SavedModel:
        """Of a bundle that was loaded."""
        if self.loaded is None:
            raise Failed("the SavedModel is not loaded")
        return self.loaded

    @property
    def rows(self) -> Reference:
        """Of a bundle whose reference rows were read."""
        if self.reference is None:
            raise Failed(f"{REFERENCE} was not read")
        return self.reference

    @property
    def output(self) -> str:
        """What the signatures call the answer for the first label."""
        return "prediction" if self.manifest.get("task") == "regression" else "probability"

    @property
    def tolerance(self) -> Tolerance:
        """How far it may be from the training side's."""
        return _tolerance(self.manifest)

    @property
    def tolerances(self) -> dict[str, Tolerance]:
        """The same of all outputs, the first one first."""
        more = self.manifest.get("more_outputs") or {}
        return {self.output: self.tolerance} | {name: _tolerance(described) for name, described in more.items()}

    @property
    def rounding(self) -> Tolerance:
        """How far those of two ways to ask the bundle may be apart; smaller tables are the same in both."""
        tolerance = self.tolerance
        return dataclasses.replace(tolerance, absolute=float(self.manifest.get("rounding", tolerance.absolute)))

    @property
    def context(self) -> frozenset[str]:
        """The raw inputs that candidates share."""
        return frozenset(f["name"] for f in self.manifest["features"] if f["context"])

    def raw(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Rows of JSON values as inputs of `serving_default`; see `to_array`."""
        return {f["name"]: to_array([row[f["name"]] for row in rows], f) for f in self.manifest["features"]}

    def answers(self, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Those of `serving_default`, float32 [N], by name of the output."""
        return self.model.run("serving_default", raw)

    def score(self, raw: Mapping[str, np.ndarray]) -> np.ndarray:
        """The answers for the first label."""
        return self.answers(raw)[self.output]


def _tolerance(described: Mapping[str, Any]) -> Tolerance:
    return Tolerance(float(described["tolerance"]), float(described.get("tolerance_up_to", 1.0)))


def read_reference(subject: Subject) -> str:
    """Reads assets.extra/reference.jsonl."""
    file = os.path.join(subject.path, REFERENCE)
    if not os.path.isfile(file):
        raise Failed(f"{REFERENCE} is missing: there is nothing to compare scores with; export the model again")
    rows: list[dict[str, Any]] = []
    outputs = list(subject.tolerances)
    with open(file, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            try:
                row = json.loads(line)
                rows.append({"inputs": dict(row["inputs"]), **{name: float(row[name]) for name in outputs}, **row})
            except (ValueError, KeyError, TypeError) as e:
                wanted = ", ".join(f'"{name}": ...' for name in ("inputs", *outputs))
                raise Failed(f"{REFERENCE}, line {number} is no {{{wanted}}}: {e!r}") from e
    if not rows:
        raise Failed(f"{REFERENCE} is empty: there is nothing to compare scores with; export the model again")
    names = {f["name"] for f in subject.manifest["features"]}
    for number, row in enumerate(rows, 1):
        if row["inputs"].keys() != names:
            differ = ", ".join(sorted(row["inputs"].keys() ^ names))
            raise Failed(f"{REFERENCE}, line {number} has other features than bundle.json lists: {differ}")
    odd = np.array([bool(row.get("odd")) for row in rows])
    answers = {name: np.array([row[name] for row in rows], np.float32) for name in outputs}
    subject.reference = Reference(subject.raw([row["inputs"] for row in rows]), answers, odd)
    return f"{len(rows) - odd.sum()} rows, and {odd.sum()} of missing, unseen and malformed values"


def to_array(values: Sequence[Any], feature: Mapping[str, Any]) -> np.ndarray:
    """JSON values of a feature as bundle.json describes it: null is its missing value, lists are padded with that.

    Returns:
      [N], or [N, L] where its rank is 2; text is of type object, as bytes.
    """
    name, rank = feature["name"], feature["rank"]
    # A list's number is a weight, and that of a value that is not there is 0.
    missing = (np.nan if rank == 1 else 0.0) if feature["dtype"] == "float32" else feature["missing"]

    def plain(value: Any) -> Any:
        value = missing if value is None else value
        return value.encode() if isinstance(value, str) else value

    if rank == 2:
        lists = [[plain(v) for v in value or []] for value in values]
        width = max(map(len, lists), default=0)
        return np.array([v + [plain(None)] * (width - len(v)) for v in lists], _TYPES[feature["dtype"]]).reshape(
            len(lists), width
        )
    if any(isinstance(value, list) for value in values):
        raise Failed(f"feature {name!r} has lists where bundle.json says that it has one value a row")
    array = np.empty(len(values), _TYPES[feature["dtype"]])
    array[:] = [plain(value) for value in values]
    return array
