"""A worker that measures what the machine can do: matrix products in fp32 and bf16, and copies of memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from training.worker import serve


class Session:
    def __init__(self, spec: dict[str, Any]):
        self._size = spec["size"]
        self._products = (_torch if spec["library"] == "torch" else _tensorflow)(self._size)

    def peaks(self) -> dict[str, float]:
        """FLOP/s of `fp32` and `bf16`, and bytes/s of `copy`, read and written counted both."""
        found = {name: 2 * self._size**3 / _best(f) for name, f in self._products.items()}
        size = 64 * self._size**2  # 256 MB: beyond any cache
        source = np.ones(size // 4, np.float32)
        target = np.empty_like(source)
        return found | {"copy": 2 * size / _best(_parallel_copy(source, target))}


def _parallel_copy(source: np.ndarray, target: np.ndarray) -> Callable[[], object]:
    import concurrent.futures

    cores = len(os.sched_getaffinity(0))
    pool = concurrent.futures.ThreadPoolExecutor(cores)
    parts = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))


def _best(f: Callable[[], object], repeats: int = 15) -> float:
    """Seconds of the fastest."""
    times = []
    for _ in range(repeats + 2):
        begin = time.perf_counter()
        f()
        times.append(time.perf_counter() - begin)
    return min(times[2:])


def _tensorflow(size: int) -> dict[str, Callable[[], object]]:
    import tensorflow as tf

    x = tf.random.uniform([size, size])
    y = tf.cast(x, tf.bfloat16)
    return {"fp32": lambda: tf.matmul(x, x), "bf16": lambda: tf.matmul(y, y)}


def _torch(size: int) -> dict[str, Callable[[], object]]:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    x = torch.rand(size, size)
    y = x.bfloat16()
    return {"fp32": lambda: x @ x, "bf16": lambda: y @ y}


if __name__ == "__main__":
    serve(Session)
