"""What the project set out to reach, beside what was measured."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator
from typing import Any

from summary import median, ratio


@dataclasses.dataclass
class Line:
    """`measured` must reach `bound`, from below where `most` is set. None: it was not measured in this run."""

    what: str
    bound: float
    measured: float | None
    unit: str = "x"
    most: bool = False

    @property
    def target(self) -> str:
        return f"{'<=' if self.most else '>='} {self._number(self.bound)}"

    @property
    def shown(self) -> str:
        return "-" if self.measured is None else self._number(self.measured)

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        return "yes" if (self.measured <= self.bound if self.most else self.measured >= self.bound) else "NO"

    def _number(self, value: float) -> str:
        return {"x": f"{value:.2f}x", "%": f"{value:.0%}", "GB": f"{value:.2f} GB", "": f"{value:.5f}"}[self.unit]


def lines(results: dict[str, Any]) -> list[Line]:
    """All lines of the studies that were run."""
    parts = {
        "peers": _peers,
        "vocabulary": _vocabulary,
        "batch": _batch,
        "fit": _fit,
        "memory": _memory,
        "precision": _precision,
    }
    return [line for name, part in parts.items() if name in results for line in part(results[name])]


_ONE_HOT = {  # (PyTorch bf16, PyTorch fp32, TFRS)
    "criteo_kaggle": (1.3, 1.2, 1.6),
    "mlperf": (1.2, 1.1, 2.0),
}
_PAPER = {"adagrad": 1.3, "rowwise": 1.3, "sgd": 1.0}
_FBGEMM = {"criteo_kaggle": 1.2, "mlperf": 1.2, "paper": 1.1}


def _peers(result: dict[str, Any]) -> Iterator[Line]:
    for workload in dict.fromkeys(g["workload"] for g in result["groups"]):
        groups = [g["variants"] for g in result["groups"] if g["workload"] == workload]
        base = workload.removesuffix("_zipf")
        if base == "paper":
            for optimizer, bound in _PAPER.items():
                for precision in ("bf16", "fp32"):
                    for ours in ("ours", "ours, ids sorted", "ours, kernels"):
                        what = f"{workload}: PyTorch / {ours}, {optimizer} {precision}"
                        named = (f"{peer} {optimizer} {precision}" for peer in ("PyTorch", ours))
                        yield Line(what, bound, _between(groups, *named))
        else:
            yield from _one_hot(workload, groups, *_ONE_HOT[base])
        for optimizer in ("adagrad", "rowwise", "sgd"):
            for precision in ("bf16", "fp32"):
                for ours in ("ours", "ours, kernels"):
                    named = [f"{peer} {optimizer} {precision}" for peer in ("FBGEMM", ours)]
                    what = f"{workload}: FBGEMM / {ours}, {optimizer} {precision}"
                    yield Line(what, _FBGEMM[base], _between(groups, *named))


def _one_hot(workload: str, groups: list[dict], bf16: float, fp32: float, tfrs: float) -> Iterator[Line]:
    for precision, bound in (("bf16", bf16), ("fp32", fp32)):
        what = f"{workload}: PyTorch / ours, {precision}"
        yield Line(f"{what}, the better Adagrad of each", bound, _best(groups, precision))
        for optimizer in ("adagrad", "rowwise"):
            yield Line(f"{what}, {optimizer}", bound, _between(groups, f"PyTorch {optimizer} {precision}"))
    what = f"{workload}: TFRS Ranking fp32 / ours bf16, adagrad"
    yield Line(what, tfrs, _between(groups, "TFRS Ranking adagrad fp32", "ours adagrad bf16"))
    for precision in ("bf16", "fp32"):
        what = f"{workload}: Keras 3 fp32 / ours {precision}, adagrad"
        yield Line(what, 6.0, _between(groups, "Keras 3 adagrad fp32", f"ours adagrad {precision}"))


def _between(groups: list[dict], peer: str, ours: str | None = None) -> float | None:
    """Median of the peer / median of ours, in the first group where both were measured."""
    ours = ours or peer.replace("PyTorch", "ours")
    found = (ratio(median(g.get(peer)), median(g.get(ours))) for g in groups)
    return next((r for r in found if r is not None), None)


def _best(groups: list[dict], precision: str) -> float | None:
    """The same of the faster one of Adagrad and row-wise Adagrad of each."""
    for g in groups:
        names = [[f"{peer} {o} {precision}" for o in ("adagrad", "rowwise")] for peer in ("PyTorch", "ours")]
        if all(median(g.get(n)) for pair in names for n in pair):
            torch, ours = (min(median(g[n]) or 0 for n in pair) for pair in names)
            return torch / ours
    return None


def _vocabulary(result: dict[str, Any]) -> Iterator[Line]:
    for precision, of_rows in result.items():
        small, *_, large = of_rows
        what = f"step with {int(large):,} rows a table / with {int(small):,}, {precision}"
        yield Line(what, 1.2, ratio(median(of_rows[large]), median(of_rows[small])), most=True)


def _batch(result: dict[str, Any]) -> Iterator[Line]:
    rate = {size: ratio(result[f"ours {size}"]["batch"], median(result[f"ours {size}"])) for size in (2048, 8192)}
    yield Line("examples/s with a batch of 8192 / of 2048, ours", 1.3, ratio(rate[8192], rate[2048]))


def fit_shares(result: dict[str, Any]) -> list[float]:
    """Of each round: examples/s of `fit` / of the bare step."""
    return [f / b for f, b in zip(result["fit"], result["bare"], strict=False)]


def _fit(result: dict[str, Any]) -> Iterator[Line]:
    for name, r in result.items():
        shares = fit_shares(r)
        yield Line(f"model.fit / bare step, {name}", 0.9, statistics.median(shares) if shares else None, unit="%")


def _memory(result: dict[str, Any]) -> Iterator[Line]:
    for name, r in result.items():
        beyond = (r["peak"] - r["table_bytes"]) / 1e9 if "peak" in r else None
        yield Line(f"memory beyond tables and slots, {name}", 1.0, beyond, unit="GB", most=True)
        if name.startswith("large_table"):
            yield Line(
                "memory with one table of 4 GiB, rowwise", 6.0, r["peak"] / 1e9 if "peak" in r else None, "GB", True
            )


def precision_differences(result: dict[str, Any]) -> dict[str, float]:
    """Of each seed: AUC in bfloat16 - AUC in float32."""
    pairs = result["bfloat16"].items()
    return {seed: auc - result["float32"][seed] for seed, auc in pairs if seed in result["float32"]}


def mean_and_error(values: list[float]) -> tuple[float, float | None]:
    """The mean and its standard error, which one value does not have."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return statistics.mean(values), error


def _precision(result: dict[str, Any]) -> Iterator[Line]:
    mean, _ = mean_and_error(list(precision_differences(result).values()))
    yield Line("AUC lost by bfloat16, mean over the seeds", 0.0005, -mean, unit="", most=True)
