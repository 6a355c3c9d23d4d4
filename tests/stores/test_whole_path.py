"""The whole path in a store that fails one request in twenty: the same as on a disk, bit for bit."""

import gzip
import os
import shutil

import click_log
import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from file_tree import tree

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.programs import launch
from tfrs_dlrm.serving.bundle.versions import fetch_newest, find_versions
from tfrs_dlrm.serving.exporting.export import ExportOptions, export
from tfrs_dlrm.serving.server.model_config import VersionPolicy
from tfrs_dlrm.serving.server.served_model import ServedModel, find_models
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.stores import Store, StoreError, local_copy, publish
from tfrs_dlrm.training import run as run_module
from tfrs_dlrm.training.callbacks import StepCounter
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.workdir import Workdir


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The same rows as a .csv.gz and as .parquet."""
    home = tmp_path_factory.mktemp("raw")
    click_log.write(str(home / "a.csv"), 1500, seed=1)
    click_log.write(str(home / "b.csv"), 1500, seed=2)
    (home / "a.csv.gz").write_bytes(gzip.compress((home / "a.csv").read_bytes(), mtime=0))
    strings = pa_csv.ConvertOptions(column_types={"tags": "string", "tw": "string", "site": "string"})
    pq.write_table(pa_csv.read_csv(home / "b.csv", convert_options=strings), home / "b.parquet")
    return home


def upload(raw, place):
    store = Store(place)
    for name in ("a.csv.gz", "b.parquet"):
        store.upload(str(raw / name), name)


def without_job(files):
    return {name: data for name, data in files.items() if name != "prepared.json"}


def make_config(path, **train):
    return RunConfig(
        DataConfig(path=path, shuffle_rows=500),
        DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1)),
        OptimizerConfig("adam", 0.005, "rowwise_adagrad", 0.02),
        TrainConfig(**{"batch_size": 64, "steps": 60, "eval_every_steps": 20, **train}),
    )


def test_raw_logs_in_a_store_prepare_as_on_a_disk(store, place, raw, tmp_path):
    upload(raw, f"{place}/raw")
    store.failing = 0.05
    files = [f"{place}/raw/a.csv.gz", f"{place}/raw/*.parquet"]
    output = f"{place}/prepared"
    manifest = prepare(click_log.SCHEMA, files, output, eval_fraction=0.2, seed=3)
    local = str(tmp_path / "local")
    prepare(click_log.SCHEMA, [str(raw / "a.csv.gz"), str(raw / "b.parquet")], local, eval_fraction=0.2, seed=3)
    copy = local_copy(output)
    assert without_job(tree(copy)) == without_job(tree(local))
    assert manifest == prepare(click_log.SCHEMA, files, output, eval_fraction=0.2, seed=3)
    with pytest.raises(ValueError, match=r"s3://.*/prepared: already holds data prepared differently \(seed changed\)"):
        prepare(click_log.SCHEMA, files, output, eval_fraction=0.2, seed=4)
    # A next day extends a base in the store.
    click_log.write(str(tmp_path / "next.csv"), 600, seed=9)
    prepare(None, str(tmp_path / "next.csv"), f"{place}/next", base=output, half_life=1)
    prepare(None, str(tmp_path / "next.csv"), str(tmp_path / "next"), base=local, half_life=1)
    assert without_job(tree(local_copy(f"{place}/next"))) == without_job(tree(str(tmp_path / "next")))
    for a, b in zip(dataset(output, 64), dataset(local, 64), strict=True):
        np.testing.assert_array_equal(a[0]["ids"], b[0]["ids"])
        np.testing.assert_array_equal(a[1], b[1])
    store.failing = 0
    inferred = infer_schema(files[0], label="clicked")
    assert inferred == infer_schema(str(raw / "a.csv.gz"), label="clicked")


def test_a_killed_preparation_goes_on_and_a_bad_row_is_named(store, place, raw, tmp_path, monkeypatch):
    upload(raw, f"{place}/raw")
    files, output = [f"{place}/raw/a.csv.gz"], f"{place}/prepared"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tfrs_dlrm.stores.listing.Listing.write", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(click_log.SCHEMA, files, output)
    again = []
    prepare(click_log.SCHEMA, files, output, progress=lambda *call: again.append(call))
    assert {stage for stage, *_ in again} == {"upload"}, "the work was done again"
    prepare(click_log.SCHEMA, [str(raw / "a.csv.gz")], str(tmp_path / "local"))
    assert without_job(tree(local_copy(output))) == without_job(tree(tmp_path / "local"))
    Store(place).write("raw/bad.csv", (raw / "a.csv").read_bytes() + b"1,x,1,1,a,1\n")
    with pytest.raises(BadRowError, match=r"s3://.*/raw/bad\.csv: line 1502"):
        prepare(click_log.SCHEMA, [f"{place}/raw/bad.csv"], f"{place}/other")
    with pytest.raises(FileNotFoundError, match="nothing is published at this address"):
        local_copy(f"{place}/other")


@pytest.mark.matrix
def test_a_run_goes_from_machine_to_machine(store, place, raw, tmp_path, monkeypatch):
    local = str(tmp_path / "prepared")
    prepare(click_log.SCHEMA, [str(raw / "a.csv.gz")], local, eval_fraction=0.3)
    output, workdir = f"{place}/prepared", f"{place}/run"
    prepare(click_log.SCHEMA, [str(raw / "a.csv.gz")], output, eval_fraction=0.3)
    expected = train_and_evaluate(make_config(local), str(tmp_path / "run"))

    class Killed(StepCounter):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if self.step == 50:
                raise KeyboardInterrupt

    store.failing = 0.05
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "StepCounter", Killed)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(make_config(output), workdir)
    monkeypatch.setenv("TFRS_DLRM_CACHE", str(tmp_path / "other machine"))
    assert Workdir(workdir).checkpoint("latest").endswith("step-40")
    result = train_and_evaluate(make_config(output), workdir)
    assert result == expected

    monkeypatch.setenv("TFRS_DLRM_CACHE", str(tmp_path / "third machine"))
    found, wanted = (evaluate_run(w) for w in (workdir, str(tmp_path / "run")))
    assert found.scores.metrics() == wanted.scores.metrics()
    assert launch.call("report", [f"--workdir={workdir}", "--examples=50"]) == 0
    assert "By slot" in Store(workdir).read("report.html").decode()
    names = Store(workdir).files()
    assert sorted({n.split("/")[1] for n in names if n.startswith("checkpoints/")}) == ["step-40", "step-60"]
    assert {"metrics.jsonl", "result.json", "config.json"} <= names.keys()
    assert any(n.startswith("tensorboard/") for n in names)

    exports = f"{place}/exports"
    publish(local, f"{exports}/1")
    exported = export(workdir, exports, options=ExportOptions(keep=1))
    assert exported.path == f"{exports}/2" and list(find_versions(exports)) == [2]
    publish(local_copy(f"{exports}/2"), f"{exports}/3")
    report = verify(exports, output, latency=False)
    assert report.passed and report.path == exports, str(report)
    assert find_models(exports) == {"exports": exports}
    served = ServedModel("exports", exports, VersionPolicy(1), None, None, None)
    found = served._find()
    assert list(found) == [3]
    store.failing, served._next_listing = 1.0, 0.0
    assert served._find() == found  # the loaded versions keep answering

    # A version that is not whole, or damaged, is passed over.
    store.failing = 0
    Store(exports).write("5/saved_model.pb", b"half")
    Store(exports).write("3/saved_model.pb", b"damaged")
    monkeypatch.setenv("TFRS_DLRM_CACHE", str(tmp_path / "fourth machine"))
    assert list(fetch_newest(exports, 1)) == [2]


@pytest.mark.slow
def test_a_store_that_refuses_in_mid_run_loses_nothing(store, place, raw, tmp_path, monkeypatch):
    local, workdir = str(tmp_path / "prepared"), f"{place}/run"
    prepare(click_log.SCHEMA, [str(raw / "a.csv.gz")], local, eval_fraction=0.3)

    class Expires(StepCounter):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if self.step == 30:
                store.refuse = b"ExpiredToken"

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "StepCounter", Expires)
        with pytest.raises(StoreError, match=r"expired.*nothing is lost: .* holds it, and the same command"):
            train_and_evaluate(make_config(local), workdir)
    store.refuse = b""
    result = train_and_evaluate(make_config(local), workdir)
    assert result == train_and_evaluate(make_config(local), str(tmp_path / "run"))
    names = Store(workdir).files()
    assert any(n.startswith("checkpoints/step-60/") for n in names)
    shutil.rmtree(os.environ["TFRS_DLRM_CACHE"])
    assert Workdir(workdir).checkpoint("latest").endswith("step-60")
