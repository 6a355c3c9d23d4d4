"""Pictures of the results."""

from __future__ import annotations

import os
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from summary import median, ratio, spread

_COLORS = {
    "ours": "#1f6fb4",
    "ours, ids sorted": "#5fa8e0",
    "ours, kernels": "#123f66",
    "PyTorch": "#e8702a",
    "FBGEMM": "#c0392b",
    "TFRS Ranking": "#7a9e3f",
    "Keras 3": "#9467ad",
}


def draw(studies: dict[str, Any], output: str) -> list[str]:
    """Writes the pictures; returns their paths."""
    plans = {"peers": _peers, "vocabulary": _vocabulary, "batch": _batch}
    return [path for name, plan in plans.items() if name in studies for path in plan(studies[name]["result"], output)]


def draw_paths(paths: dict[str, dict[str, float]], title: str, output: str) -> str:
    """Writes a bar for each library, of the seconds of its phases one after the other; returns the path."""
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.6 * len(paths)))
    begins = dict.fromkeys(paths, 0.0)
    for phase in dict.fromkeys(name for phases in paths.values() for name in phases):
        seconds = {library: phases.get(phase, 0.0) for library, phases in paths.items()}
        axis.barh(list(paths), list(seconds.values()), 0.6, left=list(begins.values()), label=phase)
        begins = {library: begin + seconds[library] for library, begin in begins.items()}
    for library, end in begins.items():
        axis.text(end, library, f"  {end:.0f}", va="center", fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * max(begins.values()))
    axis.set_title(title)
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return _save(figure, output)


def _save(figure: plt.Figure, path: str) -> str:
    figure.savefig(f"{path}.tmp", format="png", dpi=120, bbox_inches="tight")
    plt.close(figure)
    os.replace(f"{path}.tmp", path)
    return path


def _peers(result: dict[str, Any], output: str) -> list[str]:
    """A picture for each shape: uniform ids beside Zipf's."""
    paths = []
    for base in dict.fromkeys(g["workload"].removesuffix("_zipf") for g in result["groups"]):
        names = [n for n in (base, f"{base}_zipf") if any(g["workload"] == n for g in result["groups"])]
        groups = {n: [g for g in result["groups"] if g["workload"] == n] for n in names}
        height = 1.5 + 0.27 * max(sum(len(g["variants"]) + 1 for g in gs) for gs in groups.values())
        figure, axes = plt.subplots(1, len(names), figsize=(7.5 * len(names), height), squeeze=False)
        for axis, (name, of_name) in zip(axes[0], groups.items(), strict=True):
            _bars(axis, of_name)
            axis.set_title(f"{name}: ms a train step, median and 10% to 90%")
        paths.append(_save(figure, os.path.join(output, f"steps_{base}.png")))
    return paths


def _bars(axis: plt.Axes, groups: list[dict[str, Any]]) -> None:
    """A bar for each variant, group below group; on it the ratio to ours of the same optimizer and precision."""
    position, ticks, labels, longest = 0.0, [], [], 0.0
    for group in groups:
        for name, r in sorted(group["variants"].items(), key=lambda item: (item[1]["optimizer"], item[1]["precision"])):
            ticks.append(position)
            labels.append(name)
            seconds = median(r)
            if seconds is not None:
                low, high = spread(r)
                errors = [[(seconds - low) * 1e3], [(high - seconds) * 1e3]]
                axis.barh(position, seconds * 1e3, 0.8, color=_COLORS[r["peer"]], xerr=errors, ecolor="#444444")
                text = f"{seconds * 1e3:.1f}" + ("" if r["peer"] == "ours" else _ratio_to_ours(group, r))
                axis.text(high * 1e3, position, f"  {text}", va="center", fontsize=8)
                longest = max(longest, high * 1e3)
            else:
                axis.text(
                    0, position, f"  {r.get('error', 'not measured')}"[:60], va="center", fontsize=8, color="#b00020"
                )
            position += 1
        position += 0.7
    axis.set_yticks(ticks, labels, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, (longest or 1) * 1.25)
    axis.spines[["top", "right"]].set_visible(False)


def _ratio_to_ours(group: dict[str, Any], r: dict[str, Any]) -> str:
    """With the precision of `r`, or else with what there is."""
    for precision in (r["precision"], "bf16"):
        found = ratio(median(r), median(group["variants"].get(f"ours {r['optimizer']} {precision}")))
        if found is not None:
            return f"  {found:.2f}x" + ("" if precision == r["precision"] else " ours in bf16")
    return ""


def _line(axis: plt.Axes, points: list[tuple[float, dict[str, Any]]], label: str, value, **style: Any) -> None:
    """`value` of the median over x, with the same of the 10% and 90% as a band."""
    known = [(x, r) for x, r in points if median(r) is not None]
    xs = [x for x, _ in known]
    axis.plot(xs, [value(r, median(r)) for _, r in known], marker="o", label=label, **style)
    bands = [[value(r, s) for s in spread(r)] for _, r in known]
    axis.fill_between(xs, [b[0] for b in bands], [b[1] for b in bands], alpha=0.2, color=style.get("color"))


def _vocabulary(result: dict[str, Any], output: str) -> list[str]:
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for color, (precision, of_rows) in zip(("#1f6fb4", "#e8702a"), result.items(), strict=False):
        points = [(float(rows), r) for rows, r in of_rows.items()]
        _line(axis, points, precision, lambda r, seconds: seconds * 1e3, color=color)
    axis.set(xscale="log", xlabel="rows of each of 8 tables", ylabel="ms a train step", ylim=(0, None))
    axis.set_title("Step time and size of the vocabulary (row-wise Adagrad, batch 2048)", fontsize=10)
    axis.legend()
    return [_save(figure, os.path.join(output, "vocabulary.png"))]


def _batch(result: dict[str, Any], output: str) -> list[str]:
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for peer in ("ours", "PyTorch"):
        points = [(r["batch"], r) for r in result.values() if r["peer"] == peer]
        _line(axis, points, peer, lambda r, seconds: r["batch"] / seconds / 1e3, color=_COLORS[peer])
    axis.set(xlabel="batch", ylabel="thousand examples/s", ylim=(0, None))
    axis.set_xscale("log", base=2)
    axis.set_title("Examples per second and size of the batch (criteo_kaggle, row-wise Adagrad, bf16)", fontsize=10)
    axis.legend()
    return [_save(figure, os.path.join(output, "batch.png"))]
