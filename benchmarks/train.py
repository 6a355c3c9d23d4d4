"""How fast and how large training is, beside PyTorch, FBGEMM, TensorFlow Recommenders' Ranking model, and Keras 3.

make bench                                # everything: more than an hour on 2 cores, up to 18 GB of memory
python benchmarks/train.py --quick        # a smoke test of all of it, whose numbers mean nothing
python benchmarks/train.py --studies=peers --workloads=criteo_kaggle,mlperf_zipf
python benchmarks/train.py --compare=results.json   # 15 minutes, and what changed against these results

Writes results.json (every step time), results.md and pictures. Studies that are not run keep what an earlier run left
in the same directory. Leave the machine alone meanwhile: with other work on its cores PyTorch, whose threads wait
actively for each other, becomes slower by far more than the rest.
"""

from __future__ import annotations

import datetime
import importlib
import json
import os
import signal
import sys
import time
from typing import Any

from absl import app, flags
from charts import draw
from machine import describe, machine
from studies import Options
from tables import tables
from training.changes import changes
from training.changes import table as table_of_changes
from workloads import WORKLOADS

_STUDIES = ["peers", "vocabulary", "batch", "memory", "fit", "precision"]
_OUTPUT = flags.DEFINE_string(
    "output", None, "The directory of the results; benchmarks/results, or with --compare benchmarks/results-compared."
)
_COMPARE = flags.DEFINE_string(
    "compare", None, "The results.json of an earlier run: trains few variants for 15 minutes, and says what changed."
)
_CHOSEN = flags.DEFINE_list("studies", None, "What to measure; by default all, and with --compare peers.")
_WORKLOADS = flags.DEFINE_list(
    "workloads", None, "For the studies peers and memory; by default all, and with --compare three."
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "How often each variant has its turn.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 20, "Timed steps in a turn.", lower_bound=1)
_QUICK = flags.DEFINE_bool("quick", False, "Tiny sizes and few steps.")

# What --compare trains, how many steps a turn, and when its groups end; peaks and tables take another minute.
_COMPARED = ["criteo_kaggle", "mlperf", "paper"]
_BRIEF_STEPS = 10
_BRIEF_SECONDS = 14 * 60


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    earlier = _to_compare_with(_COMPARE.value) if _COMPARE.value else None
    every = _COMPARED if earlier else list(WORKLOADS)
    workloads = _WORKLOADS.value or (["criteo_kaggle_zipf", "paper"] if _QUICK.value else every)
    chosen = _CHOSEN.value or (["peers"] if earlier else _STUDIES)
    output = _OUTPUT.value or ("benchmarks/results-compared" if earlier else "benchmarks/results")
    for given, known in ((chosen, _STUDIES), (workloads, list(WORKLOADS))):
        if unknown := sorted(set(given) - set(known)):
            raise app.UsageError(f"unknown {', '.join(unknown)}; choose from {', '.join(known)}")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends the workers too
    rounds, steps = (2, 3) if _QUICK.value else (_ROUNDS.value, _BRIEF_STEPS if earlier else _STEPS.value)
    end = time.perf_counter() + _BRIEF_SECONDS if earlier else None
    options = Options(
        [WORKLOADS[name] for name in workloads], rounds, steps, _QUICK.value, brief=earlier is not None, end=end
    )
    os.makedirs(output, exist_ok=True)
    here = machine()
    print(describe(here), flush=True)
    if here["load"] > 0.3:
        print(
            f"WARNING: something else is at work here (load {here['load']:.1f}): the times will say little", flush=True
        )
    studies = _earlier(os.path.join(output, "results.json"))
    begin = time.perf_counter()
    for number, name in enumerate(chosen, 1):
        print(f"\n{name} ({number} of {len(chosen)}, after {_minutes(begin)})", flush=True)
        try:
            result = importlib.import_module(f"studies.{name}").run(options)
        except Exception as e:  # the others can go on
            print(f"  LOST, {type(e).__name__}: {e}", flush=True)
            continue
        date = datetime.datetime.now().isoformat(timespec="seconds")
        studies[name] = {"date": date, "machine": here, "quick": options.quick, "result": result}
        _write(studies, output)
    print(f"\n{_minutes(begin)} in all\n")
    for table in tables(studies):
        print(table.text(), flush=True)
    for path in draw(studies, output):
        print(path)
    print(os.path.join(output, "results.md"))
    if earlier and "peers" in studies and studies["peers"]["machine"] is here:  # of this run
        found = changes(studies["peers"]["result"], earlier["result"])
        print(f"\nthen: {describe(earlier['machine'])}\nnow:  {describe(here)}\n")
        print(table_of_changes(found, earlier["date"]).text())


def _to_compare_with(path: str) -> dict[str, Any]:
    """The study of peers of an earlier run."""
    try:
        with open(path) as f:
            study = json.load(f).get("peers")
    except (OSError, ValueError) as e:
        raise app.UsageError(f"--compare={path} is not the results.json of an earlier run: {e}") from e
    if study is None:
        raise app.UsageError(f"{path} has no study of peers to compare with; make it by --studies=peers")
    if study["quick"] != _QUICK.value:
        raise app.UsageError(
            f"{path} is {'' if study['quick'] else 'not '}from a --quick run, and this run is not alike"
        )
    return study


def _minutes(begin: float) -> str:
    return f"{(time.perf_counter() - begin) / 60:.1f} min"


def _earlier(path: str) -> dict[str, Any]:
    """The studies of an earlier run of the same kind."""
    if not os.path.exists(path):
        return {}
    with open(path) as f:
        return {name: study for name, study in json.load(f).items() if study["quick"] == _QUICK.value}


def _write(studies: dict[str, Any], output: str) -> None:
    """After each study, so that an interrupted run leaves those it finished."""
    _replace(os.path.join(output, "results.json"), json.dumps(studies, indent=1) + "\n")
    parts = ["# Training benchmark\n"]
    parts += [
        f"{name}, {s['date']}{', QUICK' if s['quick'] else ''}: {describe(s['machine'])}\n"
        for name, s in studies.items()
    ]
    _replace(os.path.join(output, "results.md"), "\n".join([*parts, *(t.markdown() for t in tables(studies))]))


def _replace(path: str, text: str) -> None:
    with open(f"{path}.tmp", "w") as f:
        f.write(text)
    os.replace(f"{path}.tmp", path)


if __name__ == "__main__":
    app.run(main)
