"""Tables of the results, for the terminal and for results.md."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from summary import largest_difference, median, ratio, spread
from training import acceptance


@dataclasses.dataclass
class Table:
    """A title, a header, rows of text, and what must be known to read them."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]]
    note: str = ""

    def text(self) -> str:
        """Aligned, for a terminal."""
        lines = [list(self.header), *map(list, self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]

        def aligned(line: Sequence[str]) -> str:
            cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
            return ("  " + "  ".join(cells)).rstrip()

        body = "\n".join(map(aligned, lines))
        return f"{self.title}\n{body}\n" + (f"  ({self.note})\n" if self.note else "")

    def markdown(self) -> str:
        head = f"| {' | '.join(self.header)} |\n|{' --- |' * len(self.header)}\n"
        body = "".join(f"| {' | '.join(row)} |\n" for row in self.rows)
        return f"## {self.title}\n\n{head}{body}" + (f"\n{self.note}\n" if self.note else "")


def tables(studies: dict[str, Any]) -> list[Table]:
    """All that the studies have something to say in; the acceptance lines come first."""
    makers = {
        "peers": [_steps, _losses, _roofline],
        "vocabulary": [_vocabulary],
        "batch": [_batch],
        "memory": [_memory],
        "fit": [_fit],
        "precision": [_precision],
    }
    out = [_acceptance(studies)]
    for study, functions in makers.items():
        if study in studies:
            for function in functions:
                made = function(studies[study]["result"])
                out += made if isinstance(made, list) else [made]
    return [t for t in out if t.rows]


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f}"


def times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _acceptance(studies: dict[str, Any]) -> Table:
    results = {name: study["result"] for name, study in studies.items()}
    rows = [(line.what, line.target, line.shown, line.verdict) for line in acceptance.lines(results)]
    return Table("Targets", ["what", "target", "measured", "met"], rows, "ratios of medians taken in turns, in one run")


def step_row(name: str, result: dict[str, Any], ratios: Sequence[str] = ()) -> list[str]:
    """Name, median, spread, examples/s; or why there is none."""
    seconds = median(result)
    if seconds is None:
        return [name, "-", "-", "-", *["-"] * (len(ratios) - 1), *["LOST: " + _short(result)][: len(ratios)]]
    low, high = spread(result)
    lost = " (lost later)" if "error" in result else ""
    between = f"{low * 1e3:.1f} to {high * 1e3:.1f}"
    return [name + lost, milliseconds(seconds), between, f"{result['batch'] / seconds:,.0f}", *ratios]


def _short(result: dict[str, Any]) -> str:
    """Why there is no result."""
    error = result.get("error", "no steps")
    return error if len(error) <= 60 else error[:57] + "..."


_STEP_HEADER = ["variant", "ms a step", "10% to 90%", "examples/s"]


def _steps(result: dict[str, Any]) -> list[Table]:
    out = []
    for workload in dict.fromkeys(g["workload"] for g in result["groups"]):
        rows = []
        for group in result["groups"]:
            if group["workload"] == workload:
                for name, r in group["variants"].items():
                    rows.append(step_row(f"{group['name']}: {name}", r, ratios_to_ours(group, r)))
        header = [*_STEP_HEADER, "to ours, same precision", "to ours bf16"]
        note = "last columns: its median / that of ours with the same optimizer, in one group; above 1, ours is faster"
        out.append(Table(f"Train step, {workload}", header, rows, note))
    return out


def ratios_to_ours(group: dict[str, Any], r: dict[str, Any]) -> list[str]:
    """With the precision of `r`, and with bf16."""
    ours = [group["variants"].get(f"ours {r['optimizer']} {precision}") for precision in (r["precision"], "bf16")]
    same, bf16 = (times(ratio(median(r), median(o))) for o in ours)
    return [same, bf16 if r["precision"] == "fp32" else ""]


def _losses(result: dict[str, Any]) -> list[Table]:
    out = []
    for group in result["groups"]:
        rows, shown = [], None
        for name, r in group["variants"].items():
            losses = r["losses"]
            if losses and None not in losses:
                shown = sorted({*range(0, len(losses), 5), len(losses) - 1})
                reference = _reference(result, group["workload"], r["optimizer"])
                comparable = reference and len(reference) == len(losses)
                difference = f"{largest_difference(losses, reference):.1e}" if comparable else "-"
                rows.append([name, *(f"{losses[i]:.5f}" for i in shown), difference])
        if shown:
            header = ["loss at step", *(str(i + 1) for i in shown), "off PyTorch fp32 by"]
            title = f"Losses, {group['workload']}, {group['name']}"
            out.append(Table(title, header, rows, "the largest relative difference over all of the first steps"))
    return out


def _reference(result: dict[str, Any], workload: str, optimizer: str) -> list[float] | None:
    for group in result["groups"]:
        found = group["variants"].get(f"PyTorch {optimizer} fp32")
        if group["workload"] == workload and found and found["losses"]:
            return found["losses"]
    return None


def _roofline(result: dict[str, Any]) -> Table:
    rows, peaks = [], result["peaks"]
    for group in result["groups"] if peaks else []:
        for name, r in group["variants"].items():
            seconds = median(r)
            if r["peer"] != "ours" or seconds is None or group["name"] == "Keras 3":
                continue
            work = result["work"][group["workload"]][r["optimizer"]]
            compute, memory = work["flops"] / peaks[r["precision"]], work["bytes"] / peaks["copy"]
            sizes = [f"{work['flops'] / 1e9:.2f}", f"{work['bytes'] / 1e6:.1f}"]
            bounds = [milliseconds(compute), milliseconds(memory), milliseconds(seconds)]
            share = f"{max(compute, memory) / seconds:.0%}"
            both = f"{(compute + memory) / seconds:.0%}"
            rows.append([f"{group['workload']} {name}", *sizes, *bounds, share, both])
    header = [
        "variant",
        "GFLOP",
        "MB",
        "compute ms",
        "memory ms",
        "step ms",
        "of the roofline",
        "... one after the other",
    ]
    note = ""
    if peaks:
        note = f"peaks in this run: fp32 {peaks['fp32'] / 1e12:.2f}, bf16 {peaks['bf16'] / 1e12:.2f} TFLOP/s, memory"
        note += f" {peaks['copy'] / 1e9:.0f} GB/s; the roofline is the longer of both times; see `workloads.step_work`"
    return Table("Roofline", header, rows, note)


def _vocabulary(result: dict[str, Any]) -> Table:
    rows = []
    for precision, of_rows in result.items():
        first = median(next(iter(of_rows.values())))
        for count, r in of_rows.items():
            name = f"{int(count):,} rows a table, {precision}"
            rows.append(step_row(name, r, [times(ratio(median(r), first))]))
    return Table("Size of the vocabulary, 8 tables, rowwise", [*_STEP_HEADER, "to the smallest"], rows)


def _batch(result: dict[str, Any]) -> Table:
    rows = []
    for name, r in result.items():
        ours = result.get(f"ours {r['batch']}")
        rows.append(step_row(name, r, [times(ratio(median(r), median(ours)))]))
    return Table("Size of the batch, criteo_kaggle, rowwise, bf16", [*_STEP_HEADER, "to ours"], rows)


def _memory(result: dict[str, Any]) -> Table:
    rows = []
    for name, r in result.items():
        tables = f"{r['table_bytes'] / 1e9:.2f}"
        if "peak" in r:
            rows.append([name, tables, f"{r['peak'] / 1e9:.2f}", f"{(r['peak'] - r['table_bytes']) / 1e9:.2f}"])
        else:
            rows.append([name, tables, "-", "LOST: " + _short(r)])
    return Table(
        "Peak resident memory of ours, fp32", ["workload", "tables + slots GB", "peak GB", "difference GB"], rows
    )


def _fit(result: dict[str, Any]) -> Table:
    rows = []
    for name, r in result.items():
        shares = acceptance.fit_shares(r)
        if shares:
            rates = [f"{statistics.median(r[key]):,.0f}" for key in ("bare", "fit")]
            between = f"{min(shares):.0%} to {max(shares):.0%}"
            rows.append([name, *rates, f"{statistics.median(shares):.0%}", between])
        else:
            rows.append([name, "-", "-", "-", "LOST: " + _short(r)])
    header = ["variant", "bare step, examples/s", "fit from Parquet, examples/s", "share", "lowest to highest"]
    return Table("model.fit from Parquet beside the bare step, batch 2048", header, rows, "default metrics in both")


def _precision(result: dict[str, Any]) -> Table:
    differences = acceptance.precision_differences(result)
    rows = [
        [f"seed {s}", f"{result['float32'][s]:.5f}", f"{result['bfloat16'][s]:.5f}", f"{d:+.5f}"]
        for s, d in differences.items()
    ]
    mean, error = acceptance.mean_and_error(list(differences.values()))
    rows.append(["mean", "", "", f"{mean:+.5f}" + (f" +- {error:.5f}" if error is not None else "")])
    return Table(
        "Evaluation AUC of the quickstart", ["", "float32", "bfloat16", "difference"], rows, "+- is the standard error"
    )
