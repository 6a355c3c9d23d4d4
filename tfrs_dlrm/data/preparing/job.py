"""The job of a call of `prepare`: the logs, which of their rows are for evaluation, and the segments of the work.

A segment is a few consecutive blocks of one file. Its borders depend on the file alone, so that a run that was
interrupted finds the same segments again.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
from typing import Any, Literal, Protocol

from tfrs_dlrm.data.preparing.base import PreparedBase
from tfrs_dlrm.data.preparing.split_rule import LogSchema, SplitRule
from tfrs_dlrm.data.raw import raw_files, sources
from tfrs_dlrm.data.raw.frames import Frame, RawInput
from tfrs_dlrm.schema import Schema

BadRows = Literal["error", "quarantine"]
BLOCKS_PER_SEGMENT = 4
_LOOKS = 16  # at a time: object stores answer slowly


@dataclasses.dataclass(frozen=True)
class PrepareJob:
    """The arguments of `prepare` that decide its output: equal jobs give equal bytes. A file may also be a frame.

    With a `base`, `schema` is that of the base, but for what may grow.
    """

    schema: Schema
    train_files: tuple[RawInput, ...]
    eval_files: tuple[RawInput, ...]
    eval_fraction: float
    seed: int
    bad_rows: BadRows
    rule: SplitRule = SplitRule()  # noqa: RUF009 (frozen)
    base: PreparedBase | None = None
    day: str = ""

    @functools.cached_property
    def log(self) -> LogSchema:
        """What is read of the files."""
        return LogSchema.of(self.schema, self.rule)

    @property
    def files(self) -> tuple[RawInput, ...]:
        """All files: first those for training, then those for evaluation."""
        return self.train_files + self.eval_files

    def on(self, base: PreparedBase) -> PrepareJob:
        """Returns the job on a base.

        Raises:
          ValueError: the base has another schema.
        """
        return dataclasses.replace(self, schema=base.schema_for(self.schema), base=base)

    @property
    def measures(self) -> bool:
        """Whether statistics of numbers are those of its rows, and not those of the base."""
        return self.base is None or self.base.refresh

    def check_files(self) -> None:
        """Checks all files before the work, see `sources.check`; raises the error of the first bad one."""
        with concurrent.futures.ThreadPoolExecutor(_LOOKS) as pool:
            beside = [self.beside(file) for file in range(len(self.files))]
            for _ in pool.map(lambda file, files: sources.check(file, self.log.schema, files), self.files, beside):
                pass

    def beside(self, file: int) -> int:
        """How many files the training or evaluation set of a file has."""
        return len(self.train_files) if file < len(self.train_files) else len(self.eval_files)

    def fingerprint(self) -> dict[str, Any]:
        """Returns plain values that differ if the output may differ.

        Files count by size and time of modification, frames by their content.

        Raises:
          ValueError: the base has seen a training file or frame already.
        """
        stamps = [self._stamp(file) for file in self.files]
        if self.base is not None:
            self.base.check_new(stamps[: len(self.train_files)])
        return {
            "schema": json.loads(self.schema.to_json()),
            "files": stamps,
            "eval_files": len(self.eval_files),
            "eval_fraction": self.eval_fraction,
            "seed": self.seed,
            "bad_rows": self.bad_rows,
            "split": self.rule.plain(),
            "base": self.base and self.base.fingerprint,
            "decay": None if self.base is None or self.base.factor == 1 else self.base.factor,
            "refresh_statistics": (self.base is not None and self.base.refresh) or None,
            "day": self.day or None,
        }

    def _stamp(self, file: RawInput) -> dict[str, Any]:
        if isinstance(file, Frame):
            content = sources.frame_content(file, self.log.schema)
            return {"rows": content.rows, "sha256": content.sha256}
        return file_stamp(file)


def file_stamp(path: str) -> dict[str, Any]:
    """Returns plain values that tell a file from all others, and from what it was before a change."""
    size, modified_ns = raw_files.stat(path)
    return {"path": raw_files.absolute(path), "bytes": size, "modified_ns": modified_ns}


class Indexed(Protocol):
    """What has a position in its file: a block."""

    @property
    def index(self) -> int:
        """The position, from 0."""


def segment_of(block: Indexed) -> int:
    """The position of a block's segment in its file."""
    return block.index // BLOCKS_PER_SEGMENT


def segment_name(file: int, segment: int) -> str:
    """The name of a segment; names sort by file and position."""
    return f"part-{file:05d}-{segment:05d}"


def is_of_file(name: str, file: int) -> bool:
    """Whether the segment of this name is one of a file."""
    return name.startswith(f"part-{file:05d}-")


def check_same(output: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    """Makes sure that a directory was prepared by an equal job.

    Args:
      output: the directory.
      wanted: the fingerprint of the job to do.
      found: the fingerprint of the job in the directory.

    Raises:
      ValueError: the jobs differ; the message says in what.
    """
    differing = [key for key in wanted if json.loads(json.dumps(wanted[key])) != found.get(key)]
    if found.get("bad_rows") == "error" and "bad_rows" in differing:
        differing.remove("bad_rows")  # without a bad row, both give the same output
    if differing:
        raise ValueError(
            f"{output}: already holds data prepared differently ({', '.join(differing)} changed);"
            " choose another output, or remove it"
        )
