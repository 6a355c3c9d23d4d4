"""Rows of a frame, encoded and kept in memory: the row groups of a dataset that is read from no file."""

from __future__ import annotations

import dataclasses
import itertools

import tensorflow as tf

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.blocks import BlockEncoder
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.frames import ArrowStream, Frame
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.data.reading.columns import Columns
from tfrs_dlrm.data.reading.parts import PipelineShare, pipeline_share


@dataclasses.dataclass(frozen=True)
class FrameRows:
    """The encoded rows of a block of a frame, as `prepare` would write them to one row group."""

    columns: Columns

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.columns)

    def cut(self, parts: int) -> list[FrameRows]:
        """Cuts the rows into several parts of similar size."""
        ends = [self.rows * i // parts for i in range(parts + 1)]
        return [FrameRows(self.columns.slice(begin, end)) for begin, end in itertools.pairwise(ends) if end > begin]


def share_of_frame(
    data: ArrowStream,
    encoder: Encoder,
    context: tf.distribute.InputContext | None,
    batch_size: int,
    drop_remainder: bool,
) -> PipelineShare[FrameRows]:
    """Encodes a frame, and selects the rows of an input pipeline; see `pipeline_share` for the other arguments.

    Raises:
      BadRowError: a row cannot be used.
      ValueError: a column is missing, or the frame has no rows; and see `pipeline_share`.
    """
    encode, frame = BlockEncoder(encoder), Frame(data)
    chunks = []
    for block in sources.blocks(frame, encoder.schema):
        encoded = encode(block)
        if encoded.bad:
            raise BadRowError(encoded.bad[0], "leave the row out; prepare can set such rows aside")
        chunks.append(FrameRows(Columns.of(encoded.table, encoder.schema)))
    if context is not None and len(chunks) < context.num_input_pipelines:
        chunks = [part for chunk in chunks for part in chunk.cut(context.num_input_pipelines)]
    rows = sum(chunk.rows for chunk in chunks)
    return pipeline_share(chunks, context, batch_size, drop_remainder, f"{frame}: {rows} rows")
