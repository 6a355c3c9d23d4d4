"""The row optimizers, as elementwise formulas of a row w and its gradient g, with duplicates combined."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.embeddings.row_optimizer import Rate, RowOptimizer, Slot, Slots


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class SGD(RowOptimizer):
    """w -= rate * g. The default rate is the one of `keras.optimizers.SGD`."""

    def __init__(self, learning_rate: Rate = 0.01, l2: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(learning_rate, l2, weight_decay)

    def slot_types(self) -> dict[str, Slot]:
        """Returns no slots."""
        return {}

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """See `RowOptimizer.row_step`."""
        del step
        return w - rate * g, slots


class _Accumulating(RowOptimizer):
    """Base class of `Adagrad` and `RowWiseAdagrad`.

    Formula and defaults are the ones of `torch.optim.Adagrad` and FBGEMM, not of `keras.optimizers.Adagrad`: the loss
    is a mean over the batch, so the squared gradient of a row is often below 1e-6, and with Keras' initial accumulator
    of 0.1 rows hardly learn.
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
        """Returns the arguments of the constructor."""
        return super().get_config() | {"initial_accumulator": self.initial_accumulator, "epsilon": self.epsilon}


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class Adagrad(_Accumulating):
    """a += g^2; w -= rate * g / (sqrt(a) + epsilon). The slot is as large as the table.

    Duchi et al. 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization".
    """

    def slot_types(self) -> dict[str, Slot]:
        """Returns the accumulator."""
        return {"accumulator": Slot(self.initial_accumulator)}

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """See `RowOptimizer.row_step`."""
        del step
        a = slots["accumulator"] + g * g
        return w - rate * g / (tf.sqrt(a) + self.epsilon), {"accumulator": a}


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class RowWiseAdagrad(_Accumulating):
    """a += mean(g^2); w -= rate * g / (sqrt(a) + epsilon), with one accumulator per row.

    The slot is smaller than Adagrad's by the factor `dim`: facebookresearch/dlrm, `optim/rwsadagrad.py`; FBGEMM,
    `EXACT_ROWWISE_ADAGRAD`.
    """

    def slot_types(self) -> dict[str, Slot]:
        """Returns the accumulator."""
        return {"accumulator": Slot(self.initial_accumulator, per_row=True)}

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """See `RowOptimizer.row_step`."""
        del step
        a = slots["accumulator"] + tf.reduce_mean(g * g, axis=1)
        return w - (rate / (tf.sqrt(a) + self.epsilon))[:, tf.newaxis] * g, {"accumulator": a}


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class LazyAdam(RowOptimizer):
    """Adam on the rows of the batch; the moments of other rows do not decay.

    m = beta_1 m + (1 - beta_1) g; v = beta_2 v + (1 - beta_2) g^2;
    w -= rate * sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)

    with t the number of steps of the optimizer (not of the row), as in `tfa.optimizers.LazyAdam`. Formula and defaults
    are the ones of `keras.optimizers.Adam`. The two slots are each as large as the table.
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
        """Returns the two moments."""
        return {"m": Slot(0.0), "v": Slot(0.0)}

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """See `RowOptimizer.row_step`."""
        m = self.beta_1 * slots["m"] + (1 - self.beta_1) * g
        v = self.beta_2 * slots["v"] + (1 - self.beta_2) * (g * g)
        correction = tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        return w - rate * correction * m / (tf.sqrt(v) + self.epsilon), {"m": m, "v": v}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class FTRL(RowOptimizer):
    """Follow the regularized leader: Adagrad with an L1 penalty that sets numbers to exactly 0.

    n' = n + g^2; z += rate * g - (sqrt(n') - sqrt(n)) * w; n = n';
    w = -sign(z) * max(|z| - rate * l1, 0) / sqrt(n)

    McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches", algorithm 1 with beta = 0, no L2, and z
    multiplied by the rate. At a constant rate that is the same; under a schedule the paper's z would rescale each row
    when the rate changes. With the default `initial_accumulator` of 0, a row starts at its initial value and without L1
    moves as under `Adagrad`; the 0.1 of Keras and TensorFlow pulls it to 0 at the first step. The two slots are each as
    large as the table. It has no `weight_decay`: z would undo it.
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
        """Returns the sums n and z."""
        return {"accumulator": Slot(self.initial_accumulator), "linear": Slot(0.0)}

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """See `RowOptimizer.row_step`."""
        del step
        n = slots["accumulator"] + g * g
        root = tf.sqrt(n)
        z = slots["linear"] + rate * g - (root - tf.sqrt(slots["accumulator"])) * w
        shrunk = tf.sign(z) * tf.maximum(tf.abs(z) - rate * self.l1, 0.0)
        # A number that never had a gradient keeps its value.
        return tf.where(n > 0, -tf.math.divide_no_nan(shrunk, root), w), {"accumulator": n, "linear": z}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config() | {"l1": self.l1, "initial_accumulator": self.initial_accumulator}
        del config["weight_decay"]
        return config


# By the names that recipes use.
ROW_OPTIMIZERS: dict[str, type[RowOptimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": Adagrad,
    "lazy_adam": LazyAdam,
    "ftrl": FTRL,
    "sgd": SGD,
}
