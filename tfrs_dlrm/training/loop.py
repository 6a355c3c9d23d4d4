"""A whole run: data, model, training with evaluations and checkpoints."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.on_demand import ensure_prepared
from tfrs_dlrm.data.reading.service.input_service import InputService
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import Progress, local_copy
from tfrs_dlrm.stores.files import disk_full, write_json
from tfrs_dlrm.training.asynchronous import Workers, server_lost
from tfrs_dlrm.training.callbacks import (
    Interrupted,
    ProgressBar,
    StepCounter,
    StopOnNonFiniteLoss,
    StopOnSignal,
    TensorBoard,
)
from tfrs_dlrm.training.evaluation import NonFiniteError, score
from tfrs_dlrm.training.factory import learning_rates, make_model, make_optimizers, precision, tables_for
from tfrs_dlrm.training.finite import not_finite
from tfrs_dlrm.training.inputs import (
    distributed_dataset,
    epoch_steps,
    evaluation_dataset,
    input_service,
    worker_dataset,
)
from tfrs_dlrm.training.records import Records
from tfrs_dlrm.training.state import RunState, quality
from tfrs_dlrm.training.warm_start import warm_start
from tfrs_dlrm.training.workdir import CONFIG_FILE, METRICS_FILE, Workdir

RESULT_FILE = "result.json"


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
      step: the last step.
      reason: why it ended there, in words.
      best_step: the step of the best evaluation; 0 without an evaluation set.
      best: the metrics of that evaluation.
    """

    step: int
    reason: str
    best_step: int
    best: dict[str, float]


def train_and_evaluate(
    config: RunConfig,
    workdir: str,
    strategy: tf.distribute.Strategy | None = None,
    prepare_progress: Progress | None = None,
    show_progress: bool = False,
) -> Result:
    """Trains as `config` says, in `workdir`; goes on where a run in there ended.

    Args:
      config: the run.
      workdir: see `tfrs_dlrm.training.workdir`.
      strategy: where to compute; by default the strategy in scope.
      prepare_progress: is told how far the preparation of raw data is, where there is any.
      show_progress: draws a progress bar on standard error.

    Raises:
      ValueError: the configuration, the data or the run in `workdir` do not fit together.
      NonFiniteError: the loss or a score became NaN or infinite; the last good checkpoint is as it was.
      Interrupted: after SIGTERM, with a checkpoint written.
      ServerLost: a parameter server does not answer; called again once it is back, this goes on from the last
        checkpoint.
      ConnectionError: the input service of `config.data.service` does not answer.
      OSError: the disk is full; a `StoreError` where an object store cannot be reached or refuses.
    """
    config.check()
    if config.data.source:
        raise ValueError("config.data.source: tfrs_dlrm.streaming.loop.train_on_stream trains on a stream")
    strategy = strategy or tf.distribute.get_strategy()
    distribution = distribution_of(strategy)
    again = "run the same command again once there is room, and it goes on from the last checkpoint"
    with precision(config.train.precision), strategy.scope(), server_lost(), disk_full(f"{workdir}: {again}"):
        service = input_service(config.data.service)
        # Of several processes that run this, one writes, and the others see what it wrote.
        if distribution.is_chief:
            ensure_prepared(config.data, config.train.seed, prepare_progress)
        distribution.wait_for_all()
        data_dir = local_copy(config.data.path)
        schema = Schema.load(os.path.join(data_dir, SCHEMA_FILE))
        for name in ("target_auc", "monitor") if schema.label.task != "classification" else ():
            if getattr(config.train, name):
                raise ValueError(
                    f"config.train.{name}={getattr(config.train, name)}: the label of {config.data.path} is a number to"
                    " predict, which has no AUC and no log loss; leave it out, and use train.patience to stop early"
                )
        model = make_model(config.model, schema, config.train.seed, tables_for(config))
        state = RunState(config.optimizer)
        dense, embedding = make_optimizers(config.optimizer, state.rate_factor)
        model.compile(dense, embedding, steps_per_execution=config.train.steps_per_execution)
        home = Workdir(workdir)
        try:
            if distribution.is_chief:
                home.begin(config, data_dir)
            distribution.wait_for_all()
            if not distribution.is_chief:
                home.pull()
            if distribution.any_process(not os.path.isfile(home.file(CONFIG_FILE))):
                raise ValueError(
                    f"{workdir}: not every process sees what the first one wrote there; it has to be shared"
                )
            progress = show_progress and distribution.is_chief
            return _Run(config, data_dir, home, model, state, progress, service).run()
        finally:
            home.end()


class _Run:
    """One call of `train_and_evaluate`, once there is a model."""

    def __init__(
        self,
        config: RunConfig,
        data_dir: str,
        home: Workdir,
        model: RankingModel,
        state: RunState,
        show_progress: bool,
        service: InputService | None,
    ):
        self._config, self._home, self._data_dir, self._model = config.train, home, data_dir, model
        self._data_path = config.data.path  # as input workers of other machines know it
        self._shuffle_rows, self._show_progress = config.data.shuffle_rows, show_progress
        self._service = service
        self._distribution = distribution_of(model.distribute_strategy)
        self._writes = self._distribution.is_chief
        self._has_eval = bool(PreparedManifest.load(self._data_dir).eval)
        if not self._has_eval:
            _refuse_without_evaluation(config)
        epoch = epoch_steps(self._data_dir, self._config.batch_size)
        self._total = self._config.steps or max(1, round(self._config.epochs * epoch))
        self._round = self._config.eval_every_steps or epoch
        self._state = state
        self._rates = learning_rates(config.optimizer, state.rate_factor)
        # The metrics go with the weights, so that a run stopped between two evaluations goes on with the same averages.
        beside = {"state": self._state, "metrics": model.metrics}
        keep, asynchronous = self._config.keep_checkpoints, self._config.async_checkpoints
        self._checkpoints = home.checkpoints(model, keep, beside, asynchronous)
        self._records = Records(home.file(METRICS_FILE))
        self._last_checkpoint: str | None = None
        self._bar: ProgressBar | None = None
        self._board: TensorBoard | None = None
        self._workers: Workers | None = None

    def run(self) -> Result:
        """Trains to the end."""
        self._last_checkpoint = self._checkpoints.restore()
        begun = [f"going on from {self._last_checkpoint}"] if self._last_checkpoint else self._warm_start()
        self._counter = StepCounter(int(self._state.step.numpy()))
        if self._writes:
            self._records.forget_after(self._counter.step)
        if self._show_progress:
            self._bar = ProgressBar(self._counter, self._total, self._config.batch_size)
        if self._config.tensorboard and self._writes:
            self._board = TensorBoard(self._home.file("tensorboard"), self._counter)
        for line in [*begun, *self._prepared_out_of_range()]:
            self._say(line)
        anywhere = self._distribution.any_process if self._distribution.several_processes else None
        listener = StopOnSignal(self._counter, self._ends_round, self._save_and_wait, anywhere)
        try:
            with listener, self._checkpoints:
                while self._goes_on():
                    self._fit(listener)
        finally:
            if self._bar:
                self._bar.close()
            if self._board:
                self._board.close()
        reason = self._why_stop() or f"all {self._total} steps are done"
        best_step = int(self._state.best_step.numpy())
        best: dict[str, float] = next((r["eval"] for r in self._records if r["step"] == best_step), {})
        result = Result(self._counter.step, reason, best_step, best)
        if self._writes:
            write_json(self._home.file(RESULT_FILE), dataclasses.asdict(result))
            self._home.push()
        return result

    def _fit(self, listener: StopOnSignal) -> None:
        """One call of `fit`: as many rounds, from evaluation to evaluation, as have the same number of steps.

        A first round that begins at a checkpoint in its middle is shorter, and so may be the last.
        """
        step, counter = self._counter.step, self._counter
        begun = step % self._round
        steps = min(self._round - begun, self._total - step)
        rounds = 1 if begun else max(1, (self._total - step) // self._round)
        averages = [m.get_weights() for m in self._model.metrics] if begun else None
        rounds_begin_and_end = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: self._restore_averages(averages),
            on_epoch_end=lambda epoch, logs: self._end_round(logs, listener),
        )
        watch = StopOnNonFiniteLoss(counter, lambda: self._last_checkpoint)
        shown = [c for c in (self._bar, self._board) if c]
        callbacks = [counter, watch, *shown]
        if self._distribution.asynchronous:
            self._fit_on_workers(steps, callbacks, listener)
            return
        data = distributed_dataset(
            self._data_path if self._service else self._data_dir,
            self._config.batch_size,
            seed=self._config.seed,
            start_step=step,
            repeat=True,
            shuffle_rows=self._shuffle_rows,
            tables=self._model.embeddings,
            service=self._service,
        )
        callbacks += [rounds_begin_and_end, listener]
        self._model.fit(data, steps_per_epoch=steps, epochs=rounds, callbacks=callbacks, verbose=0)

    def _fit_on_workers(self, steps: int, callbacks: list[keras.callbacks.Callback], listener: StopOnSignal) -> None:
        """A round on a parameter-server cluster; one that begins in its middle reports the averages of its rest."""
        if self._workers is None:
            read = worker_dataset(self._data_dir, self._config.batch_size, "train", self._shuffle_rows)
            self._workers = Workers(self._model, read, self._config.steps_per_execution)
        averages = self._workers.fit(steps, [*callbacks, listener], lambda: listener.received)
        if averages is None:  # told to stop before anything was done
            raise Interrupted(self._counter.step, self._save_and_wait())
        self._end_round(averages, listener)

    def _restore_averages(self, averages: list[list[np.ndarray]] | None) -> None:
        """Undoes the reset of the metrics at the begin of an epoch that is the rest of a round."""
        for metric, values in zip(self._model.metrics, averages or [], strict=False):
            metric.set_weights(values)

    def _end_round(self, averages: dict[str, float], listener: StopOnSignal) -> None:
        """Evaluates, writes a checkpoint, and decides whether to go on."""
        step, state, cut = self._counter.step, self._state, False
        self._check_finite()
        record: dict[str, Any] = {"step": step, "train": {k: float(v) for k, v in averages.items()}}
        record["learning_rate"] = self._rates_of(step - 1)
        if self._model.out_of_range:
            record["out_of_range"] = self._model.out_of_range
        if self._has_eval:
            record["eval"] = self._evaluate()
            cut = state.evaluated(step, quality(self._config.monitor, self._model.label_tasks.first, record["eval"]))
        if self._writes:
            self._records.append(record)
        path = self._save(best=int(state.best_step.numpy()) == step or not self._has_eval)
        self._show(record)
        if cut:
            rates = ", ".join(f"{name} {rate:.3g}" for name, rate in self._rates_of(step).items())
            self._say(f"not better: learning rates from now on: {rates}")
        if not self._goes_on():
            self._model.stop_training = True
        elif self._distribution.any_process(listener.received):
            self._checkpoints.wait()
            raise Interrupted(step, path)

    def _rates_of(self, step: int) -> dict[str, float]:
        """The learning rates of a step, counted from 0, as plateaus have made them by now."""
        return {name: float(rate(step) if callable(rate) else rate) for name, rate in self._rates.items()}

    def _evaluate(self) -> dict[str, float]:
        data = evaluation_dataset(self._data_dir, self._config.eval_batch_size)
        try:
            metrics = score(self._model, data).metrics()
        except NonFiniteError as e:
            raise self._non_finite(str(e)) from e
        if math.isnan(metrics.get("auc", 0.0)):
            raise ValueError(
                f"{self._data_dir}: all labels of the evaluation set are {metrics['label_mean']:g}, so there is no AUC"
                " to choose the best checkpoint by; prepare it with more evaluation rows"
            )
        return metrics

    def _goes_on(self) -> bool:
        return self._counter.step < self._total and not self._why_stop()

    def _ends_round(self) -> bool:
        return self._counter.step % self._round == 0 or self._counter.step >= self._total

    def _why_stop(self) -> str:
        config, state = self._config, self._state
        if config.target_auc and float(state.best_auc.numpy()) >= config.target_auc:
            return f"the evaluation AUC reached the target {config.target_auc:g}"
        if config.patience and int(state.evaluations_since_best.numpy()) >= config.patience:
            best = self._config.monitor.replace("_", " ") or self._model.label_tasks.first.best.upper()
            return f"the evaluation {best} did not improve in {config.patience} evaluations"
        return ""

    def _save(self, best: bool = False) -> str:
        self._state.step.assign(self._counter.step)
        self._last_checkpoint = self._checkpoints.save(self._counter.step, best)
        return self._last_checkpoint

    def _save_and_wait(self) -> str:
        self._check_finite()
        path = self._save()
        self._checkpoints.wait()
        return path

    def _check_finite(self) -> None:
        what = not_finite(self._model)
        if what:
            raise self._non_finite(what)

    def _non_finite(self, what: str) -> NonFiniteError:
        good = self._last_checkpoint or "none"
        return NonFiniteError(
            f"{what} at step {self._counter.step}; nothing is saved. The last good checkpoint is {good}"
        )

    def _show(self, record: dict[str, Any]) -> None:
        line = f"step {record['step']}"
        for split in ("train", "eval"):
            values = record.get(split, {})
            names = [n for n in self._model.label_tasks.shown if n in values]
            line += "".join(f"  {split if n == names[0] else ''} {n} {values[n]:.4f}" for n in names)
            if self._board:
                self._board.write("epoch" if split == "train" else split, values)
        if self._board:
            self._board.write("learning_rate", record["learning_rate"])
        if record.get("out_of_range"):
            counts = ", ".join(f"{name} {count:,}" for name, count in record["out_of_range"].items())
            line += f"  ids out of range: {counts}"
        self._say(line)

    def _say(self, line: str) -> None:
        self._bar.write(line) if self._bar else logging.info("%s", line)

    def _warm_start(self) -> list[str]:
        """Takes over the weights of another run where the configuration names one; returns what to say of it."""
        if not self._config.warm_start:
            return []
        return warm_start(self._model, self._data_dir, self._config.warm_start).lines()

    def _prepared_out_of_range(self) -> list[str]:
        """What to say of the values that have no row of their own in the prepared data."""
        counts = {name: n for name, n in PreparedManifest.load(self._data_dir).out_of_range.items() if n}
        shown = sorted(counts.items(), key=lambda item: -item[1])[:5]
        texts = [f"{name} {count:,}" for name, count in shown] + (["..."] if len(counts) > len(shown) else [])
        return [f"values without a row of their own in {self._data_dir}: {', '.join(texts)}"] if texts else []


def _refuse_without_evaluation(config: RunConfig) -> None:
    """Refuses settings that would silently do nothing where there is nothing to evaluate on."""
    usual = RunConfig()
    for section, name in (
        *(("train", name) for name in ("target_auc", "patience", "monitor")),
        ("optimizer", "plateau_factor"),
    ):
        value = getattr(getattr(config, section), name)
        if value != getattr(getattr(usual, section), name):
            raise ValueError(
                f"config.{section}.{name}={value!r}: {config.data.path} has no evaluation set to go by; prepare it with"
                " --eval_fraction or --eval_input, or leave this out"
            )
