"""Examples per second at growing batch sizes."""

from __future__ import annotations

import dataclasses
from typing import Any

from training.pool import Variant
from workloads import WORKLOADS

from studies import Options, run_group

_SIZES = [512, 1024, 2048, 4096, 8192, 16384]


def run(options: Options) -> dict[str, Any]:
    """{peer and batch size: result}."""
    shape = options.sized(WORKLOADS["criteo_kaggle"])
    variants = {}
    for size in [2048, 8192] if options.quick else _SIZES:
        sized = dataclasses.replace(shape, batch=size, batches=16)
        for peer in ("ours", "PyTorch"):
            variants[f"{peer} {size}"] = Variant(peer, "rowwise", "bf16", sized, weights=peer != "ours")
    return run_group("criteo_kaggle, rowwise, bf16", variants, options)
