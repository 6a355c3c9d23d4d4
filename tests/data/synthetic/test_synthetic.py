"""The synthetic log: its format, its frequencies, and what the planted model knows of it."""

import itertools
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from tfrs_dlrm.data.synthetic import synthetic
from tfrs_dlrm.data.synthetic.planted import INTERACTING, PlantedModel, generator, sigmoid
from tfrs_dlrm.data.synthetic.synthetic import draw_chunk, generate
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores.files import read_json


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    output = tmp_path_factory.mktemp("log")
    return output, generate(str(output), 70_000, 20_000)


def test_every_line_is_raw_criteo(log):
    output, _ = log
    lines = (output / "train.tsv").read_text().splitlines()
    assert len(lines) == 70_000
    for line in lines[:3000] + lines[-3000:]:
        label, *fields = line.split("\t")
        assert label in ("0", "1") and len(fields) == 39
        assert all(f == "" or (f.isdecimal() and int(f) >= 0) for f in fields[:13])
        assert all(f == "" or (len(f) == 8 and int(f, 16) >= 0) for f in fields[13:])
    columns = list(zip(*(line.split("\t") for line in lines), strict=True))
    assert abs(np.mean([c == "" for c in columns[1]]) - 0.4) < 0.01  # I1
    assert abs(np.mean([c == "" for c in columns[1 + 13 + 18]]) - 0.4) < 0.01  # C19
    assert Schema.load(output / "schema.json").text.columns[0] == "label"


def test_ids_follow_zipf(log):
    output, _ = log
    ids = [line.split("\t")[14] for line in (output / "train.tsv").read_text().splitlines()]  # C1, never empty
    counts = np.sort(np.unique(ids, return_counts=True)[1])[::-1]
    expected = np.arange(1, 1461) ** -1.2
    expected *= len(ids) / expected.sum()
    np.testing.assert_allclose(counts[:20], expected[:20], rtol=0.15)


def test_planted_metrics_are_those_of_the_probabilities_that_drew_the_labels(log):
    output, planted = log
    _, labels, logits = draw_chunk(PlantedModel(0), 0, 2, 0, 20_000)
    written = [int(line[0]) for line in (output / "eval.tsv").read_text().splitlines()]
    assert written == labels.tolist()
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert planted.auc == pytest.approx(roc_auc_score(labels, probabilities), abs=1e-12)
    assert planted.log_loss == pytest.approx(log_loss(labels, probabilities), abs=1e-9)
    assert read_json(str(output / "planted.json"))["auc"] == planted.auc
    # Labels are drawn with these probabilities: in ten groups the means agree within four standard errors.
    for group in np.array_split(np.argsort(probabilities), 10):
        p = probabilities[group]
        assert abs(labels[group].mean() - p.mean()) < 4 * np.sqrt((p * (1 - p)).sum()) / len(group)


def test_planted_auc_follows_from_the_text_alone(log):
    output, planted = log
    model = PlantedModel(0)
    ids_of = [
        {t: i for i, t in enumerate(synthetic._hex_ids(f, len(p)).to_pylist())}
        for f, p in enumerate(model.probabilities)
    ]
    assert all(len(ids) == len(p) for ids, p in zip(ids_of, model.probabilities, strict=True))  # no two ids look alike

    def logit(integers, texts):
        total = float(model._bias)
        for k, text in enumerate(integers):
            linear, bend, hump, empty = model._curves[k].astype(float)
            z = (math.log(1 + int(text or 0)) - model._location[k]) / model._spread[k]
            total += linear * z + bend * math.tanh(2 * z) + hump * math.exp(-z * z) + (empty if text == "" else 0)
        ids = [ids_of[f][text] for f, text in enumerate(texts)]
        total += sum(float(model._main[f][i]) for f, i in enumerate(ids))
        for a, b in itertools.combinations(INTERACTING, 2):
            total += float(model._latent[a][ids[a]].astype(float) @ model._latent[b][ids[b]].astype(float))
        return total

    rows = [line.split("\t") for line in (output / "eval.tsv").read_text().splitlines()]
    logits = np.array([logit(row[1:14], row[14:]) for row in rows])
    labels = np.array([int(row[0]) for row in rows])
    assert planted.auc == pytest.approx(roc_auc_score(labels, logits), abs=1e-6)
    assert planted.log_loss == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-logits))), abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_interactions_matter(seed):
    model, rng = PlantedModel(seed), generator(seed, 3, 0)
    rows = model.draw(rng, 50_000)
    logits = model.logits(rows)
    labels = rng.random(50_000) < sigmoid(logits)
    assert 0.23 < labels.mean() < 0.27
    full, additive = (roc_auc_score(labels, s) for s in (logits, model.logits(rows, interactions=False)))
    assert 0.76 < full < 0.84 and full > additive + 0.01
    # The per-field effects leave nothing linear of the interactions to find: the best mix of the two is the sum.
    parts = np.stack([model.logits(rows, False), logits - model.logits(rows, False)], 1)
    weights = LogisticRegression(C=1e6).fit(parts, labels).coef_[0]
    np.testing.assert_allclose(weights, 1, atol=0.12)


def test_equal_arguments_give_equal_bytes_and_other_seeds_others(log, tmp_path):
    output, _ = log
    generate(str(tmp_path / "again"), 70_000, 20_000)
    generate(str(tmp_path / "other"), 70_000, 20_000, seed=1)
    for name in ("train.tsv", "eval.tsv", "planted.json", "schema.json"):
        assert (output / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert (output / "train.tsv").read_bytes() != (tmp_path / "other" / "train.tsv").read_bytes()


def test_a_run_that_dies_leaves_nothing_under_a_final_name(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic.pa_csv, "write_csv", full)
    with pytest.raises(OSError, match=r"the disk is full; .*run the same command again"):
        generate(str(tmp_path), 10, 10)
    assert not [p.name for p in tmp_path.iterdir() if not p.name.endswith(".tmp")]


def test_a_rerun_that_dies_does_not_leave_the_metrics_of_the_earlier_log(tmp_path, monkeypatch):
    generate(str(tmp_path), 10, 10)
    monkeypatch.setattr(synthetic, "_write_rows", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        generate(str(tmp_path), 10, 10, seed=1)
    assert not (tmp_path / "planted.json").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"rows": 10}', '{"train_rows": 10, "rows": 10, "seed": 0}'])
def test_a_damaged_planted_json_is_named(tmp_path, content):
    (tmp_path / "planted.json").write_text(content)
    with pytest.raises(ValueError, match=r"planted.json: .*; remove the file, and the log is drawn again"):
        generate(str(tmp_path), 10, 10, again=False)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_has_a_range(tmp_path, seed):
    with pytest.raises(ValueError, match=f"seed={seed} is out of range; give 0 to 9223372036854775807"):
        generate(str(tmp_path), 5, 5, seed)


def test_rows_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="train_rows=0 and eval_rows=5: give at least 1"):
        generate(str(tmp_path), 0, 5)
