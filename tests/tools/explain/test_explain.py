"""A trained run explained: what was planted in its log is found in its model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import small_model

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.programs.progress_bars import PrepareBar
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.stores.files import write_json
from tfrs_dlrm.tools.explain.explain_run import Questions, explain_run
from tfrs_dlrm.tools.explain.neighbours import nearest_rows
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.loop import train_and_evaluate

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("price"), DenseFeature("noise", indicator=True)),
    categorical=(
        CategoricalFeature("device"),
        CategoricalFeature("page"),
        CategoricalFeature("site"),
        CategoricalFeature("likes", separator="|", table="site"),
        CategoricalFeature("user", encoding="hash", table="users"),
        CategoricalFeature("slot", encoding="ids", dtype="int64"),
        CategoricalFeature("query"),
    ),
    tables=(
        Table("site", 8),
        Table("users", 8, vocabulary_size=64),
        Table("slot", 8, vocabulary_size=9),
        Table("query", 8, remainders=2),
    ),
)


def write(path: Path, rows: int, seed: int) -> None:
    """device x page and site and price say something about y; noise, user, slot and query say nothing."""
    rng = np.random.default_rng(seed)
    device, page, site, slot, user = (rng.integers(0, n, rows) for n in (4, 4, 12, 6, 30))
    price, noise = rng.normal(size=(2, rows))
    sign = np.array([-1, 1, -1, 1])
    logit = 1.5 * sign[device] * sign[page] + (site % 3 - 1) + price
    frame = pd.DataFrame({"y": (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int), "price": price})
    frame["noise"] = np.where(rng.random(rows) < 0.3, np.nan, noise)
    frame["device"], frame["page"] = [f"d{d}" for d in device], [f"p{p}" for p in page]
    frame["site"] = [f"s{s}.example" for s in site]
    frame["likes"] = ["|".join(f"s{s}.example" for s in rng.integers(0, 12, rng.integers(0, 3))) for _ in range(rows)]
    frame["user"], frame["slot"] = [f"u{u}" for u in user], slot
    frame["query"] = [f"q{q}" for q in rng.integers(0, 7, rows)]
    frame.to_csv(path, index=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    write(folder / "train.csv", 12_000, 0)
    write(folder / "eval.csv", 4_000, 1)
    prepare(SCHEMA, [str(folder / "train.csv")], str(folder / "data"), eval_inputs=[str(folder / "eval.csv")])
    config = RunConfig(
        DataConfig(path=str(folder / "data")),
        DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(32, 1)),
        OptimizerConfig("adam", 0.005, "rowwise_adagrad", 0.05),
        TrainConfig(batch_size=128, epochs=3, tensorboard=False),
    )
    train_and_evaluate(config, str(folder / "run"))
    return folder


@pytest.fixture(scope="module")
def found(folder):
    asked = Questions(examples=4000, interaction_examples=500, seeds=3, neighbours=("site:s3.example",), top=8)
    with PrepareBar() as bar:
        return explain_run(str(folder / "run"), asked, progress=bar)


@pytest.mark.slow
def test_what_the_label_depends_on_is_important_and_nothing_else(found):
    drops = {f.feature: f.worsening["auc_drop"].mean() for f in found.importance.features}
    rises = {f.feature: f.worsening["log_loss_rise"].mean() for f in found.importance.features}
    planted = ["device", "page", "site", "price"]
    assert found.importance.metrics["auc"] > 0.75
    assert set(list(drops)[:4]) == set(planted)
    assert min(drops[f] for f in planted) > 0.04 and min(rises[f] for f in planted) > 0.03
    # The standard error of an AUC on 4000 examples is about 0.007.
    assert max(abs(drops[f]) for f in drops if f not in planted) < 0.007
    assert max(abs(rises[f]) for f in rises if f not in planted) < 0.007


def test_the_planted_pair_interacts_most(found):
    first, second, *_ = found.interactions.pairs()
    assert first[:2] == ("device", "page")
    assert first[2] > 3 * second[2] > 0
    assert first[3] < 0.2 * first[2]


def test_lookups_and_dead_rows_are_those_of_the_data(folder, found):
    train = pq.read_table(folder / "data" / "train").to_pandas()
    model, _, _ = load_run(str(folder / "run"))
    columns = {"device": [train.device], "users": [train.user], "slot": [train.slot], "query": [train["query"]]}
    columns["site"] = [train.site, np.concatenate(train.likes.to_numpy())]
    usage = {u.table: u for u in found.tables}
    for table, values in columns.items():
        counts = np.bincount(np.concatenate([np.asarray(v) for v in values]), minlength=usage[table].rows)
        one = usage[table]
        assert (one.rows, one.lookups, one.dead_count) == (len(counts), counts.sum(), (counts == 0).sum())
        np.testing.assert_array_equal(one.dead, np.flatnonzero(counts == 0)[:8])
        assert one.most_lookups.tolist() == sorted(counts, reverse=True)[:8]
        np.testing.assert_array_equal(counts[one.most], one.most_lookups)
        share = np.cumsum(np.sort(counts)[::-1]) / counts.sum()
        assert share[one.half - 1] >= 0.5 and (one.half == 1 or share[one.half - 2] < 0.5)
        if table != "query":
            norms = np.linalg.norm(model.embeddings.tables[table].numpy(), axis=1)
        else:  # the product of two
            quotient, remainder = (model.embeddings.tables[f"query__{p}"].numpy() for p in ("quotient", "remainder"))
            rows = np.arange(len(counts))
            norms = np.linalg.norm(quotient[rows // 2] * remainder[rows % 2], axis=1)
        assert one.norm_mean == pytest.approx(norms[counts > 0].mean(), rel=1e-5)
        assert one.used_norms.sum() == (counts > 0).sum() and one.dead_norms.sum() == (counts == 0).sum()
        assert one.edges[0] == pytest.approx(norms.min(), rel=1e-5)
        assert one.edges[-1] == pytest.approx(norms.max(), rel=1e-5)
    assert usage["slot"].dead.tolist() == [6, 7, 8] and usage["users"].dead_count > 30


def test_neighbours_are_those_of_numpy(folder, found):
    model, _, _ = load_run(str(folder / "run"))
    table = model.embeddings.tables["site"].numpy().astype(np.float64)
    values = ["<unseen>", *(folder / "data/vocabulary/site.txt").read_text().split()]
    row = values.index("s3.example")
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosines = unit @ unit[row]
    order = [i for i in np.argsort(-cosines) if i != row][:8]
    (one,) = found.to_dict()["neighbours"]
    assert (one["table"], one["value"], one["row"]) == ("site", "s3.example", row)
    assert [n["value"] for n in one["nearest"]] == [values[i] for i in order]
    np.testing.assert_allclose([n["cosine"] for n in one["nearest"]], cosines[order], rtol=1e-6)
    train = pd.read_csv(folder / "train.csv", keep_default_na=False)
    expected = [
        (train.site == values[i]).sum() + train.likes.str.split("|").explode().eq(values[i]).sum() for i in order
    ]
    assert [n["lookups"] for n in one["nearest"]] == expected
    # Sites whose effect on the click is the same are alike.
    assert all(int(n["value"][1:].split(".")[0]) % 3 == 0 for n in one["nearest"][:3])


def test_text_json_and_figures(found, tmp_path):
    lines = found.text(top=2).split("\n")
    assert lines[0].startswith("Importance: what exchanging a feature's values among 4,000 examples does")
    assert len({len(line) for line in lines[3:13]}) == 1  # a header and nine features
    assert "Interactions, the 2 strongest of 36 pairs: mean |second difference" in found.text(top=2)
    assert "Nearest to s3.example in table site, looked up " in found.text(top=2)
    write_json(tmp_path / "explanation.json", found.to_dict())
    data = json.loads((tmp_path / "explanation.json").read_text())
    assert len(data["interactions"]["strength"]) == 9 and data["interactions"]["strength"][0][0] is None
    assert data["tables"]["slot"]["first_dead"][0] == {"value": "6", "row": 6}
    assert data["tables"]["users"]["most"][0]["value"].startswith("bucket ")
    assert sum(data["tables"]["device"]["norms"]["looked_up"]) == 4
    assert list(td.plots.explanation(data)) == ["importance", "interactions", "tables"]


def test_only_what_was_asked_for(folder):
    asked = Questions(parts=("importance", "interactions"), features=("site",), examples=100, seeds=1)
    one = explain_run(str(folder / "run"), asked, split="train", which="latest")
    assert one.interactions is None and one.tables == [] and one.split == "train"
    assert [f.feature for f in one.importance.features] == ["site"]
    assert list(td.plots.explanation(one.to_dict())) == ["importance"]
    none = explain_run(str(folder / "run"), Questions(parts=(), neighbours=("slot:3",), top=2))
    assert set(none.to_dict()) == {"checkpoint", "data", "split", "label", "neighbours"}
    assert len(none.to_dict()["neighbours"][0]["nearest"]) == 2


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"features": ("sites",)}, "no feature 'sites'; did you mean 'site'"),
        ({"label": "z"}, "no label 'z'; choose among y"),
        ({"features": ("zzz",)}, "no feature 'zzz'; name one of price, noise, device"),
        ({"parts": ("table",)}, "no part 'table'; choose among importance, interactions, tables"),
        ({"seeds": 0}, "seeds=0; at least 1 is needed"),
        ({"neighbours": ("site",)}, "neighbours 'site': TABLE:VALUE is needed"),
        ({"neighbours": ("sites:a",)}, "no table 'sites'; did you mean 'site'"),
        ({"neighbours": ("likes:a",)}, "no table 'likes'; feature 'likes' looks up table 'site'"),
        ({"neighbours": ("site:s33.example",)}, "'s33.example' is not in its vocabulary; did you mean 's3.example' or"),
        ({"neighbours": ("site:Z",)}, "'Z' is not in its vocabulary; the most frequent are 's"),
        ({"neighbours": ("slot:9",)}, "table 'slot': '9' is none of its ids; give one of 0 to 8"),
        ({"neighbours": ("users:u1",)}, "table 'users': its values are hashed"),
        ({"neighbours": ("query:q1",)}, "table 'query' is compressed: its values share rows"),
    ],
)
def test_mistakes_are_named(folder, asked, message):
    with pytest.raises(ValueError, match=message):
        explain_run(str(folder / "run"), Questions(**asked))


def test_no_run_no_checkpoint_no_evaluation_set(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        explain_run(str(tmp_path))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text((folder / "run" / "config.json").read_text())
    (tmp_path / "empty" / "encoder").symlink_to(folder / "run" / "encoder")
    with pytest.raises(FileNotFoundError, match="no checkpoint in best/"):
        explain_run(str(tmp_path / "empty"))
    prepare(SCHEMA, [str(folder / "train.csv")], str(tmp_path / "data"))
    with pytest.raises(ValueError, match="the eval set is empty; prepare the data with eval inputs"):
        explain_run(str(folder / "run"), data=str(tmp_path / "data"))
    assert explain_run(str(folder / "run"), Questions(parts=("tables",)), data=str(tmp_path / "data")).tables


def test_single_numbers_have_the_nearest_numbers_as_neighbours():
    model = td.RankingModel(small_model.SCHEMA.with_dim(1))
    model.embeddings.tables["slot"].assign([[0.5], [0.0], [0.75], [-2.0], [0.3], [0.25]])
    found = nearest_rows(model, "slot", 0, 4)
    assert (found.measure, found.number) == ("number", 0.5)
    # 0.75 and 0.25 are equally far.
    assert (found.rows, found.values) == ([4, 2, 5, 1], pytest.approx([0.3, 0.75, 0.25, 0.0]))


def test_vectors_without_a_direction_have_no_neighbours(folder):
    model, _, _ = load_run(str(folder / "run"))
    slot = model.embeddings.tables["slot"]
    slot.assign(np.where(np.arange(9)[:, None] < 7, 0, slot.numpy()))
    assert nearest_rows(model, "slot", 7, 5).rows == [8]
    with pytest.raises(ValueError, match="table 'slot': the vector of row 3 is 0, which has no direction"):
        nearest_rows(model, "slot", 3, 5)
