"""Checks that tables fit their placement on TPUs."""

from __future__ import annotations

from collections.abc import Sequence

from absl import logging

from tfrs_dlrm.distribute.placement import Placement, size_text
from tfrs_dlrm.embeddings.ids import Features
from tfrs_dlrm.embeddings.optimizers import FTRL
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.tpu.host_batches import HardwareLookup
from tfrs_dlrm.schema import Schema


def check_tables(
    schema: Schema, on_hardware: Sequence[str], hardware: str, batch_size: int, samples: Sequence[Features]
) -> None:
    """Checks that embedding hardware can hold the tables, and has the samples that it needs.

    Args:
      schema: the schema of the tables.
      on_hardware: the names of the tables on embedding hardware.
      hardware: its kind, see `tfrs_dlrm.embeddings.tpu.hardware.kind`.
      batch_size: examples of a replica.
      samples: encoded batches of one replica.

    Raises:
      ValueError: the hardware cannot hold a table, or needs samples.
    """
    if on_hardware and not hardware:
        raise ValueError(
            f"tables {', '.join(on_hardware)} are placed on embedding hardware, and the devices in scope have none;"
            " place them for these devices"
        )
    plain = {t.name for t in schema.tables if t.remainders is None and not t.stored_in}
    for name in on_hardware:
        if name not in plain:
            raise ValueError(
                f"table {name!r} is compressed, and embedding hardware looks up plain tables only; replicate it"
            )
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; at least 1 example for each replica is needed")
    if on_hardware and hardware == "SparseCore" and not samples:
        raise ValueError(
            "SparseCores have a fixed capacity for the ids of a batch, measured on samples: give samples, about 20"
            " encoded batches of one replica"
        )


def check_l2(optimizer: RowOptimizer, lookups: Sequence[HardwareLookup]) -> None:
    """Checks that the gradients of the activations can include the l2 of all rows on embedding hardware.

    Raises:
      ValueError: rows with l2 are pooled or weighted before their activations are known.
    """
    for x in lookups:
        l2 = optimizer.rule(x.table).l2
        if l2 and not x.feature.whole_rows:
            raise ValueError(
                f"table {x.table!r} is on TPU embedding hardware, which pools or weights the rows of feature"
                f" {x.feature.name!r} and does not return each of them, so it has no l2={l2} for them. Set l2 to 0: for"
                f" this table by embedding_optimizer={{{x.table!r}: td.Adagrad(0.01)}}, for all tables of a run by"
                " --config.optimizer.embedding_l2=0"
            )


def check_frozen(optimizer: RowOptimizer, schema: Schema, on_hardware: Sequence[str]) -> None:
    """Checks that rows which are not trainable stay as they are when they take a step with a gradient of 0.

    Raises:
      ValueError: the optimizer of such a table moves rows without a gradient.
    """
    for name in on_hardware:
        rule = optimizer.rule(name)
        if not schema.table(name).trainable and (rule.weight_decay or isinstance(rule, FTRL)):
            why = f"weight_decay={rule.weight_decay}" if rule.weight_decay else "FTRL"
            raise ValueError(
                f"table {name!r} is not trainable and on TPU embedding hardware, where {why} moves its rows all the"
                f" same; give it td.SGD: embedding_optimizer={{{name!r}: td.SGD(0.01)}}"
            )


def check_memory(placement: Placement, optimizer: RowOptimizer) -> None:
    """Checks that the replicated tables fit the memory of a chip, if it is known.

    Raises:
      ValueError: they do not fit.
    """
    memory = placement.topology.memory
    copied = [t for t in placement.tables if t.kind == "replicated"]
    slots = {t.name: optimizer.rule(t.name).slot_types().values() for t in copied}
    numbers = {t.name: sum(t.rows * (1 if s.per_row else t.dim) for s in slots[t.name]) for t in copied}
    total = sum(t.bytes + 4 * numbers[t.name] for t in copied)
    # The gradient of one table at a time, and its new rows.
    total += max((2 * 4 * t.rows * t.dim for t in copied), default=0)
    if memory is not None and total > memory:
        largest = max(copied, key=lambda t: t.bytes)
        raise ValueError(
            f"the tables that are copied to every chip need {size_text(total)} with their slots and gradients, and a"
            f" chip has {size_text(memory)}. The largest is {largest.name!r}, {largest.rows:,} x {largest.dim}:"
            " compress it (remainders or stored_in), take td.RowWiseAdagrad or td.SGD, whose slots are small, or chips"
            " with embedding hardware"
        )


def log_placement(placement: Placement, hardware: str) -> None:
    """Logs the size of the tables that are copied to every chip."""
    copied = [t for t in placement.tables if t.kind == "replicated"]
    size = size_text(sum(t.bytes for t in copied))
    if not hardware:
        logging.info("no embedding hardware: all %d tables, %s, are copied to every device", len(copied), size)
    else:
        rest = len(placement.tables) - len(copied)
        logging.info(
            "%s embedding hardware has %d tables; %d, %s, are copied to every chip", hardware, rest, len(copied), size
        )
