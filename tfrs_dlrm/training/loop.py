"""Training on prepared data: rounds of steps, each followed by an evaluation and a checkpoint."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.config import RunConfig, choice_lines
from tfrs_dlrm.data.preparing.label_counts import label_notes
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.on_demand import ensure_prepared
from tfrs_dlrm.data.reading.labels import label_counts
from tfrs_dlrm.data.reading.service.input_service import InputService
from tfrs_dlrm.distribute.strategies import Distribution, distribution_of
from tfrs_dlrm.messages import cause
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.metrics.defined import defined
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import Progress, local_copy
from tfrs_dlrm.stores.files import disk_full
from tfrs_dlrm.training.asynchronous import Workers, server_lost
from tfrs_dlrm.training.callbacks import EndRound, StopAtDeadline, StopOnNonFiniteLoss, StopOnSignal
from tfrs_dlrm.training.centering import center
from tfrs_dlrm.training.evaluation import NonFiniteError, score_split
from tfrs_dlrm.training.factory import (
    learning_rates,
    make_model,
    make_optimizers,
    precision,
    rates_at,
    tables_for,
    with_row_optimizers,
)
from tfrs_dlrm.training.fitted import fitted_to_data
from tfrs_dlrm.training.inputs import (
    distributed_dataset,
    epoch_steps,
    input_service,
    worker_dataset,
)
from tfrs_dlrm.training.memory_check import check_memory
from tfrs_dlrm.training.progress import ProgressBar, TrainingProgress, out_of_range_lines
from tfrs_dlrm.training.run import RUN_AGAIN, TIME_IS_UP, Result, Run
from tfrs_dlrm.training.state import RunLimits, RunState, check_evaluation_labels, check_goals, quality
from tfrs_dlrm.training.workdir import CONFIG_FILE, Workdir


@checked
def train_and_evaluate(
    config: RunConfig,
    workdir: str,
    strategy: tf.distribute.Strategy | None = None,
    prepare_progress: Progress | None = None,
    show_progress: bool = False,
    seconds: float = math.inf,
) -> Result:
    """Trains as `config` says, in `workdir`; resumes the run that `workdir` holds.

    Args:
      config: the run.
      workdir: see `tfrs_dlrm.training.workdir`.
      strategy: where to compute; by default the strategy in scope.
      prepare_progress: is told how far the preparation of raw data is, if the data have to be prepared.
      show_progress: draws a progress bar on standard error.
      seconds: ends the run early, with an evaluation and a checkpoint, once this call has trained for this time. A
        second call continues the run. Not for a cluster, whose processes have a clock each.

    Raises:
      ValueError: the configuration, the data or the run in `workdir` do not fit together; or another process trains
        in `workdir` (`InUseError`).
      NonFiniteError: the loss or a score became NaN or infinite; the last good checkpoint is unchanged.
      Interrupted: after SIGTERM or Ctrl-C, with a checkpoint written; a run that was ending returns it in its result.
      EvaluationFailed: the evaluation set cannot be read; the weights of that step are saved.
      ServerLost: a parameter server does not answer; called again once it is back, this resumes from the last
        checkpoint.
      ConnectionError: the input service of `config.data.service` does not answer.
      OSError: the disk is full; a `StoreError` if an object store cannot be reached or refuses.
    """
    config.check()
    if config.data.source:
        raise ValueError("config.data.source: tfrs_dlrm.streaming.loop.train_on_stream trains on a stream")
    if config.search.candidates:
        raise ValueError("config.search.candidates: tfrs_dlrm.tools.search.search_and_train tries them")
    distribution = distribution_of(strategy)
    if seconds < math.inf and (distribution.several_processes or distribution.asynchronous):
        raise ValueError(f"seconds={seconds:g}: the processes of a cluster do not end at the same step; leave it out")
    with (
        precision(config.train.precision),
        distribution.strategy.scope(),
        server_lost(),
        disk_full(workdir, RUN_AGAIN),
    ):
        service = input_service(config.data.service)
        home = Workdir(workdir)
        try:
            # One process writes, and the others see what it wrote.
            if distribution.is_chief:
                home.claim()
                ensure_prepared(config.data, config.train.seed, prepare_progress)
            distribution.wait_for_all()
            data_dir = local_copy(config.data.path)
            manifest = PreparedManifest.load(data_dir)
            schema = Schema.load(os.path.join(data_dir, SCHEMA_FILE))
            begun = home.begun()
            config, choices = fitted_to_data(config, data_dir, begun)
            check_goals(config, schema, bool(manifest.eval))
            check_evaluation_labels(config, schema, label_counts(data_dir, "eval"))
            check_memory(config, schema, distribution, make_optimizers(config.optimizer)[1])
            model = make_model(config.model, schema, config.train.seed, tables_for(config))
            config, optimizers = with_row_optimizers(config, model.embeddings, begun)
            state = RunState(config.optimizer)
            dense, embedding = make_optimizers(config.optimizer, state.rate_factor)
            model.compile(dense, embedding, steps_per_execution=config.train.steps_per_execution)
            _begin(home, config, data_dir, distribution)
            return TrainingRun(config, data_dir, home, model, state, service, StopAtDeadline(seconds)).train(
                show_progress, [*([] if begun else choice_lines(choices)), optimizers]
            )
        finally:
            home.end()


def _begin(home: Workdir, config: RunConfig, data_dir: str, distribution: Distribution) -> None:
    """Lets one process begin the run, and makes sure that the others see it."""
    if distribution.is_chief:
        home.begin(config, data_dir)
    distribution.wait_for_all()
    if not distribution.is_chief:
        home.pull()
    if distribution.any_process(not os.path.isfile(home.file(CONFIG_FILE))):
        raise ValueError(
            f"{home.name}: not every process sees what the first one wrote; it has to be a shared directory"
        )


class EvaluationFailed(ValueError):
    """The evaluation set cannot be read; the trained weights are saved."""


class TrainingRun(Run):
    """A run on prepared data; see `Run`.

    Args:
      service: reads the training data; if it is None, this process does.
      deadline: ends the run early.
    """

    def __init__(
        self,
        config: RunConfig,
        data_dir: str,
        home: Workdir,
        model: RankingModel,
        state: RunState,
        service: InputService | None,
        deadline: StopAtDeadline,
    ):
        # Metrics are saved with the weights, so that a run stopped between evaluations resumes with the same averages.
        saved = {"state": state, "metrics": model.metrics}
        super().__init__(config, data_dir, home, model, state, saved, "step")
        self._state, self._service, self._deadline = state, service, deadline
        self._workers: Workers | None = None
        self._manifest = PreparedManifest.load(data_dir)
        epoch = epoch_steps(data_dir, config.train.batch_size)
        self._limits = RunLimits(config, epoch, state, model.label_tasks.first.best)
        self._rates = learning_rates(config.optimizer, state.rate_factor)

    @property
    def position(self) -> str:
        """See `Run.position`."""
        return f"at step {self.counter.step}"

    def train(self, show_progress: bool, begins_with: Sequence[str]) -> Result:
        """Trains to the end; says the lines of `begins_with` first."""
        resumed = self.restore()
        begun = [f"resuming from {resumed}"] if resumed else self.first_rows()
        if self.distribution.is_chief:
            self.records.forget_after(self.counter.step)
        shown = show_progress and self.distribution.is_chief
        bar = ProgressBar(self.counter, self._limits.total, self.config.train.batch_size) if shown else None
        self._progress = TrainingProgress(self.counter, bar, self.tensorboard, self.model.label_tasks.shown)
        labels = label_notes(self.model.schema, self._manifest.labels)
        for line in [*begins_with, *begun, *out_of_range_lines(self.data_dir, self._manifest), *labels]:
            self._progress.say(line)
        anywhere = self.distribution.any_process if self.distribution.several_processes else None
        self._listener = StopOnSignal(self.counter, self._ends_round, self.save_and_wait, anywhere)
        try:
            with self._listener, self.checkpoints:
                if resumed and self._lacks_evaluation():
                    self._end_round({m.name: float(m.result()) for m in self.model.metrics})
                while not self._reason_to_stop():
                    self._fit()
        finally:
            self._progress.close()
        interrupted = self._listener.interrupted(self.last_checkpoint) if self._listener.received else None
        return self.finish(self._reason_to_stop(), int(self._state.best_step.numpy()), interrupted)

    def _reason_to_stop(self) -> str:
        """Why the run ends after the last step; empty if it does not. Time alone ends no run without a round."""
        reason = self._limits.reason_to_stop(self.counter.step)
        return reason or (TIME_IS_UP if self._deadline.passed and any(True for _ in self.records) else "")

    def _lacks_evaluation(self) -> bool:
        """Whether the checkpoint that is resumed from ends a round whose evaluation failed."""
        step = self.counter.step
        done = any(record["step"] == step for record in self.records)
        return bool(self._ends_round() and self._manifest.eval and not self.distribution.any_process(done))

    def _ends_round(self) -> bool:
        return self._limits.ends_round(self.counter.step)

    def _fit(self) -> None:
        """Calls `fit` once, for all rounds in a row that have the same number of steps."""
        steps, rounds = self._limits.next_rounds(self.counter.step)
        watch = StopOnNonFiniteLoss(self.counter, lambda: self.last_checkpoint)
        callbacks = [self.counter, watch, self._deadline, *self._progress.callbacks]
        if self.distribution.asynchronous:
            self._fit_on_workers(steps, [*callbacks, self._listener])
            return
        train, data = self.config.train, self.config.data
        batches = distributed_dataset(
            data.path if self._service else self.data_dir,  # input workers of other machines know it by that name
            train.batch_size,
            seed=train.seed,
            start_step=self.counter.step,
            repeat=True,
            shuffle_rows=data.shuffle_rows,
            tables=self.model.embeddings,
            service=self._service,
            whole_groups=self.config.model.list_loss != "none",
        )
        callbacks += [EndRound(self._end_round, [] if self._ends_round() else self.model.metrics), self._listener]
        self.model.fit(batches, steps_per_epoch=steps, epochs=rounds, callbacks=callbacks, verbose=0)

    def _fit_on_workers(self, steps: int, callbacks: list[keras.callbacks.Callback]) -> None:
        """Trains a round on a parameter-server cluster. A resumed round averages its remaining steps."""
        if self._workers is None:
            train, rows = self.config.train, self.config.data.shuffle_rows
            whole_groups = self.config.model.list_loss != "none"
            read = worker_dataset(self.data_dir, train.batch_size, "train", rows, whole_groups)
            self._workers = Workers(self.model, read, train.steps_per_execution)
        averages = self._workers.fit(steps, callbacks, lambda: self._listener.received)
        if averages is None:  # told to stop before the first step
            raise self._listener.interrupted(self.save_and_wait())
        self._end_round(averages)

    def _end_round(self, averages: dict[str, float]) -> None:
        """Evaluates, writes a checkpoint, and decides whether to continue."""
        step, state, cut = self.counter.step, self._state, False
        self.check_finite()
        record: dict[str, Any] = {"step": step, "train": defined({k: float(v) for k, v in averages.items()})}
        record["learning_rate"] = rates_at(self._rates, step - 1)
        if self.model.out_of_range:
            record["out_of_range"] = self.model.out_of_range
        self._center()
        if self._manifest.eval:
            record["eval"] = self.evaluate()
            found = quality(self.config.train.monitor, self.model.label_tasks.first, record["eval"])
            cut = state.evaluated(step, found)
        if self.distribution.is_chief:
            self.records.append(record)
        path = self.save(best=not self._manifest.eval or int(state.best_step.numpy()) == step)
        self._progress.round(record, rates_at(self._rates, step) if cut else {})
        if self._reason_to_stop():
            self.model.stop_training = True
        elif self.distribution.any_process(self._listener.received):
            self.checkpoints.wait()
            raise self._listener.interrupted(path)

    def _center(self) -> None:
        """Centers the predictions, if the run is to."""
        train = self.config.train
        if train.center_rows:
            try:
                center(self.model, self.data_dir, train.center_rows, train.eval_batch_size, train.seed)
            except NonFiniteError as e:
                raise self.non_finite(f"{e} {self.position}; nothing is saved") from e

    def evaluate(self) -> dict[str, float]:
        """Returns the metrics of the model on the evaluation set.

        Raises:
          NonFiniteError: a score is NaN or infinite.
          EvaluationFailed: the evaluation set cannot be read; the weights are saved.
        """
        try:
            return score_split(self.model, self.data_dir, self.config.train.eval_batch_size).metrics()
        except NonFiniteError as e:
            raise self.non_finite(f"{e} {self.position}; nothing is saved") from e
        except (tf.errors.UnavailableError, tf.errors.AbortedError):
            raise  # a server of a cluster is lost, and the rows on it
        except (ValueError, OSError, tf.errors.OpError) as e:
            path = self.save_and_wait()
            raise EvaluationFailed(
                f"the evaluation {self.position} failed, and the weights are saved in {path}: {cause(e)}. Once that is"
                f" mended, {RUN_AGAIN}, evaluates it and continues"
            ) from e
