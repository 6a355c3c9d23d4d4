"""Optimizers of embedding tables: they touch the rows a batch looked up, and their slots, and nothing else.

Gradients arrive with duplicates combined and rows ascending (`RowGradient`). In the formulas w is a row, g its
gradient of `dim` numbers, and operations are elementwise unless a mean is written.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tf_keras.optimizers.schedules import LearningRateSchedule

from tfrs_dlrm.embeddings.bags import RowGradient

Slots = Mapping[str, tf.Variable]


# What Keras optimizers derive from: checkpoints follow its attributes, while the weights of a model that holds one do
# not contain its variables, as they would with tf.Module.
class RowOptimizer(tf.__internal__.tracking.AutoTrackable, abc.ABC):
    """What all row optimizers share.

    Checkpoints know the slots as `slots/<name of the table>/<name of the slot>`.

    Args:
      learning_rate: a number, or a schedule that is evaluated at `iterations`.
      l2: adds l2 / 2 times the mean over the examples of a batch of the squared norms of the rows they look up to the
        loss that is minimised: to the gradient of a row that n of B examples look up, l2 * w * n / B. It does not
        show in the reported loss. In the values of a multi-valued feature each value counts, whatever its weight.

    Raises:
      ValueError: one of them is negative.
    """

    def __init__(self, learning_rate: float | LearningRateSchedule, l2: float = 0.0) -> None:
        if not isinstance(learning_rate, LearningRateSchedule) and learning_rate < 0:
            raise ValueError(f"learning_rate={learning_rate} is negative")
        if l2 < 0:
            raise ValueError(f"l2={l2} is negative")
        self.learning_rate = learning_rate
        self.l2 = l2
        self.iterations: Any = None  # a tf.Variable int64, once built
        self.slots: dict[str, Slots] = {}

    def build(self, tables: Mapping[str, tf.Variable]) -> None:
        """Creates the slots, all of them at once and outside of any traced function. A second call changes nothing.

        Raises:
          ValueError: the slots were made for other tables.
        """
        if self.iterations is None:
            self.iterations = tf.Variable(0, dtype=tf.int64, trainable=False, name="iterations")
            self.slots = {
                name: {
                    slot: tf.Variable(value, trainable=False, name=f"{name}/{slot}")
                    for slot, value in self._initial_slots(table).items()
                }
                for name, table in tables.items()
            }
            self._built_for = _shapes(tables)
        if self._built_for != _shapes(tables):
            raise ValueError(f"{type(self).__name__} holds the slots of other tables; give each model one of its own")

    def apply_gradients(self, tables: Mapping[str, tf.Variable], gradients: Mapping[str, RowGradient]) -> None:
        """One step on each table that has a gradient.

        Raises:
          ValueError: `build` was not called.
        """
        if self.iterations is None:
            raise ValueError(f"{type(self).__name__} has no slots; call build(tables) before the first step")
        rate = self.learning_rate
        if isinstance(rate, LearningRateSchedule):
            rate = rate(self.iterations)
        rate = tf.cast(rate, tf.float32)
        for name, (rows, values, frequency) in gradients.items():
            table = tables[name]
            if self.l2:
                values += self.l2 * frequency[:, tf.newaxis] * tf.gather(table, rows)
            self._step(table, self.slots[name], tf.IndexedSlices(values, rows), rate)
        self.iterations.assign_add(1)

    @abc.abstractmethod
    def _initial_slots(self, table: tf.Variable) -> dict[str, tf.Tensor]:
        """The slots of a table by name, as they begin."""

    @abc.abstractmethod
    def _step(self, table: tf.Variable, slots: Slots, gradient: tf.IndexedSlices, rate: tf.Tensor) -> None:
        """One step; the rows of `gradient` ascend, each once."""

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        rate = self.learning_rate
        if isinstance(rate, LearningRateSchedule):
            rate = keras.optimizers.schedules.serialize(rate)
        return {"learning_rate": rate, "l2": self.l2}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RowOptimizer:
        """Reads `get_config`."""
        rate = config["learning_rate"]
        if isinstance(rate, dict):
            rate = keras.optimizers.schedules.deserialize(rate)
        return cls(**(config | {"learning_rate": rate}))


def _shapes(tables: Mapping[str, tf.Variable]) -> frozenset[tuple[str, tuple[int, ...]]]:
    return frozenset((name, tuple(table.shape)) for name, table in tables.items())


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class SGD(RowOptimizer):
    """w -= rate * g. The default rate is that of `keras.optimizers.SGD`."""

    def __init__(self, learning_rate: float | LearningRateSchedule = 0.01, l2: float = 0.0) -> None:
        super().__init__(learning_rate, l2)

    def _initial_slots(self, table: tf.Variable) -> dict[str, tf.Tensor]:
        del table
        return {}

    def _step(self, table: tf.Variable, slots: Slots, gradient: tf.IndexedSlices, rate: tf.Tensor) -> None:
        del slots
        table.scatter_sub(tf.IndexedSlices(rate * gradient.values, gradient.indices))


class _Accumulating(RowOptimizer):
    """The arguments that `Adagrad` and `RowWiseAdagrad` share.

    Formula and defaults are those of `torch.optim.Adagrad` and of FBGEMM, and not of `keras.optimizers.Adagrad`: the
    loss is a mean over the batch, so the squared gradient of a row is often below 1e-6, and beside an accumulator that
    starts at Keras' 0.1 rows hardly learn.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        initial_accumulator: float = 0.0,
        epsilon: float = 1e-10,
        l2: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, l2)
        if initial_accumulator < 0 or epsilon <= 0:
            raise ValueError(
                f"initial_accumulator={initial_accumulator}, epsilon={epsilon}; the first must not be negative, the"
                " second positive"
            )
        self.initial_accumulator = initial_accumulator
        self.epsilon = epsilon

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"initial_accumulator": self.initial_accumulator, "epsilon": self.epsilon}


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class Adagrad(_Accumulating):
    """a += g^2; w -= rate * g / (sqrt(a) + epsilon). Its slot is as large as the table.

    Duchi et al. 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization".
    """

    def _initial_slots(self, table: tf.Variable) -> dict[str, tf.Tensor]:
        return {"accumulator": tf.fill(table.shape, self.initial_accumulator)}

    def _step(self, table: tf.Variable, slots: Slots, gradient: tf.IndexedSlices, rate: tf.Tensor) -> None:
        g, rows = gradient.values, gradient.indices
        slots["accumulator"].scatter_add(tf.IndexedSlices(g**2, rows))
        scale = rate / (tf.sqrt(tf.gather(slots["accumulator"], rows)) + self.epsilon)
        table.scatter_sub(tf.IndexedSlices(scale * g, rows))


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class RowWiseAdagrad(_Accumulating):
    """a += mean(g^2); w -= rate * g / (sqrt(a) + epsilon), with one accumulator for each row.

    Adagrad with a slot that is smaller by the factor `dim`: facebookresearch/dlrm, `optim/rwsadagrad.py`; FBGEMM,
    `EXACT_ROWWISE_ADAGRAD`.
    """

    def _initial_slots(self, table: tf.Variable) -> dict[str, tf.Tensor]:
        return {"accumulator": tf.fill(table.shape[:1], self.initial_accumulator)}

    def _step(self, table: tf.Variable, slots: Slots, gradient: tf.IndexedSlices, rate: tf.Tensor) -> None:
        g, rows = gradient.values, gradient.indices
        slots["accumulator"].scatter_add(tf.IndexedSlices(tf.reduce_mean(g**2, axis=1), rows))
        scale = rate / (tf.sqrt(tf.gather(slots["accumulator"], rows)) + self.epsilon)
        table.scatter_sub(tf.IndexedSlices(scale[:, tf.newaxis] * g, rows))


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class LazyAdam(RowOptimizer):
    """Adam on the rows of the batch; the moments of all others rest, where Adam would let them decay.

    m = beta_1 m + (1 - beta_1) g; v = beta_2 v + (1 - beta_2) g^2;
    w -= rate * sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)

    with t the number of steps of the optimizer (not of the row), as in `tfa.optimizers.LazyAdam`. Formula and defaults
    are those of `keras.optimizers.Adam`. Its two slots are as large as the table.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        l2: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, l2)
        if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1):
            raise ValueError(f"beta_1={beta_1}, beta_2={beta_2}; each must be at least 0 and below 1")
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def _initial_slots(self, table: tf.Variable) -> dict[str, tf.Tensor]:
        return {"m": tf.zeros(table.shape), "v": tf.zeros(table.shape)}

    def _step(self, table: tf.Variable, slots: Slots, gradient: tf.IndexedSlices, rate: tf.Tensor) -> None:
        rows, g = gradient.indices, gradient.values
        m = self.beta_1 * tf.gather(slots["m"], rows) + (1 - self.beta_1) * g
        v = self.beta_2 * tf.gather(slots["v"], rows) + (1 - self.beta_2) * g**2
        slots["m"].scatter_update(tf.IndexedSlices(m, rows))
        slots["v"].scatter_update(tf.IndexedSlices(v, rows))
        t = tf.cast(self.iterations + 1, tf.float32)
        correction = tf.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        table.scatter_sub(tf.IndexedSlices(rate * correction * m / (tf.sqrt(v) + self.epsilon), rows))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
