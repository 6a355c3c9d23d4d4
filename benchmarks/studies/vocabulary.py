"""Whether a step costs more where the tables are larger, with the same batches otherwise."""

from __future__ import annotations

from typing import Any

from training.pool import Variant
from workloads import Workload

from studies import Options, run_group

_ROWS = [10_000, 100_000, 1_000_000, 10_000_000]
_QUICK_ROWS = [1_000, 100_000]


def run(options: Options) -> dict[str, Any]:
    """{precision: {rows of each table: result}}."""
    found = {}
    for precision in ("fp32", "bf16"):
        variants = {}
        for rows in _QUICK_ROWS if options.quick else _ROWS:
            shape = Workload(f"vocabulary_{rows}", (rows,) * 8, 16, (512, 256, 16), (512, 256, 1), dense=13)
            variants[str(rows)] = Variant("ours", "rowwise", precision, shape, weights=False)
        found[precision] = run_group(f"8 tables of dimension 16, {precision}", variants, options)
    return found
