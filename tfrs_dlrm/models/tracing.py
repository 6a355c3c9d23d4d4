"""Tracing without AutoGraph, which rewrites the source of every function that a step calls.

AutoGraph turns Python's `if` and `for` over tensors into operations. The code of this package has none inside its
steps, and rewriting it takes half of the time to the first step and most of that of an export. A user's model or metric
may have some: where one takes part, all is traced as TensorFlow does it. Optimizers and schedules are not rewritten in
either case: Keras calls them so that AutoGraph does not see them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import tensorflow as tf

Function = TypeVar("Function", bound=Callable[..., Any])

_WITHOUT = ("tfrs_dlrm", "tf_keras", "tensorflow", "tensorflow_recommenders")


def needs_autograph(parts: Iterable[Any]) -> bool:
    """Returns whether objects, or the functions that metrics are made of, are of other packages than those known."""
    return any(_module(part).partition(".")[0] not in _WITHOUT for part in parts)


def _module(part: Any) -> str:
    function = getattr(part, "_fn", None)  # of Keras' metrics that are made of a function
    if function is None:
        return type(part).__module__
    return getattr(function, "__module__", None) or type(function).__module__


def as_written(function: Function, *parts: Any) -> Function:
    """Returns a function that is traced without AutoGraph, unless one of the parts that it calls needs it."""
    found: Function = function if needs_autograph(parts) else tf.autograph.experimental.do_not_convert(function)
    return found


def step_as_written(step: Function) -> Function:
    """Decorates a method of `RankingModel`: without AutoGraph, unless model or metrics are the user's."""
    plain = tf.autograph.experimental.do_not_convert(step)

    @functools.wraps(step)
    def traced(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (step if needs_autograph((self, *self.metrics)) else plain)(self, *args, **kwargs)

    return traced  # type: ignore[return-value]
