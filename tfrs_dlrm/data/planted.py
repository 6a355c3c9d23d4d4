"""The model behind the synthetic log: it draws raw rows and knows the probability of a click for each of them.

The logit is a bias, plus one effect for every field (ids one by one, integers by curves of their logarithm), plus
second-order interactions: inner products of latent id vectors, as in a factorization machine (Rendle 2010), and
slopes of integers that depend on an id. All fields are independent of each other, and latent vectors and slopes average
to zero over the ids, so no sum of per-field effects explains any of the interactions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

MEAN = 0.25
# Standard deviations of the three parts of the logit. Together they make an AUC of about 0.80.
DENSE_STD = 0.6
MAIN_STD = 1.0
INTERACTION_STD = 0.8

LATENT_DIM = 4
# Ids of this probability have effects half as large as frequent ones, so that what can be learned lies in ids that a
# million rows show a hundred times or more.
RARE = 3e-4

# Sizes of the Criteo Kaggle vocabularies, capped.
VOCABULARIES = (
    *(1460, 583, 100_000, 60_000, 305, 24, 12_517, 633, 3, 30_000, 5683, 80_000, 3194),
    *(27, 14_992, 40_000, 10, 5652, 2173, 4, 50_000, 18, 15, 20_000, 105, 10_000),
)  # fmt: skip
# Share of empty values, for the fields that have any.
EMPTY_IDS = {2: 0.03, 3: 0.03, 5: 0.12, 11: 0.03, 15: 0.03, 18: 0.4, 19: 0.4, 20: 0.03, 21: 0.3, 24: 0.2, 25: 0.2}
EMPTY_INTEGERS = {0: 0.4, 2: 0.2, 3: 0.2, 4: 0.03, 5: 0.2, 8: 0.05, 9: 0.4, 12: 0.2}
# The fields that interact: neither tiny nor mostly tail.
INTERACTING = (0, 1, 4, 5, 7, 10, 13, 17, 18, 21, 22, 24)
PAIRS = 20
SLOPES = ((1, 7), (4, 13))
ZIPF_EXPONENT = 1.2
_PILOT_ROWS = 50_000


@dataclasses.dataclass(frozen=True)
class Rows:
    """Raw rows, column by column: `integers` int32 [13, B] with -1 for empty, `ids` int32 [26, B] with 0 for empty."""

    integers: Ints
    ids: Ints


class PlantedModel:
    """Draws rows and gives their logits. Everything about it follows from `seed`."""

    def __init__(self, seed: int) -> None:
        rng = generator(seed, 0, 0)
        fields = range(len(VOCABULARIES))
        self.probabilities = [zipf(VOCABULARIES[f], EMPTY_IDS.get(f, 0.0)) for f in fields]
        self._cumulative = [np.cumsum(p)[:-1] for p in self.probabilities]
        self.location = rng.uniform(2.0, 5.0, 13).astype(np.float32)
        self.spread = rng.uniform(0.7, 1.2, 13).astype(np.float32)
        self.curves = rng.normal(size=(13, 4)).astype(np.float32)
        weight = np.exp(rng.normal(size=len(fields)) * 0.5)
        self.main = [w * self._effects(rng, f, 1)[:, 0] for f, w in zip(fields, weight)]
        self.latent = {f: self._effects(rng, f, LATENT_DIM) for f in INTERACTING}
        self.slopes = {pair: self._effects(rng, pair[1], 1)[:, 0] for pair in SLOPES}
        pairs = [(i, j) for i in INTERACTING for j in INTERACTING if i < j]
        self.pairs = [pairs[k] for k in np.sort(rng.choice(len(pairs), PAIRS, replace=False))]
        self.bias = 0.0
        self._calibrate(self.draw(rng, _PILOT_ROWS))

    def _effects(self, rng, field: int, width: int):
        p = self.probabilities[field]
        e = rng.normal(size=(len(p), width)) * (p / (p + RARE))[:, None]
        e -= p @ e
        return e.astype(np.float32)

    def _calibrate(self, rows: Rows) -> None:
        dense, main, inter = (sum(part) for part in (self._dense(rows), self._main(rows), self._interactions(rows)))
        a = np.float32(DENSE_STD / dense.std())
        b = np.float32(MAIN_STD / main.std())
        c = np.float32(INTERACTION_STD / inter.std())
        self.curves *= a
        self.main = [m * b for m in self.main]
        self.latent = {f: v * np.sqrt(c) for f, v in self.latent.items()}
        self.slopes = {f: v * c for f, v in self.slopes.items()}
        logits = self.logits(rows)
        low, high = -10.0, 10.0
        for _ in range(50):
            middle = (low + high) / 2
            if sigmoid(logits + middle).mean() < MEAN:
                low = middle
            else:
                high = middle
        self.bias = low

    def draw(self, rng, n: int) -> Rows:
        ids = np.empty((26, n), np.int32)
        for f, c in enumerate(self._cumulative):
            ids[f] = np.searchsorted(c, rng.random(n), side="right")
        integers = np.empty((13, n), np.int32)
        for k in range(13):
            logs = self.location[k] + self.spread[k] * rng.standard_normal(n, np.float32)
            integers[k] = np.expm1(np.maximum(logs, 0))
            if k in EMPTY_INTEGERS:
                integers[k][rng.random(n, np.float32) < EMPTY_INTEGERS[k]] = -1
        return Rows(integers, ids)

    def standardized(self, rows, k):
        return (np.log1p(np.maximum(rows.integers[k], 0).astype(np.float32)) - self.location[k]) / self.spread[k]

    def _dense(self, rows: Rows):
        for k, (linear, bend, hump, empty) in enumerate(self.curves):
            z = self.standardized(rows, k)
            effect = linear * z + bend * np.tanh(2 * z) + hump * np.exp(-z * z)
            yield np.where(rows.integers[k] < 0, empty, effect)

    def _main(self, rows):
        for e, i in zip(self.main, rows.ids):
            yield e[i]

    def _interactions(self, rows):
        latent = {f: table[rows.ids[f]] for f, table in self.latent.items()}
        for i, j in self.pairs:
            yield np.einsum("bd,bd->b", latent[i], latent[j])
        for (k, f), slope in self.slopes.items():
            yield np.where(rows.integers[k] < 0, 0, self.standardized(rows, k) * slope[rows.ids[f]])

    def logits(self, rows: Rows, interactions=True):
        s = sum(self._dense(rows)) + sum(self._main(rows)) + np.float32(self.bias)
        return s + sum(self._interactions(rows)) if interactions else s


def zipf(size, empty):
    w = np.arange(1, size + 1) ** -ZIPF_EXPONENT
    return np.concatenate([[empty], (1 - empty) * w / w.sum()])


def generator(seed, stream, chunk):
    return np.random.Generator(np.random.Philox(key=[seed, (stream << 32) + chunk]))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
