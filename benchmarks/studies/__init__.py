"""What is measured. Each module has `run(options)`, which returns plain values for results.json."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from training.pool import Variant, Worker, take_turns
from workloads import Workload


@dataclasses.dataclass(frozen=True)
class Options:
    """What the flags say.

    Attributes:
      workloads: what is trained.
      rounds: turns of each variant.
      steps: timed steps in a turn.
      quick: tiny sizes.
      brief: leaves out what `--compare` has no time for.
      end: the `time.perf_counter` by which the study of peers should end, if it must; late groups have fewer rounds.
    """

    workloads: list[Workload]
    rounds: int
    steps: int
    quick: bool
    brief: bool = False
    end: float | None = None

    def end_of_one_of(self, groups: int) -> float | None:
        """When the next of so many groups should end so that each has an equal share of the time that is left."""
        now = time.perf_counter()
        return None if self.end is None else now + (self.end - now) / groups

    def sized(self, workload: Workload) -> Workload:
        return workload.tiny() if self.quick else workload


def run_group(title: str, variants: dict[str, Variant], options: Options, **turns: Any) -> dict[str, dict[str, Any]]:
    """Variants in turns; `losses` and `memory` as for `take_turns`. Says what it does."""
    begin = time.perf_counter()
    print(f"  {title}: {', '.join(variants)}", flush=True)
    makers = {name: (lambda v=v: Worker.of(v)) for name, v in variants.items()}
    results = take_turns(makers, turns.pop("losses", 0), options.rounds, options.steps, **turns)
    for name, variant in variants.items():
        results[name] |= {
            "peer": variant.peer,
            "optimizer": variant.optimizer,
            "precision": variant.precision,
            "batch": variant.workload.batch,
            "table_bytes": variant.table_bytes,
        }
    print(f"    {time.perf_counter() - begin:.0f} s", flush=True)
    return results
