"""Translates row optimizers to the optimizers of TPU embedding hardware.

Optimizers without an equal formula on the hardware are refused. The formulas of the hardware are in
tensorflow/core/protobuf/tpu/optimization_parameters.proto and, for SparseCore, in sparse_core_xla_ops.cc.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfrs_dlrm.embeddings.optimizers import FTRL, SGD, Adagrad, LazyAdam, RowWiseAdagrad
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer

_hardware = tf.tpu.experimental.embedding

# Adagrad on the hardware has no epsilon, which keeps small gradients from making steps of full size. Accumulators that
# start at its square do the same: up to this epsilon the difference is negligible.
_LARGEST_EPSILON = 1e-8
# Far above the smallest float32.
_SMALLEST_ACCUMULATOR = 1e-30


@dataclasses.dataclass(frozen=True)
class TranslatedOptimizer:
    """A row optimizer for the embedding hardware.

    Attributes:
      optimizer: an optimizer of `tf.tpu.experimental.embedding`.
      slots: the hardware's name of each slot, by the row optimizer's.
      smallest: the number that stands for 0 in a slot, by the row optimizer's name, if the hardware divides by its
        root.
    """

    optimizer: Any
    slots: dict[str, str]
    smallest: dict[str, float]


def translate(table: str, rule: RowOptimizer, iterations: tf.Variable, sparse_core: bool) -> TranslatedOptimizer:
    """Translates the optimizer of a table.

    Args:
      table: the name of the table, for messages.
      rule: the row optimizer of the table.
      iterations: the counter of steps.
      sparse_core: whether the hardware is a SparseCore.

    Raises:
      ValueError: the hardware has no such optimizer; the message says what to use instead.
    """
    _refuse(table, rule, sparse_core)
    translated = _translated(table, rule, iterations)
    # TensorFlow sets this enum to False, which protobuf 7 does not accept.
    translated.optimizer.low_dimensional_packing_status = 0
    return translated


def _translated(table: str, rule: RowOptimizer, iterations: tf.Variable) -> TranslatedOptimizer:
    decay: dict[str, Any] = {}
    if rule.weight_decay:
        decay = {"weight_decay_factor": rule.weight_decay, "multiply_weight_decay_factor_by_learning_rate": True}
    if isinstance(rule, SGD):
        return TranslatedOptimizer(_hardware.SGD(_rate(rule, iterations)), {}, {})
    if isinstance(rule, Adagrad):
        smallest = max(rule.epsilon**2, _SMALLEST_ACCUMULATOR)
        initial = rule.initial_accumulator or smallest
        optimizer = _hardware.Adagrad(_rate(rule, iterations), initial_accumulator_value=initial, **decay)
        return TranslatedOptimizer(optimizer, {"accumulator": "accumulators"}, {"accumulator": smallest})
    if isinstance(rule, LazyAdam):
        optimizer = _hardware.Adam(
            _corrected_rate(rule, iterations), rule.beta_1, rule.beta_2, rule.epsilon, sum_inside_sqrt=False
        )
        return TranslatedOptimizer(optimizer, {"m": "momenta", "v": "velocities"}, {})
    if isinstance(rule, FTRL):
        optimizer = _hardware.FTRL(
            _rate(rule, iterations),
            l1_regularization_strength=rule.l1,
            initial_accumulator_value=rule.initial_accumulator,
            multiply_linear_by_learning_rate=True,
        )
        return TranslatedOptimizer(optimizer, {"accumulator": "accumulators", "linear": "linears"}, {})
    raise ValueError(
        f"table {table!r} is on TPU embedding hardware, which has no {type(rule).__name__}; use td.SGD, td.Adagrad,"
        " td.LazyAdam or td.FTRL"
    )


def _refuse(table: str, rule: RowOptimizer, sparse_core: bool) -> None:
    name = type(rule).__name__
    where = f"table {table!r} is on TPU embedding hardware, which"
    if isinstance(rule, RowWiseAdagrad):
        raise ValueError(
            f"{where} has no RowWiseAdagrad: use td.Adagrad, whose slot is as large as the table, or td.SGD, which has"
            f" none; for this table alone, embedding_optimizer={{{table!r}: td.Adagrad(0.01)}}"
        )
    if rule.weight_decay and (sparse_core or not isinstance(rule, Adagrad)):
        can = "SparseCore has none" if sparse_core else "only Adagrad has it"
        raise ValueError(f"{where} has no weight_decay={rule.weight_decay} for {name} ({can}); set it to 0")
    if isinstance(rule, Adagrad) and rule.epsilon > _LARGEST_EPSILON:
        raise ValueError(
            f"{where} has an Adagrad with the epsilon inside of the root, which is no other only while it is small:"
            f" epsilon={rule.epsilon} must be at most {_LARGEST_EPSILON}; to damp first steps, set initial_accumulator"
        )
    if isinstance(rule, LazyAdam) and rule.epsilon <= 0:
        raise ValueError(f"{where} needs a positive epsilon of LazyAdam, not {rule.epsilon}")
    if isinstance(rule, FTRL) and rule.initial_accumulator <= 0:
        raise ValueError(
            f"{where} needs a positive initial_accumulator of FTRL, not {rule.initial_accumulator}; use td.Adagrad, or"
            " td.FTRL(initial_accumulator=0.1), which pulls rows to 0 when they are first looked up"
        )


def _rate(rule: RowOptimizer, iterations: tf.Variable) -> Callable[[], tf.Tensor]:
    """Returns a function that returns the learning rate of the step."""
    return lambda: rule.rate_at(tf.convert_to_tensor(iterations))


def _corrected_rate(rule: LazyAdam, iterations: tf.Variable) -> Callable[[], tf.Tensor]:
    """Returns the learning rate times the bias correction of the moments, which the hardware leaves to the rate."""
    rate = _rate(rule, iterations)

    def corrected() -> tf.Tensor:
        step = tf.cast(tf.convert_to_tensor(iterations) + 1, tf.float32)
        correction = tf.sqrt(1 - rule.beta_2**step) / (1 - rule.beta_1**step)
        return rate() * correction

    return corrected
