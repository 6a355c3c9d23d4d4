"""Optimizers of embedding tables: they touch the rows a batch looked up, and their slots, and nothing else.

Each is a formula on rows (`row_step`); reading rows, writing them back, and rounding are shared. In the formulas w is a
row, g its gradient of `dim` numbers with duplicates combined, and operations are elementwise unless a mean is written.
"""

from __future__ import annotations

import abc
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf
import tf_keras as keras
from tf_keras.optimizers.schedules import LearningRateSchedule

from tfrs_dlrm.embeddings.gradients import RowGradient
from tfrs_dlrm.embeddings.variables import read_rows, write_rows
from tfrs_dlrm.seeds import derive_seed

Rate: TypeAlias = float | LearningRateSchedule
Slots = dict[str, tf.Tensor]


class Slot(NamedTuple):
    """What a rule remembers of each row: `initial`, once for each number of the row, or once for the row."""

    initial: float
    per_row: bool = False


# What Keras optimizers derive from: checkpoints follow its attributes, while the weights of a model that holds one do
# not contain its variables, as they would with tf.Module.
class RowOptimizer(tf.__internal__.tracking.AutoTrackable, abc.ABC):
    """What all row optimizers share.

    Checkpoints know the slots as `slots/<name of the table>/<name of the slot>`. Slots are float32 whatever the table.

    Args:
      learning_rate: a number, or a schedule that is evaluated at `iterations`. It is part of the traced train step, so
        it cannot be set later; use a schedule.
      l2: adds l2 / 2 times the mean over the examples of a batch of the squared norms of the rows they look up to the
        loss that is minimised: to the gradient of a row that n of B examples look up, l2 * w * n / B. It does not
        show in the reported loss. In the values of a multi-valued feature each value counts, whatever its weight.
      weight_decay: each step also takes rate * weight_decay * w off the rows of the batch (Loshchilov and Hutter 2019,
        arXiv 1711.05101, on touched rows only): it does not pass through the slots, and how often a row is in the batch
        does not matter.

    Raises:
      ValueError: one of them is negative.
    """

    def __init__(self, learning_rate: Rate, l2: float = 0.0, weight_decay: float = 0.0) -> None:
        named = {"l2": l2, "weight_decay": weight_decay}
        if not isinstance(learning_rate, LearningRateSchedule):
            named["learning_rate"] = learning_rate
        for name, value in named.items():
            if value < 0:
                raise ValueError(f"{name}={value} is negative")
        self._learning_rate = learning_rate
        self.l2 = l2
        self.weight_decay = weight_decay
        self.iterations: Any = None  # a tf.Variable int64, once built
        self.slots: dict[str, dict[str, tf.Variable]] = {}

    @property
    def learning_rate(self) -> Rate:
        """As given to the constructor."""
        return self._learning_rate

    def build(self, tables: Mapping[str, tf.Variable]) -> None:
        """Creates the slots, all of them at once and outside of any traced function. A second call changes nothing.

        Raises:
          ValueError: the slots were made for other tables.
        """
        if self.iterations is None:
            self.iterations = tf.Variable(0, dtype=tf.int64, trainable=False, name="iterations")
            self.slots = {
                name: {
                    slot: tf.Variable(
                        tf.fill(table.shape[:1] if per_row else table.shape, tf.constant(initial, tf.float32)),
                        trainable=False,
                        name=f"{name}/{slot}",
                    )
                    for slot, (initial, per_row) in self.rule(name).slot_types().items()
                }
                for name, table in tables.items()
            }
            # In a plain object, which no checkpoint follows.
            self._built_for = types.SimpleNamespace(tables=dict(tables))
        own = self._built_for.tables
        if own.keys() != tables.keys() or any(own[name] is not table for name, table in tables.items()):
            raise ValueError(f"{type(self).__name__} holds the slots of other tables; give each model one of its own")

    def apply_gradients(self, tables: Mapping[str, tf.Variable], gradients: Mapping[str, RowGradient]) -> None:
        """One step on each table that has a gradient.

        Raises:
          ValueError: `build` was not called.
        """
        if self.iterations is None:
            raise ValueError(f"{type(self).__name__} has no slots; call build(tables) before the first step")
        for name, gradient in gradients.items():
            self._apply(name, tables[name], gradient)
        self.iterations.assign_add(1)

    def rule(self, name: str) -> RowOptimizer:
        """The optimizer whose formula the table of that name follows."""
        del name
        return self

    @abc.abstractmethod
    def slot_types(self) -> dict[str, Slot]:
        """The slots by name."""

    @abc.abstractmethod
    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """The new rows and slots of k rows.

        Args:
          w: float32 [k, dim].
          g: float32 [k, dim].
          slots: float32 [k, dim], or [k] for slots per row.
          rate: float32 scalar.
          step: float32 scalar, the number of this step, from 1.
        """

    def _apply(self, name: str, table: tf.Variable, gradient: RowGradient) -> None:
        rule, slots = self.rule(name), self.slots[name]
        iterations = tf.convert_to_tensor(self.iterations)
        rate = rule.learning_rate(iterations) if callable(rule.learning_rate) else rule.learning_rate
        rate, step = tf.cast(rate, tf.float32), tf.cast(iterations + 1, tf.float32)
        key = derive_seed(0, name)

        def apply(rows: tf.Tensor, g: tf.Tensor, frequency: Callable[[], tf.Tensor], first: tf.Tensor) -> None:
            w = read_rows(table, rows)
            if rule.l2:
                g += rule.l2 * frequency()[:, tf.newaxis] * w
            new, new_slots = rule.row_step(w, g, {n: read_rows(v, rows) for n, v in slots.items()}, rate, step)
            if rule.weight_decay:
                new -= rate * rule.weight_decay * w
            write_rows(table, rows, new, seed=tf.stack([iterations, tf.cast(first, tf.int64) + key]))
            for slot, values in new_slots.items():
                write_rows(slots[slot], rows, values)

        gradient.visit(apply)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        rate = self.learning_rate
        if isinstance(rate, LearningRateSchedule):
            rate = keras.optimizers.schedules.serialize(rate)
        return {"learning_rate": rate, "l2": self.l2, "weight_decay": self.weight_decay}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RowOptimizer:
        """Reads `get_config`."""
        rate = config["learning_rate"]
        if isinstance(rate, dict):
            rate = keras.optimizers.schedules.deserialize(rate)
        return cls(**(config | {"learning_rate": rate}))


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class SGD(RowOptimizer):
    """w -= rate * g. The default rate is that of `keras.optimizers.SGD`."""

    def __init__(self, learning_rate: Rate = 0.01, l2: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(learning_rate, l2, weight_decay)

    def slot_types(self) -> dict[str, Slot]:
        """None."""
        return {}

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """See the class."""
        del step
        return w - rate * g, slots


class _Accumulating(RowOptimizer):
    """The arguments that `Adagrad` and `RowWiseAdagrad` share.

    Formula and defaults are those of `torch.optim.Adagrad` and of FBGEMM, and not of `keras.optimizers.Adagrad`: the
    loss is a mean over the batch, so the squared gradient of a row is often below 1e-6, and beside an accumulator that
    starts at Keras' 0.1 rows hardly learn.
    """

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        initial_accumulator: float = 0.0,
        epsilon: float = 1e-10,
        l2: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, l2, weight_decay)
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

    def slot_types(self) -> dict[str, Slot]:
        """The accumulator."""
        return {"accumulator": Slot(self.initial_accumulator)}

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """See the class."""
        del step
        a = slots["accumulator"] + g * g
        return w - rate * g / (tf.sqrt(a) + self.epsilon), {"accumulator": a}


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class RowWiseAdagrad(_Accumulating):
    """a += mean(g^2); w -= rate * g / (sqrt(a) + epsilon), with one accumulator for each row.

    Adagrad with a slot that is smaller by the factor `dim`: facebookresearch/dlrm, `optim/rwsadagrad.py`; FBGEMM,
    `EXACT_ROWWISE_ADAGRAD`.
    """

    def slot_types(self) -> dict[str, Slot]:
        """The accumulator."""
        return {"accumulator": Slot(self.initial_accumulator, per_row=True)}

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """See the class."""
        del step
        a = slots["accumulator"] + tf.reduce_mean(g * g, axis=1)
        return w - (rate / (tf.sqrt(a) + self.epsilon))[:, tf.newaxis] * g, {"accumulator": a}


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
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        l2: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, l2, weight_decay)
        if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1):
            raise ValueError(f"beta_1={beta_1}, beta_2={beta_2}; each must be at least 0 and below 1")
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def slot_types(self) -> dict[str, Slot]:
        """The two moments."""
        return {"m": Slot(0.0), "v": Slot(0.0)}

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """See the class."""
        m = self.beta_1 * slots["m"] + (1 - self.beta_1) * g
        v = self.beta_2 * slots["v"] + (1 - self.beta_2) * (g * g)
        correction = tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        return w - rate * correction * m / (tf.sqrt(v) + self.epsilon), {"m": m, "v": v}

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class FTRL(RowOptimizer):
    """Follow the regularized leader: Adagrad whose L1 sets numbers to exactly 0.

    n' = n + g^2; z += rate * g - (sqrt(n') - sqrt(n)) * w; n = n';
    w = -sign(z) * max(|z| - rate * l1, 0) / sqrt(n)

    McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches", algorithm 1 with beta = 0 and no L2, and its z
    multiplied by the rate: the same at a constant rate, while under a schedule theirs would scale each row by what the
    rate has changed since. With `initial_accumulator` 0, the default here, a row begins at its initial value, and
    without L1 it moves as under `Adagrad`; Keras' and TensorFlow's 0.1 pulls it to 0 at the first step. Its two slots
    are as large as the table. There is no `weight_decay`: z would undo it.
    """

    def __init__(
        self, learning_rate: Rate = 0.01, l1: float = 0.0, initial_accumulator: float = 0.0, l2: float = 0.0
    ) -> None:
        super().__init__(learning_rate, l2)
        if l1 < 0 or initial_accumulator < 0:
            raise ValueError(f"l1={l1}, initial_accumulator={initial_accumulator}; neither may be negative")
        self.l1 = l1
        self.initial_accumulator = initial_accumulator

    def slot_types(self) -> dict[str, Slot]:
        """The sums n and z."""
        return {"accumulator": Slot(self.initial_accumulator), "linear": Slot(0.0)}

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """See the class."""
        del step
        n = slots["accumulator"] + g * g
        root = tf.sqrt(n)
        z = slots["linear"] + rate * g - (root - tf.sqrt(slots["accumulator"])) * w
        shrunk = tf.sign(z) * tf.maximum(tf.abs(z) - rate * self.l1, 0.0)
        # A number that never had a gradient stays where it is.
        return tf.where(n > 0, -tf.math.divide_no_nan(shrunk, root), w), {"accumulator": n, "linear": z}

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        config = super().get_config() | {"l1": self.l1, "initial_accumulator": self.initial_accumulator}
        del config["weight_decay"]
        return config


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class PerTable(RowOptimizer):
    """Another optimizer for some of the tables.

        PerTable(RowWiseAdagrad(0.02), {"user": LazyAdam(0.001), "site": FTRL(0.05, l1=1e-4)})

    Args:
      default: of all other tables.
      tables: by name of the table, as the schema has it. Tables `stored_in` another one learn as that one does.

    Raises:
      ValueError: one of them is no row optimizer, or is a PerTable itself; or, when built, there is no such table.
    """

    def __init__(self, default: RowOptimizer, tables: Mapping[str, RowOptimizer]) -> None:
        super().__init__(0.0)
        for name, optimizer in {"default": default, **tables}.items():
            if not isinstance(optimizer, RowOptimizer) or isinstance(optimizer, PerTable):
                raise ValueError(f"PerTable: {name!r} is a {type(optimizer).__name__}; one of {_NAMES} is needed")
        self.default = default
        self.per_table = dict(tables)

    def build(self, tables: Mapping[str, tf.Variable]) -> None:
        """See `RowOptimizer`."""
        known = {_table_of(name) for name in tables} | set(tables)
        for name in self.per_table:
            if name not in known:
                raise ValueError(
                    f"PerTable names table {name!r}, which has no rows of its own; there is {', '.join(tables)}"
                )
        super().build(tables)

    def rule(self, name: str) -> RowOptimizer:
        """The optimizer of a table, or of the table that a variable is part of."""
        return self.per_table.get(name) or self.per_table.get(_table_of(name)) or self.default

    def slot_types(self) -> dict[str, Slot]:
        """Those of the default."""
        return self.default.slot_types()

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """That of the default."""
        return self.default.row_step(w, g, slots, rate, step)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        dump = keras.utils.legacy.serialize_keras_object
        return {"default": dump(self.default), "tables": {name: dump(o) for name, o in self.per_table.items()}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PerTable:
        """Reads `get_config`."""
        read = keras.utils.legacy.deserialize_keras_object
        return cls(read(config["default"]), {name: read(o) for name, o in config["tables"].items()})


# By the names that recipes use.
ROW_OPTIMIZERS: dict[str, type[RowOptimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": Adagrad,
    "lazy_adam": LazyAdam,
    "ftrl": FTRL,
    "sgd": SGD,
}
_NAMES = ", ".join(cls.__name__ for cls in ROW_OPTIMIZERS.values())


def _table_of(variable: str) -> str:
    """The table that a variable is part of; see `Table.parts`."""
    return variable.removesuffix("__quotient").removesuffix("__remainder")
