"""What a run tries before it trains: other models and settings, within a budget of time.

(Flags are parsed by the types of the fields, so these must not be strings: no import of annotations from __future__.)
"""

import dataclasses
import re

from tfrs_dlrm.config.field_checks import check_at_least, refuse

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclasses.dataclass
class SearchConfig:
    """The candidates of a run, of which the best is trained. Without candidates it has no effect.

    Attributes:
      candidates: recipes that differ from this one, each `[LABEL@]NAME[:SECTION.FIELD=VALUE]...` as for `compare`, the
        most promising first: those that do not fit into the budget are left out.
      budget: the time for all trials and the training of the best, with its unit: 90s, 10m or 2h.
      trial_rows: how many training rows a trial reads at most, each epoch counted. The best candidate reads on from
        there, so a trial is the beginning of its run.
    """

    candidates: tuple[str, ...] = ()
    budget: str = "10m"
    trial_rows: int = 2_000_000

    def check(self) -> None:
        """Checks each field.

        Raises:
          ValueError: a field is wrong; the message has its name and value.
        """
        check_at_least("search", self, trial_rows=1)
        _ = self.seconds

    @property
    def seconds(self) -> float:
        """The budget in seconds.

        Raises:
          ValueError: it is no time.
        """
        found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([smh])\s*", self.budget)
        seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
        if seconds <= 0:
            wanted = "a time above 0 with its unit is needed: seconds as in 90s, minutes as in 10m, or hours as in 2h"
            refuse("search.budget", self.budget, wanted)
        return seconds
