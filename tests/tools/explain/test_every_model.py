"""Models of every kind explained: vectors are those that NumPy finds, whatever else rows hold, or stores them."""

import click_log
import numpy as np
import pytest
from any_model import any_model
from cases import matrix

import tfrs_dlrm as td
from tfrs_dlrm.config import MODELS, DataConfig, RunConfig, TrainConfig
from tfrs_dlrm.layers.hashing import hashed_rows
from tfrs_dlrm.tools.explain.explain_run import Questions, explain_run
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.loop import train_and_evaluate


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return click_log.make(str(tmp_path_factory.mktemp("log")), 600)


def explained(data, folder, neighbours=(), *, name, **model):
    """A run that took two steps, and all that there is to see in its model."""
    shape = {"embedding_dim": 8, "bottom_mlp": (8,), "top_mlp": (4, 1), "user": "slot", "item": "site"}
    shape |= {"first_context": ("user",), "first_mlp": (4,), "second_mlp": (4,)}
    train = TrainConfig(batch_size=100, steps=2, tensorboard=False)
    config = RunConfig(DataConfig(path=data), any_model(name, **shape | model), train=train)
    train_and_evaluate(config, f"{folder}/run")
    asked = Questions(examples=100, interaction_examples=20, seeds=1, neighbours=neighbours, top=4)
    return load_run(f"{folder}/run")[0], explain_run(f"{folder}/run", asked)


def check_norms(found, table, rows):
    usage = next(u for u in found.tables if u.table == table)
    norms = np.linalg.norm(rows, axis=1)
    dead = np.isin(np.arange(len(rows)), usage.dead)
    assert dead.sum() == usage.dead_count  # so that all of them are among the first `top`
    assert usage.norm_mean == pytest.approx(norms[~dead].mean(), rel=1e-5)
    assert (usage.edges[0], usage.edges[-1]) == pytest.approx((norms.min(), norms.max()), rel=1e-5)


# One of each kind: linear weights alone, after vectors and none; features that are not read; gates.
KINDS = ("dlrm", "logistic_regression", "matrix_factorization", "deepfm", "final_mlp")


@pytest.mark.parametrize("name", matrix(KINDS, fast=["dlrm"]))
def test_a_model_is_explained(name, data, tmp_path):
    model, found = explained(data, tmp_path, ("site:s2",), name=name)
    rows = {table: v.numpy().astype(np.float64) for table, v in model.embeddings.tables.items()}
    vectors = rows["site"][:, :-1] if MODELS[name].linear_weights else rows["site"]
    assert vectors.shape[1] == (1 if name == "logistic_regression" else 8)
    check_norms(found, "site", vectors)

    (one,) = found.neighbours
    if name == "logistic_regression":
        distance = np.abs(vectors[:, 0] - vectors[one.row])
        values, order = vectors[:, 0], np.argsort(distance, kind="stable")
        assert found.to_dict()["neighbours"][0]["number"] == vectors[one.row, 0]
        assert f"Nearest to s2 in table site, number {vectors[one.row, 0]:.6f}, looked up" in found.text(3)
    else:
        lengths = np.linalg.norm(vectors, axis=1)
        values = vectors @ vectors[one.row] / lengths / lengths[one.row]
        order = np.argsort(-values, kind="stable")
    expected = [row for row in order if row != one.row][:4]
    assert one.nearest.rows == expected
    np.testing.assert_allclose(one.nearest.values, values[expected], rtol=1e-6)

    looked_at = ["slot", "site"] if name == "matrix_factorization" else ["price", "age", "site", "user", "slot", "tags"]
    assert sorted(f.feature for f in found.importance.features) == sorted(looked_at)
    assert len(found.interactions.pairs()) == len(looked_at) * (len(looked_at) - 1) // 2
    assert {u.table for u in found.tables} == set(looked_at) - {"price", "age"}
    strengths = [strength for *_, strength, _ in found.interactions.pairs()]
    assert (max(strengths) > 1e-6) == (name != "logistic_regression")
    if name == "matrix_factorization":
        check_what_it_does_not_look_at(tmp_path)
    if name == "logistic_regression":
        assert len(td.plots.explanation(found.to_dict())) == 3


def check_what_it_does_not_look_at(tmp_path):
    asked = Questions(("importance",), features=("tags", "price"), examples=100)
    for one in explain_run(f"{tmp_path}/run", asked).importance.features:
        assert one.summary()["auc_drop"] == one.summary()["log_loss_rise"] == 0
    with pytest.raises(
        ValueError, match="'tags:t1': the model reads only site, slot; name a table of these, not 'tags'"
    ):
        explain_run(f"{tmp_path}/run", Questions((), neighbours=("tags:t1",)))


@pytest.mark.slow
def test_tables_that_a_run_compressed(data, tmp_path):
    model, found = explained(data, tmp_path, name="factorization_machine", shared_rows=7, compress_above=10)
    assert model.schema.table("user").stored_in == "shared_rows" and "user" not in model.embeddings.tables
    store = model.embeddings.tables["shared_rows"].numpy().astype(np.float64)
    rows = store[hashed_rows(np.arange(50), 7, "user/0").numpy()]
    check_norms(found, "user", rows[:, :-1])
    with pytest.raises(ValueError, match="table 'site' is compressed: its values share rows"):
        explain_run(f"{tmp_path}/run", Questions((), neighbours=("site:s2",)))
    with pytest.raises(ValueError, match="table 'shared_rows' only stores the rows of other tables"):
        explain_run(f"{tmp_path}/run", Questions((), neighbours=("shared_rows:s2",)))


@pytest.mark.slow
def test_the_product_of_quotient_and_remainder_has_the_linear_weight_last(data, tmp_path):
    model, found = explained(data, tmp_path, name="deepfm", remainders=4, compress_above=20)
    parts = [model.embeddings.tables[f"user__{part}"].numpy().astype(np.float64) for part in ("quotient", "remainder")]
    rows = parts[0][np.arange(50) // 4] * parts[1][np.arange(50) % 4]
    check_norms(found, "user", rows[:, :8])
    assert isinstance(model, td.DeepFM) and rows.shape == (50, 9)
