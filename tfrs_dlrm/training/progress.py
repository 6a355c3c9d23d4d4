"""Shows a run while it trains: a progress bar or log lines, and event files for TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras
import tqdm
from absl import logging

from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.metrics.defined import defined
from tfrs_dlrm.training.callbacks import StepCounter


class ProgressBar(keras.callbacks.Callback):
    """One line on the terminal: step, examples/s, time left, loss and AUC or RMSE since the last evaluation."""

    def __init__(self, counter: StepCounter, total_steps: int, batch_size: int):
        super().__init__()
        self._counter, self._batch_size = counter, batch_size
        self._bar = tqdm.tqdm(
            total=total_steps * batch_size,
            initial=counter.step * batch_size,
            desc="train",
            unit=" examples",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=0.5,
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Moves the bar."""
        values = defined(logs or {})
        shown = {name: f"{value:.4f}" for name, value in values.items() if name in ("loss", "auc", "rmse")}
        self._bar.set_postfix({"step": self._counter.step, **shown}, refresh=False)
        self._bar.update(self._counter.step * self._batch_size - self._bar.n)

    def write(self, line: str) -> None:
        """Prints a line above the bar."""
        self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Leaves the line as it is."""
        self._bar.close()


class TensorBoard(keras.callbacks.Callback):
    """Event files: the training metrics every `EVERY` steps, and the values of `write`."""

    EVERY = 50

    def __init__(self, directory: str, counter: StepCounter):
        super().__init__()
        self._writer = tf.summary.create_file_writer(directory)
        self._counter, self._written = counter, counter.step

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Writes now and then."""
        if self._counter.step - self._written >= self.EVERY:
            self._written = self._counter.step
            self.write("train", logs or {})

    def write(self, prefix: str, values: Mapping[str, float]) -> None:
        """Writes PREFIX/NAME at the current step."""
        with self._writer.as_default(step=self._counter.step):
            for name, value in defined(values).items():
                tf.summary.scalar(f"{prefix}/{name}", value)

    def close(self) -> None:
        """Writes the last events."""
        self._writer.close()


class TrainingProgress:
    """Shows the rounds of a run.

    Args:
      counter: the step.
      bar: draws one line on standard error; None logs lines instead.
      tensorboard: the directory of event files; empty for none.
      metrics: the names of the metrics in a line.
    """

    def __init__(self, counter: StepCounter, bar: ProgressBar | None, tensorboard: str, metrics: Sequence[str]):
        self._bar, self._metrics = bar, metrics
        self._board = TensorBoard(tensorboard, counter) if tensorboard else None

    @property
    def callbacks(self) -> list[keras.callbacks.Callback]:
        """The callbacks for `model.fit`."""
        return [c for c in (self._bar, self._board) if c]

    def say(self, line: str) -> None:
        """Prints a line above the bar, or logs it."""
        self._bar.write(line) if self._bar else logging.info("%s", line)

    def round(self, record: Mapping[str, Any], lowered: Mapping[str, float]) -> None:
        """Shows a round by its line in metrics.jsonl, and the learning rates if the round has lowered them."""
        line = f"step {record['step']}"
        for split in ("train", "eval"):
            values = record.get(split, {})
            names = [n for n in self._metrics if n in values]
            line += "".join(f"  {split if n == names[0] else ''} {n} {values[n]:.4f}" for n in names)
            if self._board:
                self._board.write("epoch" if split == "train" else split, values)
        if self._board:
            self._board.write("learning_rate", record["learning_rate"])
        if record.get("out_of_range"):
            counts = ", ".join(f"{name} {count:,}" for name, count in record["out_of_range"].items())
            line += f"  ids out of range: {counts}"
        self.say(line)
        if lowered:
            rates = ", ".join(f"{name} {rate:.3g}" for name, rate in lowered.items())
            self.say(f"not better: learning rates from now on: {rates}")

    def close(self) -> None:
        """Leaves the bar as it is, and writes the last events."""
        for shown in (self._bar, self._board):
            if shown:
                shown.close()


def out_of_range_lines(data_dir: str, manifest: PreparedManifest) -> list[str]:
    """Says how many values of the prepared data have no row in their tables; empty if all have one."""
    counts = {name: n for name, n in manifest.out_of_range.items() if n}
    shown = sorted(counts.items(), key=lambda item: -item[1])[:5]
    texts = [f"{name} {count:,}" for name, count in shown] + (["..."] if len(counts) > len(shown) else [])
    return [f"values without a table row in {data_dir}: {', '.join(texts)}"] if texts else []
