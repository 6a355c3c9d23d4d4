"""Queries with effects of their own: what losses of the order within a query gain over the log loss.

make bench-lists                          # 15 minutes
PYTHONPATH=benchmarks python -m quality.lists --quick        # a smoke test, whose numbers mean nothing

The relevance of a row is a logit of the kind `pairwise` of `planted.py`. All rows of a query share a further effect,
and clicks are drawn from the sum. No feature is the query. Three logs:

unrelated   rows are drawn independently of the effect of their query
strong      the same, with effects twice as large, and 0.4 times as many rows
related     in queries of a high effect, some values of the field f0 are more frequent

In the last, rows with these values are clicked more often, and not because they are more relevant than the other rows
of their query.

`short` is the distance from the NDCG@10 of the planted relevance.
"""

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
        "log_loss@mlp",
        "softmax@mlp:model.list_loss=softmax",
        "pairwise@mlp:model.list_loss=pairwise_logistic",
        "half_softmax@mlp:model.list_loss=softmax:model.list_loss_weight=0.5",
    ],
    "Which models, each as train/compare.py takes it; the first is what the others are compared with.",
)
QUERY_ROWS = 20
# By log, the standard deviation of the effects, and its share of the rows.
LOGS = {"unrelated": (2.0, 1.0), "strong": (4.0, 0.4), "related": (2.0, 1.0)}


def planted_lists(log: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ids [rows, fields], queries, labels, and the relevance of the rows."""
    rng = np.random.default_rng(seed)
    ids, queries = drawn_ids(rng, rows), np.arange(rows) // QUERY_ROWS
    effects = rng.normal(0, LOGS[log][0], queries[-1] + 1)[queries]
    if log == "related":  # of half of the rows, the field tells the quarter of the effect
        quarter = np.searchsorted(np.quantile(effects, np.arange(1, VALUES) / VALUES), effects)
        ids[:, 0] = np.where(rng.random(rows) < 0.5, quarter, ids[:, 0])
    relevance = drawn_logits(rng, "pairwise", ids)
    return ids, queries, drawn_labels(rng, relevance + effects), relevance


def compared(directory: str, log: str, rows: int, seeds: int, models: Sequence[str]) -> dict[str, Any]:
    """The planted NDCG, and by model NDCG and AUC of each seed, on queries that no choice depends on."""
    from tfrs_dlrm.config import MLPConfig
    from tfrs_dlrm.data.reading.labels import group_ids
    from tfrs_dlrm.metrics import mean_ranking, ranking_metrics
    from tfrs_dlrm.tools.comparison.outcome import rows_for_choices

    ids, queries, labels, relevance = planted_lists(log, 2 * rows, seed=11)
    data = prepare_log(directory, {"clicked": labels}, ids, rows, queries)
    base = study.recipe(data, rows)
    base.model, base.train.monitor = MLPConfig(embedding_dim=8, top_mlp=(64, 32, 1)), "ndcg"
    outcomes = study.compared(base, models, directory, seeds)
    groups = group_ids(data, "eval")
    reported = ~rows_for_choices(rows, groups)
    best = mean_ranking(ranking_metrics(groups[reported], labels[rows:][reported], relevance[rows:][reported]))
    found = {
        label: {name: [x.metrics[name] for x in runs] for name in ("ndcg", "auc")} for label, runs in outcomes.items()
    }
    return {"planted": best.ndcg, "click_rate": float(labels.mean()), "models": found}


def table(planted: float, models: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The means over the seeds, and the gains over the first model, seed by seed."""
    first = np.array(next(iter(models.values()))["ndcg"])
    lines = [f"{'':<14}{'NDCG@10':>10}{'short':>9}{'AUC':>10}   gain in NDCG@10, and of each seed"]
    for label, one in models.items():
        ndcg = np.array(one["ndcg"])
        gains = ndcg - first
        line = f"{label:<14}{ndcg.mean():10.5f}{planted - ndcg.mean():9.5f}{np.mean(one['auc']):10.5f}"
        lines.append(f"{line}   {gains.mean():+.5f} ({study.listed(gains, '+.5f')})")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    del argv
    run = study.Study("lists")
    for log, (_, share) in LOGS.items():
        rows = int(share * run.rows)
        found = compared(run.directory(f"{log}-{rows}"), log, rows, run.seeds, _MODELS.value)
        run.report[log] = found
        print(f"\n{log}: {rows:,} rows, {found['click_rate']:.1%} clicked; NDCG@10 planted: {found['planted']:.5f}")
        print(table(found["planted"], found["models"]))
    run.save(run.report)


if __name__ == "__main__":
    app.run(main)
