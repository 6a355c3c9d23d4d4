"""Labels that come after another one: a purchase after a click."""

from __future__ import annotations

from collections.abc import Sequence

from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.schema.features import Label


def rate_name(label: Label) -> str:
    """Returns how the name of an output ends that gives a label's probability among the rows with a 1 before it."""
    return f"{label.name}_rate"


def check_after(labels: Sequence[Label], earlier: Sequence[int | None]) -> None:
    """Checks what labels come after.

    Args:
      labels: of a schema.
      earlier: the position of the label that each comes after, as far as there is one of that name.

    Raises:
      ValueError: there is none, it stands later in the list, or one of both is a regression.
    """
    names = [label.name or label.column for label in labels]
    for i, label in enumerate(labels):
        if not label.after:
            continue
        where = f"label {names[i]!r}: after={label.after!r}"
        if not i:
            raise ValueError(f"{where}: the first label comes after none; put it into more_labels")
        found = earlier[i]
        if found is None or found >= i:
            mend = did_you_mean(label.after, names[:i]) or f"the labels before it are {names[:i]}"
            raise ValueError(f"{where} is no label that stands before it; {mend}")
        if label.task != "classification" or labels[found].task != "classification":
            raise ValueError(f"{where}: both have to be 0 or 1, and one is a regression; leave it out")
