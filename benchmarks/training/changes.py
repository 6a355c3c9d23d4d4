"""What changed between two runs of the study of peers: each variant's time over ours, now and then."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

from summary import median
from tables import Table

# Of the standard error of a change. With some ten rounds in both runs, noise alone goes beyond it in 2% of the rows.
_ERRORS = 3.0


@dataclasses.dataclass(frozen=True)
class Change:
    """A variant's ratio to ours of the same optimizer and precision in two runs.

    Attributes:
      workload: its name.
      variant: peer, optimizer and precision.
      now: median step of the variant / median step of ours, taken in turns in one group.
      then: the same of the earlier run.
      noise: the relative change that the repeats of both runs explain; None if one of them has a single round.
    """

    workload: str
    variant: str
    now: float
    then: float
    noise: float | None

    @property
    def relative(self) -> float:
        """Above 0: ours has gained on the variant."""
        return self.now / self.then - 1

    @property
    def beyond_noise(self) -> bool:
        """Whether the change is larger than what the repeats explain."""
        return self.noise is not None and abs(math.log(self.now / self.then)) > math.log1p(self.noise)


def changes(now: dict[str, Any], then: dict[str, Any]) -> list[Change]:
    """The changes of all variants that both results of the study of peers have, in the order of `now`."""
    earlier = _ratios(then)
    out = []
    for key, (ratio, error) in _ratios(now).items():
        if key in earlier:
            before, error_before = earlier[key]
            known = error is not None and error_before is not None
            noise = math.expm1(_ERRORS * math.hypot(error, error_before)) if known else None
            out.append(Change(*key, ratio, before, noise))
    return out


def _ratios(result: dict[str, Any]) -> dict[tuple[str, str], tuple[float, float | None]]:
    """For each (workload, variant) but ours: the ratio to ours and the standard error of its logarithm."""
    out: dict[tuple[str, str], tuple[float, float | None]] = {}
    for group in result["groups"]:
        for name, variant in group["variants"].items():
            ours = group["variants"].get(f"ours {variant['optimizer']} {variant['precision']}")
            seconds, seconds_ours = median(variant), median(ours)
            if variant["peer"] != "ours" and seconds is not None and seconds_ours is not None:
                error = _error(variant["seconds"], ours["seconds"])
                out.setdefault((group["workload"], name), (seconds / seconds_ours, error))
    return out


def _error(seconds: list[list[float]], ours: list[list[float]]) -> float | None:
    """The standard error of the mean over the rounds of log(median of the variant / median of ours)."""
    rounds = zip(seconds, ours, strict=False)  # a variant that was lost has fewer
    logs = [math.log(statistics.median(a) / statistics.median(b)) for a, b in rounds]
    return statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else None


def table(found: list[Change], date: str) -> Table:
    """A row for each change; `date` is that of the earlier run."""
    rows = []
    for c in found:
        noise = "-" if c.noise is None else f"{c.noise:.0%}"
        mark = "" if not c.beyond_noise else "ours gained" if c.relative > 0 else "OURS LOST"
        rows.append(
            [f"{c.workload}, {c.variant}", f"{c.now:.2f}x", f"{c.then:.2f}x", f"{c.relative:+.0%}", noise, mark]
        )
    note = "its median / that of ours, in one group; noise: three standard errors of the change, by the rounds of both"
    return Table(f"Changes since {date}", ["variant", "now", "then", "change", "noise", ""], rows, note)
