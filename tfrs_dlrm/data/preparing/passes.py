"""The two passes of `prepare` over raw logs: what each does to a block, and to the results of a segment.

Every engine runs these and no others, so that all of them write the same bytes. A pass works on blocks side by side in
any order; the results of a segment come together in the order of the file.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.encoding.statistics import Moments
from tfrs_dlrm.data.preparing.blocks import BlockCounter, BlockEncoder, CountedBlock, EncodedBlock, units
from tfrs_dlrm.data.preparing.job import PrepareJob
from tfrs_dlrm.data.preparing.manifest import encoded_schema
from tfrs_dlrm.data.preparing.value_counts import ValueCounts
from tfrs_dlrm.data.preparing.workspace import COUNTED, ENCODED, Workspace
from tfrs_dlrm.data.raw.parsing import BadRow, BadRowError
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.schema import Schema

ROWS_PER_GROUP = 65_536


class Pass(Protocol):
    """One pass over the logs.

    Attributes:
      stage: what it is called in progress bars.
      kind: of the marks of its finished segments; each holds the number of its `rows`.
      files: the numbers of the files that it reads.
    """

    stage: str
    kind: str
    files: range

    def work(self, file: int, block: RawBlock) -> Any:
        """The result of a block. Called from several threads."""

    def finish(self, workspace: Workspace, name: str, parts: Iterable[Any]) -> dict[str, Any]:
        """Writes the results of the blocks of a segment, in order, and returns what its mark is to say.

        Raises:
          BadRowError: a malformed row, where the job says that they are errors.
        """


def rows_of(mark: dict[str, Any]) -> int:
    """The rows that a pass has read in a segment."""
    return int(mark["read"])


class CountingPass:
    """Counts the values of the training rows, and sums their numbers."""

    stage, kind = "vocabulary", COUNTED

    def __init__(self, job: PrepareJob):
        self._job, self._counter = job, BlockCounter(job.schema)
        self.files = range(len(job.train_files))

    def work(self, file: int, block: RawBlock) -> CountedBlock:
        """See `Pass`."""
        return self._counter(block, lambda numbers: ~self._job.in_eval(file, numbers))

    def finish(self, workspace: Workspace, name: str, parts: Iterable[CountedBlock]) -> dict[str, Any]:
        """See `Pass`."""
        values, moments = ValueCounts(), no_moments(self._job.schema)
        read = kept = 0
        for part in parts:
            _stop_at(self._job, part.bad)
            read, kept = read + part.rows, kept + part.kept
            for table, distinct, counts in part.values:
                values.add(table, distinct, counts)
            moments += part.moments
        values.write(workspace, name)
        return {"read": read, "rows": kept, "moments": [moments.count, moments.mean, moments.m2]}


def no_moments(schema: Schema) -> Moments:
    """Of no rows; of the dense features, then of the labels of `units`."""
    return Moments.of(np.zeros([0, len(schema.dense) + len(units(schema))]))


class EncodingPass:
    """Encodes all rows, and writes the shards of each segment."""

    stage, kind = "encode", ENCODED

    def __init__(self, job: PrepareJob, encoder: Encoder):
        self._job, self._encode, self._schema = job, BlockEncoder(encoder), encoded_schema(encoder.schema)
        self.files = range(len(job.files))

    def work(self, file: int, block: RawBlock) -> tuple[EncodedBlock, np.ndarray]:
        """See `Pass`: the encoded block, and bool [N], which of its rows are for evaluation."""
        encoded = self._encode(block)
        return encoded, self._job.in_eval(file, encoded.numbers)

    def finish(
        self, workspace: Workspace, name: str, parts: Iterable[tuple[EncodedBlock, np.ndarray]]
    ) -> dict[str, Any]:
        """See `Pass`."""
        rows, bad, unknown = {"train": 0, "eval": 0}, 0, collections.Counter[str]()
        paths = {split: workspace.shard(split, name) for split in rows}
        paths["rejects"] = workspace.rejects(name)
        temporary: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            writers: dict[str, pq.ParquetWriter] = {}
            temporary["rejects"] = workspace.temporary(paths["rejects"])
            rejects = stack.enter_context(open(temporary["rejects"], "w", encoding="utf-8"))
            for encoded, in_eval in parts:
                _stop_at(self._job, encoded.bad)
                rejects.writelines(json.dumps(dataclasses.asdict(b)) + "\n" for b in encoded.bad)
                bad += len(encoded.bad)
                unknown.update(encoded.out_of_range)
                for split, keep in (("train", ~in_eval), ("eval", in_eval)):
                    if not keep.any():
                        continue
                    if split not in writers:
                        temporary[split] = workspace.temporary(paths[split])
                        # Without checksums most flipped bits in a page go unnoticed: they are other valid ids.
                        writers[split] = stack.enter_context(
                            pq.ParquetWriter(
                                temporary[split], self._schema, compression="zstd", write_page_checksum=True
                            )
                        )
                    table = encoded.table if keep.all() else encoded.table.filter(keep)
                    writers[split].write_table(table, row_group_size=ROWS_PER_GROUP)
                    rows[split] += table.num_rows
        for what, path in temporary.items():
            workspace.publish(path, paths[what])
        return {"name": name, "read": sum(rows.values()), "rows": rows, "bad": bad, "out_of_range": dict(unknown)}


def _stop_at(job: PrepareJob, bad: Sequence[BadRow]) -> None:
    if bad and job.bad_rows == "error":
        raise BadRowError(bad[0])
