"""Keras callbacks of a run: count steps, watch the loss, listen for SIGTERM and Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import tf_keras as keras

from tfrs_dlrm.training.evaluation import NonFiniteError


class Interrupted(Exception):
    """The run was asked to end and wrote a checkpoint.

    Args:
      step: the last one done.
      path: of the checkpoint.
      number: of the signal.
    """

    def __init__(self, step: int, path: str, number: int = signal.SIGTERM):
        super().__init__(f"stopped by a signal after step {step}; the checkpoint is {path}")
        self.step, self.path, self.number = step, path, number

    @property
    def exit_code(self) -> int:
        """The exit code of a process that ends so, as shells report it."""
        return 128 + self.number


class StepCounter(keras.callbacks.Callback):
    """Counts the steps of a run from `step` on, for the callbacks below."""

    def __init__(self, step: int = 0):
        super().__init__()
        self.step = step
        self._of_epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Steps are numbered from 0 again."""
        self._of_epoch = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """`batch` numbers the last step done; with `steps_per_execution` it moves by several."""
        self.step += batch + 1 - self._of_epoch
        self._of_epoch = batch + 1


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Ends a run whose loss is NaN or infinite, before it can write a checkpoint.

    Raises:
      NonFiniteError: naming the step and the last good checkpoint.
    """

    def __init__(self, counter: StepCounter, last_checkpoint: Callable[[], str | None]):
        super().__init__()
        self._counter, self._last_checkpoint = counter, last_checkpoint

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            good = self._last_checkpoint()
            raise NonFiniteError(
                f"the loss is {loss} at step {self._counter.step}; the run stops. The last good checkpoint is"
                f" {good or 'none'}. Lower the learning rates, add warmup steps, or look for extreme dense values"
            )


class EndRound(keras.callbacks.Callback):
    """Ends each round.

    Args:
      end: called with the averages of the metrics over the round.
      resumed: the metrics of a round that is resumed inside; they keep their present averages, which Keras resets.
    """

    def __init__(self, end: Callable[[dict[str, float]], None], resumed: Sequence[keras.metrics.Metric]):
        super().__init__()
        self._end, self._averages = end, [(metric, metric.get_weights()) for metric in resumed]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Restores the averages."""
        for metric, weights in self._averages:
            metric.set_weights(weights)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Ends the round."""
        self._end(logs or {})


class StopAtDeadline(keras.callbacks.Callback):
    """Ends a round, and so with an evaluation and a checkpoint, at the first step after a time has passed.

    Args:
      seconds: from now; infinity is never.
    """

    def __init__(self, seconds: float):
        super().__init__()
        self._end = time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        """Whether the time has passed."""
        return time.monotonic() >= self._end

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks at the clock."""
        if self.passed:
            self.model.stop_training = True


class StopOnSignal(keras.callbacks.Callback):
    """On SIGTERM or Ctrl-C ends the run at the next step, or at the evaluation if one follows the step.

    It listens inside `with`, in the main thread only. A second signal ends the run at once, without a checkpoint.

    Args:
      counter: the step.
      ends_round: whether an evaluation, with a checkpoint, follows the present step.
      save: writes a checkpoint and returns its path.
      anywhere: whether any of the processes that step together received it. All of them ask every `EVERY` steps, and
        stop together.

    Raises:
      Interrupted: once the checkpoint is written.
      KeyboardInterrupt: at a second signal.
    """

    EVERY = 50
    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(
        self,
        counter: StepCounter,
        ends_round: Callable[[], bool],
        save: Callable[[], str],
        anywhere: Callable[[bool], bool] | None = None,
    ):
        super().__init__()
        self._counter, self._ends_round, self._save, self._anywhere = counter, ends_round, save, anywhere
        self._asked = counter.step
        self.received = False
        self._number: int = signal.SIGTERM
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def interrupted(self, path: str) -> Interrupted:
        """The error of a run that was asked to end, and wrote the checkpoint at `path`."""
        return Interrupted(self._counter.step, path, self._number)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Ends the run if it was asked to."""
        if self._anywhere is None:
            asked = self.received
        elif self._counter.step // self.EVERY == self._asked // self.EVERY:
            return
        else:
            self._asked = self._counter.step
            asked = self._anywhere(self.received)
        if asked and not self._ends_round():
            raise self.interrupted(self._save())

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        if self.received:
            if callable(replaced := self._before[number]):
                replaced(number, frame)  # the program learns which signal ended it
            raise KeyboardInterrupt
        self.received = True
