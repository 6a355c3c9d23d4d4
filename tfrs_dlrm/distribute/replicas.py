"""What kind of `tf.distribute` strategy one is, and what the processes of a run agree on."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf


def is_parameter_server(strategy: tf.distribute.Strategy) -> bool:
    """Whether workers train it without waiting for each other."""
    return isinstance(strategy, tf.distribute.experimental.ParameterServerStrategy)


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Whether several processes each run the whole program."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Whether it is one of TPUs."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one of its run that writes files."""
    if not is_multi_worker(strategy):
        return True
    return not strategy.cluster_resolver.task_id  # the first worker; there is no chief among them


def any_process(strategy: tf.distribute.Strategy, fact: bool) -> bool:
    """Whether something is so in any of the processes that step together; all of them must ask."""
    if not is_multi_worker(strategy):
        return fact
    return int(_sum_over_replicas(strategy)(tf.constant(int(fact)))) > 0


@functools.cache
def _sum_over_replicas(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Adds up a number that each process has; traced once."""
    return tf.function(lambda x: strategy.reduce("SUM", strategy.run(lambda: tf.identity(x)), axis=None))


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns once all processes that step together have called it."""
    any_process(strategy, False)
