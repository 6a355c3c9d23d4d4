"""Comparisons: what a user writes, what is reported of made-up outcomes, and a small one from end to end."""

import dataclasses
import json
import os

import click_log
import numpy as np
import pytest
from scipy import stats

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.tools import comparison
from tfrs_dlrm.tools.comparison import run
from tfrs_dlrm.tools.comparison.cost import Cost
from tfrs_dlrm.tools.comparison.outcome import Outcome, halves
from tfrs_dlrm.tools.comparison.tuning import shortened
from tfrs_dlrm.training.evaluation import Scores


def recipe(data="data/none"):
    return RunConfig(
        data=DataConfig(path=data),
        model=DLRMConfig(embedding_dim=8, bottom_mlp=(8,), top_mlp=(8, 1)),
        optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=10),
        train=TrainConfig(batch_size=64, steps=40, eval_every_steps=20, seed=3, tensorboard=False),
    )


def test_what_a_user_writes_becomes_recipes():
    base = recipe()
    found = comparison.contestants(base, ["dlrm", "dlrm:model.top_mlp=16-4-1:optimizer.embedding_l2=1e-3"])
    assert [c.label for c in found] == ["dlrm", "dlrm:model.top_mlp=16-4-1:optimizer.embedding_l2=1e-3"]
    assert found[1].config.model.top_mlp == (16, 4, 1) and found[1].config.optimizer.embedding_l2 == 1e-3
    assert found[0].config == base and base.model.top_mlp == (8, 1)
    (streams,) = comparison.contestants(base, ["final_mlp:model.first_context=user-item:model.second_mlp=8-4"])
    assert (streams.config.model.first_context, streams.config.model.second_mlp) == (("user", "item"), (8, 4))
    assert found[1].directory == "dlrm-model.top_mlp=16-4-1-optimizer.embedding_l2=1e-3"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no model is given"),
        (["dlrm", "dlrm"], "'dlrm' is given twice"),
        (["dlmr"], r"'dlmr': config.model.name='dlmr': choose one of"),
        (["dlrm:model.dropuot=0.1"], r"model \(dlrm\) has no field 'dropuot'; did you mean 'dropout'"),
        (["dlrm:model.top_mlp=a"], r"model.top_mlp=a: numbers with - between needed, as \(8, 1\) is"),
        (["dlrm:data.path=x"], "'data.path' is unknown; name one of model.FIELD"),
        (["dlrm:model.top_mlp"], "is not of the form SECTION.FIELD=VALUE"),
        (["dlrm:model.top_mlp=8-2"], r"config.model.top_mlp=\(8, 2\): its last number must be 1"),
    ],
)
def test_what_is_wrong_is_named(texts, message):
    with pytest.raises(ValueError, match=message):
        comparison.contestants(recipe(), texts)


def test_sizes_are_recipes_whose_tables_take_more_and_less():
    base = recipe()
    base.model.compress_above = 280
    found = {c.label: c.config.model for c in comparison.contestants(base, comparison.sizes("dlrm", base))}
    assert list(found)[:3] == ["dim 8", "dim 2", "dim 4"] and found["dim 32"].bottom_mlp == (32,)
    data = click_log.SCHEMA.with_vocabulary_sizes({"site": 1000, "tags": 300})
    numbers = {}
    for label, model in found.items():
        tables = {t.name: t for t in model.schema(data).tables}
        numbers[label] = {
            name: t.dim * (-(-t.vocabulary_size // t.remainders) + t.remainders if t.remainders else t.vocabulary_size)
            for name, t in tables.items()
            if not t.stored_in
        }
    assert numbers["dim 8"] == {"site": 8000, "user": 400, "slot": 40, "tags": 2400}
    assert numbers["dim 2"]["site"] == 2000 and numbers["quotient-remainder 16"]["site"] == 8 * (63 + 16)
    assert numbers["4096 shared rows"] == {"user": 400, "slot": 40, "shared_rows": 8 * 4096}
    assert numbers["mixed 0.6"]["site"] == 1000  # 8 * (5 / 1000) ** 0.6 is 0.3, and 1 is the least
    with pytest.raises(ValueError, match="a power of 2"):
        comparison.sizes("dlrm", RunConfig(model=DLRMConfig(embedding_dim=12, bottom_mlp=(12,))))


def test_halves_are_the_even_and_the_odd_rows():
    known = np.array([1, 2, 3])  # the rows that have the further label
    later = Scores(np.arange(3.0), known * 4.0, None, examples=known)
    scores = Scores(np.arange(5.0), np.arange(5.0) * 2, np.arange(5.0) * 3, more={"later": later})
    even, odd = halves(scores)
    assert even.more["later"].logits.tolist() == [8] and odd.more["later"].logits.tolist() == [4, 12]
    assert even.labels.tolist() == [0, 2, 4] and odd.logits.tolist() == [2, 6] and odd.weights.tolist() == [3, 9]
    with pytest.raises(ValueError, match="1 rows cannot be halved"):
        halves(Scores(np.ones(1), np.ones(1), None))


def test_a_trial_is_a_shorter_run():
    short = shortened(recipe(), 0.25)
    assert (short.train.steps, short.train.eval_every_steps, short.optimizer.warmup_steps) == (10, 10, 2)


def outcome(label, seed, auc):
    metrics = {"auc": auc, "log_loss": 1 - auc, "normalized_entropy": 0.9, "calibration": 1.0}
    return Outcome(label, seed, list(metrics), metrics, [{"step": 10, **metrics}, {"step": 20, **metrics}], {})


def test_summary_and_table_of_made_up_outcomes():
    a, b = [0.70, 0.72, 0.71], [0.75, 0.76, 0.77]
    outcomes = [outcome("a", i, x) for i, x in enumerate(a)] + [outcome("b", i, x) for i, x in enumerate(b)]
    costs = {"b": Cost(1_234_567, 4_900_000, 98_765.4, {"1": 0.12, "16": 0.2, "256": 1.5})}
    found = comparison.summary(outcomes, costs)
    assert found["a"]["auc_mean"] == pytest.approx(0.71) and found["a"]["auc_std"] == pytest.approx(0.01)
    assert found["a"]["p_value"] is None and found["b"]["difference"] == pytest.approx(0.05)
    differences = np.subtract(b, a)
    t = differences.mean() / (differences.std(ddof=1) / np.sqrt(3))  # by hand
    assert found["b"]["p_value"] == pytest.approx(2 * stats.t.sf(t, 2))
    head, first, second = comparison.table(found).split("\n")
    assert first.split()[:3] == ["a", "0.71000", "+-0.01000"] and second.split()[3] == "+0.05000"
    assert "1,234,567" in second and second.endswith("98,765       0.12     1.50") and len(second) == len(head)
    one = comparison.summary(outcomes[:1], {})
    assert one["a"]["auc_std"] is None and comparison.table(one)


def test_a_regression_is_compared_by_its_rmse():
    outcomes = [
        Outcome(label, seed, ["rmse", "mae"], {"rmse": rmse, "mae": rmse / 2}, [], {})
        for label, values in {"a": (1.0, 1.2), "b": (0.9, 1.0)}.items()
        for seed, rmse in enumerate(values)
    ]
    found = comparison.summary(outcomes, {})
    assert found["b"]["rmse_mean"] == pytest.approx(0.95) and found["b"]["difference"] == pytest.approx(-0.15)
    head, _, second = comparison.table(found).split("\n")
    assert head.split()[:4] == ["RMSE", "vs", "first", "p"] and head.split()[4] == "MAE"
    assert second.split() == ["b", "0.95000", "+-0.07071", "-0.15000", "0.205", "0.47500", "+-0.03536"]  # t is 3


@pytest.mark.matrix
def test_a_comparison_tunes_trains_measures_and_goes_on(tmp_path, monkeypatch):
    data = click_log.make(str(tmp_path / "log"))
    found = comparison.contestants(recipe(data), ["logistic_regression", "dlrm"])
    options = comparison.ComparisonOptions(seeds=2, budget=2, trial_share=0.5)
    output, said = str(tmp_path / "out"), []
    real, runs = run.train_and_evaluate, []

    def train(config, workdir, **rest):
        runs.append(os.path.relpath(workdir, output))
        if len(runs) == 6:
            raise KeyboardInterrupt
        return real(config, workdir, **rest)

    monkeypatch.setattr(run, "train_and_evaluate", train)
    with pytest.raises(KeyboardInterrupt):
        comparison.compare(found, output, options, said.append)
    outcomes, costs = comparison.compare(found, output, options, said.append)
    trials = ["logistic_regression/tuning/trial-0", "logistic_regression/tuning/trial-1"]
    assert runs[:5] == [*trials, "logistic_regression/seed-3", "logistic_regression/seed-4", "dlrm/tuning/trial-0"]
    # The trial in which it was interrupted is repeated; nothing that was finished is.
    assert runs[6:] == ["dlrm/tuning/trial-1", "dlrm/seed-3", "dlrm/seed-4"]
    assert [(o.label, o.seed) for o in outcomes] == [(c.label, s) for c in found for s in (3, 4)]
    half = PreparedManifest.load(data).rows("eval") // 2
    assert all(0.5 < o.metrics["auc"] < 1 and o.metrics["examples"] == half for o in outcomes)
    assert [p["step"] for p in outcomes[0].curve] == [20, 40]
    assert outcomes[0].chosen.keys() >= {"optimizer.learning_rate", "optimizer.embedding_l2"}
    with open(os.path.join(output, "dlrm", "seed-3", "config.json")) as f:
        written = json.load(f)
    assert written["optimizer"]["learning_rate"] == outcomes[2].chosen["optimizer.learning_rate"]
    schema_rows = 5 + 50  # slot and user; site and tags have as many as there are values
    assert costs["dlrm"].parameters > costs["logistic_regression"].parameters > schema_rows
    assert costs["dlrm"].latency_ms["1"] > 0 and costs["dlrm"].examples_per_second > 0
    runs.clear()
    assert comparison.compare(found, output, options) == (outcomes, costs) and not runs
    other = [dataclasses.replace(found[0], config=recipe(data))]
    other[0].config.optimizer.learning_rate = 0.5
    with pytest.raises(ValueError, match="holds logistic_regression of another recipe"):
        comparison.compare(other, output, options)


@pytest.mark.slow
def test_synthetic_data_are_drawn_once_for_all_seeds(tmp_path):
    base = recipe(str(tmp_path / "data"))
    base.data.synthetic_rows, base.data.synthetic_eval_rows, base.train.steps = 2_000, 500, 5
    found = comparison.contestants(base, ["logistic_regression"])
    outcomes, _ = comparison.compare(found, str(tmp_path / "out"), comparison.ComparisonOptions(seeds=2, measure=False))
    assert [o.metrics["examples"] for o in outcomes] == [250, 250]
