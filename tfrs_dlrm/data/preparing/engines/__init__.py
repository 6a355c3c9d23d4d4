"""What runs the passes of `prepare` and puts vocabularies in order: this machine, or a Spark cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
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
          BadRowError, ValueError: of the first file and segment that has one, as `prepare`.
        """

    def vocabularies(
        self, job: PrepareJob, workspace: Workspace, settings: Mapping[str, tuple[int, int | None]]
    ) -> Iterator[tuple[str, Iterator[Sequence[str]]]]:
        """Joins the counts of all segments.

        Args:
          job: what is prepared.
          workspace: holds the counts.
          settings: by table, how often a value has to occur, and how many values there may be.

        Yields:
          Each table of `settings`, in that order, and its values, many at a time: by falling count, ties in the order
          of their UTF-8 bytes. They are to be used up before the next table is asked for.
        """

    def encode(self, job: PrepareJob, workspace: Workspace, schema: Schema, report: Progress) -> None:
        """Runs the second pass over all segments that are not marked as encoded; errors as in `count`.

        Args:
          job: what is prepared.
          workspace: holds vocabularies and statistics.
          schema: has the size of every table.
          report: is told how far it is.
        """
