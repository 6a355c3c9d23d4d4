"""The directory of a run: its checkpoints, and everything else that evaluation and export need.

workdir/
  config.json     the run's configuration
  encoder/        schema, vocabularies and statistics, as the data were prepared with them
  checkpoints/    the latest, to resume from; see `tfrs_dlrm.checkpoint`. Of a run that admits values of a stream, each
                  has an `encoder/` of its own, with the vocabularies that its rows are of
  best/           the one with the best evaluation AUC so far (of a regression, RMSE), or what `train.monitor` says
  metrics.jsonl   one line per evaluation
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from absl import logging

from tfrs_dlrm import schema as schema_lib
from tfrs_dlrm.checkpoint import Checkpoints, directory
from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.data.encoding.checksums import (
    CHECKSUMS_FILE,
    SAMPLES_FILE,
    check_files,
    encoder_fingerprint,
    recorded_checksums,
    write_checksums,
)
from tfrs_dlrm.data.encoding.statistics import STATISTICS_FILE
from tfrs_dlrm.data.encoding.vocabulary import VOCABULARY_DIR, all_rows_by_value
from tfrs_dlrm.data.preparing.lineage import check_scorable, lineage
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import Mirror, Store, StoreError, is_store_url, join
from tfrs_dlrm.stores.files import put, read_json, remove_unfinished, well_formed, write_json
from tfrs_dlrm.stores.lock import directory_lock

Which = Literal["best", "latest"]
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
# There while a daily update is unfinished; see `tfrs_dlrm.tools.update`.
UPDATE_JOURNAL = os.path.join("updates", "unfinished.json")
ENCODER_DIR = "encoder"
_DIRS = {"latest": "checkpoints", "best": "best"}
# Longer than a program takes to write a report into the directory.
_SECONDS_TO_WRITE = 3600.0
# Fields that decide the shape and meaning of a checkpoint: a run resumes only if they are equal.
_SHAPING = (
    "model",
    ("optimizer", "dense"),
    ("optimizer", "embedding"),
    ("optimizer", "embedding_per_table"),
    ("optimizer", "plateau_factor"),
    ("stream", "new_values"),
    ("train", "batch_size"),
    ("train", "seed"),
    ("train", "monitor"),
)


class Workdir:
    """The directory of one run.

    A run at an address such as `s3://BUCKET/PREFIX` has a local copy, which `pull` updates and `push` publishes; see
    `tfrs_dlrm.stores.Mirror`.

    Args:
      path: the directory; made by `begin`.

    Attributes:
      name: as it was given, for messages.

    Raises:
      ValueError: an address of an unknown kind, or the published files are gone.
      StoreError: the store cannot be reached or refuses.
    """

    def __init__(self, path: str):
        self.name = path
        self._mirror = Mirror(path, fixed=_never_changes) if is_store_url(path) else None
        self._lock = None if self._mirror else directory_lock(path, "trains the run in it")
        self.pull()

    @property
    def path(self) -> str:
        """The local directory."""
        return self._mirror.path if self._mirror else self.name

    def pull(self) -> None:
        """Updates the local copy of a run in a store; does nothing for a run on a disk."""
        if self._mirror and not self._mirror.pull():
            Store(self.name).files()  # raises if the bucket does not exist

    def push(self) -> None:
        """Publishes new files of the local copy of a run in a store.

        Raises:
          StoreError: the store cannot be reached or refuses; the published files stay unchanged.
          ValueError: another process publishes to the same address.
        """
        if self._mirror:
            try:
                self._mirror.push()
            except StoreError as e:
                kept = f"nothing is lost: {self.path} holds it, and the same command publishes it"
                raise StoreError(f"{e}; {kept}") from e

    def claim(self) -> None:
        """Keeps other processes from training the run, until `end` or the end of this process; reading is free.

        Other machines notice a run in a store when one of them publishes.

        Raises:
          InUseError: another process trains it.
          OSError: the directory cannot be written.
          FileNotFoundError: a daily update was interrupted while it moved the run into the directory.
        """
        if self._mirror:
            self._mirror.write_alone()
        if self._lock:
            self._lock.acquire()
        if not os.path.isfile(self.file(CONFIG_FILE)):
            self._check_update()

    def end(self) -> None:
        """Lets other processes train the run."""
        if self._mirror:
            self._mirror.done_writing()
        if self._lock:
            self._lock.release()

    def add(self, paths: Sequence[str]) -> None:
        """Uploads local files of a run in a store next to the run, which does not change.

        Raises:
          StoreError: the store cannot be reached or refuses.
        """
        if self._mirror:
            for path in paths:
                inside = os.path.relpath(path, self.path)
                Store(self.name).upload(path, os.path.basename(path) if inside.startswith("..") else inside)

    def shown(self, path: str) -> str:
        """Returns the address of a local file of the run, for messages."""
        return join(self.name, os.path.relpath(path, self.path)) if self._mirror else path

    @property
    def encoder_dir(self) -> str:
        """The schema, vocabularies and statistics that the run began with."""
        return os.path.join(self.path, ENCODER_DIR)

    @property
    def admits_values(self) -> bool:
        """Whether the vocabularies of the run change along its stream, so that each checkpoint has some of its own."""
        return self.config().stream.new_values != "off"

    def encoder_of(self, checkpoint: str) -> str:
        """Returns the directory with the schema, vocabularies and statistics of a checkpoint.

        Raises:
          FileNotFoundError: the checkpoint does not exist any more.
        """
        if not self.admits_values:
            return self.encoder_dir
        path = os.path.join(checkpoint, ENCODER_DIR)
        if not os.path.isdir(path):
            raise FileNotFoundError(
                f"{checkpoint}: its vocabularies are missing; if the run has written a newer checkpoint meanwhile, run"
                " the same command again"
            )
        return path

    def check_encoder(self) -> None:
        """Makes sure that the schema, vocabularies and statistics are those that the run was trained with.

        Raises:
          ValueError: a file is damaged; the message names it.
        """
        check_files(self.encoder_dir, f"copy the same file from the data of the run, {self.config().data.path}")

    def file(self, name: str) -> str:
        """Returns the path of a file of the run."""
        return os.path.join(self.path, name)

    def begin(self, config: RunConfig, data_dir: str) -> None:
        """Starts a run, or makes sure that the directory holds this one; claims it.

        Raises:
          ValueError: it holds a run of another model, or on data with another schema or vocabulary; or another process
            trains it (`InUseError`).
        """
        self.claim()
        if os.path.isdir(self.path):
            remove_unfinished(self.path, older_than=_SECONDS_TO_WRITE)
        for name in _DIRS.values():
            directory.tidy(self.file(name))
        if begun := self.begun():
            self._check_config(begun, config)
            self._check_data(data_dir)
            logging.info("%s: resuming the run in this directory", self.name)
        else:
            os.makedirs(self.path, exist_ok=True)
            shutil.rmtree(self.encoder_dir, ignore_errors=True)
            _copy_encoder(data_dir, self.encoder_dir)
        write_json(self.file(CONFIG_FILE), config.to_dict())
        self.push()

    def begun(self) -> RunConfig | None:
        """Returns the configuration of the run that a new process would resume; None without a checkpoint."""
        return self.config() if any(directory.steps(self.file(name)) for name in _DIRS.values()) else None

    def config(self) -> RunConfig:
        """Returns the configuration of the run.

        Raises:
          FileNotFoundError: the directory holds no run.
          ValueError: the file is damaged.
        """
        path, then = self.file(CONFIG_FILE), "copy it from another run of the same recipe, or train again elsewhere"
        if not os.path.isfile(path):
            self._check_update()
            raise FileNotFoundError(f"{self.name}: holds no run (no {CONFIG_FILE}); tfrs-dlrm train makes one")
        content = read_json(path, then)
        with well_formed(path, then):
            return RunConfig.from_dict(content)

    def schema(self, checkpoint: str = "") -> Schema:
        """Returns the schema of the run's data, or that for which the model of a checkpoint was made.

        They differ if the run admits values, for which its tables have room. The files are checked first.
        """
        self.check_encoder()
        path = self.encoder_of(checkpoint) if checkpoint else self.encoder_dir
        check_files(path, "take another checkpoint of the run, such as the latest or the best, or train again")
        return Schema.load(os.path.join(path, SCHEMA_FILE))

    def checkpoint(self, which: Which) -> str:
        """The path of a checkpoint.

        Raises:
          FileNotFoundError: the run has no checkpoint of this kind.
          ValueError: the kind is unknown, or the checkpoints were written by an older version of this package.
        """
        if which not in _DIRS:
            raise ValueError(f"which={which!r}: choose one of {', '.join(map(repr, _DIRS))}")
        paths = list(directory.steps(self.file(_DIRS[which])).values())
        if not paths:
            raise FileNotFoundError(
                f"{self.name}: no checkpoint in {_DIRS[which]}/; has the run reached an evaluation?"
            )
        return paths[0]

    def checkpoints(
        self,
        model: RankingModel,
        keep: int,
        saved: Mapping[str, Any] | None = None,
        asynchronous: bool = True,
        write_files: Callable[[str], None] = lambda directory: None,
    ) -> Checkpoints:
        """Returns the reader and writer of the run's checkpoints.

        They also hold the objects in `saved`, and what `write_files` writes into the directory of each.
        """
        latest, best = self.file(_DIRS["latest"]), self.file(_DIRS["best"])
        return Checkpoints(model, latest, best, keep, saved, asynchronous, self.push, write_files)

    def check_data(self, data_dir: str) -> None:
        """Makes sure that a prepared directory encodes as the data of the run did.

        Raises:
          ValueError: saying what differs, or which file of either is damaged; or the run admits values of a stream.
        """
        if self.admits_values:
            raise ValueError(
                f"{data_dir}: the vocabularies of {self.name} have changed along its stream, so that rows of prepared"
                " data may mean other values; evaluate takes the data that the run began with"
            )
        self._check_data(data_dir)

    def _check_data(self, data_dir: str) -> None:
        """Makes sure that a prepared directory encodes as the data that the run began with."""
        same = self._same_encoder(data_dir)
        if not same and lineage(data_dir, self.encoder_dir):
            raise ValueError(
                f"{data_dir}: extends the data of {self.name}, and has values that its checkpoints do not know;"
                f" evaluate takes it, and a new run with config.train.warm_start={self.name} begins with its weights"
            )
        other = Schema.load(os.path.join(data_dir, SCHEMA_FILE))
        found = schema_lib.difference(self.schema(), other)
        if found:
            raise ValueError(f"{data_dir}: another schema than the checkpoints in {self.name} have: {found}")
        if not same:
            raise ValueError(
                f"{data_dir}: other vocabularies or statistics than the checkpoints in {self.name} were trained with;"
                " the rows of their tables mean other values"
            )

    def model_rows(self, data_dir: str, checkpoint: str = "") -> dict[str, np.ndarray] | None:
        """Returns the rows that values of prepared data on a disk have in the model of the run; None if the same.

        The data either encode as those of the run did, or extend them, see the `base` of `prepare`. In the second
        case, and if the run admits values of a stream, the result is, by table with a vocabulary, the model's row of
        each row of the data, int32 [rows of the data]; 0 where the model does not know the value.

        Args:
          data_dir: the prepared directory.
          checkpoint: the path of the model's weights, by default of the best.

        Raises:
          ValueError: neither is so, or a file of either is damaged.
        """
        found = None if self._same_encoder(data_dir) else lineage(data_dir, self.encoder_dir)
        if found is None:
            self._check_data(data_dir)
        else:
            check_scorable(self.schema(), data_dir, found, self.name)
        if self.admits_values:
            return all_rows_by_value(data_dir, self.encoder_of(checkpoint or self.checkpoint("best")))
        return found.rows() if found else None

    def encodes_as(self, data_dir: str) -> bool:
        """Whether a prepared directory on a disk has the schema, vocabularies and statistics of the run."""
        path = os.path.join(data_dir, SCHEMA_FILE)
        if (
            self.admits_values
            or is_store_url(data_dir)
            or not os.path.isfile(path)
            or not os.path.isdir(os.path.join(data_dir, VOCABULARY_DIR))
        ):
            return False
        same = encoder_fingerprint(self.encoder_dir) == encoder_fingerprint(data_dir)
        return same and not schema_lib.difference(self.schema(), Schema.load(path))

    def _same_encoder(self, data_dir: str) -> bool:
        """Whether prepared data have the vocabularies and statistics of the run; the files of both are checked."""
        check_files(data_dir)
        self.check_encoder()
        return encoder_fingerprint(self.encoder_dir) == encoder_fingerprint(data_dir)

    def _check_update(self) -> None:
        """Raises FileNotFoundError if the run is missing because an update was killed while it moved a new one here."""
        if os.path.isfile(self.file(UPDATE_JOURNAL)):
            raise FileNotFoundError(
                f"{self.name}: an update was interrupted while it moved the new model here; the same tfrs-dlrm update"
                " finishes that"
            )

    def _check_config(self, begun: RunConfig, config: RunConfig) -> None:
        old, new = begun.to_dict(), config.to_dict()
        for key in _SHAPING:
            section, *field = (key,) if isinstance(key, str) else key
            for name in field or new[section]:
                if old[section][name] != new[section][name]:
                    raise ValueError(
                        f"{self.name}: holds a run with {section}.{name}={old[section][name]}, now it is"
                        f" {new[section][name]}; choose another --workdir, or remove this one"
                    )


def _never_changes(name: str) -> bool:
    """Whether a file of a run stays as it is until it is removed; the others, such as metrics, grow."""
    return name.startswith((*(f"{d}/" for d in _DIRS.values()), f"{ENCODER_DIR}/"))


def _copy_encoder(source: str, target: str) -> None:
    temporary = f"{target}.tmp"  # only the process with the lock writes it
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    for name in (SCHEMA_FILE, STATISTICS_FILE, SAMPLES_FILE):
        shutil.copy(os.path.join(source, name), temporary)
    shutil.copytree(os.path.join(source, VOCABULARY_DIR), os.path.join(temporary, VOCABULARY_DIR))
    if recorded := recorded_checksums(source):
        write_json(os.path.join(temporary, CHECKSUMS_FILE), recorded)
        check_files(temporary, "run the same command again")
    else:
        write_checksums(temporary)
    put(temporary, target)
