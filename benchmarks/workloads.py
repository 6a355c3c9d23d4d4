"""What is trained: shapes, initial weights and batches, made with NumPy from seeds: every peer gets the same."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Criteo Kaggle: the number of values of C1 to C26, see facebookresearch/dlrm and the papers that count them.
_CRITEO_ROWS = [1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194]
_CRITEO_ROWS += [27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572]
_WEIGHTS, _BATCHES = 1, 2  # streams of random numbers
_ZIPF_EXPONENT = 1.05


@dataclasses.dataclass(frozen=True)
class Workload:
    """The shape of a DLRM and of its batches.

    Attributes:
      name: for tables and charts.
      rows: of each table; feature i looks up table i.
      dim: of every table.
      bottom: units of the bottom MLP.
      top: units of the top MLP.
      dense: the number of dense features.
      batch: examples in a batch.
      longest_bag: 0 where every feature has one value; otherwise each has 1 to so many, uniformly, which are summed.
      zipf: whether ids follow a power law over the rows, instead of being uniform.
      batches: how many different ones there are.
    """

    name: str
    rows: tuple[int, ...]
    dim: int
    bottom: tuple[int, ...]
    top: tuple[int, ...]
    dense: int
    batch: int = 2048
    longest_bag: int = 0
    zipf: bool = False
    batches: int = 64

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(i, j), j < i, of the vectors [bottom, table 0, table 1, ...] in the order of the top MLP's inputs."""
        return [(i, j) for i in range(len(self.rows) + 1) for j in range(i)]

    @property
    def table_bytes(self) -> int:
        return sum(self.rows) * self.dim * 4

    def layers(self, name: str) -> list[tuple[int, int]]:
        """(fan in, fan out) of each layer of the `bottom` or the `top` MLP."""
        units = self.bottom if name == "bottom" else self.top
        fan_in = self.dense if name == "bottom" else self.dim + len(self.pairs)
        return list(zip((fan_in, *units[:-1]), units, strict=True))

    @classmethod
    def from_dict(cls, data: dict) -> Workload:
        """Reads `dataclasses.asdict` after it went through JSON."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})

    def tiny(self) -> Workload:
        """The same kind of work, small enough for a smoke test."""
        small = dataclasses.replace(self, rows=tuple(min(r, 1000) for r in self.rows), dim=8, batches=4)
        small = dataclasses.replace(small, bottom=(16, 8), top=(16, 1), batch=min(self.batch, 128))
        return dataclasses.replace(small, longest_bag=min(self.longest_bag, 10))


def _workloads() -> dict[str, Workload]:
    capped = lambda limit: tuple(min(r, limit) for r in _CRITEO_ROWS)  # noqa: E731
    uniform = [
        Workload("criteo_kaggle", capped(1_000_000), 16, (512, 256, 16), (512, 256, 1), dense=13),
        Workload("mlperf", capped(400_000), 128, (512, 256, 128), (1024, 1024, 512, 256, 1), dense=13),
        # Naumov et al. 2019, section 5: the model that they profile.
        Workload("paper", (1_000_000,) * 8, 64, (512, 512, 64), (1024, 1024, 1024, 1), 512, longest_bag=100, batches=8),
    ]
    zipf = [dataclasses.replace(w, name=f"{w.name}_zipf", zipf=True) for w in uniform]
    return {w.name: w for pair in zip(uniform, zipf, strict=True) for w in pair}


WORKLOADS = _workloads()


class Weights:
    """The initial weights of a workload. A table is made when asked for, as all of them may fill the memory."""

    def __init__(self, workload: Workload):
        self._workload = workload

    def table(self, i: int) -> np.ndarray:
        """float32 [rows, dim], uniform in +-1 / sqrt(rows)."""
        rows, dim = self._workload.rows[i], self._workload.dim
        values = np.random.default_rng([_WEIGHTS, i]).random((rows, dim), np.float32)
        values -= np.float32(0.5)
        values *= np.float32(2 / math.sqrt(rows))
        return values

    def mlp(self, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Kernel float32 [fan in, fan out] and bias [fan out] of each layer; see `tfrs_dlrm.layers.MLP`."""
        rng = np.random.default_rng([_WEIGHTS, len(self._workload.rows), name == "top"])
        normal = lambda std, shape: (rng.standard_normal(shape) * std).astype(np.float32)  # noqa: E731
        return [
            (normal(math.sqrt(2 / (n + m)), (n, m)), normal(math.sqrt(1 / m), m))
            for n, m in self._workload.layers(name)
        ]


class Batch(NamedTuple):
    """One batch of B examples.

    Attributes:
      dense: float32 [B, n].
      ids: int32, for each feature; [B], or with bags the values of all examples one after the other.
      splits: int64 [B + 1] for each feature, where the bag of each example begins; None without bags.
      labels: float32 [B].
    """

    dense: np.ndarray
    ids: list[np.ndarray]
    splits: list[np.ndarray] | None
    labels: np.ndarray


def batches(workload: Workload) -> Iterator[Batch]:
    """All batches of a workload."""
    size = workload.batch
    for number in range(workload.batches):
        rng = np.random.default_rng([_BATCHES, number])
        dense, labels = rng.random((size, workload.dense), np.float32), (rng.random(size) < 0.25).astype(np.float32)
        splits = None
        lengths = [np.ones(size, np.int64)] * len(workload.rows)
        if workload.longest_bag:
            lengths = [rng.integers(1, workload.longest_bag + 1, size) for _ in workload.rows]
            splits = [np.concatenate([[0], np.cumsum(n)]) for n in lengths]
        draw = _zipf_ids if workload.zipf else _uniform_ids
        ids = [draw(rng, rows, int(n.sum())) for rows, n in zip(workload.rows, lengths, strict=True)]
        yield Batch(dense, ids, splits, labels)


def _uniform_ids(rng: np.random.Generator, rows: int, size: int) -> np.ndarray:
    return rng.integers(0, rows, size, dtype=np.int32)


def _zipf_ids(rng: np.random.Generator, rows: int, size: int) -> np.ndarray:
    """Rank r with a probability proportional to r to the power of -1.05, and ranks scattered over the rows."""
    ranks = np.searchsorted(_zipf_distribution(rows), rng.random(size))
    # Frequent rows are not neighbours: ids come in the order of their first appearance or of a hash, not by count.
    factor = int(rows * (math.sqrt(5) - 1) / 2) | 1
    while math.gcd(factor, rows) > 1:
        factor += 2 if rows % 2 == 0 else 1
    return ((ranks * factor + rows // 3) % rows).astype(np.int32)


@functools.cache
def _zipf_distribution(rows: int) -> np.ndarray:
    """The probability of a rank of at most 1, 2, ..., float64 [rows]."""
    total = np.cumsum(np.arange(1, rows + 1, dtype=np.float64) ** -_ZIPF_EXPONENT)
    return total / total[-1]


def step_work(workload: Workload, slot_bytes_per_row: int) -> dict[str, float]:
    """The least a train step must do.

    FLOPs are those of the MLPs (forward, gradient of the weights, gradient of the inputs but for the first layer) and
    of one dot product a pair and its gradient. Bytes are those of the table rows, each different row of a batch read
    once to look it up and read and written once to update it, and of its slots, read and written. All else is taken to
    stay in the caches.
    """
    products = {name: [n * m for n, m in workload.layers(name)] for name in ("bottom", "top")}
    dense = 3 * sum(products["bottom"]) - products["bottom"][0] + 3 * sum(products["top"])
    flops = 2 * workload.batch * (dense + 3 * len(workload.pairs) * workload.dim)
    counts = [sum(len(np.unique(i)) for i in b.ids) for b in batches(dataclasses.replace(workload, batches=2))]
    return {"flops": flops, "bytes": float(np.mean(counts)) * (3 * workload.dim * 4 + 2 * slot_bytes_per_row)}
