"""Two labels that contradict each other: what experts gain over a shared bottom of about as many dense weights.

make bench-tasks                          # 10 minutes
PYTHONPATH=benchmarks python -m quality.tasks --quick        # a smoke test, whose numbers mean nothing

Ma et al. 2018 ("Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD, section 3)
control how two synthetic tasks are related. Here both labels have a main effect of each field, with opposite signs, and
one of four logits of the kind `pairwise` of `planted.py`. The value of the field f0 says which of the four counts for
the first label, that of f1 which counts, with its sign changed, for the second:

    first = main + kind[f0] - 0.5        second = -(main + kind[f1]) - 0.5

So the labels use the same functions of the same fields, but not in the same rows. All models are the plain MLP over the
same tables, with about 6,000 dense weights, in four shapes of each kind.

`short` is the distance from the AUC of the logits that the labels were drawn from.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import study
from absl import app, flags

from quality.planted import VALUES, drawn_ids, drawn_labels, drawn_logits, prepare_log

study.define_flags(100_000, "Of the training log; as many more are for evaluation.")
_MODELS = flags.DEFINE_list(
    "models",
    [
        "shared_bottom@mlp:model.top_mlp=56-32-16-1",
        "shared_bottom-2@mlp:model.top_mlp=64-32-1",
        "shared_bottom-3@mlp:model.top_mlp=48-48-16-1",
        "shared_bottom-4@mlp:model.top_mlp=72-24-1",
        "towers@mlp:model.sharing=towers:model.top_mlp=32-24-1",
        "mmoe@mlp:model.sharing=mmoe:model.experts=8:model.expert_mlp=8-12:model.top_mlp=8-1",
        "mmoe-2@mlp:model.sharing=mmoe:model.experts=4:model.expert_mlp=16-16:model.top_mlp=8-1",
        "mmoe-3@mlp:model.sharing=mmoe:model.experts=6:model.expert_mlp=12-12:model.top_mlp=8-1",
        "mmoe-4@mlp:model.sharing=mmoe:model.experts=10:model.expert_mlp=8-8:model.top_mlp=8-1",
        "ple@mlp:model.sharing=ple:model.expert_levels=1:model.experts=2:model.task_experts=1:model.expert_mlp=16-16"
        ":model.top_mlp=8-1",
        "ple-2@mlp:model.sharing=ple:model.expert_levels=1:model.experts=2:model.task_experts=2:model.expert_mlp=12-12"
        ":model.top_mlp=8-1",
        "ple-3@mlp:model.sharing=ple:model.expert_levels=1:model.experts=4:model.task_experts=1:model.expert_mlp=12-8"
        ":model.top_mlp=8-1",
        "ple-4@mlp:model.sharing=ple:model.expert_levels=1:model.experts=6:model.task_experts=1:model.expert_mlp=8-12"
        ":model.top_mlp=8-1",
    ],
    "Which models, each as train/compare.py takes it; some shared_bottom among them.",
)
LABELS = ("first", "second")
# Standard deviations of the parts of the logits.
MAIN_STD, KINDS_STD = 0.75, 1.5
_DIM, _RATE = 8, 0.01  # models this small learn best at higher rates than those of `recipe`


def planted_tasks(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids [rows, fields], labels [2, rows], and the logits that they were drawn from."""
    rng = np.random.default_rng(seed)
    ids = drawn_ids(rng, rows)
    kinds = _scaled(np.stack([drawn_logits(rng, "pairwise", ids) for _ in range(VALUES)]), KINDS_STD)
    main = _scaled(drawn_logits(rng, "main", ids)[None], MAIN_STD)[0]
    first, second = (main + kinds[ids[:, field], np.arange(rows)] for field in (0, 1))
    logits = np.stack([first, -second]) - 0.5
    return ids, np.stack([drawn_labels(rng, x) for x in logits]), logits


def _scaled(parts: np.ndarray, std: float) -> np.ndarray:
    """Parts [n, rows], each with a mean of 0, and all with this standard deviation."""
    return (parts - parts.mean(axis=1, keepdims=True)) * (std / parts.std(axis=1, keepdims=True))


def compared(directory: str, rows: int, seeds: int, models: Sequence[str]) -> dict[str, Any]:
    """The planted AUC of each label, and by model its dense weights and its AUC [seeds, 2].

    All are measured on the odd evaluation rows; no choice depends on them.
    """
    from tfrs_dlrm.config import MLPConfig
    from tfrs_dlrm.metrics import exact_auc
    from tfrs_dlrm.schema import SCHEMA_FILE, Schema
    from tfrs_dlrm.tools import comparison

    ids, labels, logits = planted_tasks(2 * rows, seed=7)
    data = prepare_log(directory, dict(zip(LABELS, labels, strict=True)), ids, rows)
    base, schema = study.recipe(data, rows), Schema.load(os.path.join(data, SCHEMA_FILE))
    base.model, base.optimizer.learning_rate = MLPConfig(embedding_dim=_DIM), _RATE
    found: dict[str, dict[str, Any]] = {}
    configs = {c.label: c.config.model for c in comparison.contestants(base, models)}
    for label, runs in study.compared(base, models, directory, seeds).items():
        auc = [[x.metrics[name] for name in ("auc", "auc_second")] for x in runs]
        weights = configs[label].dense_cost(configs[label].schema(schema)).weights
        found[label] = {"dense_weights": weights, "auc": auc}
    odd = study.reported(rows)
    best = [exact_auc(y[odd], x[odd]) for y, x in zip(labels, logits, strict=True)]
    return {"correlation": float(np.corrcoef(logits)[0, 1]), "planted": best, "models": found}


def table(planted: Sequence[float], models: Mapping[str, Mapping[str, Any]]) -> str:
    """The means over the seeds, and the gains over the best shared bottom, on its worse label first."""
    auc = {label: np.array(one["auc"]) for label, one in models.items()}
    best = max((label for label in auc if label.startswith("shared_bottom")), key=lambda label: auc[label].mean())
    order = np.argsort(auc[best].mean(axis=0) - np.array(planted))
    lines = [f"{'':<20}{'weights':>9}" + "".join(f"{name:>10}{'short':>9}" for name in LABELS)]
    lines[0] += f"   gain over {best} on the label that is worse there, {LABELS[order[0]]}; and on the other"
    for label, values in auc.items():
        gains = values - auc[best]
        line = f"{label:<20}{models[label]['dense_weights']:9,}"
        line += "".join(f"{x:10.5f}{y - x:9.5f}" for x, y in zip(values.mean(axis=0), planted, strict=True))
        worse, other = (gains.mean(axis=0)[order[k]] for k in (0, 1))
        lines.append(f"{line}   {worse:+.5f} ({study.listed(gains[:, order[0]], '+.4f')}); {other:+.5f}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    del argv
    run = study.Study("tasks")
    report = run.report | compared(run.directory(str(run.rows)), run.rows, run.seeds, _MODELS.value)
    of = "planted: " + ", ".join(f"{x:.5f} {name}" for name, x in zip(LABELS, report["planted"], strict=True))
    print(f"\n{run.rows:,} rows, logits with a correlation of {report['correlation']:.3f}; AUC, {of}")
    print(table(report["planted"], report["models"]))
    run.save(report)


if __name__ == "__main__":
    app.run(main)
