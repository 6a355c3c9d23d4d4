"""The highest resident memory of a process that builds a model and trains it, beside its tables and slots."""

from __future__ import annotations

import dataclasses
from typing import Any

from training.pool import Variant
from workloads import Workload

from studies import Options, run_group

# One table of 4 GiB and a small one beside it.
LARGE = Workload("large_table", (1 << 24, 1000), 64, (512, 256, 64), (512, 256, 1), dense=13)


def run(options: Options) -> dict[str, Any]:
    """{workload and optimizer: result}; initial values are those of the library."""
    options = dataclasses.replace(options, rounds=1, steps=5 if options.quick else 30)
    shapes = [*(w for w in options.workloads if not w.zipf), LARGE]
    found = {}
    for shape in map(options.sized, shapes):
        for optimizer in ("rowwise",) if shape.name == LARGE.name else ("adagrad", "rowwise"):
            name = f"{shape.name} {optimizer}"
            variants = {name: Variant("ours", optimizer, "fp32", shape, weights=False, keep_memory=False)}
            found |= run_group("peak memory", variants, options, memory=True)
    return found
