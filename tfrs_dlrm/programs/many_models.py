"""What programs that train several models in one process do differently."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def without_tracing_warnings() -> Iterator[None]:
    """Silences TensorFlow's Python warnings inside `with`: it would warn that each of many models is traced."""
    import tensorflow as tf

    logger = tf.get_logger()
    before = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(before)
