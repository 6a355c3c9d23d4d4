"""The exported model says of raw values what the trained one says of encoded ones."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading

import click_log
import numpy as np
import pytest
import tensorflow as tf

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.encoding.checksums import checksums
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.samples import read_samples, to_tensors
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.serving.bundle.manifest import EXAMPLE, read_manifest
from tfrs_dlrm.serving.exporting import export as exporting
from tfrs_dlrm.serving.exporting.comparison import odd_rows
from tfrs_dlrm.serving.exporting.export import export
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.training.evaluation import score
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.loop import train_and_evaluate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A prepared log and a trained run."""
    home = tmp_path_factory.mktemp("run")
    data = click_log.make(str(home / "log"))
    config = RunConfig(
        DataConfig(path=data),
        DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1)),
        OptimizerConfig("adam", 0.005, "rowwise_adagrad", 0.02),
        TrainConfig(batch_size=64, epochs=2, tensorboard=False),
    )
    train_and_evaluate(config, str(home / "work"))
    return data, str(home / "work")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export(run[1], str(tmp_path_factory.mktemp("out") / "model"))


def test_raw_values_score_as_the_encoded_rows_of_the_log(run, exported):
    data, workdir = run
    model, _, _ = load_run(workdir)
    samples = read_samples(data)
    scores = score(model, dataset(data, 256, split="eval").take(1))
    serve = tf.saved_model.load(exported.path).signatures["serving_default"]
    raw = to_tensors(samples, Encoder.load(data).signature())
    probability = serve(**raw)["probability"].numpy()
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-scores.logits)), atol=1e-6)
    assert len(samples) == 256 and exported.comparison.rows == 256
    # A batch of 1.
    one = serve(**{name: value[:1] for name, value in raw.items()})["probability"].numpy()
    np.testing.assert_allclose(one, probability[:1], atol=1e-6)


def test_missing_unseen_and_malformed_values_score_as_in_training(run, exported):
    data, workdir = run
    model, _, _ = load_run(workdir)
    encoder = Encoder.load(data)
    raw = to_tensors(odd_rows(encoder.schema, read_samples(data)[0]), encoder.signature())
    assert np.isnan(raw["price"].numpy()[0]) and np.isinf(raw["price"].numpy()[2])
    assert raw["site"].numpy().tolist() == [b"", b"\0 never seen \n", "\x80".encode()]
    assert raw["slot"].numpy().tolist() == [-1, 2**62, -7]
    # By hand: missing and infinite prices are 0, log1p caps nothing above; age is its mean, 0, with the indicator set.
    features = encoder(raw)
    np.testing.assert_allclose(
        features["dense"].numpy(), [[0, 0, 1], [np.log1p(1e6), features["dense"][1, 1], 0], [0, 0, 1]]
    )
    assert features["ids"].numpy()[:, [0, 2]].tolist() == [[0, 0], [0, 0], [0, 0]]  # no row of their own
    expected = model(features).numpy()
    serve = tf.saved_model.load(exported.path).signatures["serving_default"]
    together = serve(**raw)["probability"].numpy()
    alone = [serve(**{k: v[i : i + 1] for k, v in raw.items()})["probability"].numpy()[0] for i in range(3)]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(together, expected, atol=1e-6)
    np.testing.assert_allclose(alone, expected, atol=1e-6)


@pytest.mark.parametrize("file", ["vocabulary/site.txt", "statistics.json"])
def test_what_was_prepared_from_another_vocabulary_or_statistics_is_not_exported(run, tmp_path, file):
    """The trained model behind the damaged encoder agrees with the export of it, so rows of the log must tell."""
    data = shutil.copytree(run[0], tmp_path / "data")
    prepared = PreparedManifest.load(str(data))
    if file == "statistics.json":
        statistics = json.loads((data / file).read_text())
        statistics["dense"]["age"]["mean"] += 1
        (data / file).write_text(json.dumps(statistics))
    else:
        lines = (data / file).read_text().splitlines()
        (data / file).write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    dataclasses.replace(prepared, checksums=checksums(str(data))).save(str(data))
    model, _, _ = load_run(run[1])
    feature = "site" if file != "statistics.json" else "age"
    with pytest.raises(
        ValueError, match=f"samples.jsonl, line .* feature '{feature}.* is encoded otherwise than in the eval"
    ):
        exporting.export_model(model, str(data), str(tmp_path / "out/clicks"))
    assert not list(tmp_path.glob("out/clicks/*"))


def test_signature_is_flat_and_named_by_feature(run, exported):
    signature = tf.saved_model.load(exported.path).signatures["serving_default"]
    inputs = {name: (spec.dtype, spec.shape.rank) for name, spec in signature.structured_input_signature[1].items()}
    assert inputs == {
        "price": (tf.float32, 1),
        "age": (tf.float32, 1),
        "site": (tf.string, 1),
        "user": (tf.string, 1),
        "slot": (tf.int64, 1),
        "tags": (tf.string, 1),
        "tags_weights": (tf.string, 1),
    }
    assert {k: (v.dtype, v.shape.rank) for k, v in signature.structured_outputs.items()} == {
        "probability": (tf.float32, 1)
    }
    with open(os.path.join(exported.path, EXAMPLE)) as f:
        assert json.load(f)["instances"][0].keys() == inputs.keys()


@pytest.mark.slow
def test_what_smaller_tables_cost_is_told(run, exported, tmp_path):
    smaller = export(run[1], str(tmp_path / "model"), options=exporting.ExportOptions(storage="int8"))
    assert exported.comparison.cost is None and smaller.comparison.cost.examples == PreparedManifest.load(run[0]).rows(
        "eval"
    )
    assert 0 < smaller.comparison.cost.largest_change < 0.01
    before, after = smaller.comparison.cost.metrics["auc"]
    assert before == pytest.approx(after, abs=1e-3)


def test_nothing_of_training_is_in_it(run, exported):
    variables = tf.train.list_variables(os.path.join(exported.path, "variables", "variables"))
    held = sum(np.prod(shape, dtype=int) for name, shape in variables if "VARIABLE_VALUE" in name)
    model, _, _ = load_run(run[1])
    assert held == sum(v.shape.num_elements() for v in model.trainable_variables)


@pytest.mark.process
def test_needs_nothing_but_tensorflow(exported, tmp_path):
    """Another process, without this package, loads and runs it from another place."""
    moved = tmp_path / "elsewhere"
    os.rename(exported.path, moved)
    try:
        program = (
            "import json, sys, tensorflow as tf; m = tf.saved_model.load(sys.argv[1]);"
            " assert 'tfrs_dlrm' not in sys.modules; s = m.signatures['serving_default'];"
            " r = json.load(open(sys.argv[1] + '/assets.extra/example_request.json'))['instances'][0];"
            " x = {k: tf.constant([r[k]], v.dtype) for k, v in s.structured_input_signature[1].items()};"
            " print('probability', float(s(**x)['probability'][0]))"
        )
        done = subprocess.run([sys.executable, "-c", program, str(moved)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert 0 < float(done.stdout.split()[-1]) < 1
    finally:
        os.rename(moved, exported.path)


def test_versions_count_up_and_a_failure_publishes_nothing(run, tmp_path, monkeypatch):
    output = tmp_path / "model"
    (output / "3").mkdir(parents=True)
    assert os.path.basename(export(run[1], str(output), "latest").path) == "4"
    real = exporting.ServingModel.score_raw

    def wrong(self, raw):
        return real(self, raw) * 0.999

    monkeypatch.setattr(exporting.ServingModel, "score_raw", wrong)
    with pytest.raises(ValueError, match=r"differs from the trained one; nothing is published: .* by more than"):
        export(run[1], str(output))
    assert sorted(os.listdir(output)) == ["3", "4", "deploy"]


@pytest.mark.slow
def test_smaller_tables_of_a_run_are_measured_on_its_data(run, tmp_path):
    exported = export(run[1], str(tmp_path / "model"), options=exporting.ExportOptions(storage="int8"))
    accuracy = read_manifest(exported.path).accuracy
    assert accuracy["examples"] == PreparedManifest.load(run[0]).rows("eval")
    assert abs(accuracy["auc"][0] - accuracy["auc"][1]) < 5e-4 and 0 < accuracy["largest_change"] < 0.02


def test_no_run_no_checkpoint(tmp_path, run):
    with pytest.raises(FileNotFoundError, match=r"holds no run \(no config.json\); tfrs-dlrm train makes one"):
        export(str(tmp_path), str(tmp_path / "out"))


@pytest.mark.slow
def test_a_model_that_amplifies_rounding_is_allowed_as_much_as_it_rounds(run, tmp_path):
    """A sine of thousands makes of the seventh digit the fourth; of rows far from usual ones it would make anything."""

    class Amplifying(td.EmbeddingMLP):
        def compute_logits(self, dense, embeddings, training):
            return tf.sin(1e3 * tf.clip_by_value(super().compute_logits(dense, embeddings, training), -1.0, 1.0))

    model = Amplifying(td.Schema.load(f"{run[0]}/schema.json"), top_mlp=(64, 32, 1))
    model.build()
    path, found = exporting.export_model(model, run[0], str(tmp_path / "model"))
    assert 1e-5 < read_manifest(path).rounding == found.tolerances["probability"].absolute < 0.1
    assert verify(path, latency=False, allowed=["Sin"]).passed


@pytest.mark.slow
def test_exports_into_one_directory_are_versions_one_after_the_other(run, tmp_path, monkeypatch):
    """And what a killed export left is no version, and goes away."""
    output, paths, threads = tmp_path / "model", [], []
    (output / "unfinished-1").mkdir(parents=True)
    (output / "unfinished-7").mkdir()
    write = exporting.write_reference

    def with_another(*arguments):
        if not threads:
            threads.append(threading.Thread(target=lambda: paths.append(export(run[1], str(output)).path)))
            threads[0].start()
        write(*arguments)

    monkeypatch.setattr(exporting, "write_reference", with_another)
    paths.append(export(run[1], str(output)).path)
    threads[0].join()
    assert [os.path.basename(path) for path in paths] == ["1", "2"]
    assert sorted(os.listdir(output)) == ["1", "2", "deploy"]
    assert all(verify(path, latency=False).passed for path in paths)


def test_an_unwritable_output_is_found_before_the_work(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "load_run", lambda *_: pytest.fail("the run comes first"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/out: cannot be written: .*; choose another place"):
        export(run[1], str(tmp_path / "file" / "out"))
