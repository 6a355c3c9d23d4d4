"""A suspicious thing in a log."""

from __future__ import annotations

import dataclasses
from typing import Literal

FindingKind = Literal["leakage", "constant", "row id", "label", "distribution", "missing", "new values", "skew"]
# What comes from a comparison with another log.
DRIFT: tuple[FindingKind, ...] = ("label", "distribution", "missing", "new values", "skew")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is suspicious.

    Attributes:
      kind: what it is.
      name: of the feature, or of the label.
      number: what was measured.
      limit: what the number should not pass.
      text: the fact, in a sentence without a full stop.
      advice: what to do.
    """

    kind: FindingKind
    name: str
    number: float
    limit: float
    text: str
    advice: str

    @property
    def is_drift(self) -> bool:
        """Whether it says that two logs differ."""
        return self.kind in DRIFT
