"""Where a dataset gets its rows from: its process, or input workers that it asks for them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Protocol

import tensorflow as tf

from tfrs_dlrm.data.preparing.manifest import Split
from tfrs_dlrm.data.raw import raw_files
from tfrs_dlrm.data.reading.columns import Columns
from tfrs_dlrm.data.reading.windows import ShuffleWindows


@dataclasses.dataclass(frozen=True)
class ReadRequest:
    """Which rows in which order; an input worker finds everything else in the prepared directory.

    Attributes:
      directory: what `prepare` wrote; trainer and workers see it under this name; or its address.
      split: `train` or `eval`.
      seed: of the order; None is the order of the log.
      shuffle_rows: how many rows are shuffled at a time.
      pipelines: how many input pipelines share the rows.
      pipeline: the number of this one.
    """

    directory: str
    split: Split
    seed: int | None
    shuffle_rows: int
    pipelines: int = 1
    pipeline: int = 0

    @classmethod
    def of(
        cls,
        directory: str,
        split: Split,
        seed: int | None,
        shuffle_rows: int,
        context: tf.distribute.InputContext | None = None,
    ) -> ReadRequest:
        """That of the pipeline that `context` describes."""
        context = context or tf.distribute.InputContext()
        # The working directory of another process may be another one.
        path = raw_files.absolute(os.fspath(directory))
        return cls(path, split, seed, shuffle_rows, context.num_input_pipelines, context.input_pipeline_id)

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ReadRequest:
        """Reads `to_json`."""
        return cls(**json.loads(text))


class RowSource(Protocol):
    """Where the rows of an epoch come from, in their order: `ShuffleWindows`, which reads them here, or a service."""

    def rows(self, epoch: int, first_row: int) -> Iterator[Columns]:
        """The rows of an epoch from `first_row` on, so many at a time as the source likes."""


class RowService(Protocol):
    """What `dataset` needs of a service."""

    def open(
        self, job: ReadRequest, windows: ShuffleWindows, first_epoch: int, first_row: int, repeat: bool
    ) -> contextlib.AbstractContextManager[RowSource]:
        """The rows of `job` from `first_row` of an epoch on: of that epoch, or with `repeat` of all that follow."""
