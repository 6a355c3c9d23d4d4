"""The rows that the first pass has parsed, which the second reads in place of the log.

A file holds the rows of one segment, about half as many bytes as text has. It only saves time: the second pass reads
the log where there is none, because the disk had no room for it or another version of the package counted the segment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from tfrs_dlrm.data.preparing.job import PrepareJob, is_of_file
from tfrs_dlrm.data.preparing.row_splitter import SplitRows
from tfrs_dlrm.data.preparing.workspace import COUNTED, ENCODED, Workspace
from tfrs_dlrm.data.raw.parsing import BadRow
from tfrs_dlrm.data.raw.typed_rows import TypedRows

# Rows are kept only while so much of the disk stays free: a share of it, and bytes.
FREE_SHARE, FREE_BYTES = 0.1, 4 << 30
_BAD = b"bad"


@dataclasses.dataclass(frozen=True)
class KeptBlock:
    """A block whose rows were kept: the position of the block in its file, and the rows."""

    index: int
    rows: SplitRows


def keeps_rows(job: PrepareJob) -> bool:
    """Whether the second pass can do without the log: it needs the text of rows that a feature may refuse."""
    return all(feature.out_of_range != "error" for feature in job.schema.categorical)


class KeptRows:
    """Writes the rows of a segment, block by block; writes nothing if the disk lacks room.

    Args:
      workspace: has the file.
      name: of the segment.
    """

    def __init__(self, workspace: Workspace, name: str):
        self._workspace, self._path = workspace, kept_path(workspace, name)
        self._temporary = workspace.temporary(self._path)
        self._file = pa.OSFile(self._temporary, "wb") if _has_room(workspace) else None

    def __enter__(self) -> KeptRows:
        return self

    def add(self, block: KeptBlock) -> None:
        """Adds the next block."""
        if self._file is not None:
            batch = _batch(block)
            # A stream for each block: the types of their dictionaries differ.
            with pa.ipc.new_stream(self._file, batch.schema) as writer:
                writer.write_batch(batch)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            if kind is None:
                self._workspace.publish(self._temporary, self._path)


def drop_kept(workspace: Workspace, name: str) -> None:
    """Removes the rows of a segment that is encoded, if they were kept."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(kept_path(workspace, name))


def read_kept(workspace: Workspace, name: str) -> Iterator[KeptBlock] | None:
    """Returns the blocks of a segment, which are read one by one; None if they were not kept."""
    try:
        file = pa.OSFile(kept_path(workspace, name))
    except FileNotFoundError:
        return None
    return _read(file)


def kept_segments(workspace: Workspace, file: int) -> list[str]:
    """Returns the segments of a file that are to be encoded, in order; nothing if the rows of one were not kept.

    All training files have been counted.
    """
    counted = [name for name in workspace.marked(COUNTED) if is_of_file(name, file)]
    left = [name for name in counted if not workspace.is_marked(ENCODED, name)]
    return left if all(os.path.exists(kept_path(workspace, name)) for name in left) else []


def kept_path(workspace: Workspace, name: str) -> str:
    """The path of the rows of a segment."""
    return os.path.join(workspace.work, "parsed", f"{name}.arrows")


def _has_room(workspace: Workspace) -> bool:
    disk = shutil.disk_usage(workspace.work)
    return disk.free > max(FREE_SHARE * disk.total, FREE_BYTES)


def _batch(block: KeptBlock) -> pa.RecordBatch:
    """Makes a batch of rows; the names of its columns say what they are, and the metadata hold the rest."""
    split, rows = block.rows, block.rows.rows
    columns = {f"input/{name}": array for name, array in rows.inputs.items()}
    columns |= {f"label/{name}": pa.array(values) for name, values in rows.more_labels.items()}
    single = {
        "numbers": rows.numbers,
        "label": rows.label,
        "weight": rows.weight,
        "group": rows.group,
        "train": split.train,
        "eval": split.eval,
        "times": split.times,
    }
    columns |= {
        name: values if isinstance(values, pa.Array) else pa.array(values)
        for name, values in single.items()
        if values is not None
    }
    bad = [dataclasses.asdict(row) for row in rows.bad]
    batch = pa.record_batch(list(columns.values()), list(columns))
    return batch.replace_schema_metadata({_BAD: json.dumps(bad), b"index": str(block.index)})


def _read(file: pa.NativeFile) -> Iterator[KeptBlock]:
    with file:
        while file.tell() < file.size():
            with pa.ipc.open_stream(file) as reader:
                batch = reader.read_next_batch()
                with contextlib.suppress(StopIteration):
                    reader.read_next_batch()  # moves to the end of the stream
            yield KeptBlock(int(batch.schema.metadata[b"index"]), _rows(batch))


def _rows(batch: pa.RecordBatch) -> SplitRows:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))

    def numpy(name: str) -> np.ndarray | None:
        return columns[name].to_numpy(zero_copy_only=False) if name in columns else None

    def named(kind: str) -> Sequence[str]:
        return [name for name in columns if name.startswith(kind)]

    rows = TypedRows(
        numbers=numpy("numbers"),  # type: ignore[arg-type]
        label=numpy("label"),  # type: ignore[arg-type]
        weight=numpy("weight"),
        inputs={name.removeprefix("input/"): columns[name] for name in named("input/")},
        bad=[BadRow(**row) for row in json.loads(batch.schema.metadata[_BAD])],
        more_labels={name.removeprefix("label/"): numpy(name) for name in named("label/")},  # type: ignore[misc]
        group=columns.get("group"),
    )
    return SplitRows(rows, numpy("train"), numpy("eval"), numpy("times"))  # type: ignore[arg-type]
