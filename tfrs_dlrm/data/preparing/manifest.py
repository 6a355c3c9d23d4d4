"""The content of a prepared directory: its manifest, which `prepare` writes last, and the columns of its shards."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import Any, Literal

import google_crc32c
import pyarrow as pa

from tfrs_dlrm.data.encoding.checksums import PREPARED_FILE, check_files
from tfrs_dlrm.data.preparing.label_counts import LabelCounts
from tfrs_dlrm.schema import GROUP, SCHEMA_FILE, Schema
from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.stores.files import finite, read_json, well_formed, write_json

MANIFEST_FILE = PREPARED_FILE
PREPARE_AGAIN = "remove the directory and prepare the data again"
LOG = "log"  # in `labels`: all training rows of the log, if negatives were dropped
_CHECKSUM = "crc32c"  # of all other fields of the file
Split = Literal["train", "eval"]


def check_split(split: str) -> None:
    """Raises a ValueError if there is no such split."""
    if split not in ("train", "eval"):
        raise ValueError(f"split={split!r} is unknown; give 'train' or 'eval'")


@dataclasses.dataclass(frozen=True)
class PreparedShard:
    """One Parquet file: its path below the prepared directory, and its rows."""

    path: str
    rows: int


@dataclasses.dataclass(frozen=True)
class ChainLink:
    """One of the preparations that a prepared directory extends.

    Attributes:
      name: its directory or address, as it was given as a base.
      fingerprint: its `prepared_fingerprint`.
      encoder: its `encoder_fingerprint`: runs on it have the same.
      day: its day, `YYYY-MM-DD`; empty if it is not known.
      files: its training files and frames, as in `job`.
    """

    name: str
    fingerprint: str
    encoder: str
    day: str
    files: tuple[dict[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class PreparedManifest:
    """The content of a prepared directory.

    Attributes:
      train: the shards of the training set, in the order of the log or of time, see `split`.
      eval: the shards of the evaluation set; empty without one.
      bad_rows: how many raw rows were set aside.
      out_of_range: by feature, how many values have no row.
      job: the fingerprint of the job that made it.
      labels: by split and column of the label, what the labels are; empty if an earlier version made the directory, see
        `tfrs_dlrm.data.reading.labels.label_counts`. If `Label.keep_negatives` dropped rows, `log` has the counts of
        the training rows with those that were dropped.
      split: how rows were split: `by` is `time`, `group`, `row` (drawn one by one), `file` or `none`, with the
        arguments of that; `time` has the column and its format, and the first and last time of each split; `order` is
        `time` if the training rows are in the order of their times. Empty in data of earlier versions.
      checksums: of the files that encode, by name; empty in data of earlier versions. See
        `tfrs_dlrm.data.encoding.checksums`.
      counts: checksums of the files with the counts and lineage of values, which only a next preparation and programs
        that move a model to later data read; empty in data of earlier versions.
      chain: the preparations that the vocabulary extends, the oldest first; empty without a base.
    """

    train: tuple[PreparedShard, ...]
    eval: tuple[PreparedShard, ...]
    bad_rows: int
    out_of_range: dict[str, int]
    job: dict[str, Any]
    labels: dict[str, dict[str, LabelCounts]] = dataclasses.field(default_factory=dict)
    checksums: dict[str, str] = dataclasses.field(default_factory=dict)
    split: dict[str, Any] = dataclasses.field(default_factory=dict)
    counts: dict[str, str] = dataclasses.field(default_factory=dict)
    chain: tuple[ChainLink, ...] = ()

    def shards(self, split: Split) -> tuple[PreparedShard, ...]:
        """The shards of one split.

        Raises:
          ValueError: the split does not exist, or is empty.
        """
        check_split(split)
        shards: tuple[PreparedShard, ...] = getattr(self, split)
        if not shards:
            raise ValueError(f"the {split} set is empty; prepare the data with eval inputs or an eval fraction")
        return shards

    def rows(self, split: Split) -> int:
        """The number of rows of one split."""
        return sum(s.rows for s in getattr(self, split))

    def train_stamps(self) -> tuple[dict[str, Any], ...]:
        """The size and time, or the digest, of each training file or frame, as in `job`."""
        files = self.job.get("files", ())
        return tuple(files[: len(files) - int(self.job.get("eval_files", 0))])

    def save(self, directory: str) -> None:
        """Writes DIRECTORY/prepared.json."""
        counts = {split: {name: c.to_dict() for name, c in found.items()} for split, found in self.labels.items()}
        plain = finite(dataclasses.asdict(self) | {"labels": counts})
        write_json(os.path.join(directory, MANIFEST_FILE), {**plain, _CHECKSUM: _checksum(plain)})

    @classmethod
    def load(cls, directory: str) -> PreparedManifest:
        """Reads DIRECTORY/prepared.json.

        Raises:
          FileNotFoundError: the directory is missing, not a prepared one, or its preparation did not finish.
          ValueError: the manifest, or a file of which it has the checksum, is damaged.
        """
        directory = local_copy(directory)
        path = os.path.join(directory, MANIFEST_FILE)
        if not os.path.isfile(path):
            unfinished = os.path.isdir(os.path.join(directory, "unfinished"))
            what = "its preparation did not finish; run the same command again" if unfinished else "no prepared data"
            raise FileNotFoundError(f"{directory}: {what} (no {MANIFEST_FILE}); see tfrs-dlrm prepare --help")
        manifest = cls.of(read_json(path, PREPARE_AGAIN), path)
        check_files(directory)
        return manifest

    @classmethod
    def of(cls, data: Any, path: str) -> PreparedManifest:
        """Makes a manifest of the plain values in its file.

        Raises:
          ValueError: they are of another form, or were changed since they were written; the message names `path`.
        """
        with well_formed(path, PREPARE_AGAIN):
            plain = {name: value for name, value in data.items() if name != _CHECKSUM}
            manifest = build(cls, plain, "manifest")
        if data.get(_CHECKSUM, _checksum(plain)) != _checksum(plain):
            raise ValueError(f"{path}: damaged or changed since it was written; {PREPARE_AGAIN}")
        return manifest


def _checksum(plain: dict[str, Any]) -> str:
    """The CRC32C, in hexadecimal, of the plain values of a manifest."""
    return google_crc32c.Checksum(json.dumps(plain, sort_keys=True).encode()).digest().hex()


def prepared_fingerprint(directory: str) -> str:
    """A hash of the schema and the manifest, which changes whenever the data are prepared again.

    Raises:
      FileNotFoundError: the directory holds no prepared data.
    """
    PreparedManifest.load(directory)
    digest = hashlib.sha256()
    for name in (SCHEMA_FILE, MANIFEST_FILE):
        with open(os.path.join(directory, name), "rb") as f:
            digest.update(hashlib.sha256(f.read()).digest())
    return digest.hexdigest()


def encoded_schema(schema: Schema) -> pa.Schema:
    """The columns of an encoded Parquet file, in order; the column of a feature has its name."""
    fields = [(name, pa.float32()) for name in schema.label_columns]
    fields += [("weight", pa.float32())] if schema.weight else []
    fields += [(GROUP, pa.int64())] if schema.group else []
    fields += [(name, pa.float32()) for name in schema.dense_columns]
    fields += [(f.name, pa.int32()) for f in schema.one_hot]
    for f in schema.multi_hot:
        fields.append((f.name, pa.list_(pa.int32())))
        if f.weights:
            fields.append((f.weights_name, pa.list_(pa.float32())))
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])
