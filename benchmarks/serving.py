"""Latency of an exported DLRM beside the obvious export of TFRS' Ranking, in the C++ runtime that TF Serving uses.

make bench-serving     # 3 minutes

Also of `rank`, beside the same rows through `serving_default`: without and with a linear term, and of models that read
a history of 50 events, which is of the context. And, for models that share work between candidates, beside a `rank`
that copies the inputs of the context. What is timed is the run alone, as TF Serving does it, without what Python takes
to make tensors of values; for `rank` with that too, since it is sent far fewer of them. Calls of what is compared are
taken in turns, in blocks.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before the C++ runtime is loaded

import numpy as np
from absl import app, flags
from machine import describe, machine

_CALLS = flags.DEFINE_integer("calls", 2000, "Timed calls of each, in blocks of 50.")
_OUTPUT = flags.DEFINE_string("output", "", "Where to write the results as JSON.")
_BLOCK = 50
_BATCHES = (1, 16, 256)
_CANDIDATES = (100, 500, 1000)
_LINEAR_OWN = 5  # as serving_export.LINEAR_OWN
_SHARING_OWN = 6  # as serving_export.SHARING_OWN; the models, as SHARING
_SHARING = (
    "DLRM",
    "EmbeddingMLP",
    "DeepFM",
    "WideAndDeep",
    "DCN",
    "GDCN",
    "FinalNet",
    "FinalMLP",
    "MaskNet",
    "XDeepFM",
)
_EVENTS, _WITH_HISTORY = 50, ("DLRM", "DIN", "BST")  # as serving_export
_OWN = (3, 5, 10)  # of the 26 categorical features, those that are not of the context; as serving_export.OWN


def main(argv: list[str]) -> None:
    del argv
    from tfrs_dlrm.serving.runtime.saved_model import SavedModel

    report: dict = {"machine": machine()}
    print(describe(report["machine"]))
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "serving_export.py")
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
        subprocess.run([sys.executable, program, directory], check=True, env=environment, stdout=subprocess.DEVNULL)
        obvious = SavedModel(os.path.join(directory, "obvious"))
        ranking = {own: SavedModel(os.path.join(directory, f"ours-{own}")) for own in _OWN}
        ours = ranking[_OWN[0]]
        linear = SavedModel(os.path.join(directory, "linear"))
        sharing = {
            name: {how: SavedModel(os.path.join(directory, f"{how}-{name}")) for how in ("copied", "shared")}
            for name in _SHARING
        }
        histories = {name: SavedModel(os.path.join(directory, f"history-{name}")) for name in _WITH_HISTORY}
    rng = np.random.default_rng(1)
    rows = {batch: _rows(rng, batch) for batch in (*_BATCHES, *_CANDIDATES)}
    report["serving_default"] = {}
    for batch in _BATCHES:
        one, two = (model.prepared("serving_default", rows[batch]) for model in (obvious, ours))
        with one as obvious_call, two as our_call:
            report["serving_default"][batch] = _in_turns({"obvious": obvious_call, "ours": our_call}, _CALLS.value)
    report["rank"], report["rank_with_tensors"] = {}, {}
    models = [(str(own), own, model) for own, model in ranking.items()]
    for title, own, model in (*models, (f"{_LINEAR_OWN}, linear", _LINEAR_OWN, linear)):
        for count in _CANDIDATES:
            what = f"{count} x {title}"
            report["rank"][what], report["rank_with_tensors"][what] = _rank(model, rows[count], own)
    report["sharing"] = {name: _both_ranks(models, rows[500]) for name, models in sharing.items()}
    report["history"] = {}
    for name, model in histories.items():
        for count in _CANDIDATES:
            found, _ = _ranked(model, _seen(rng, count), {"item", "category", "price"}, _CALLS.value // 10)
            report["history"][f"{name}, {count}"] = found
    _show(report)
    if _OUTPUT.value:
        with open(_OUTPUT.value, "w", encoding="utf-8") as f:
            json.dump(report, f, indent=2)


def _rows(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    rows = {f"I{i}": rng.integers(0, 1000, count).astype(np.float32) for i in range(1, 14)}
    sizes = [3, 30, 300, 3000, 30_000]  # as serving_export.VALUES
    for i in range(26):
        column = np.empty(count, object)
        numbers = rng.integers(0, sizes[i % 5], count).tolist()
        column[:] = [b"%08x" % ((n * 2654435761 + i * 40503) % 2**32) for n in numbers]
        rows[f"C{i + 1:02d}"] = column
    return rows


def _seen(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Rows of the log of `serving_export.prepared_histories`, whose histories are full."""

    def texts(most: int, size: int) -> np.ndarray:
        column = np.empty(count, object)
        column[:] = [b"|".join(b"%d" % n for n in values) for values in rng.integers(0, most, (count, size))]
        return column

    rows = {"age": rng.integers(18, 80, count), "price": rng.integers(1, 1000, count)}
    found = {name: values.astype(np.float32) for name, values in rows.items()}
    found |= {name: texts(100, 1) for name in ("user", "city", "device", "category")}
    found |= {"item": texts(30_000, 1), "seen": texts(30_000, _EVENTS), "seen_categories": texts(100, _EVENTS)}
    return found


def _rank(model: Any, rows: dict[str, np.ndarray], own: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first row's context with all rows' candidates, as `rank` takes them, and as rows: run, and made and run."""
    return _ranked(model, rows, {f"C{i:02d}" for i in range(27 - own, 27)}, _CALLS.value)


def _both_ranks(models: dict[str, Any], rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """`rank` with the inputs of the context copied, and with shared work, of the first row's context."""
    own = {f"C{i:02d}" for i in range(27 - _SHARING_OWN, 27)}
    request = {name: v[None] if name in own else v[:1] for name, v in rows.items()}
    copied, shared = (model.run("rank", request)["scores"] for model in models.values())
    with models["copied"].prepared("rank", request) as one, models["shared"].prepared("rank", request) as other:
        found: dict[str, Any] = _in_turns({"copied": one, "shared": other}, _CALLS.value // 10)
    return found | {"largest_difference": float(np.abs(copied - shared).max())}


def _ranked(
    model: Any, rows: dict[str, np.ndarray], names: set[str], calls: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first row's context with the named columns of all rows as candidates."""
    request = {name: v[None] if name in names else v[:1] for name, v in rows.items()}
    same = {name: v if name in names else np.repeat(v[:1], len(v)) for name, v in rows.items()}
    scores, apart = model.run("rank", request)["scores"][0], model.run("serving_default", same)["probability"]
    with model.prepared("serving_default", same) as row_by_row, model.prepared("rank", request) as at_once:
        found: dict[str, Any] = _in_turns({"serving_default": row_by_row, "rank": at_once}, calls)
    found["largest_difference"] = float(np.abs(scores - apart).max())
    whole = {"serving_default": lambda: model.run("serving_default", same), "rank": lambda: model.run("rank", request)}
    return found, _in_turns(whole, calls)


def _in_turns(calls: dict[str, Callable[[], object]], count: int) -> dict[str, dict[str, float]]:
    """p50, p95 and p99 of each in seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for block in range(1 + max(1, count // _BLOCK)):
        for name, call in calls.items():
            for _ in range(_BLOCK):
                begin = time.perf_counter()
                call()
                if block:  # the first warms up
                    seconds[name].append(time.perf_counter() - begin)
    return {
        name: dict(zip(("p50", "p95", "p99"), map(float, np.percentile(s, [50, 95, 99])), strict=True))
        for name, s in seconds.items()
    }


def _show(report: dict) -> None:
    print(f"\n{'':48}{'p50':>9}{'p95':>9}{'p99':>9}   milliseconds")
    for title, unit in (
        ("serving_default", "rows"),
        ("rank", "features"),
        ("rank_with_tensors", "features"),
        ("sharing", ""),
        ("history", "items"),
    ):
        for count, found in report[title].items():
            named = [(name, times) for name, times in found.items() if isinstance(times, dict)]
            for name, times in named:
                what = f"{name}, with tensors" if title == "rank_with_tensors" else name
                print(f"{count:>16} {unit:<9} {what:<28}" + "".join(f"{t * 1e3:9.2f}" for t in times.values()))
            (_, slow), (_, fast) = named
            print(f"{'':20}{'ratio':<28}" + "".join(f"{slow[p] / fast[p]:8.2f}x" for p in slow))
            if "largest_difference" in found:
                print(f"{'':20}largest difference of a score {found['largest_difference']:.1e}")


if __name__ == "__main__":
    app.run(main)
