"""The base of runs on prepared data and along streams: a model, how far it is, and the directory of the run."""

from __future__ import annotations

import abc
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import tensorflow as tf

from tfrs_dlrm.checkpoint.save import not_finite
from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.stores.files import finite, read_json_lines, whole_file, write_json
from tfrs_dlrm.training.callbacks import Interrupted, StepCounter
from tfrs_dlrm.training.evaluation import NonFiniteError
from tfrs_dlrm.training.factory import set_rates
from tfrs_dlrm.training.initial_rows import init_rows
from tfrs_dlrm.training.warm_start import warm_start
from tfrs_dlrm.training.workdir import METRICS_FILE, Workdir

RESULT_FILE = "result.json"
# The reason of a run that ended before its length because of `train_and_evaluate(seconds=...)`.
TIME_IS_UP = "its time was up"
RUN_AGAIN = "run the same command again, which resumes from the last checkpoint"


@dataclasses.dataclass(frozen=True)
class Result:
    """The end of a run.

    Attributes:
      step: the last step.
      reason: why the run ended, in words.
      best_step: the step of the best evaluation; 0 without an evaluation set.
      best: the metrics of that evaluation.
      interrupted: the error of a SIGTERM or Ctrl-C that came too late to end the run early; None if none came.
    """

    step: int
    reason: str
    best_step: int
    best: dict[str, float]
    interrupted: Interrupted | None = dataclasses.field(default=None, compare=False)

    def save(self, path: str) -> None:
        """Writes the file, without `interrupted`."""
        fields = (field.name for field in dataclasses.fields(self) if field.name != "interrupted")
        write_json(path, {name: getattr(self, name) for name in fields})

    def unless_interrupted(self) -> Result:
        """Returns this result, for programs that train another run next.

        Raises:
          Interrupted: the process was asked to end while this run was ending.
        """
        if self.interrupted:
            raise self.interrupted
        return self


class RunRecords:
    """A file of JSON lines, one object each, in the order of a number that all of them have.

    Args:
      path: the file; the first line creates it.
      key: the name of the number: `step` or `window`.
    """

    def __init__(self, path: str, key: str):
        self._path, self._key = path, key

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not os.path.exists(self._path):
            return
        then = "remove that line, which only the history of the run needs"
        for number, record in enumerate(read_json_lines(self._path, then, may_be_cut=True), 1):
            if type(record.get(self._key)) is not int:
                raise ValueError(f"{self._path}: line {number} has no number {self._key!r}; {then}")
            for split in ("train", "eval"):
                if not isinstance(record.get(split, {}), dict):
                    raise ValueError(f"{self._path}: line {number}: {split!r} is no JSON object; {then}")
            yield record

    def append(self, record: dict[str, Any]) -> None:
        """Adds a line; numbers that are not finite become null."""
        # If the run is killed before the checkpoint is whole, `forget_after` drops the line when the run resumes.
        with open(self._path, "a", encoding="utf-8") as f:
            f.write(json.dumps(finite(record)) + "\n")
            f.flush()
            os.fsync(f.fileno())

    def forget_after(self, number: int) -> None:
        """Drops the lines of higher numbers, which a resumed run writes again."""
        if not os.path.exists(self._path):
            return
        with whole_file(self._path) as f:
            f.writelines(json.dumps(record) + "\n" for record in self if record[self._key] <= number)


class _State(Protocol):
    step: tf.Variable


class Run(abc.ABC):
    """One call of a training program, from the moment it has a model.

    Args:
      config: the run.
      data_dir: the prepared data.
      home: the directory of the run, begun.
      model: compiled.
      state: how far the run is.
      saved: the objects to save with the model, by name, the state included.
      key: the number of each line in `metrics.jsonl`: `step` or `window`.
      write_files: writes what else is to be in a checkpoint into its directory.

    Attributes:
      counter: the last step done.
      last_checkpoint: the path of the last good checkpoint; empty before the first.
    """

    def __init__(
        self,
        config: RunConfig,
        data_dir: str,
        home: Workdir,
        model: RankingModel,
        state: _State,
        saved: Mapping[str, Any],
        key: str,
        write_files: Callable[[str], None] = lambda directory: None,
    ):
        train = config.train
        self.config, self.data_dir, self.home, self.model = config, data_dir, home, model
        self.distribution = distribution_of(model.distribute_strategy)
        self.checkpoints = home.checkpoints(model, train.keep_checkpoints, saved, train.async_checkpoints, write_files)
        self.records = RunRecords(home.file(METRICS_FILE), key)
        self.counter, self.last_checkpoint = StepCounter(), ""
        self._step = state.step

    @property
    @abc.abstractmethod
    def position(self) -> str:
        """The progress of the run, in words."""

    @property
    def tensorboard(self) -> str:
        """The directory of event files; empty if this process writes none."""
        wanted = self.config.train.tensorboard and self.distribution.is_chief
        return self.home.file("tensorboard") if wanted else ""

    def restore(self) -> str:
        """Restores the latest checkpoint and returns its path; empty if the run is new."""
        self.last_checkpoint = self.checkpoints.restore() or ""
        set_rates(self.model, self.config.optimizer)
        self.counter.step = int(self._step.numpy())
        return self.last_checkpoint

    def first_rows(self) -> list[str]:
        """Gives a new run the rows of `init_from`, and the weights of `train.warm_start`; returns lines about that."""
        other = self.config.train.warm_start
        lines = init_rows(self.model, self.data_dir)
        return [*lines, *(warm_start(self.model, self.data_dir, other).lines() if other else [])]

    def check_finite(self) -> None:
        """Makes sure that all weights are finite.

        Raises:
          NonFiniteError: naming some that are not.
        """
        if what := not_finite(self.model):
            raise self.non_finite(f"{what} {self.position}; nothing is saved")

    def non_finite(self, what: str) -> NonFiniteError:
        """An error that names the last good checkpoint as well."""
        return NonFiniteError(f"{what}. The last good checkpoint is {self.last_checkpoint or 'none'}")

    def save(self, best: bool = False) -> str:
        """Writes a checkpoint, in the background if so configured, and returns its path. Call `check_finite` first."""
        self._step.assign(self.counter.step)
        self.last_checkpoint = self.checkpoints.save(self.counter.step, best)
        return self.last_checkpoint

    def save_and_wait(self) -> str:
        """Writes a checkpoint and returns its path once it is whole."""
        self.check_finite()
        path = self.save()
        self.checkpoints.wait()
        return path

    def finish(self, reason: str, best_step: int = 0, interrupted: Interrupted | None = None) -> Result:
        """Writes down how the run ended and its best evaluation, if it has one, and publishes the run."""
        best = [record["eval"] for record in self.records if best_step and record["step"] == best_step]
        result = Result(self.counter.step, reason, best_step, best[0] if best else {}, interrupted)
        if self.distribution.is_chief:
            result.save(self.home.file(RESULT_FILE))
            self.home.push()
        return result
