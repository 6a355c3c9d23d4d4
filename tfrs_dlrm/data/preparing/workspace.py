"""The directory that `prepare` writes: which segments are finished, which files are temporary, and which run owns it.

- `train/`, `eval/`: shards; `vocabulary/`, `counts/`, `lineage/`: files by table. Each gets its name once it is whole.
- `unfinished/`, which is removed at the end:
  `job.json` and `run`, the job and the run that works on it;
  `counts/TABLE/NAME.parquet`, the values of segment NAME, `numbers/NAME.parquet`, its sketches of numbers, and
  `counted/NAME.json`, the mark that they are counted;
  `parsed/NAME.arrows`, the rows of segment NAME as they are parsed, until they are encoded;
  `day/TABLE.parquet`, the sums of the counts on a base, while they are merged, and `sorted-RUN/`, sums by Spark;
  `sample.json`, the share of rows to draw for `profile.json`, and `sampled/NAME.arrow`, the drawn rows of segment NAME;
  `NAME.jsonl`, its bad rows, and `encoded/NAME.json`, the mark that it is encoded;
  `NAME.arrow`, its training rows with their times, and `ordered/NAME.json`, the mark of a shard in the order of time;
  `failed/NAME.json`, the error of the segment; `attempts/`, temporary files of the processes of an engine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Sequence
from typing import Any

from absl import logging

from tfrs_dlrm.data.encoding.statistics import STATISTICS_FILE
from tfrs_dlrm.data.encoding.vocabulary import VOCABULARY_DIR
from tfrs_dlrm.data.preparing.job import check_same
from tfrs_dlrm.data.preparing.kept_counts import COUNTS_DIR, LINEAGE_DIR
from tfrs_dlrm.data.preparing.manifest import MANIFEST_FILE, PreparedManifest
from tfrs_dlrm.data.preparing.profiling.column_profile import PROFILE_FILE
from tfrs_dlrm.schema import SCHEMA_FILE
from tfrs_dlrm.stores.files import put, read_json, remove_unfinished, unfinished, whole_file, write_json
from tfrs_dlrm.stores.lock import LOCK_FILE

WORK_DIR = "unfinished"
QUARANTINE_FILE = "quarantine.jsonl"
COUNTED, ENCODED, ORDERED, FAILED = "counted", "encoded", "ordered", "failed"


class TakenOverError(OSError):
    """Another run of `prepare` has begun to write the same directory."""


class Workspace:
    """The output directory of `prepare`.

    Args:
      output: the directory.
      attempt: a unique name for a process, if several may work on the same segment at the same time.
      run: the run of that process; once another run has begun, the process can finish nothing.
    """

    def __init__(self, output: str, attempt: str = "", run: str = ""):
        self.output, self.work, self.run = output, os.path.join(output, WORK_DIR), run
        self.counts = os.path.join(self.work, "counts")
        self._attempt = attempt

    def finished(self, fingerprint: dict[str, Any]) -> PreparedManifest | None:
        """Returns the manifest if the directory is complete, otherwise None.

        Raises:
          ValueError: the directory was prepared by a job with another fingerprint.
        """
        if not os.path.exists(os.path.join(self.output, MANIFEST_FILE)):
            return None
        manifest = PreparedManifest.load(self.output)
        check_same(self.output, fingerprint, manifest.job)
        shutil.rmtree(self.work, ignore_errors=True)
        return manifest

    def begin(self, fingerprint: dict[str, Any]) -> None:
        """Makes the directory, or resumes an unfinished one. Call it with the lock of the directory.

        Raises:
          ValueError: the directory holds something else.
        """
        self.run = uuid.uuid4().hex
        attempts = os.path.join(self.work, "attempts")
        started = os.path.join(self.work, "job.json")
        if os.path.exists(started):
            if self.marks(COUNTED) or self.marks(ENCODED):
                check_same(self.output, fingerprint, read_json(started))
                logging.info("%s: resuming an unfinished preparation", self.output)
                self._tidy()
            else:
                self.discard()
            os.makedirs(attempts, exist_ok=True)
            self._take_over()
            write_json(started, fingerprint)
            return
        if os.path.isdir(self.output) and set(os.listdir(self.output)) - {WORK_DIR, LOCK_FILE}:
            raise ValueError(f"{self.output}: the directory exists and holds something else; choose another output")
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(attempts)
        self._take_over()
        write_json(started, fingerprint)

    def end(self, manifest: PreparedManifest) -> None:
        """Writes the manifest, which says that the directory is complete."""
        manifest.save(self.output)
        shutil.rmtree(self.work, ignore_errors=True)  # a process of the engine may linger

    # ---- segments ----------------------------------------------------------------------------------------------------

    def mark(self, kind: str, name: str, content: dict[str, Any]) -> None:
        """Marks a segment as finished, with a result."""
        path = self._mark(kind, name)
        temporary = self.temporary(path)
        write_json(temporary, content)
        self.publish(temporary, path)

    def is_marked(self, kind: str, name: str) -> bool:
        """Whether a segment is finished."""
        return os.path.exists(self._mark(kind, name))

    def marked(self, kind: str) -> list[str]:
        """The names of the finished segments, in order."""
        directory = os.path.join(self.work, kind)
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def read_mark(self, kind: str, name: str) -> dict[str, Any]:
        """Reads the content of a mark."""
        content: dict[str, Any] = read_json(self._mark(kind, name))
        return content

    def marks(self, kind: str) -> list[dict[str, Any]]:
        """Reads the marks of all finished segments, in order."""
        return [self.read_mark(kind, name) for name in self.marked(kind)]

    def shard(self, split: str, name: str) -> str:
        """The path of the shard of a segment."""
        return os.path.join(self.output, split, f"{name}.parquet")

    def timed(self, name: str) -> str:
        """The path of the training rows of a segment with their times."""
        return os.path.join(self.work, f"{name}.arrow")

    def rejects(self, name: str) -> str:
        """The path of the bad rows of a segment."""
        return os.path.join(self.work, f"{name}.jsonl")

    def join_rejects(self, names: Sequence[str]) -> None:
        """Writes the bad rows of these segments into one file."""
        if not names:
            return
        path = os.path.join(self.output, QUARANTINE_FILE)
        with whole_file(path, "wb") as out:
            for name in names:
                with open(self.rejects(name), "rb") as part:
                    shutil.copyfileobj(part, out)

    # ---- files that appear whole -------------------------------------------------------------------------------------

    def temporary(self, path: str) -> str:
        """The path to write a file to that is to become `path`."""
        if self._attempt:
            name = os.path.relpath(path, self.output).replace(os.sep, "-")
            # Only `begin` makes this directory, so a process that outlives its run cannot restore it.
            return os.path.join(self.work, "attempts", f"{self._attempt}-{name}.tmp")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return unfinished(path)

    def publish(self, temporary: str, path: str) -> None:
        """Gives a complete file its name.

        Raises:
          TakenOverError: this process belongs to an earlier run of `prepare`.
        """
        if self._attempt and self._current_run() != self.run:
            raise TakenOverError(f"{self.output}: another run of prepare has begun to write this directory")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        put(temporary, path)

    def _mark(self, kind: str, name: str) -> str:
        return os.path.join(self.work, kind, f"{name}.json")

    def _current_run(self) -> str:
        try:
            with open(os.path.join(self.work, "run"), encoding="ascii") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def _take_over(self) -> None:
        with whole_file(os.path.join(self.work, "run")) as f:
            f.write(self.run)

    def _tidy(self) -> None:
        """Removes the temporary files of a run that was killed."""
        for directory, _, _ in os.walk(self.output):
            remove_unfinished(directory)

    def discard(self) -> None:
        """Removes the files of an unfinished run, whatever its job was."""
        for name in ("train", "eval", VOCABULARY_DIR, COUNTS_DIR, LINEAGE_DIR):
            shutil.rmtree(os.path.join(self.output, name), ignore_errors=True)
        for name in (SCHEMA_FILE, STATISTICS_FILE, PROFILE_FILE):
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self.output, name))
        shutil.rmtree(self.work)  # last: it shows that `prepare` owns the directory
