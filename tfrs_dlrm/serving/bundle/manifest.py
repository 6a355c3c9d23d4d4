"""bundle.json, which describes a bundle for programs without TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import google_crc32c
import numpy as np

from tfrs_dlrm.serving.bundle.manifest_checks import check_content
from tfrs_dlrm.stores.files import read_json, write_text

MANIFEST = os.path.join("assets.extra", "bundle.json")
REFERENCE = os.path.join("assets.extra", "reference.jsonl")
EXAMPLE = os.path.join("assets.extra", "example_request.json")
WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")
FORMAT = 1
_CHUNK_BYTES = 1 << 22
_OUTPUT = {"classification": "probability", "regression": "prediction"}  # by task of a label


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """The largest allowed difference between two models' answers.

    Probabilities end at 1, but predicted numbers have no bounds, and predictions for unseen values may be huge, while
    float32 has seven digits.

    Attributes:
      absolute: the difference, if the expected number is
      usual: at most this; above, the difference grows in proportion.
    """

    absolute: float
    usual: float = 1.0

    def met(self, found: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Returns where two arrays of one shape are close enough, bool; NaN never is."""
        found, expected = found.astype(np.float64), expected.astype(np.float64)
        with np.errstate(invalid="ignore"):
            return np.abs(found - expected) <= self.absolute * np.maximum(1.0, np.abs(expected) / self.usual)

    def __str__(self) -> str:
        return f"{self.absolute:g}" + (f", in proportion above {self.usual:g}" if self.usual != 1.0 else "")


@dataclasses.dataclass(frozen=True)
class BundleFeature:
    """A raw input, as callers see it.

    Attributes:
      name: of the input.
      kind: `dense` for a number or a vector, `categorical`, `time`, or `weights` of a categorical feature.
      dtype: `float32`, `int64` or `string`.
      rank: 1, or 2 for lists.
      separator: of several values in one text.
      time: the format of a time, as in the schema.
      missing: the missing value; None stands for NaN.
      may_be_missing: whether the missing value is accepted.
      context: whether the candidates of a request share it.
      example: a value of the log.
      size: the length of each list of a vector.
    """

    name: str
    kind: str | None = None
    dtype: str | None = None
    rank: int = 1
    separator: str | None = None
    time: str | None = None
    missing: Any = None
    may_be_missing: bool = True
    context: bool = False
    example: Any = None
    size: int | None = None

    @property
    def missing_number(self) -> Any:
        """The missing value, with NaN as a number; in a list of weights 0, the weight of a missing value."""
        if self.missing is not None:
            return self.missing
        return 0.0 if self.rank == 2 and self.size is None else math.nan


@dataclasses.dataclass(frozen=True)
class BundleManifest:
    """The content of bundle.json.

    Attributes:
      name: of the served model.
      model: the class of the model.
      task: of the first label, `classification` or `regression`.
      created: the time in UTC.
      tensorflow: the version that exported it.
      tables: `storage` of the rows, their `bytes`, and `bytes_float32`.
      context: the features that candidates share.
      features: the raw inputs of requests.
      serving_values: by raw input that is `training_only`, the value that stands in for it; None is a missing value.
      signatures: by name, `method`, `inputs` and `outputs` with `dtype` and `shape`.
      checkpoint: the name of the checkpoint with the weights.
      tolerance: between answers and the training side, for the first label.
      rounding: between the answers to two ways of asking the bundle, for the first label.
      tolerance_up_to: `Tolerance.usual` of both.
      more_outputs: by name of the output of each further label, its `task` and the three numbers above.
      keep_negatives: the share of negative training rows that the first label's probabilities are corrected for.
      calibration: `method`, `output`, `by` and the number of `curves` that logits go through; None without one.
      accuracy: the cost of smaller tables, as `Accuracy.to_dict` says; None for float32.
      files: by path, `bytes`, `sha256` and `crc32c` of all files but bundle.json.
    """

    name: str = ""
    model: str = ""
    task: str = "classification"
    created: str = ""
    tensorflow: str = ""
    tables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    context: tuple[str, ...] = ()
    features: tuple[BundleFeature, ...] = ()
    serving_values: Mapping[str, float | str | None] = dataclasses.field(default_factory=dict)
    signatures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint: str | None = None
    tolerance: float | None = None
    rounding: float | None = None
    tolerance_up_to: float = 1.0
    more_outputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keep_negatives: float = 1.0
    calibration: Mapping[str, Any] | None = None
    accuracy: Mapping[str, Any] | None = None
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> BundleManifest:
        """Reads an object of JSON. Missing keys take defaults, and unknown ones are skipped.

        Raises:
          ValueError: a value is missing or of the wrong kind.
        """
        check_content(content)
        features = content.get("features") or []
        values = _known(cls, content)
        values["context"] = tuple(values.get("context", ()))
        values["features"] = tuple(BundleFeature(**_known(BundleFeature, f)) for f in features)
        return cls(**values)

    @property
    def output(self) -> str:
        """The name of the first label's output in the signatures."""
        return _OUTPUT[self.task]

    @property
    def suffixes(self) -> dict[str, str]:
        """By output, what the names of its scores in `rank` end in: nothing for the first label, `_NAME` for others."""
        more = {name: name.removeprefix(_OUTPUT[described["task"]]) for name, described in self.more_outputs.items()}
        return {self.output: "", **more}

    @property
    def tolerances(self) -> dict[str, Tolerance]:
        """By output, how far an answer may be from the training side's.

        Raises:
          ValueError: the manifest does not say so.
        """
        if self.tolerance is None:
            raise ValueError(f"{MANIFEST}: 'tolerance' is missing: export the model again")
        return {
            name: Tolerance(float(numbers["tolerance"]), float(numbers.get("tolerance_up_to") or 1.0))
            for name, numbers in self._numbers()
        }

    @property
    def roundings(self) -> dict[str, Tolerance]:
        """By output, how far the answers to two ways of asking may differ; smaller tables are the same in both."""
        numbers = {name: d["rounding"] for name, d in self._numbers() if d.get("rounding") is not None}
        return {
            name: dataclasses.replace(tolerance, absolute=float(numbers.get(name, tolerance.absolute)))
            for name, tolerance in self.tolerances.items()
        }

    @property
    def context_inputs(self) -> frozenset[str]:
        """The raw inputs that candidates share: features of the context, and their weights."""
        return frozenset(f.name for f in self.features if f.context)

    def _numbers(self) -> list[tuple[str, Any]]:
        first = {key: getattr(self, key) for key in ("tolerance", "rounding", "tolerance_up_to")}
        return [(self.output, first), *self.more_outputs.items()]


def _known(kind: Any, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the items of `content` that are fields of a dataclass; null stands for the default."""
    return {f.name: content[f.name] for f in dataclasses.fields(kind) if content.get(f.name) is not None}


def write_manifest(path: str, manifest: BundleManifest) -> None:
    """Writes assets.extra/bundle.json of the version at `path`, with the size and checksums of every other file."""
    files = {name: file_facts(os.path.join(path, name)) for name in files_of(path) if name != MANIFEST}
    content = {"format": FORMAT, **dataclasses.asdict(dataclasses.replace(manifest, files=files))}
    write_text(os.path.join(path, MANIFEST), json.dumps(content, indent=2) + "\n")


def read_manifest(path: str) -> BundleManifest:
    """Reads the manifest of the version at `path`.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: the file is no JSON, has another format, or a value of the wrong kind.
    """
    file = os.path.join(path, MANIFEST)
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{file} is missing; tfrs-dlrm export writes bundles that have it")
    content = read_json(file, then="copy the bundle again, or export the model again")
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(f"{file}: format {found!r}; this program reads format {FORMAT}: export the model again")
    try:
        return BundleManifest.from_json(content)
    except ValueError as e:
        raise ValueError(f"{file}: {e}: export the model again") from e


def files_of(path: str) -> list[str]:
    """Returns all files of the version, relative to `path`."""
    found = []
    for directory, _, names in os.walk(path):
        found += [os.path.relpath(os.path.join(directory, name), path) for name in names]
    return sorted(found)


def file_facts(file: str) -> dict[str, Any]:
    """Returns the size, SHA-256 and CRC32C of a file."""
    size, sha256, crc32c = 0, hashlib.sha256(), google_crc32c.Checksum()
    for chunk in _chunks(file):  # read once: a bundle may have gigabytes
        size += len(chunk)
        sha256.update(chunk)
        crc32c.update(chunk)
    return {"bytes": size, "sha256": sha256.hexdigest(), "crc32c": crc32c.digest().hex()}


def sha256_of(file: str) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    for chunk in _chunks(file):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: str) -> Iterator[bytes]:
    with open(file, "rb") as f:
        while chunk := f.read(_CHUNK_BYTES):
            yield chunk
