"""The two passes of `prepare` over raw logs, in the steps that every engine runs, so that all write the same bytes.

A pass works on blocks in parallel, in any order. Then it joins the results of a segment in the order of the file.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.encoding.statistics import Moments
from tfrs_dlrm.data.preparing.blocks import BlockCounter, BlockEncoder, CountedBlock, EncodedBlock, count_moments
from tfrs_dlrm.data.preparing.job import PrepareJob, segment_name, segment_of
from tfrs_dlrm.data.preparing.kept_rows import KeptBlock, KeptRows, keeps_rows, read_kept
from tfrs_dlrm.data.preparing.label_counts import LabelCounter
from tfrs_dlrm.data.preparing.manifest import encoded_schema
from tfrs_dlrm.data.preparing.number_sketch import DISTINCT, NumberSketch, write_sketches
from tfrs_dlrm.data.preparing.ordering import ROWS_PER_GROUP, TimedRows, shard_writer
from tfrs_dlrm.data.preparing.profiling.row_sample import RowSampler, sample_path, write_sample
from tfrs_dlrm.data.preparing.row_splitter import RowSplitter, SetCounts, SplitRows
from tfrs_dlrm.data.preparing.samples import SampleTaker
from tfrs_dlrm.data.preparing.value_counts import ValueCounts
from tfrs_dlrm.data.preparing.workspace import COUNTED, ENCODED, Workspace
from tfrs_dlrm.data.raw.parsing import BadRow, BadRowError
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.typed_rows import TypedRows
from tfrs_dlrm.schema import Schema

DROPPED = "dropped"  # of the training rows of the log, those that `Label.keep_negatives` leaves out


class Pass(Protocol):
    """One pass over the logs.

    Attributes:
      stage: its name in progress bars.
      kind: the kind of the marks of its finished segments.
      files: the numbers of the files that it reads.
    """

    stage: str
    kind: str
    files: range

    def kept(self, workspace: Workspace, name: str) -> Iterator[KeptBlock] | None:
        """Returns the blocks of a segment that the pass before has kept; None if it has not."""

    def work(self, file: int, block: Any) -> Any:
        """Returns the result of a block. Called from several threads."""

    def finish(self, workspace: Workspace, name: str, parts: Iterable[Any]) -> dict[str, Any]:
        """Writes the results of the blocks of a segment, in order, and returns the content of its mark.

        Raises:
          BadRowError: a row is malformed, and the job's `bad_rows` is `error`.
        """


def rows_of(mark: dict[str, Any]) -> int:
    """The number of rows that a pass has read in a segment."""
    return int(mark["read"])


class CountingPass:
    """Counts the values of the training rows, computes the moments of their numbers, and keeps the parsed rows."""

    stage, kind = "vocabulary", COUNTED

    def __init__(self, job: PrepareJob):
        self._job, self._split, self._counter = job, RowSplitter(job), BlockCounter(job.schema, job.measures)
        self.files = range(len(job.train_files))

    def kept(self, workspace: Workspace, name: str) -> None:
        """See `Pass.kept`."""

    def work(self, file: int, block: RawBlock) -> tuple[CountedBlock, KeptBlock]:
        """See `Pass.work`."""
        split = self._split(file, block)
        return self._counter(split.rows, split.train), KeptBlock(block.index, split)

    def finish(
        self, workspace: Workspace, name: str, parts: Iterable[tuple[CountedBlock, KeptBlock]]
    ) -> dict[str, Any]:
        """See `Pass.finish`."""
        if not keeps_rows(self._job):
            return self._finish(workspace, name, parts)
        with KeptRows(workspace, name) as kept:
            return self._finish(workspace, name, parts, kept.add)

    def _finish(
        self,
        workspace: Workspace,
        name: str,
        parts: Iterable[tuple[CountedBlock, KeptBlock]],
        keep: Callable[[KeptBlock], None] = lambda _: None,
    ) -> dict[str, Any]:
        values, moments = ValueCounts(), no_moments(self._job.schema)
        numbers: dict[str, list[NumberSketch]] = collections.defaultdict(list)
        read = kept = 0
        sets = SetCounts()
        for part, block in parts:
            sets += SetCounts.of(block.rows)
            _stop_at(self._job, part.bad)
            keep(block)
            read, kept = read + part.rows, kept + part.kept
            for table, distinct, counts in part.values:
                values.add(table, distinct, counts)
            moments += part.moments
            for key, sketch in part.numbers.items():
                numbers[key].append(sketch)
        values.write(workspace, name)
        if numbers:
            write_sketches(workspace, name, {k: NumberSketch.joined(s).smaller(DISTINCT) for k, s in numbers.items()})
        return {
            "read": read,
            "rows": kept,
            "sets": dataclasses.asdict(sets),
            "moments": [moments.count, moments.mean, moments.m2],
        }


def no_moments(schema: Schema) -> Moments:
    """The moments of no rows."""
    return Moments.of(np.zeros([0, count_moments(schema)]))


class EncodingPass:
    """Encodes all rows, and writes the shards of each segment.

    Args:
      job: the job.
      encoder: of its rows.
      sampled: the share of the training rows to draw for `profile.json`.
    """

    stage, kind = "encode", ENCODED

    def __init__(self, job: PrepareJob, encoder: Encoder, sampled: float = 0.0):
        self._job, self._split = job, RowSplitter(job)
        self._encode, self._schema = BlockEncoder(encoder), encoder.schema
        self._sampler = RowSampler(encoder, job.seed, sampled) if sampled else None
        self._samples = SampleTaker(encoder.schema)
        self.files = range(len(job.files))

    def kept(self, workspace: Workspace, name: str) -> Iterator[KeptBlock] | None:
        """See `Pass.kept`."""
        return read_kept(workspace, name)

    def work(self, file: int, block: RawBlock | KeptBlock) -> SplitBlock:
        """See `Pass.work`."""
        found = block.rows if isinstance(block, KeptBlock) else self._split(file, block)
        sets, kept = SetCounts.of(found), found.train | found.eval
        left_out = found.rows.take(~kept)
        found = found.take(kept)
        log = None if isinstance(block, KeptBlock) else block
        encoded = self._encode.encode(found.rows, log)
        good = found.take(np.isin(found.rows.numbers, encoded.numbers))
        splits = {"train": good.train, "eval": good.eval}
        segment = segment_name(file, segment_of(block))
        samples = {split: self._samples.take(good.rows, keep, split, segment) for split, keep in splits.items()}
        drawn = self._drawn(file, log, good, encoded.table, left_out)
        return SplitBlock(encoded, splits, samples, (left_out.labels, left_out.weight), sets, good.times, drawn)

    def _drawn(
        self, file: int, block: RawBlock | None, good: SplitRows, encoded: pa.Table, dropped: TypedRows
    ) -> pa.Table | None:
        """Draws training rows for the profile: dropped negatives too, or it would not be that of the log."""
        if self._sampler is None:
            return None
        kept = self._sampler(file, good.rows, encoded, good.train)
        dropped = dropped.take(self._sampler.drawn(file, dropped))
        if not len(dropped):
            return kept
        more = self._encode.encode(dropped, block)
        dropped = dropped.take(np.isin(dropped.numbers, more.numbers))
        return pa.concat_tables([kept, self._sampler(file, dropped, more.table, np.ones(len(dropped), bool))])

    def finish(self, workspace: Workspace, name: str, parts: Iterable[SplitBlock]) -> dict[str, Any]:
        """See `Pass.finish`."""
        rows, bad, unknown = {"train": 0, "eval": 0}, 0, collections.Counter[str]()
        samples: dict[str, list[dict[str, Any]]] = {split: [] for split in rows}
        labels = {split: LabelCounter(self._schema) for split in (*rows, DROPPED)}
        dropped, sets = 0, SetCounts()
        timed = TimedRows(encoded_schema(self._schema)) if self._job.rule.keep_order else None
        drawn: list[pa.Table] = []
        with _SegmentWriter(workspace, name, encoded_schema(self._schema)) as writer:
            for part in parts:
                _stop_at(self._job, part.encoded.bad)
                writer.write_rejects(part.encoded.bad)
                bad, sets = bad + len(part.encoded.bad), sets + part.sets
                dropped += len(part.dropped[0])
                labels[DROPPED].add(*part.dropped)
                unknown.update(part.encoded.out_of_range)
                for split, keep in part.splits.items():
                    if split == "train" and timed is not None and part.times is not None:
                        rows[split] += timed.add(part.encoded.table.filter(keep), part.times[keep])
                    else:
                        rows[split] += writer.write_rows(split, part.encoded.table, keep)
                    labels[split].add(*part.labels(self._schema, keep))
                    samples[split] += part.samples[split]
                drawn += [] if part.drawn is None else [part.drawn]
            if timed is not None:
                writer.write_timed(timed)
            if drawn:
                writer.write_drawn(drawn)
        kept = {split: self._samples.finish(split, name, found) for split, found in samples.items()}
        counts = {"read": sum(rows.values()) + dropped, "rows": rows, "bad": bad, "out_of_range": dict(unknown)}
        counts["sets"] = dataclasses.asdict(sets)
        counts["labels"] = {split: counter.plain() for split, counter in labels.items()}
        return {"name": name, **counts, "samples": kept}


@dataclasses.dataclass(frozen=True)
class SplitBlock:
    """One encoded block.

    Attributes:
      encoded: its rows, without the dropped ones.
      splits: by split, which of these rows are in it, bool [N].
      samples: by split, the raw rows that may become samples.
      dropped: the labels [n, labels] and weights [n], if there are any, of negative rows that are not kept.
      sets: the counts of the sets of all its rows.
      times: of the encoded rows, int64 [N], microseconds since 1970, if the job needs them.
      drawn: the training rows, with dropped ones, that a `RowSampler` drew, if there is one.
    """

    encoded: EncodedBlock
    splits: dict[str, np.ndarray]
    samples: dict[str, list[dict[str, Any]]]
    dropped: tuple[np.ndarray, np.ndarray | None]
    sets: SetCounts
    times: np.ndarray | None
    drawn: pa.Table | None = None

    def labels(self, schema: Schema, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the labels [n, labels] of the rows where `keep` is true, and their weights [n], if they have any."""
        columns = [self.encoded.table[name].to_numpy() for name in schema.label_columns]
        weights = self.encoded.table["weight"].to_numpy()[keep] if schema.weight else None
        return np.stack(columns, axis=1)[keep], weights


class _SegmentWriter:
    """Writes the shards and the bad rows of a segment, which get their names together at the end."""

    def __init__(self, workspace: Workspace, name: str, schema: pa.Schema):
        self._workspace, self._name, self._schema = workspace, name, schema
        self._temporary: dict[str, str] = {}  # by final path
        self._stack = contextlib.ExitStack()
        self._writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> _SegmentWriter:
        rejects = open(self._new(self._workspace.rejects(self._name)), "w", encoding="utf-8")
        self._rejects = self._stack.enter_context(rejects)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stack.close()
        if kind is None:
            for path, temporary in self._temporary.items():
                self._workspace.publish(temporary, path)

    def write_rejects(self, bad: Sequence[BadRow]) -> None:
        """Writes bad rows, one a line."""
        self._rejects.writelines(json.dumps(dataclasses.asdict(b)) + "\n" for b in bad)

    def write_timed(self, rows: TimedRows) -> None:
        """Writes the training rows that are still to be put in order."""
        rows.write(self._new(self._workspace.timed(self._name)))

    def write_drawn(self, parts: Sequence[pa.Table]) -> None:
        """Writes the drawn training rows."""
        write_sample(self._new(sample_path(self._workspace, self._name)), parts)

    def write_rows(self, split: str, table: pa.Table, keep: np.ndarray) -> int:
        """Writes the rows where `keep` is true to the shard of a split, and returns their number."""
        if not keep.any():
            return 0
        if split not in self._writers:
            path = self._new(self._workspace.shard(split, self._name))
            self._writers[split] = self._stack.enter_context(shard_writer(path, self._schema))
        table = table if keep.all() else table.filter(keep)
        self._writers[split].write_table(table, row_group_size=ROWS_PER_GROUP)
        return int(table.num_rows)

    def _new(self, path: str) -> str:
        self._temporary[path] = temporary = self._workspace.temporary(path)
        return temporary


def _stop_at(job: PrepareJob, bad: Sequence[BadRow]) -> None:
    if bad and job.bad_rows == "error":
        raise BadRowError(bad[0])
