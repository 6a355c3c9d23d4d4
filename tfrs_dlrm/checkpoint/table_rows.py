"""The rows of tables and slots on their way to files and back: in parts of bounded size, by the hosts that hold them.

The files are one TensorFlow checkpoint in which each table and slot is whole, under its stable name, made of slices of
its rows. TensorFlow reads any rows from any slices, so nothing depends on how the rows were or will be shared out.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import tensorflow as tf

from tfrs_dlrm.checkpoint.checksum import MODULUS, checksum
from tfrs_dlrm.checkpoint.manifest import ManifestEntry
from tfrs_dlrm.embeddings.storage import LogicalTable, TableShard

# The bytes to write, or to check after reading, at a time: the additional memory that is needed.
PART_BYTES = 64 << 20
# Of a host with very many rows the parts are larger, so that the files are not more than this.
_PARTS_OF_A_HOST = 1024
# How many parts are processed at a time on each host, if it has no other work.
AT_A_TIME = min(4, os.cpu_count() or 1)
_Item = TypeVar("_Item")
_Out = TypeVar("_Out")


@dataclasses.dataclass(frozen=True)
class TablePart:
    """Rows `first` to `last` of a table or slot, all in one shard.

    Attributes:
      name: of the table or slot.
      stored: all of it.
      piece: where the rows are.
      first: the first row.
      last: the row after the last.
    """

    name: str
    stored: LogicalTable
    piece: TableShard
    first: int
    last: int

    @property
    def bytes(self) -> int:
        """The size of the rows."""
        return (self.last - self.first) * row_bytes(self.stored)

    def read(self) -> tf.Tensor:
        """A copy of the rows in the memory of their host."""
        values = self.piece.read(self.first, self.last)
        with tf.device(host_of(self.piece)):
            return tf.identity(values)


def row_bytes(stored: LogicalTable) -> int:
    """The size of a row."""
    size = stored.dtype.size
    for n in stored.shape[1:]:
        size *= n
    return size


def host_of(piece: TableShard) -> str:
    """The CPU of the machine that holds a piece."""
    return tf.DeviceSpec.from_string(piece.device).replace(device_type="CPU", device_index=0).to_string()


class PartBatch:
    """Parts of one host that are written together, to one file."""

    def __init__(self, host: str, parts: Sequence[TablePart]):
        self.host, self.parts = host, tuple(parts)
        self._copy: list[tf.Tensor] | None = None

    def snapshot(self) -> None:
        """Copies the rows as they are now; `write` writes those, and forgets them."""
        self._copy = [part.read() for part in self.parts]

    def write(self, prefix: str) -> list[int]:
        """Writes the rows as a TensorFlow checkpoint and returns each part's share of its table's checksum."""
        values = [part.read() for part in self.parts] if self._copy is None else self._copy
        self._copy = None
        with tf.device(self.host):
            tf.raw_ops.SaveV2(
                prefix=prefix,
                tensor_names=[part.name for part in self.parts],
                shape_and_slices=[slice_spec(part.stored.shape, part.first, part.last) for part in self.parts],
                tensors=values,
            )
        return [checksum(rows, part.first) for part, rows in zip(self.parts, values, strict=True)]


def batches(stored: Mapping[str, LogicalTable]) -> dict[str, list[PartBatch]]:
    """Cuts all rows into batches, by host."""
    out = {}
    for host, pieces in _by_host(stored).items():
        total = sum((piece.end - piece.begin) * row_bytes(stored[name]) for name, piece in pieces)
        limit = max(PART_BYTES, total // _PARTS_OF_A_HOST)
        groups: list[list[TablePart]] = []
        filled = limit
        for name, piece in pieces:
            for part in _cut(name, stored[name], piece, limit):
                if filled + part.bytes > limit:
                    groups.append([])
                    filled = 0
                groups[-1].append(part)
                filled += part.bytes
        out[host] = [PartBatch(host, group) for group in groups]
    return out


def write_rows(
    work: Mapping[str, Sequence[PartBatch]], stored: Mapping[str, LogicalTable], prefix: str, at_a_time: int = AT_A_TIME
) -> dict[str, ManifestEntry]:
    """Writes all batches and makes one TensorFlow checkpoint of them.

    Args:
      work: from `batches(stored)`.
      stored: the table or slot that the rows are of.
      prefix: of the files; their directory is seen by all hosts.
      at_a_time: how many batches side by side on each host.

    Returns:
      The entries of the manifest.
    """
    directory = f"{prefix}-parts"
    os.makedirs(directory)
    paths = {id(batch): os.path.join(directory, f"{i:06}") for i, batch in enumerate(itertools.chain(*work.values()))}
    written = _side_by_side(lambda host, batch: (batch.parts, batch.write(paths[id(batch)])), work, at_a_time)
    sums, ends = dict.fromkeys(stored, 0), {name: [0] for name in stored}
    for parts, shares in written:
        for part, share in zip(parts, shares, strict=True):
            sums[part.name] += share
            ends[part.name].append(part.last)
    if paths:
        with tf.device(local_cpu()):
            tf.raw_ops.MergeV2Checkpoints(
                checkpoint_prefixes=list(paths.values()),
                destination_prefix=prefix,
                delete_old_dirs=False,
                allow_missing_files=False,
            )
    os.rmdir(directory)
    file = os.path.basename(prefix)
    return {
        name: ManifestEntry(
            s.shape, s.dtype.name, f"{sums[name] % MODULUS:016x}", tuple(sorted(ends[name])), file, name
        )
        for name, s in stored.items()
    }


def read_rows(directory: str, entries: Mapping[str, ManifestEntry], stored: Mapping[str, LogicalTable]) -> None:
    """Overwrites all rows of `stored` with the rows of a checkpoint, and checks the result.

    Args:
      directory: the checkpoint.
      entries: the contents of the checkpoint, by name.
      stored: by the same names, of the same shapes and dtypes, however they are shared out.

    Raises:
      ValueError: the rows differ from the rows that were written.
      tf.errors.OpError: a file is damaged.
    """
    pieces = _by_host(stored)

    def read(host: str, slice_: tuple[str, TableShard, int, int]) -> None:
        name, piece, first, last = slice_
        piece.write(first, read_slice(directory, entries[name], first, last, host))

    as_written = {
        host: [
            (name, piece, max(first, piece.begin), min(last, piece.end))
            for name, piece in some
            for first, last in slices(entries[name])
            if first < piece.end and piece.begin < last
        ]
        for host, some in pieces.items()
    }
    _side_by_side(read, as_written)
    # Checks what is in memory now, whichever way it came.
    parts = {
        host: [part for name, piece in some for part in _cut(name, stored[name], piece, PART_BYTES)]
        for host, some in pieces.items()
    }
    sums = dict.fromkeys(stored, 0)
    for name, share in _side_by_side(lambda host, part: (part.name, checksum(part.read(), part.first)), parts):
        sums[name] += share
    for name, total in sums.items():
        found = f"{total % MODULUS:016x}"
        if found != entries[name].checksum:
            raise ValueError(
                f"the rows of {name} are not those that were saved: their checksum is {found}, and it was"
                f" {entries[name].checksum}"
            )


def slices(entry: ManifestEntry) -> Iterator[tuple[int, int]]:
    """The rows of a table or slot as they are in the files, where each slice is read at once: (first, last + 1)."""
    return zip(entry.cuts, entry.cuts[1:], strict=False)


def read_slice(directory: str, entry: ManifestEntry, first: int, last: int, host: str = "") -> tf.Tensor:
    """Rows `first` to `last` of a table or slot in a checkpoint; TensorFlow reads all slices which they are part of."""
    with tf.device(host or local_cpu()):
        (values,) = tf.raw_ops.RestoreV2(
            prefix=os.path.join(directory, entry.file),
            tensor_names=[entry.key],
            shape_and_slices=[slice_spec(entry.shape, first, last)],
            dtypes=[tf.as_dtype(entry.dtype)],
        )
    return values


def slice_spec(shape: Sequence[int], first: int, last: int) -> str:
    """TensorFlow's way of saying "rows `first` to `last` of a tensor of this shape"."""
    return " ".join(map(str, shape)) + " " + ":".join([f"{first},{last - first}", *["-"] * (len(shape) - 1)])


def _cut(name: str, stored: LogicalTable, piece: TableShard, limit: int) -> Iterator[TablePart]:
    step = max(1, limit // max(1, row_bytes(stored)))
    for first in range(piece.begin, piece.end, step):
        yield TablePart(name, stored, piece, first, min(first + step, piece.end))


def _by_host(stored: Mapping[str, LogicalTable]) -> dict[str, list[tuple[str, TableShard]]]:
    out: dict[str, list[tuple[str, TableShard]]] = {}
    for name, s in stored.items():
        for piece in s.shards:
            out.setdefault(host_of(piece), []).append((name, piece))
    return out


def _side_by_side(
    function: Callable[[str, _Item], _Out], work: Mapping[str, Sequence[_Item]], at_a_time: int = AT_A_TIME
) -> list[_Out]:
    """Calls `function(host, item)` for all items: on all hosts at the same time, several at a time on each."""
    lanes = [(host, some[i::at_a_time]) for host, some in work.items() for i in range(min(at_a_time, len(some)))]
    with ThreadPoolExecutor(max(1, len(lanes))) as pool:
        return [out for outs in pool.map(lambda lane: [function(lane[0], x) for x in lane[1]], lanes) for out in outs]


def local_cpu() -> str:
    """The CPU of this process; in a cluster, its name depends on the job."""
    return tf.DeviceSpec.from_string(tf.constant(0).device).replace(device_type="CPU", device_index=0).to_string()
