"""The step time of every peer, optimizer and precision on every workload, and the peaks of the machine."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from training.pool import Variant, Worker, WorkerLost, fits
from workloads import Workload, step_work

from studies import Options, run_group

LOSS_STEPS = 50


def run(options: Options) -> dict[str, Any]:
    plans = {workload: _plan(workload, options) for workload in map(options.sized, options.workloads)}
    left = sum(map(len, plans.values()))
    groups = []
    for workload, plan in plans.items():
        for number, (name, variants) in enumerate(plan.items(), 1):
            title = f"{workload.name}, {name} ({number} of {len(plan)})"
            named = {v.name: v for v in variants}
            losses = 10 if options.quick or options.brief else LOSS_STEPS
            results = run_group(title, named, options, losses=losses, until=options.end_of_one_of(left))
            groups.append({"workload": workload.name, "name": name, "variants": results})
            left -= 1
    return {"groups": groups, "peaks": _peaks(options), "work": _work(options)}


def _plan(workload: Workload, options: Options) -> dict[str, list[Variant]]:
    if options.brief:
        return brief_groups_of(workload)
    plan = groups_of(workload)
    # In a quick run two groups, with every peer in one of them.
    return {name: plan[name] for name in (next(iter(plan)), list(plan)[-1])} if options.quick else plan


def groups_of(workload: Workload) -> dict[str, list[Variant]]:
    """Variants to compare with each other, as many together as the memory holds."""

    some = functools.partial(_variants, workload)
    one_hot, all_have = not workload.longest_bag, _all_have(workload)
    tfrs = {o: some(["TFRS Ranking"], [o], ["fp32"]) if one_hot else [] for o in ("adagrad", "sgd")}
    groups: dict[str, list[Variant]] = {}
    for precision in ("bf16", "fp32"):
        adagrads = [some(all_have, [o], [precision]) for o in ("adagrad", "rowwise")]
        together = [*adagrads[0], *adagrads[1], *tfrs["adagrad"]]
        if fits(together):
            groups[f"Adagrads {precision}"] = together
        else:
            groups |= _parts(f"adagrad {precision}", adagrads[0] + tfrs["adagrad"])
            groups |= _parts(f"rowwise {precision}", adagrads[1])
    sgd = [some(all_have, ["sgd"], ["bf16"]), some(all_have, ["sgd"], ["fp32"]) + tfrs["sgd"]]
    if fits(sgd[0] + sgd[1]):
        groups["SGD"] = sgd[0] + sgd[1]
    else:
        groups |= _parts("SGD bf16", sgd[0]) | _parts("SGD fp32", sgd[1])
    if one_hot:
        groups["Keras 3"] = some(["ours"], ["adagrad"], ["bf16", "fp32"]) + some(["Keras 3"], ["adagrad"], ["fp32"])
    return groups


def brief_groups_of(workload: Workload) -> dict[str, list[Variant]]:
    """The groups of a comparison with an earlier run: row-wise Adagrad and SGD by the peers that have both."""
    groups: dict[str, list[Variant]] = {}
    for optimizer, precision in (("rowwise", "bf16"), ("rowwise", "fp32"), ("sgd", "fp32")):
        groups |= _parts(f"{optimizer} {precision}", _variants(workload, _all_have(workload), [optimizer], [precision]))
    return groups


def _all_have(workload: Workload) -> list[str]:
    """Peers that take this workload with every optimizer and precision."""
    return ["ours", *(["ours, ids sorted"] if workload.longest_bag else []), "ours, kernels", "PyTorch", "FBGEMM"]


def _variants(
    workload: Workload, peers: Sequence[str], optimizers: Sequence[str], precisions: Sequence[str]
) -> list[Variant]:
    return [Variant(p, o, q, workload) for o in optimizers for q in precisions for p in peers]


def _parts(name: str, variants: list[Variant]) -> dict[str, list[Variant]]:
    """Groups that the memory holds, each with the first of the variants, ours, and at least one other."""
    ours, *others = variants
    parts = [[ours]]
    for variant in others:
        if len(parts[-1]) > 1 and not fits([*parts[-1], variant]):
            parts.append([ours])
        parts[-1].append(variant)
    return {f"{name}, part {i}" if i > 1 else name: part for i, part in enumerate(parts, 1)}


def _peaks(options: Options) -> dict[str, Any]:
    """FLOP/s and bytes/s of this machine; the best that any of the libraries reaches."""
    print("  peaks of this machine", flush=True)
    found = []
    for library in ("tensorflow", "torch"):
        worker = Worker("peaks", {"library": library, "size": 256 if options.quick else 2048})
        try:
            worker.ready()
            found.append(worker.ask("peaks"))
        except WorkerLost as e:
            print(f"    {library}: LOST, {e}", flush=True)
        finally:
            worker.close()
    return {key: max(f[key] for f in found) for key in ("fp32", "bf16", "copy")} if found else {}


def _work(options: Options) -> dict[str, dict[str, dict[str, float]]]:
    """FLOPs and bytes of a step, for each workload and optimizer."""
    work = {}
    for workload in map(options.sized, options.workloads):
        slots = {o: Variant("ours", o, "fp32", workload).slot_bytes_per_row for o in ("sgd", "adagrad", "rowwise")}
        work[workload.name] = {optimizer: step_work(workload, size) for optimizer, size in slots.items()}
    return work
