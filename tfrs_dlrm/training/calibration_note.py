"""What the calibration of an evaluation says about the probabilities of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping

# Sum of predictions over sum of labels, within which nothing is said.
_WIDEST = (0.8, 1.25)


def calibration_note(metrics: Mapping[str, float]) -> str:
    """Returns a warning if the predictions of an evaluation sum to far more or less than its labels, or an empty text.

    Few labels differ by chance: then the limits are two standard errors, which are about 1 / sqrt(number of 1s) each.

    Args:
      metrics: of the evaluation; `calibration` is the sum of predictions over the sum of labels.
    """
    found = metrics.get("calibration")
    ones = metrics.get("examples", 0.0) * metrics.get("label_mean", 0.0)
    if found is None or found <= 0 or ones <= 0:
        return ""
    chance = math.exp(2 / math.sqrt(ones))
    if min(_WIDEST[0], 1 / chance) <= found <= max(_WIDEST[1], chance):
        return ""
    what = (
        f"predicts {found:.2f} times the 1s of the evaluation set"
        if found >= 1
        else f"predicts only {found:.2f} of the 1s"
    )
    return (
        f"warning: the best checkpoint {what} (calibration, the sum of predictions over the sum of labels; 0.8 to 1.25"
        " is usual). It may order examples well all the same, but its probabilities are off; tfrs-dlrm calibrate mends"
        " them"
    )
