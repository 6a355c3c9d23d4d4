"""Row optimizers by name, and Keras optimizers as the row optimizers of the same formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tf_keras as keras
from tf_keras.optimizers.schedules import LearningRateSchedule

from tfrs_dlrm.embeddings.optimizers import FTRL, ROW_OPTIMIZERS, SGD, Adagrad
from tfrs_dlrm.embeddings.row_optimizer import Rate, RowOptimizer
from tfrs_dlrm.messages import did_you_mean

# Arguments of Keras optimizers that no row optimizer has, and the values with which they do nothing.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "weight_decay": (None, 0.0),
    "clipnorm": (None,),
    "clipvalue": (None,),
    "global_clipnorm": (None,),
    "use_ema": (False,),
    "decay": (0.0,),
    "momentum": (0.0,),
    "learning_rate_power": (-0.5,),
    "l2_regularization_strength": (0.0,),
    "l2_shrinkage_regularization_strength": (0.0,),
    "beta": (0.0,),
}
_INSTEAD = {
    "weight_decay": "give td.SGD or td.Adagrad a weight_decay, which decays looked-up rows only",
    "decay": "give it learning_rate=keras.optimizers.schedules.InverseTimeDecay(...)",
    "l2_regularization_strength": "give td.FTRL an l2, which is part of the gradient of looked-up rows",
}


def as_row_optimizer(given: Any, argument: str = "embedding_optimizer") -> RowOptimizer:
    """Returns a row optimizer: the given one, one by name, or the one with the formula of a Keras optimizer.

    On the rows that a batch looks up, the step is the one of the Keras optimizer. Other rows stay as they are, also
    where Keras would change them: `keras.optimizers.Ftrl` sets rows to 0 that had no gradient yet.

    Args:
      given: a `RowOptimizer`, a key of `ROW_OPTIMIZERS`, or a Keras optimizer.
      argument: its name, for messages.

    Raises:
      ValueError: it is something else, an unknown name, or a Keras optimizer without equal row optimizer.
    """
    if isinstance(given, RowOptimizer):
        return given
    names = ", ".join(map(repr, ROW_OPTIMIZERS))
    if isinstance(given, str):
        if given not in ROW_OPTIMIZERS:
            guess = did_you_mean(given, ROW_OPTIMIZERS)
            raise ValueError(
                f"{argument}={given!r} is not a row optimizer;{guess and f' {guess}'} choose one of {names}"
            )
        return ROW_OPTIMIZERS[given]()  # type: ignore[call-arg]  # all have a default rate
    if not isinstance(given, (keras.optimizers.Optimizer, keras.optimizers.legacy.Optimizer)):
        raise ValueError(
            f"{argument}={given!r} is not a row optimizer; give td.RowWiseAdagrad(rate), td.SGD(rate) or another"
            f" RowOptimizer, which updates looked-up rows only, or one of {names}"
        )
    return _translated(given, f"{argument}={type(given).__name__}")


def _translated(optimizer: Any, shown: str) -> RowOptimizer:
    translate = _TRANSLATIONS.get(type(optimizer))
    if translate is None:
        adam = "adam" in type(optimizer).__name__.lower()
        instead = "td.LazyAdam(rate), whose moments decay in looked-up rows only" if adam else "td.RowWiseAdagrad(rate)"
        raise ValueError(
            f"{shown}(...): no row optimizer has the formula of this Keras optimizer; SGD, Adagrad and Ftrl are"
            f" translated. Write {instead}"
        )
    config = optimizer.get_config()
    for name, neutral in _WITHOUT_EFFECT.items():
        if name in config and config[name] not in neutral:
            instead = _INSTEAD.get(name, "leave it out")
            raise ValueError(
                f"{shown}({name}={config[name]!r}): row optimizers have no {name} as Keras means it; {instead}"
            )
    rate = _rate(optimizer)
    if isinstance(rate, LearningRateSchedule) and isinstance(optimizer, _FTRL):
        raise ValueError(
            f"{shown}(learning_rate={type(rate).__name__}): td.FTRL differs from Keras' Ftrl under a schedule, since it"
            " keeps rows in place when the rate changes; write td.FTRL(schedule)"
        )
    return translate(rate, config)


def _rate(optimizer: Any) -> Rate:
    """Returns the schedule of a Keras optimizer, or the present learning rate."""
    rate = getattr(optimizer, "_learning_rate", None)
    rate = optimizer.learning_rate if rate is None else rate  # legacy optimizers
    return rate if isinstance(rate, LearningRateSchedule) else float(keras.backend.get_value(rate))


def _sgd(rate: Rate, config: Mapping[str, Any]) -> RowOptimizer:
    del config
    return SGD(rate)


def _adagrad(rate: Rate, config: Mapping[str, Any]) -> RowOptimizer:
    # Keras' epsilon is inside of the root: sqrt(a + epsilon) is the root of an accumulator that began higher.
    return Adagrad(rate, config["initial_accumulator_value"] + config["epsilon"], epsilon=_NEGLIGIBLE)


def _ftrl(rate: Rate, config: Mapping[str, Any]) -> RowOptimizer:
    return FTRL(rate, config["l1_regularization_strength"], config["initial_accumulator_value"])


_NEGLIGIBLE = 1e-30
_FTRL = (keras.optimizers.Ftrl, keras.optimizers.legacy.Ftrl)
_TRANSLATIONS: dict[type, Callable[[Rate, Mapping[str, Any]], RowOptimizer]] = {
    keras.optimizers.SGD: _sgd,
    keras.optimizers.legacy.SGD: _sgd,
    keras.optimizers.Adagrad: _adagrad,
    keras.optimizers.legacy.Adagrad: _adagrad,
    **dict.fromkeys(_FTRL, _ftrl),
}
