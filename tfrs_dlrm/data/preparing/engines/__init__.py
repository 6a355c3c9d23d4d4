"""Engines run the passes of `prepare` and sum the counts of values, on this machine or on a Spark cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from tfrs_dlrm.data.preparing.job import PrepareJob
    from tfrs_dlrm.data.preparing.workspace import Workspace
    from tfrs_dlrm.schema import Schema
    from tfrs_dlrm.stores import Progress

EngineName = Literal["duckdb", "spark"]


class Engine(Protocol):
    """Runs the two passes over the logs of a job; see `tfrs_dlrm.data.preparing.passes`."""

    def count(self, job: PrepareJob, workspace: Workspace, report: Progress) -> None:
        """Runs the first pass over all segments that are not marked as counted.

        Raises:
          BadRowError, ValueError: the first error in the order of files and segments; see `prepare`.
        """

    def sums(
        self, job: PrepareJob, workspace: Workspace, tables: Sequence[str], ranked: bool
    ) -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
        """Sums the counts of all segments.

        Args:
          job: the job.
          workspace: holds the counts.
          tables: the tables with a vocabulary.
          ranked: whether to sort the values by falling count, ties by their UTF-8 bytes; otherwise any order will do.

        Yields:
          Each of `tables`, in order, and batches of its values, text, and their counts, int64. Use them up before
          asking for the next table.
        """

    def encode(self, job: PrepareJob, workspace: Workspace, schema: Schema, report: Progress) -> None:
        """Runs the second pass over all segments that are not marked as encoded; errors as in `count`.

        Args:
          job: the job.
          workspace: holds vocabularies and statistics.
          schema: has the size of every table.
          report: called with the progress.
        """
