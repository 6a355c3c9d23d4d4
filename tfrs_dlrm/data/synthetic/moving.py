"""The model behind a log that moves: each day new values appear, old ones go, and popularity and true weights drift.

A field has a fixed number of places, each with one value. When a place gets a new value, the old one never returns, and
the new one has weights of its own. The logit of a row is a bias, a weight of each value, two curves of numbers, and the
inner product of the latent vectors of region and device.

A drifting weight turns: `cos(a) u + sin(a) v`, with the same `u` and `v` on all days and an angle that grows equally
each day. So its size stays the same, weights of yesterday are nearly those of today, and after `1 / drift` days
nothing is left of the first ones.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tfrs_dlrm.data.synthetic.planted import click_bias, generator

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

# By field: its places, the standard deviation of its weights in the logit, and whether it gets new values.
FIELDS = {
    "item": (200, 0.4, True),
    "campaign": (40, 0.3, True),
    "site": (80, 0.7, False),
    "region": (20, 0.5, False),
    "device": (5, 0.3, False),
}
NUMBERS = {"price": 0.5, "age": 0.4}  # with the standard deviations of their curves
PAIR, PAIR_STD, LATENT_DIM = ("region", "device"), 0.3, 3
# Popular values are not so frequent that the weight of one decides how well a day can be predicted.
ZIPF_EXPONENT, POPULARITY_STD = 0.8, 0.5
_PILOT_ROWS = 50_000
_MODEL, _TURNOVER, _PILOT = 0, 1, 2  # streams of random numbers; `day_stream` gives those of rows
_DAY = 86_400


@dataclasses.dataclass(frozen=True)
class Turning:
    """Numbers that turn: those of a day are `cos(angle) first + sin(angle) second`."""

    first: Floats
    second: Floats

    @classmethod
    def drawn(cls, rng: np.random.Generator, *shape: int) -> Turning:
        """Draws standard normal numbers."""
        return cls(rng.standard_normal(shape), rng.standard_normal(shape))

    def at(self, angle: float) -> Floats:
        """Returns the numbers at an angle."""
        return math.cos(angle) * self.first + math.sin(angle) * self.second

    def replaced(self, places: npt.NDArray[np.bool_], rng: np.random.Generator) -> Turning:
        """Returns the numbers with new ones in some places."""
        new = Turning.drawn(rng, *self.first.shape)
        where = places.reshape(-1, *[1] * (self.first.ndim - 1))
        return Turning(np.where(where, new.first, self.first), np.where(where, new.second, self.second))


@dataclasses.dataclass(frozen=True)
class Field:
    """The values of a field on one day, by place.

    Attributes:
      ids: int64 [places], the number of the value; higher ones are newer.
      new: bool [places], whether the value appears on this day.
      popularity: [places], in standard deviations.
      weights: [places], in standard deviations.
      latent: [places, LATENT_DIM].
    """

    ids: Ints
    new: npt.NDArray[np.bool_]
    popularity: Turning
    weights: Turning
    latent: Turning

    @classmethod
    def first(cls, rng: np.random.Generator, places: int) -> Field:
        """Draws the values of the first day, none of which is new."""
        drawn = Turning.drawn(rng, places), Turning.drawn(rng, places), Turning.drawn(rng, places, LATENT_DIM)
        return cls(np.arange(places), np.zeros(places, bool), *drawn)

    def next(self, rng: np.random.Generator, new_values: float) -> Field:
        """Returns the next day's values: each place gets a new one with probability `new_values`, and at least one."""
        new = rng.random(len(self.ids)) < new_values
        new[rng.integers(len(self.ids))] |= new_values > 0
        ids = np.where(new, self.ids.max() + np.cumsum(new), self.ids)
        turned = (t.replaced(new, rng) for t in (self.popularity, self.weights, self.latent))
        return Field(ids, new, *turned)

    def probabilities(self, angle: float, new_values: float) -> Floats:
        """Returns the probability of each place; those with new values have `new_values` together."""
        ranks = np.arange(1, len(self.ids) + 1)
        p = ranks**-ZIPF_EXPONENT * np.exp(POPULARITY_STD * self.popularity.at(angle))
        if 0 < self.new.sum() < len(p):
            for places, share in ((self.new, new_values), (~self.new, 1 - new_values)):
                p[places] *= share / p[places].sum()
        return np.asarray(p / p.sum())


@dataclasses.dataclass(frozen=True)
class MovingRows:
    """Raw rows, column by column.

    Attributes:
      seconds: float64 [B], since the day began, growing.
      places: by field, int64 [B], the place of its value.
      numbers: by number, float64 [B].
    """

    seconds: Floats
    places: dict[str, Ints]
    numbers: dict[str, Floats]


class MovingDay:
    """The model on one day: draws rows, and computes their logits.

    Args:
      fields: the values of each field.
      curves: the curves of the numbers, two a number.
      angle: by how much all weights have turned since the first day.
      new_values: the share of rows with a new value, of each field that gets some.
      bias: the bias of the logit.
    """

    def __init__(self, fields: dict[str, Field], curves: Turning, angle: float, new_values: float, bias: float):
        self.fields = fields
        self._bias = bias
        self._curves = curves.at(angle) * np.array([list(NUMBERS.values())]).T / math.sqrt(1.5)
        self._cumulative = {
            name: np.cumsum(field.probabilities(angle, new_values))[:-1] for name, field in fields.items()
        }
        self._weights = {name: FIELDS[name][1] * field.weights.at(angle) for name, field in fields.items()}
        scale = math.sqrt(PAIR_STD / math.sqrt(LATENT_DIM))
        self._latent = {name: scale * fields[name].latent.at(angle) for name in PAIR}

    def draw(self, rng: np.random.Generator, count: int, begin: float = 0.0, end: float = 1.0) -> MovingRows:
        """Draws `count` rows of a part of the day, from `begin` to `end`."""
        seconds = np.sort(rng.uniform(begin, end, count)) * _DAY
        places = {n: np.searchsorted(c, rng.random(count), side="right") for n, c in self._cumulative.items()}
        numbers = {"price": np.exp(rng.normal(2.5, 1.0, count)).round(2), "age": rng.uniform(18, 80, count).round()}
        return MovingRows(seconds, places, numbers)

    def logits(self, rows: MovingRows) -> Floats:
        """Computes the logits, float64 [B]."""
        logits = np.full(len(rows.seconds), self._bias)
        standard = (np.log(rows.numbers["price"]) - 2.5) / 1.0, (rows.numbers["age"] - 49) / 18
        for (linear, bend), z in zip(self._curves, standard, strict=True):
            logits += linear * z + bend * (np.abs(z) - 0.8)
        for name, places in rows.places.items():
            logits += self._weights[name][places]
        one, other = (self._latent[name][rows.places[name]] for name in PAIR)
        return np.asarray(logits + (one * other).sum(1))


def moving_days(seed: int, days: int, new_values: float, drift: float) -> list[MovingDay]:
    """Makes the models of the days; the first ones do not depend on how many follow."""
    rng = generator(seed, _MODEL, 0)
    fields = {name: Field.first(rng, places) for name, (places, _, _) in FIELDS.items()}
    curves = Turning.drawn(rng, len(NUMBERS), 2)
    first = MovingDay(fields, curves, 0.0, new_values, 0.0)
    bias = click_bias(first.logits(first.draw(generator(seed, _PILOT, 0), _PILOT_ROWS)))
    found = []
    for day in range(days):
        if day:
            rng = generator(seed, _TURNOVER, day)
            fields = {name: f.next(rng, new_values) if FIELDS[name][2] else f for name, f in fields.items()}
        found.append(MovingDay(fields, curves, day * drift * math.pi / 2, new_values, bias))
    return found


def day_stream(day: int) -> int:
    """The stream of random numbers of the rows of a day, counted from 0."""
    return _PILOT + 1 + day
