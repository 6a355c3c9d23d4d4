"""The base class of row optimizers, which update only the rows that a batch looked up, and the slots of these rows.

Each optimizer in `optimizers` is a formula on rows (`row_step`); the base class reads, rounds and writes rows.
"""

from __future__ import annotations

import abc
import math
import numbers
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras.optimizers.schedules import LearningRateSchedule

from tfrs_dlrm.embeddings.gradients import RowGradient
from tfrs_dlrm.embeddings.row_access import add_to_rows, read_rows, write_rows
from tfrs_dlrm.embeddings.storage import TableVariable
from tfrs_dlrm.embeddings.variables import make_slot
from tfrs_dlrm.layers.hashing import derive_seed

Rate: TypeAlias = float | LearningRateSchedule
Slots = dict[str, tf.Tensor]


class Slot(NamedTuple):
    """A slot variable: its initial value, and whether it has one number per row or one per number of the row."""

    initial: float
    per_row: bool = False


# AutoTrackable, as Keras optimizers: checkpoints follow its attributes. Unlike those of a tf.Module, its variables are
# no weights of a model that holds it.
class RowOptimizer(tf.__internal__.tracking.AutoTrackable, abc.ABC):
    """Base class of row optimizers.

    Checkpoints name the slots `slots/<table>/<slot>`. Slots are float32, also those of bfloat16 tables.

    A learning rate that is a number may be set at any time: `optimizer.learning_rate = 0.01`. After `follow`, it also
    changes by the same factor as the rate of a Keras optimizer. Two variables, both saved in checkpoints, hold it:
    `rate`, the number that was set, and `followed_rate`, the rate of the Keras optimizer at that time, 0 if there is
    none. A step has the rate `rate * (present rate of the Keras optimizer / followed_rate)`.

    Args:
      learning_rate: a number, or a schedule of `iterations`.
      l2: adds l2 / 2 times the batch mean of the squared norms of the looked-up rows to the minimised loss: l2 * w * n
        / B to the gradient of a row that n of B examples look up. The reported loss leaves it out. Each value of a
        multi-valued feature counts, whatever its weight.
      weight_decay: each step subtracts rate * weight_decay * w from the rows of the batch, once per row and without
        the slots (Loshchilov and Hutter 2019, arXiv 1711.05101, on touched rows only).

    Raises:
      ValueError: an argument is negative.
    """

    def __init__(self, learning_rate: Rate, l2: float = 0.0, weight_decay: float = 0.0) -> None:
        named = {"l2": l2, "weight_decay": weight_decay}
        if not isinstance(learning_rate, LearningRateSchedule):
            named["learning_rate"] = learning_rate
        for name, value in named.items():
            _check_rate(name, value)
        self._given_rate = learning_rate
        self.l2 = l2
        self.weight_decay = weight_decay
        # Variables, once built; the rates only if the learning rate is a number.
        self.iterations: Any = None
        self.rate: Any = None
        self.followed_rate: Any = None
        self.slots: dict[str, dict[str, TableVariable]] = {}
        # In plain objects, which no checkpoint follows.
        self._built_for = types.SimpleNamespace(tables={})
        self._follows = types.SimpleNamespace(rate=None)

    @property
    def learning_rate(self) -> Rate:
        """The present learning rate, a number; or the schedule.

        Setting a number takes effect at the next step, without a new trace.

        Raises:
          ValueError: when set to what is no number of at least 0.
          TypeError: when set while it is a schedule.
        """
        if self.rate is None:
            return self._given_rate
        present = float(self.rate_at(tf.constant(0)))
        return self._given_rate if np.float32(self._given_rate) == present else present

    @learning_rate.setter
    def learning_rate(self, rate: Rate) -> None:
        if isinstance(self._given_rate, LearningRateSchedule) or isinstance(rate, LearningRateSchedule):
            raise TypeError(
                f"{type(self).__name__}: a schedule cannot be set or replaced; give the rate or the schedule to the"
                " constructor of a new optimizer, and compile the model with it"
            )
        _check_rate("learning_rate", rate)
        self._set_rate(rate)

    @property
    def rules(self) -> Sequence[RowOptimizer]:
        """The optimizers whose formulas the tables follow."""
        return [self]

    def follow(self, optimizer: Any) -> None:
        """Makes learning rates change by the same factor as the rate of a Keras optimizer. Schedules do not change.

        The present rate stays as it is. A Keras optimizer with a schedule is not followed.

        Args:
          optimizer: of the dense weights.
        """
        followed = getattr(optimizer, "learning_rate", None)
        if isinstance(getattr(optimizer, "_learning_rate", None), LearningRateSchedule):
            followed = None  # a variable that repeats the schedule
        for rule in self.rules:
            present = rule.learning_rate
            rule._follows.rate = followed if isinstance(followed, tf.Variable) else None
            if not isinstance(present, LearningRateSchedule):
                rule._set_rate(present)

    def rate_at(self, iterations: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate of a step, a float32 scalar.

        Args:
          iterations: the number of steps before, an integer scalar.
        """
        if isinstance(self._given_rate, LearningRateSchedule):
            return tf.cast(self._given_rate(iterations), tf.float32)
        if self.rate is None:
            return tf.constant(self._given_rate, tf.float32)
        rate = tf.convert_to_tensor(self.rate)
        if self._follows.rate is None:
            return rate
        before, now = tf.convert_to_tensor(self.followed_rate), tf.cast(self._follows.rate, tf.float32)
        return rate * tf.where(before > 0.0, now / before, 1.0)

    def build(self, tables: Mapping[str, TableVariable], elsewhere: Collection[str] = ()) -> None:
        """Creates all slots; call it outside of traced functions. A second call changes nothing.

        Args:
          tables: the tables that this optimizer updates, by name.
          elsewhere: the names of tables whose rows and slots other hardware updates.

        Raises:
          ValueError: the slots belong to other tables.
        """
        del elsewhere
        if self.iterations is None:
            self.iterations = _scalar(0, tf.int64, "iterations")
            for rule in self.rules:
                rule._make_rates()
            self.slots = {
                name: {
                    slot: make_slot(table, f"{name}/{slot}", initial, per_row)
                    for slot, (initial, per_row) in self.rule(name).slot_types().items()
                }
                for name, table in tables.items()
            }
            self._built_for.tables = dict(tables)
        built = self._built_for.tables
        if built.keys() != tables.keys() or any(built[name] is not table for name, table in tables.items()):
            raise ValueError(f"{type(self).__name__} has slots of other tables; make a new optimizer for each model")

    def rule(self, name: str) -> RowOptimizer:
        """Returns the optimizer whose formula a table follows."""
        del name
        return self

    @abc.abstractmethod
    def slot_types(self) -> dict[str, Slot]:
        """Returns the slots by name."""

    @abc.abstractmethod
    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """Returns the new values and slots of k rows.

        Args:
          w: float32 [k, dim].
          g: float32 [k, dim].
          slots: float32 [k, dim], or [k] for slots per row.
          rate: float32 scalar.
          step: float32 scalar, the number of this step, from 1.
        """

    def step(
        self,
        name: str,
        table: tf.Variable,
        slots: Mapping[str, tf.Variable],
        gradient: RowGradient,
        others_write: bool = False,
        salt: int = 0,
    ) -> None:
        """Takes a step on a table, or on a shard or copy of it. The caller increments `iterations`.

        Args:
          name: the name of the table.
          table: [rows, dim].
          slots: the slots of these rows.
          gradient: the gradient of these rows.
          others_write: whether other workers update the same rows at the same time.
          salt: makes the stochastic rounding of each shard different.
        """
        rule = self.rule(name)
        iterations = tf.convert_to_tensor(self.iterations)
        rate, step = rule.rate_at(iterations), tf.cast(iterations + 1, tf.float32)
        key = derive_seed(salt, name)

        def write(variable: tf.Variable, rows: Any, old: tf.Tensor, new: tf.Tensor, seed: Any = None) -> None:
            if others_write:
                add_to_rows(variable, rows, old, new, seed)
            else:
                write_rows(variable, rows, new, seed)

        def apply(rows: Any, g: tf.Tensor, frequency: Callable[[], tf.Tensor], first: tf.Tensor) -> None:
            w = read_rows(table, rows)
            if rule.l2:
                g += rule.l2 * frequency()[:, tf.newaxis] * w
            old = {n: read_rows(v, rows) for n, v in slots.items()}
            new, new_slots = rule.row_step(w, g, old, rate, step)
            if rule.weight_decay:
                new -= rate * rule.weight_decay * w
            if rows is None:
                touched = frequency() > 0
                new = _where(touched, new, w)
                new_slots = {slot: _where(touched, values, old[slot]) for slot, values in new_slots.items()}
            write(table, rows, w, new, tf.stack([iterations, tf.cast(first, tf.int64) + key]))
            for slot, values in new_slots.items():
                write(slots[slot], rows, old[slot], values)

        gradient.visit(apply)

    def _set_rate(self, rate: float) -> None:
        self._given_rate = rate
        if self.rate is not None:
            self.rate.assign(rate)
            self.followed_rate.assign(0.0 if self._follows.rate is None else self._follows.rate)

    def _make_rates(self) -> None:
        if self.rate is None and not isinstance(self._given_rate, LearningRateSchedule):
            self.rate = _scalar(self._given_rate, tf.float32, "rate")
            self.followed_rate = _scalar(0.0, tf.float32, "followed_rate")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, with the present learning rate."""
        rate = self.learning_rate
        if isinstance(rate, LearningRateSchedule):
            rate = keras.optimizers.schedules.serialize(rate)
        return {"learning_rate": rate, "l2": self.l2, "weight_decay": self.weight_decay}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RowOptimizer:
        """Makes an optimizer from `get_config`."""
        rate = config["learning_rate"]
        if isinstance(rate, dict):
            rate = keras.optimizers.schedules.deserialize(rate)
        return cls(**(config | {"learning_rate": rate}))


def _check_rate(name: str, value: object) -> None:
    """Raises ValueError if a value is no number, NaN or negative."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or math.isnan(value):
        raise ValueError(f"{name}={value!r} is no number; a number of at least 0 is needed")
    if value < 0:
        raise ValueError(f"{name}={value} is negative")


def _scalar(initial: float, dtype: tf.DType, name: str) -> tf.Variable:
    only_first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(initial, dtype=dtype, trainable=False, name=name, aggregation=only_first)


def _where(rows: tf.Tensor, new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    """Returns `new`, [n, dim] or [n], in rows where bool [n] is true, and `old` in the others."""
    return tf.where(rows if new.shape.rank == 1 else rows[:, tf.newaxis], new, old)
