"""Adult and anime from raw files to an export, by the programs and recipes as a user runs them."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import biased_factorization
import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ROOT = Path(__file__).parents[1]


def program(cwd, script, *arguments):
    done = subprocess.run(
        [sys.executable, ROOT / script, *arguments], cwd=cwd, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def whole_path(tmp_path, recipe, schema, *prepare):
    """Prepare, train, evaluate, export; returns the metrics of the last checkpoint."""
    config = f"--config={ROOT}/configs/{recipe}.py"
    program(tmp_path, "train/prepare.py", f"--schema={ROOT}/configs/schemas/{schema}", "--output=data", *prepare)
    program(tmp_path, "train/main.py", config, "--config.data.path=data", "--workdir=run")
    # Not the best: that was chosen on the very rows it is compared on.
    shown = program(tmp_path, "train/evaluate.py", "--workdir=run", "--checkpoint=latest")
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())["metrics"]
    assert all(f"{found['this model'][name]:.6f}" in shown for name in {"auc", "rmse"} & found["this model"].keys())
    assert (tmp_path / "run" / "evaluation.png").stat().st_size > 10_000
    exported = program(tmp_path, "export/main.py", "--workdir=run", "--output=served")
    assert "256 raw rows" in exported and os.path.isfile(tmp_path / "served" / "1" / "saved_model.pb")
    return found


def test_adult(real_data, tmp_path):
    folder = real_data / "adult"
    train, test = folder / "adult.data.gz", folder / "adult.test.gz"
    found = whole_path(tmp_path, "adult", "adult.json", f"--input={train}", f"--eval_input={test}")
    auc = found["this model"]["auc"]

    names = json.loads((ROOT / "configs/schemas/adult.json").read_text())["text"]["columns"]
    logs = [pd.read_csv(f, header=None, names=names, skipinitialspace=True) for f in (train, test)]
    labels = [log.pop("income").str.startswith(">50K") for log in logs]
    numeric = list(logs[0].select_dtypes("number"))
    categorical = [c for c in logs[0] if c not in numeric]
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), categorical), (StandardScaler(), numeric))
    regression = make_pipeline(encode, LogisticRegression(max_iter=1000)).fit(logs[0], labels[0])
    baseline = roc_auc_score(labels[1], regression.predict_proba(logs[1])[:, 1])
    print(f"Adult test AUC: DLRM {auc:.4f}, logistic regression {baseline:.4f}")
    assert auc >= baseline


@pytest.fixture
def ratings(real_data, tmp_path, monkeypatch):
    """ratings.csv in the directory of the test, which is the current one."""
    with zipfile.ZipFile(real_data / "anime" / "anime.zip") as archive:
        for name in ("anime_ratings.dat", "anime_info.dat"):
            (tmp_path / name).write_bytes(archive.read(f"anime/{name}"))
    monkeypatch.chdir(tmp_path)
    duckdb.sql((ROOT / "configs/schemas/anime.sql").read_text())
    return tmp_path


def prepared(path):
    """Training and evaluation rows, and what makes their users and items one-hot."""
    train, test = (pq.read_table(path / "data" / split).to_pandas() for split in ("train", "eval"))
    assert len(train) + len(test) == 419_943
    return train, test, OneHotEncoder(handle_unknown="ignore").fit(train[["user", "item"]])


def test_anime(ratings):
    found = whole_path(ratings, "anime", "anime.json", "--input=ratings.csv", "--eval_fraction=0.2")
    auc = found["this model"]["auc"]
    train, test, encode = prepared(ratings)
    best = 0.0
    for strength in (1.0, 3.0):
        regression = LogisticRegression(C=strength, max_iter=300)
        regression.fit(encode.transform(train[["user", "item"]]), train["label"])
        scores = regression.predict_proba(encode.transform(test[["user", "item"]]))[:, 1]
        best = max(best, roc_auc_score(test["label"], scores))
    print(f"Anime test AUC: DLRM {auc:.4f}, logistic regression {best:.4f}")
    assert np.isclose(best, 0.82, atol=0.01)
    assert auc >= best + 0.005


def test_anime_ratings(ratings):
    found = whole_path(ratings, "anime_ratings", "anime_ratings.json", "--input=ratings.csv", "--eval_fraction=0.2")
    train, test, encode = prepared(ratings)
    assert found["training mean"]["rmse"] == pytest.approx(
        np.sqrt(np.mean((test["label"] - train["label"].mean()) ** 2))
    )
    best = np.inf
    for strength in (1.0, 3.0):
        ridge = Ridge(strength, solver="lsqr").fit(encode.transform(train[["user", "item"]]), train["label"])
        errors = ridge.predict(encode.transform(test[["user", "item"]])) - test["label"]
        best = min(best, np.sqrt(np.mean(errors**2)))
    rmse = found["this model"]["rmse"]
    print(f"Anime test RMSE: DLRM {rmse:.4f}, ridge regression {best:.4f}")
    assert np.isclose(best, 1.21, atol=0.01)
    assert rmse <= best - 0.02


def test_factorizations_of_anime_ratings(ratings):
    """Beside one in plain NumPy with its best settings on these very rows, of latent 2 to 16 and L2 from 3 to 40."""
    schema = f"--schema={ROOT}/configs/schemas/anime_ratings.json"
    program(ratings, "train/prepare.py", schema, "--output=data", "--input=ratings.csv", "--eval_fraction=0.2")
    train, test, _ = prepared(ratings)
    users, items, labels = (train[c].to_numpy(np.float64 if c == "label" else int) for c in ("user", "item", "label"))
    plain = biased_factorization.fit(users, items, labels, latent=16, l2=20.0, sweeps=8)
    errors = biased_factorization.predict(plain, test["user"].to_numpy(), test["item"].to_numpy()) - test["label"]
    best = np.sqrt(np.mean(errors**2))
    assert np.isclose(best, 1.179, atol=0.003)
    for name, l2 in {"matrix_factorization": 0.1, "factorization_machine": 1e-3}.items():
        program(
            ratings,
            "train/main.py",
            f"--config={ROOT}/configs/anime_ratings.py",
            "--config.data.path=data",
            f"--workdir={name}",
            f"--config.model.name={name}",
            f"--config.optimizer.embedding_l2={l2}",
            "--config.optimizer.embedding_learning_rate=0.005",
            "--config.optimizer.decay_start_step=656",
            "--config.optimizer.decay_steps=656",
            "--config.train.epochs=4",
        )
        program(ratings, "train/evaluate.py", f"--workdir={name}", "--checkpoint=latest")
        rmse = json.loads((ratings / name / "evaluation.json").read_text())["metrics"]["this model"]["rmse"]
        print(f"Anime test RMSE: {name} {rmse:.4f}, biased matrix factorization in NumPy {best:.4f}")
        assert rmse <= best
