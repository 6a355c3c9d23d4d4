"""Rows of a frame, encoded and kept in memory: the row groups of a dataset that is read from no file."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.blocks import BlockEncoder
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.frames import ArrowStream, Frame
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.data.reading.columns import Columns
from tfrs_dlrm.data.reading.parts import PipelineShare, one_for_each, pipeline_share

_MEND = "leave such rows out of the frame, or give the directory of prepare(..., bad_rows='quarantine')"


@dataclasses.dataclass(frozen=True)
class FrameRows:
    """The encoded rows of a block of a frame, as `prepare` would write them to one row group."""

    columns: Columns

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.columns)

    def part(self, begin: int, end: int) -> FrameRows:
        """Returns the rows from `begin` to before `end`."""
        return FrameRows(self.columns.slice(begin, end))


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
            raise BadRowError(encoded.bad[0], _MEND)
        chunks.append(FrameRows(Columns.of(encoded.table, encoder.schema)))
    rows = sum(chunk.rows for chunk in chunks)
    return pipeline_share(one_for_each(chunks, context), context, batch_size, drop_remainder, f"{frame}: {rows} rows")
