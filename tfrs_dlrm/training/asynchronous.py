"""Training on a parameter-server cluster: steps are handed out to workers, which do not wait for each other.

`model.fit` does so too, but it does not say how many steps are done while it hands them out.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.distribute.cluster import ServerLost
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.models.ranking import RankingModel

# Seconds between two looks at the progress of the workers.
_LOOK = 0.25


class Workers:
    """Hands out the steps of a run to workers.

    Args:
      model: compiled under a `ParameterServerStrategy`.
      dataset_fn: the batches of a worker, without end.
      steps_at_a_time: how many a worker takes before it asks for more.
    """

    def __init__(self, model: RankingModel, dataset_fn: Callable[[], tf.data.Dataset], steps_at_a_time: int) -> None:
        self._model = model
        strategy = model.distribute_strategy
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        self._data = iter(self._coordinator.create_per_worker_dataset(dataset_fn))
        self._at_a_time, self._workers = steps_at_a_time, distribution_of(strategy).topology.workers

        @tf.function
        def some_steps(batches: Any, count: tf.Tensor) -> None:
            for _ in tf.range(count):
                strategy.run(model.train_step, args=(next(batches),))

        self._some_steps = some_steps

    def fit(
        self, steps: int, callbacks: Sequence[keras.callbacks.Callback], stop: Callable[[], bool]
    ) -> dict[str, float] | None:
        """Trains `steps` steps, as `model.fit` with one epoch would; returns the metrics, or None after no step.

        Args:
          steps: over all workers.
          callbacks: are told the number of steps done, from time to time, and the metrics.
          stop: asked from time to time; if true, no more steps are handed out, and the callbacks are told once
            the running steps are done.
        """
        model, coordinator = self._model, self._coordinator
        model.reset_metrics()
        for callback in callbacks:
            callback.set_model(model)
            callback.on_epoch_begin(0)
        first, begun, last_look = int(model.embedding_optimizer.iterations.numpy()), time.monotonic(), 0.0
        handed_out = told = 0
        while True:
            stopping, idle = stop(), coordinator.done()
            # A worker that was lost may have done steps that are done again by another.
            done = handed_out if idle else min(handed_out, int(model.embedding_optimizer.iterations.numpy()) - first)
            ended = idle and (done >= steps or stopping)
            if done > told and (ended or (not stopping and time.monotonic() - last_look > _LOOK)):
                logs = {m.name: float(m.result()) for m in model.metrics}
                for callback in callbacks:
                    callback.on_train_batch_end(done - 1, logs)
                told, last_look = done, time.monotonic()
            if ended and not done:
                return None
            if ended:
                return {m.name: float(m.result()) for m in model.metrics}
            rate = done / (time.monotonic() - begun)
            ahead = max(2 * self._at_a_time * self._workers, round(2 * _LOOK * rate))
            while not stopping and handed_out < min(steps, done + ahead):
                count = min(self._at_a_time, steps - handed_out)
                coordinator.schedule(self._some_steps, args=(self._data, tf.constant(count)))
                handed_out += count
            time.sleep(0.01)


@contextlib.contextmanager
def server_lost() -> Iterator[None]:
    """Turns errors of parameter servers that do not answer into `ServerLost`.

    Raises:
      ServerLost: a parameter server does not answer.
    """
    try:
        yield
    except tf.errors.OpError as e:
        text = str(e)
        gone = isinstance(e, (tf.errors.UnavailableError, tf.errors.AbortedError)) or "unknown device" in text.lower()
        if not gone or "/job:ps" not in text:
            raise
        raise ServerLost(f"a parameter server was lost: {text.splitlines()[0][:300]}") from e
