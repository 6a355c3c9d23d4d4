"""The manifest of a checkpoint: `manifest.json`, the last of its files to be written."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Set

from tfrs_dlrm import schema as schema_lib
from tfrs_dlrm.embeddings.storage import LogicalTable
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores.files import read_json, well_formed, write_json

MANIFEST_FILE = "manifest.json"
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class ManifestEntry:
    """A table or slot in a checkpoint.

    Attributes:
      shape: [rows, dim] or [rows].
      dtype: `float32` or `bfloat16`.
      checksum: of all rows, see `checksum`; 16 hexadecimal digits.
      cuts: the row where each slice in the files begins, and the number of rows.
      file: the prefix of the TensorFlow checkpoint that it is in.
      key: its name in that checkpoint.
    """

    shape: tuple[int, ...]
    dtype: str
    checksum: str
    cuts: tuple[int, ...]
    file: str
    key: str


@dataclasses.dataclass(frozen=True)
class CheckpointManifest:
    """The content of `manifest.json`.

    Attributes:
      step: of the run.
      schema: of the tables.
      rows: the tables and slots by name: `tables/NAME`, `slots/TABLE/NAME`.
      files: the size of each other file in bytes.
    """

    step: int
    schema: Schema
    rows: dict[str, ManifestEntry]
    files: dict[str, int]

    def write(self, directory: str) -> None:
        """Writes the manifest into a checkpoint."""
        rows = {name: dataclasses.asdict(entry) for name, entry in self.rows.items()}
        schema = json.loads(self.schema.to_json())
        data = {"format": _FORMAT, "step": self.step, "schema": schema, "rows": rows, "files": self.files}
        write_json(os.path.join(directory, MANIFEST_FILE), data)

    @classmethod
    def read(cls, directory: str) -> CheckpointManifest:
        """Reads a checkpoint's manifest and makes sure that the files it names exist.

        Raises:
          FileNotFoundError: the manifest is missing.
          ValueError: saying what is damaged, or that it was written by another version.
        """
        path = os.path.join(directory, MANIFEST_FILE)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{directory}: not a checkpoint (no {MANIFEST_FILE})")
        then = "remove the checkpoint; the run resumes from the one before it"
        data = read_json(path, then)
        version = data.get("format") if isinstance(data, dict) else None
        if isinstance(version, int) and version != _FORMAT:
            raise ValueError(f"{directory}: a checkpoint of format {version}; this version reads {_FORMAT}")
        with well_formed(path, then):
            if isinstance(data, dict):
                data.pop("format", None)
            manifest = build(cls, data, "manifest")
        for name, size in manifest.files.items():
            file = os.path.join(directory, name)
            found = os.path.getsize(file) if os.path.isfile(file) else None
            if found != size:
                raise ValueError(f"{file}: {'missing' if found is None else f'{found} bytes'}, {size} were written")
        return manifest

    def check(self, schema: Schema, stored: Mapping[str, LogicalTable], whole: bool) -> None:
        """Makes sure that the checkpoint holds all of `stored` and, if that is the `whole` model, nothing else.

        Raises:
          ValueError: saying what differs.
        """
        found = schema_lib.difference(self.schema, schema)
        if found:
            raise ValueError(f"of another schema: {found}")
        if not stored.keys() <= self.rows.keys() or (whole and stored.keys() != self.rows.keys()):
            saved, model = _some(self.rows.keys() - stored.keys()), _some(stored.keys() - self.rows.keys())
            raise ValueError(
                f"of another model or optimizer: only the checkpoint has {saved}, only the model has {model}"
            )
        for name, s in stored.items():
            entry = self.rows[name]
            if (entry.shape, entry.dtype) != (s.shape, s.dtype.name):
                wanted = f"{s.dtype.name} {list(s.shape)}"
                raise ValueError(
                    f"{name} is {entry.dtype} {list(entry.shape)} in the checkpoint, and {wanted} in the model"
                )


def _some(names: Set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "") or "nothing"
