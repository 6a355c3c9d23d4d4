"""Prints a plan as aligned text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tfrs_dlrm.distribute.placement import size_text
from tfrs_dlrm.messages.aligned import aligned
from tfrs_dlrm.tools.planner.costs import (
    COMPUTE_UTILISATION,
    LINK_UTILISATION,
    MEMORY_UTILISATION,
    busiest,
    step_flops,
)
from tfrs_dlrm.tools.planner.memory import StoredTable
from tfrs_dlrm.tools.planner.plans import USABLE, Plan
from tfrs_dlrm.tools.planner.topologies import topology_text

_NOUNS = {"parameter_server": "server", "tpu": "chip", "multi_worker": "worker"}


def lines(plan: Plan) -> list[str]:
    """Returns the plan as lines of text."""
    parts = [_heading(plan), _tables(plan), _memory(plan), _traffic(plan), _time(plan), _remarks(plan)]
    return list(itertools.chain.from_iterable([*part, ""] for part in parts if part))[:-1]


def _heading(plan: Plan) -> list[str]:
    topology, config = plan.topology, plan.config
    devices = f"{topology.devices} x {plan.device.name}"
    if topology.strategy == "parameter_server":
        devices = (
            f"{_some(topology.devices, 'server')} and {_some(topology.workers, 'worker')}, each a {plan.device.name}"
        )
    return [
        f"{topology.strategy} {topology_text(topology)}: {devices}",
        f"batch {config.train.batch_size}, {config.train.precision}; tables by {plan.optimizer.row_optimizers},"
        f" dense weights by {config.optimizer.dense}",
    ]


def _tables(plan: Plan) -> list[str]:
    header = ("table", "rows", "dim", "type", "bytes", "slots", f"most on a {_noun(plan)}", "on", "where and why")
    rows: list[Sequence[str]] = [header]
    for cells, group in itertools.groupby(plan.tables, _cells):
        alike = list(group)
        first, last = alike[0].placed, alike[-1].placed
        name = first.name if first is last else f"{first.name} to {last.name}, each"
        rows.append((name, *cells[:-1], _on(alike), cells[-1]))
    total = sum(t.bytes for t in plan.tables), sum(t.slots for t in plan.tables)
    fullest = max(m.tables + m.slots for m in plan.memory)
    rows.append(("all", "", "", "", *map(size_text, total), size_text(fullest)))
    return aligned(rows, left=(0, 8))


def _cells(table: StoredTable) -> tuple[str, ...]:
    placed = table.placed
    return (
        f"{placed.rows:,}",
        str(placed.dim),
        placed.dtype,
        size_text(table.bytes),
        size_text(table.slots),
        size_text(table.most),
        placed.why,
    )


def _on(tables: Sequence[StoredTable]) -> str:
    """Returns the numbers of the devices that hold rows of tables, as text."""
    devices = sorted({d for t in tables for d, rows in enumerate(t.rows_on) if rows})
    if len(devices) == len(tables[0].rows_on):
        return "all"
    return str(devices[0]) if len(devices) == 1 else f"{devices[0]} to {devices[-1]}"


def _memory(plan: Plan) -> list[str]:
    fullest, emptiest = (f(plan.memory, key=lambda m: m.total) for f in (max, min))
    named = [
        ("tables", "tables"),
        ("slots of tables", "slots"),
        ("dense weights", "dense_weights"),
        ("their slots", "dense_slots"),
        ("a step (estimated)", "step"),
        ("total", "total"),
    ]
    rows = [(f"memory of a {_noun(plan)}", "fullest", "emptiest")]
    rows += [(text, size_text(getattr(fullest, name)), size_text(getattr(emptiest, name))) for text, name in named]
    out = aligned(rows)
    if plan.usable is not None:
        memory, rest = plan.topology.memory or 0, plan.usable - plan.need
        verdict = f"fits, {size_text(rest)} left" if rest >= 0 else f"does not fit, {size_text(-rest)} too much"
        out.append(f"of {size_text(memory)}, {USABLE:.0%} usable: {verdict}")
    if plan.worker_memory:
        out.append(f"a worker needs {size_text(plan.worker_memory)} for a step (estimated)")
    return out


def _traffic(plan: Plan) -> list[str]:
    servers = plan.topology.strategy == "parameter_server"
    names = {
        "link": f"{'servers and worker' if servers else 'between ' + _noun(plan) + 's'} ({plan.device.link_name})",
        "memory": "in memory, read and written",
        "input": "from the hosts" if not servers else "from the data",
    }
    rows = [("bytes of a step", "all", f"busiest {_noun(plan)}", *(["worker"] if servers else []))]
    for where, group in itertools.groupby(plan.flows, lambda f: f.where):
        rows.append((names[where],))
        for flow in group:
            most, worker = max(*flow.sent, *flow.received), max(flow.worker_sent, flow.worker_received)
            cells = [flow.total, most, *([worker] if servers else [])]
            rows.append((f"  {flow.what}", *(size_text(c) if c else "-" for c in cells)))
    out = aligned(rows)
    if plan.topology.devices > 1:
        out.append(
            f"most / mean: {plan.bytes_imbalance:.2f} of the bytes of tables and slots,"
            f" {plan.lookups_imbalance:.2f} of the lookups"
        )
    return out


def _time(plan: Plan) -> list[str]:
    time, device, topology = plan.time, plan.device, plan.topology
    peak = device.bfloat16 if plan.config.train.precision == "bfloat16" else device.float32
    flops = step_flops(plan.dense, plan.config, topology)
    link, memory = busiest(plan.flows, "link", topology), busiest(plan.flows, "memory", topology)
    slowest = {time.bottleneck: "  <- the bottleneck"}
    rows = [
        (
            "compute",
            _duration(time.compute),
            f"{_tera(flops)}FLOP at {COMPUTE_UTILISATION:.0%} of {_tera(peak)}FLOP/s{slowest.get('compute', '')}",
        ),
        (
            "memory",
            _duration(time.memory),
            f"{size_text(memory)} at {MEMORY_UTILISATION:.0%} of {size_text(device.bandwidth)}/s"
            f"{slowest.get('memory', '')}",
        ),
        (
            device.link_name,
            _duration(time.link),
            f"{size_text(link)} at {LINK_UTILISATION:.0%} of {size_text(device.link)}/s{slowest.get('link', '')}",
        ),
    ]
    if not link:
        rows.pop()
    most, least = time.most_examples_per_second, time.examples_per_second_in_turn
    return [
        "time of a step, by the cost model",
        *aligned([(f"  {name}", *rest) for name, *rest in rows], left=(0, 2)),
        f"at most {_examples(most)} examples/s, where these overlap; {_examples(least)} where they take turns",
    ]


def _remarks(plan: Plan) -> list[str]:
    out = [f"Note: {note}" for note in plan.notes]
    if plan.remedies:
        out.append("It would need, with one change:")
        rows = [(f"  {size_text(r.need)}", "fits" if r.fits else "too much", r.change) for r in plan.remedies]
        out += aligned(rows, left=(1, 2))
    return out


def _noun(plan: Plan) -> str:
    return _NOUNS.get(plan.topology.strategy, "device")


def _some(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{seconds * 1e3:.3g} ms"


def _tera(number: float) -> str:
    return f"{number / 1e12:.3g} T" if number >= 1e12 else f"{number / 1e9:.3g} G"


def _examples(number: float) -> str:
    return f"{number / 1e6:.3g} million" if number >= 1e6 else f"{number:,.0f}"
