"""A run evaluated within groups: the same as pandas on the raw log, value by value."""

import dataclasses
import json

import click_log
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema
from tfrs_dlrm.stores.files import write_json
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.groups import Grouping
from tfrs_dlrm.training.loop import train_and_evaluate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose evaluation rows are known in their raw form."""
    folder = tmp_path_factory.mktemp("grouping")
    click_log.write(str(folder / "train.csv"), 2000)
    click_log.write(str(folder / "eval.csv"), 1500, seed=1)
    prepare(click_log.SCHEMA, [str(folder / "train.csv")], str(folder / "data"), eval_inputs=[str(folder / "eval.csv")])
    config = RunConfig(
        DataConfig(path=str(folder / "data")),
        DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1)),
        OptimizerConfig("adam", 0.005, "rowwise_adagrad", 0.02),
        TrainConfig(batch_size=100, steps=40, tensorboard=False),
    )
    train_and_evaluate(config, str(folder / "run"))
    return folder


def auc(part):
    return roc_auc_score(part.clicked, part.z, sample_weight=part.weight) if part.clicked.nunique() == 2 else np.nan


def test_ranking_within_the_values_of_the_raw_log(folder):
    run = str(folder / "run")
    evaluation = evaluate_run(run)
    found = Grouping(run, ranking=["site"], k=3).measure(evaluation, "eval")
    raw = pd.read_csv(folder / "eval.csv", keep_default_na=False).assign(z=evaluation.scores.logits)
    seen = pd.read_csv(folder / "train.csv").site.value_counts()
    parts = [part for site, part in raw[raw.weight > 0].groupby("site") if seen.get(site, 0) >= 2]
    expected = [ndcg_score([p.clicked], [p.z], k=3) if len(p) > 1 else 1.0 for p in parts if p.clicked.any()]
    ranked = found.ranking["site"]
    assert ranked.groups == len(expected) > 5 and ranked.ndcg == pytest.approx(np.mean(expected), rel=1e-6)
    assert found.text(3).startswith(f"Ranking by site: NDCG@3 {ranked.ndcg:.6f}, MRR {ranked.mrr:.6f}, MAP ")
    assert found.to_dict()["ranking"]["site"]["recall"] == ranked.recall


def test_groups_are_those_of_the_raw_log(folder, tmp_path):
    run = str(folder / "run")
    grouping = Grouping(run, ["site", "slot", "tags"], ["site", "user"])
    evaluation = evaluate_run(run)
    found = grouping.measure(evaluation, "eval")
    write_json(tmp_path / "groups.json", found.to_dict())
    data = json.loads((tmp_path / "groups.json").read_text())

    raw = pd.read_csv(folder / "eval.csv", keep_default_na=False)
    raw["z"] = evaluation.scores.logits
    np.testing.assert_array_equal(raw.clicked, evaluation.scores.labels)
    seen = pd.read_csv(folder / "train.csv").site.value_counts()
    raw["site"] = raw.site.where(raw.site.isin(seen[seen >= 2].index), "<unseen>")
    raw["slot"] = raw.slot.where(raw.slot < 5, 0).astype(str)  # its table has 5 rows
    tags = raw.assign(tags=raw.tags.str.split("|").map(set)).explode("tags").replace({"tags": {"": "<none>"}})
    for feature, frame in (("site", raw), ("slot", raw), ("tags", tags)):
        table = pd.DataFrame(data["group_by"][feature]).set_index("value")
        assert (table.examples.diff().dropna() <= 0).all()
        groups = {value: part for value, part in frame.groupby(feature)}
        assert set(table.index) == set(groups)
        for value, part in groups.items():
            row = table.loc[value]
            assert row.examples == len(part) and row.weight == part.weight.sum()
            p = np.average(1 / (1 + np.exp(-part.z)), weights=part.weight)
            expected = [auc(part), p / np.average(part.clicked, weights=part.weight) if part.clicked.any() else np.nan]
            np.testing.assert_allclose(row[["auc", "calibration"]].astype(float), expected, rtol=1e-6)

    known = raw[raw.site != "<unseen>"].groupby("site")
    of_group = pd.DataFrame({"auc": known.apply(auc), "weight": known.weight.sum(), "examples": known.size()})
    kept = of_group.dropna()
    site = data["gauc"]["site"]
    assert site["gauc"] == pytest.approx(np.average(kept.auc, weights=kept.weight), rel=1e-9)
    assert (site["groups"], site["groups_left_out"]) == (len(kept), len(of_group) - len(kept))
    assert site["examples"] == kept.examples.sum()
    assert site["examples_without_value"] == (raw.site == "<unseen>").sum() > 0
    assert 40 <= data["gauc"]["user"]["groups"] <= 50  # buckets


def test_the_text_lines_up_and_says_what_is_left_out(folder):
    found = Grouping(str(folder / "run"), ["tags"], ["user"]).measure(evaluate_run(str(folder / "run")), "eval")
    lines = found.text(top=3).split("\n")
    assert lines[0] == "By tags, the 3 largest of 5 groups:"
    table = lines[2:6]
    assert len({len(line) for line in table}) == 1
    assert [line.split()[0] for line in table] == ["examples", *(line.split()[0] for line in table[1:])]
    assert "GAUC by user: 0." in lines[7] and "0 groups without both classes" in lines[8]
    assert lines[9] == "Values of user are hashed: a group is a bucket, which may hold several values."


def test_mistakes_are_found_before_anything_is_scored(folder, tmp_path):
    run = str(folder / "run")
    with pytest.raises(ValueError, match="no categorical feature 'sites'; did you mean 'site'"):
        Grouping(run, ["sites"])
    with pytest.raises(
        ValueError, match="no categorical feature 'q'; the categorical features are site, user, slot, tags"
    ):
        Grouping(run, [], ["q"])
    with pytest.raises(ValueError, match="feature 'price' is a number; name a categorical feature: site, user"):
        Grouping(run, ["price"])
    with pytest.raises(FileNotFoundError, match="holds no run"):
        Grouping(str(tmp_path), ["site"])


def test_missing_values_are_no_user(tmp_path):
    """Of 3 users and an empty one, all with the same examples, 3 count."""
    lines = [f"{y},{y}.5,{user}" for user in ("a", "b", "<unseen>", "") for y in (0, 1)]
    (tmp_path / "log.csv").write_text("\n".join(["y,x,user", *lines * 30]))
    schema = Schema(Label("y"), (DenseFeature("x"),), (CategoricalFeature("user"),))
    (tmp_path / "eval.csv").write_text((tmp_path / "log.csv").read_text())
    prepare(schema, [str(tmp_path / "log.csv")], str(tmp_path / "data"), eval_inputs=[str(tmp_path / "eval.csv")])
    model = DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(1,))
    config = RunConfig(DataConfig(str(tmp_path / "data")), model, train=TrainConfig(64, steps=5, tensorboard=False))
    train_and_evaluate(config, str(tmp_path / "run"))
    grouping = Grouping(str(tmp_path / "run"), ["user"], ["user"])
    evaluation = evaluate_run(str(tmp_path / "run"))
    found = grouping.measure(evaluation, "eval")
    assert found.gauc["user"].groups == 3 and found.without_value == {"user": 60}
    # A ranking does not see rows of weight 0, and counts those that it leaves out apart.
    scores = dataclasses.replace(evaluation.scores, weights=np.repeat([1.0, 0.0], 120))
    both = Grouping(str(tmp_path / "run"), gauc=["user"], ranking=["user"])
    counts = both.measure(dataclasses.replace(evaluation, scores=scores), "eval").to_dict()
    assert counts["gauc"]["user"]["examples_without_value"] == 60
    assert counts["ranking"]["user"]["examples_without_value"] == 30
    # A value that looks like the name of a row is quoted.
    assert set(found.to_dict()["group_by"]["user"]["value"]) == {"a", "b", '"<unseen>"', "<missing>"}
