"""The model behind the synthetic log, which draws raw rows and knows the click probability of each.

The logit is a bias, plus an effect per field (of each id, or a curve of an integer's logarithm), plus second-order
interactions: inner products of latent id vectors, as in a factorization machine (Rendle 2010). Fields are independent,
and latent vectors average to zero over the ids. So no sum of per-field effects explains the interactions, and a model
without interactions stays clearly below the planted one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int32]

CLICK_RATE = 0.25
# Standard deviations of the three parts of the logit. Together they make an AUC of about 0.80.
DENSE_STD, MAIN_STD, INTERACTION_STD = 0.6, 1.15, 0.45
LATENT_DIM = 4

# Sizes of the Criteo Kaggle vocabularies, capped.
VOCABULARIES = (
    *(1460, 583, 100_000, 60_000, 305, 24, 12_517, 633, 3, 30_000, 5683, 80_000, 3194),
    *(27, 14_992, 40_000, 10, 5652, 2173, 4, 50_000, 18, 15, 20_000, 105, 10_000),
)  # fmt: skip
ZIPF_EXPONENT = 1.2
# Ids of this probability have effects and latent vectors half as large as those of frequent ids. So a million rows show
# the learnable ids often enough, while most ids stay rare or unseen, as in real logs.
HALF_EFFECT, HALF_LATENT = 1e-2, 5e-2
# The share of empty values in fields that have any.
EMPTY_IDS = {2: 0.03, 3: 0.03, 5: 0.12, 11: 0.03, 15: 0.03, 18: 0.4, 19: 0.4, 20: 0.03, 21: 0.3, 24: 0.2, 25: 0.2}
EMPTY_INTEGERS = {0: 0.4, 2: 0.2, 3: 0.2, 4: 0.03, 5: 0.2, 8: 0.05, 9: 0.4, 12: 0.2}
# Each pair of these fields interacts; none is tiny or mostly tail.
INTERACTING = (1, 4, 5, 7, 13, 18)
# Relative sizes of the parts of a curve: linear, bend, hump, and the effect of an empty field.
_CURVE = np.array([1.0, 0.5, 0.3, 0.25])
_PILOT_ROWS = 50_000


@dataclasses.dataclass(frozen=True)
class PlantedRows:
    """Raw rows, column by column: `integers` int32 [13, B] with -1 for empty, `ids` int32 [26, B] with 0 for empty."""

    integers: Ints
    ids: Ints


class PlantedModel:
    """Draws rows, and computes their logits.

    Args:
      seed: determines the whole model.
    """

    def __init__(self, seed: int) -> None:
        rng = generator(seed, 0, 0)
        self.probabilities = [_zipf(size, EMPTY_IDS.get(f, 0.0)) for f, size in enumerate(VOCABULARIES)]
        self._cumulative = [np.cumsum(p)[:-1] for p in self.probabilities]
        self._location = rng.uniform(1.0, 2.5, 13).astype(np.float32)
        self._spread = rng.uniform(0.7, 1.2, 13).astype(np.float32)
        self._curves = (rng.normal(size=(13, 4)) * _CURVE * np.exp(rng.normal(size=(13, 1)))).astype(np.float32)
        # Fields differ in how much they matter.
        weights = np.exp(rng.normal(size=len(VOCABULARIES)))
        self._main = [np.float32(w) * self._effects(rng, f, 1, HALF_EFFECT)[:, 0] for f, w in enumerate(weights)]
        decay = np.float32(0.5) ** np.arange(LATENT_DIM, dtype=np.float32)
        self._latent = {f: self._effects(rng, f, LATENT_DIM, HALF_LATENT) * decay for f in INTERACTING}
        self._bias = np.float32(0.0)
        self._calibrate(self.draw(rng, _PILOT_ROWS))

    def draw(self, rng: np.random.Generator, count: int) -> PlantedRows:
        """Draws `count` rows."""
        ids = np.empty((len(VOCABULARIES), count), np.int32)
        for f, cumulative in enumerate(self._cumulative):
            ids[f] = np.searchsorted(cumulative, rng.random(count), side="right")
        integers = np.empty((13, count), np.int32)
        for k in range(13):
            logs = self._location[k] + self._spread[k] * rng.standard_normal(count, np.float32)
            integers[k] = np.expm1(np.maximum(logs, 0))
            if k in EMPTY_INTEGERS:
                integers[k][rng.random(count, np.float32) < EMPTY_INTEGERS[k]] = -1
        return PlantedRows(integers, ids)

    def logits(self, rows: PlantedRows, interactions: bool = True) -> Floats:
        """Computes the logits, float32 [B]; without `interactions`, from the per-field effects only."""
        logits = self._bias + _sum(self._dense_effects(rows)) + _sum(self._main_effects(rows))
        return logits + _sum(self._interactions(rows)) if interactions else logits

    def _effects(self, rng: np.random.Generator, field: int, width: int, half: float) -> Floats:
        """Draws effects [ids, width], smaller for rare ids, with a mean of 0 over the rows of the log."""
        p = self.probabilities[field]
        effects = rng.normal(size=(len(p), width)) * (p / (p + half))[:, None]
        return (effects - p @ effects).astype(np.float32)

    def _calibrate(self, rows: PlantedRows) -> None:
        """Scales the parts to their standard deviations, and sets the bias for the click rate."""
        dense, main = _sum(self._dense_effects(rows)), _sum(self._main_effects(rows))
        scale = np.float32(INTERACTION_STD / _sum(self._interactions(rows)).std())
        self._curves *= np.float32(DENSE_STD / dense.std())
        self._main = [effects * np.float32(MAIN_STD / main.std()) for effects in self._main]
        self._latent = {f: vectors * np.sqrt(scale) for f, vectors in self._latent.items()}
        self._bias = np.float32(click_bias(self.logits(rows)))

    def _dense_effects(self, rows: PlantedRows) -> Iterable[Floats]:
        for k, (linear, bend, hump, empty) in enumerate(self._curves):
            z = (np.log1p(np.maximum(rows.integers[k], 0).astype(np.float32)) - self._location[k]) / self._spread[k]
            yield linear * z + bend * np.tanh(2 * z) + hump * np.exp(-z * z) + empty * (rows.integers[k] < 0)

    def _main_effects(self, rows: PlantedRows) -> Iterable[Floats]:
        for effects, ids in zip(self._main, rows.ids, strict=True):
            yield effects[ids]

    def _interactions(self, rows: PlantedRows) -> Iterable[Floats]:
        vectors = {f: table[rows.ids[f]] for f, table in self._latent.items()}
        for i in INTERACTING:
            for j in INTERACTING:
                if i < j:
                    yield np.einsum("bd,bd->b", vectors[i], vectors[j])


def generator(seed: int, stream: int, chunk: int) -> np.random.Generator:
    """Makes a random generator; generators of other arguments are independent."""
    return np.random.Generator(np.random.Philox(key=[seed, (stream << 32) + chunk]))


def sigmoid(logits: Floats) -> Floats:
    """Turns logits into probabilities."""
    return 1 / (1 + np.exp(-logits))


def click_bias(logits: Floats) -> float:
    """Finds the bias that gives logits, float [B], the mean probability `CLICK_RATE`."""
    low, high = -10.0, 10.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(logits + logits.dtype.type(middle)).mean() < CLICK_RATE else (low, middle)
    return low


def _sum(parts: Iterable[Floats]) -> Floats:
    return np.sum(list(parts), axis=0, dtype=np.float32)


def _zipf(size: int, empty: float) -> npt.NDArray[np.float64]:
    """The probability of each id; id 0 is the empty field."""
    weights = np.arange(1, size + 1) ** -ZIPF_EXPONENT
    return np.concatenate([[empty], (1 - empty) * weights / weights.sum()])
