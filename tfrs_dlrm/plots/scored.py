"""Examples with the scores of one or several scorers, as the figures of scores take them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from numpy.typing import ArrayLike

from tfrs_dlrm.metrics.exact import Floats, as_columns

References = Mapping[str, ArrayLike]


@dataclasses.dataclass(frozen=True)
class Scored:
    """Examples that weigh something.

    Attributes:
      labels: float64 [N].
      weights: float64 [N].
      scorers: the scores by scorer, float64 [N] each; `model` comes first.
    """

    labels: Floats
    weights: Floats
    scorers: dict[str, Floats]

    @classmethod
    def of(
        cls,
        labels: ArrayLike,
        scores: ArrayLike,
        weights: ArrayLike | None,
        references: References | None = None,
        binary: bool = True,
    ) -> Scored:
        """Checks the columns, and leaves out examples of weight 0.

        Raises:
          ValueError: see `tfrs_dlrm.metrics.exact_auc`; labels that are not `binary` may be any finite numbers.
        """
        given = {"model": scores, **(references or {})}
        columns = {name: as_columns(labels, values, weights, binary) for name, values in given.items()}
        y, _, w = columns["model"]
        seen = w > 0
        return cls(y[seen], w[seen], {name: values[seen] for name, (_, values, _) in columns.items()})

    def map(self, function: Callable[[Floats], Floats]) -> Scored:
        """Returns the same examples with other scores."""
        return dataclasses.replace(self, scorers={name: function(z) for name, z in self.scorers.items()})

    @property
    def model(self) -> Floats:
        """The scores of the model."""
        return self.scorers["model"]
