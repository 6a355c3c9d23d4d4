"""Sources of the rows of a dataset: its process, or input workers that it asks for them."""

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
    """Asks an input worker for rows in some order; the prepared directory holds everything else.

    Attributes:
      directory: the prepared directory, under the path or URL by which both trainer and workers see it.
      split: `train` or `eval`.
      seed: of the order; None means the order of the log.
      shuffle_rows: how many rows are shuffled at a time.
      pipelines: how many input pipelines share the rows.
      pipeline: the number of this pipeline.
      whole_groups: whether groups are shuffled, and not single rows.
    """

    directory: str
    split: Split
    seed: int | None
    shuffle_rows: int
    pipelines: int = 1
    pipeline: int = 0
    whole_groups: bool = False

    @classmethod
    def of(
        cls,
        directory: str,
        split: Split,
        seed: int | None,
        shuffle_rows: int,
        context: tf.distribute.InputContext | None = None,
        whole_groups: bool = False,
    ) -> ReadRequest:
        """Makes the request of an input pipeline."""
        context = context or tf.distribute.InputContext()
        # Another process may have another working directory.
        path = raw_files.absolute(os.fspath(directory))
        part = context.num_input_pipelines, context.input_pipeline_id
        return cls(path, split, seed, shuffle_rows, *part, whole_groups)

    def to_json(self) -> str:
        """Serializes the request for `from_json`."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ReadRequest:
        """Parses the text of `to_json`."""
        return cls(**json.loads(text))


class RowSource(Protocol):
    """A source of the rows of an epoch, in order: `ShuffleWindows`, which reads them in this process, or a service."""

    def rows(self, epoch: int, first_row: int) -> Iterator[Columns]:
        """Yields the rows of an epoch from `first_row` on, in portions of any size."""


class RowService(Protocol):
    """A service that opens a source of rows, such as `InputService`."""

    def open(
        self, request: ReadRequest, windows: ShuffleWindows, first_epoch: int, first_row: int, repeat: bool
    ) -> contextlib.AbstractContextManager[RowSource]:
        """Opens the rows of a request from `first_row` of an epoch on; with `repeat`, also of all later epochs."""
