"""The job of a call of `prepare`: the logs, which of their rows are for evaluation, and the segments of the work.

A segment is a few consecutive blocks of one file. Its borders depend on the file alone, so that a run that was
interrupted finds the same segments again.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
from typing import Any, Literal

import numpy as np

from tfrs_dlrm.data.raw import raw_files, sources
from tfrs_dlrm.data.raw.frames import Frame, RawInput
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.schema import Schema

BadRows = Literal["error", "quarantine"]
BLOCKS_PER_SEGMENT = 4
_LOOKS = 16  # at a time: object stores answer slowly


@dataclasses.dataclass(frozen=True)
class PrepareJob:
    """The arguments of `prepare` that decide its output: equal jobs give equal bytes. A file may also be a frame."""

    schema: Schema
    train_files: tuple[RawInput, ...]
    eval_files: tuple[RawInput, ...]
    eval_fraction: float
    seed: int
    bad_rows: BadRows

    @property
    def files(self) -> tuple[RawInput, ...]:
        """All files: first those for training, then those for evaluation."""
        return self.train_files + self.eval_files

    def check_files(self) -> None:
        """Checks all files before the work, see `sources.check`; raises the error of the first bad one."""
        with concurrent.futures.ThreadPoolExecutor(_LOOKS) as pool:
            beside = [self.beside(file) for file in range(len(self.files))]
            for _ in pool.map(lambda file, files: sources.check(file, self.schema, files), self.files, beside):
                pass

    def beside(self, file: int) -> int:
        """How many files the training or evaluation set of a file has."""
        return len(self.train_files) if file < len(self.train_files) else len(self.eval_files)

    def fingerprint(self) -> dict[str, Any]:
        """Returns plain values that differ if the output may differ.

        Files count by size and time of modification, frames by their content.
        """
        return {
            "schema": json.loads(self.schema.to_json()),
            "files": [self._stamp(file) for file in self.files],
            "eval_files": len(self.eval_files),
            "eval_fraction": self.eval_fraction,
            "seed": self.seed,
            "bad_rows": self.bad_rows,
        }

    def _stamp(self, file: RawInput) -> dict[str, Any]:
        if isinstance(file, Frame):
            content = sources.frame_content(file, self.schema)
            return {"rows": content.rows, "sha256": content.sha256}
        size, modified_ns = raw_files.stat(file)
        return {"path": raw_files.absolute(file), "bytes": size, "modified_ns": modified_ns}

    def in_train(self, file: int, numbers: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Whether rows belong to the training set: bool [N].

        Args:
          file: the number of their file.
          numbers: int64 [N], of the rows in the file.
          labels: float [N], the first label. Rows with a 0 are drawn, see `Label.keep_negatives`.
        """
        train, share = ~self.in_eval(file, numbers), self.schema.label.keep_negatives
        if share == 1:
            return train
        return train & ((labels != 0) | (_uniform(self.seed, file, numbers, draw=1) < share))

    def in_eval(self, file: int, numbers: np.ndarray) -> np.ndarray:
        """Whether rows, by their numbers in a file, belong to the evaluation set: bool [N]."""
        if file >= len(self.train_files):
            return np.ones(len(numbers), bool)
        if self.eval_fraction == 0:
            return np.zeros(len(numbers), bool)
        return _uniform(self.seed, file, numbers) < self.eval_fraction


def _uniform(seed: int, file: int, numbers: np.ndarray, draw: int = 0) -> np.ndarray:
    """Draws one number in [0, 1) per row, a function of seed, file and row number (splitmix64), for each `draw`."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(1 + file)
        x += np.uint64(seed % 2**64) * np.uint64(0xD1B54A32D192ED03) + np.uint64(draw) * np.uint64(0xA0761D6478BD642F)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)) / np.float64(2**53)


def segment_of(block: RawBlock) -> int:
    """The position of a block's segment in its file."""
    return block.index // BLOCKS_PER_SEGMENT


def segment_name(file: int, segment: int) -> str:
    """The name of a segment; names sort by file and position."""
    return f"part-{file:05d}-{segment:05d}"


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
