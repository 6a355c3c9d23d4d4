"""Every signature of a bundle says what the trained model says, in Python, in the C++ runtime and over the wire."""

import hashlib
import json
import os
from types import SimpleNamespace

import click_log
import google_crc32c
import numpy as np
import pytest
import serving_bundles
import tensorflow as tf
import yaml
from cases import matrix
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

import tfrs_dlrm as td
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.samples import read_samples, to_tensors
from tfrs_dlrm.serving import ServingClient
from tfrs_dlrm.serving.bundle.manifest import BundleFeature, read_manifest
from tfrs_dlrm.serving.bundle.versions import remove_old
from tfrs_dlrm.serving.exporting.export import ExportOptions, export_model
from tfrs_dlrm.serving.exporting.signatures import make_signatures
from tfrs_dlrm.serving.runtime.requests import to_examples
from tfrs_dlrm.serving.runtime.saved_model import RunError, SavedModel

CONTEXT = ("age", "user", "tags")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    data = click_log.make(str(tmp_path_factory.mktemp("log")))
    model = td.DLRM(td.Schema.load(f"{data}/schema.json"), (16, 8), (16, 1))
    model.compile(embedding_optimizer=td.RowWiseAdagrad(0.1))
    model.fit(td.dataset(data, 64), verbose=0)
    return data, model, td.Encoder.load(data)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    data, model, _ = trained
    output = str(tmp_path_factory.mktemp("out") / "clicks")
    return export_model(model, data, output, ExportOptions(context=CONTEXT), "/somewhere/step-40")[0]


@pytest.fixture(scope="module")
def rows(trained):
    """Raw rows, their encoded form, and the training side's probabilities."""
    data, model, encoder = trained
    raw = to_tensors(read_samples(data)[:60], encoder.signature())
    return {k: v.numpy() for k, v in raw.items()}, encoder(raw), model(encoder(raw)).numpy()


class _Python:
    """A SavedModel in TensorFlow's Python, asked as `SavedModel` is."""

    def __init__(self, path: str):
        self._signatures = tf.saved_model.load(path).signatures

    def run(self, name, inputs):
        outputs = self._signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
        return {k: v.numpy() for k, v in outputs.items()}


class _Remote:
    """A server, asked through the client as `SavedModel` is."""

    def __init__(self, client: ServingClient):
        self._client = client

    def run(self, name, inputs):
        if name not in ("regress", "classify"):
            return self._client.predict(inputs, name)
        rows = [_values(tf.train.Example.FromString(e)) for e in inputs["inputs"]]
        if name == "regress":
            return {"outputs": self._client.regress(rows)}
        pairs = np.array(self._client.classify(rows), object)  # [B, 2] of (label, score)
        return {"classes": strings_of(pairs[..., 0]), "scores": pairs[..., 1].astype(np.float32)}


def strings_of(labels):
    return np.vectorize(str.encode, otypes=[object])(labels)


def _values(example):
    """The features of an Example as Python values."""
    found = {}
    for name, feature in example.features.feature.items():
        (value,) = getattr(feature, feature.WhichOneof("kind")).value
        found[name] = value
    return found


@pytest.fixture(scope="module", params=matrix(["python", "c", "grpc", "rest"], fast=["python", "c"]))
def served(exported, request):
    if request.param in ("python", "c"):
        yield _Python(exported) if request.param == "python" else SavedModel(exported)
        return
    with serving_bundles.running(os.path.dirname(exported)) as server:
        address = server.rest if request.param == "rest" else f"grpc://{server.grpc}"
        with ServingClient(address, "clicks", timeout=60) as client:
            yield _Remote(client)


def strings(values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


@pytest.mark.parametrize("count", [1, 60])
def test_every_signature_agrees_with_the_training_side(served, rows, count):
    raw, encoded, expected = ({k: v[:count] for k, v in rows[0].items()}, rows[1], rows[2][:count])
    examples = strings([e.SerializeToString() for e in to_examples(raw)])
    padded = {
        "dense": encoded["dense"].numpy()[:count],
        "ids": encoded["ids"].numpy()[:count],
        "tags": encoded["tags"].to_tensor(-1).numpy()[:count],
        "tags_weights": encoded["tags_weights"].to_tensor(0.0).numpy()[:count],
    }
    classes = served.run("classify", {"inputs": examples})
    assert classes["classes"].tolist() == [[b"0", b"1"]] * count
    np.testing.assert_allclose(classes["scores"].sum(axis=1), 1, atol=1e-6)
    for name, found in {
        "serving_default": served.run("serving_default", raw)["probability"],
        "serialized_examples": served.run("serialized_examples", {"examples": examples})["probability"],
        "regress": served.run("regress", {"inputs": examples})["outputs"],
        "classify": classes["scores"][:, 1],
        "encoded": served.run("encoded", padded)["probability"],
    }.items():
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("count", [1, 60])
def test_rank_scores_each_candidate_in_its_context(served, trained, rows, count):
    _, model, encoder = trained
    shared = {*CONTEXT, "tags_weights"}
    raw = {k: v[:count] for k, v in rows[0].items()}
    together = {k: tf.constant(np.repeat(v[:1], count, axis=0) if k in shared else v) for k, v in raw.items()}
    expected = model(encoder(together)).numpy()
    request = {k: v[:1] if k in shared else v[np.newaxis] for k, v in raw.items()}
    ranked = served.run("rank", request)
    np.testing.assert_allclose(ranked["scores"], expected[np.newaxis], atol=1e-6)
    assert (np.diff(ranked["scores"][0][ranked["order"][0]]) <= 0).all() and sorted(ranked["order"][0]) == [
        *range(count)
    ]
    best = served.run("rank_top_k", request | {"k": np.int32([7])})
    assert best["scores"].shape == (1, min(7, count))
    np.testing.assert_array_equal(best["scores"][0], ranked["scores"][0][best["indices"][0]])
    np.testing.assert_array_equal(best["scores"][0], np.sort(ranked["scores"][0])[::-1][:7])


@pytest.mark.parametrize("name", ["self", "k"])
def test_a_feature_with_the_name_of_another_input_is_refused(name):
    model = SimpleNamespace(context=("user",), raw_signature=lambda: {"user": None, name: None})
    with pytest.raises(ValueError, match=f"feature '{name}': .* rename the feature in the schema"):
        make_signatures(model)


def test_an_example_may_leave_features_out(served, trained, rows):
    """They are missing values."""
    _, model, encoder = trained
    values = {tf.float32: np.nan, tf.int64: -1, tf.string: ""}
    missing = {k: tf.constant([values[s.dtype]], s.dtype) for k, s in encoder.signature().items()}
    expected = model(encoder(missing)).numpy()
    empty = tf.train.Example().SerializeToString()
    found = served.run("serialized_examples", {"examples": strings([empty])})
    np.testing.assert_allclose(found["probability"], expected, atol=1e-6)


def test_encoded_numbers_have_to_be_finite(exported, rows):
    encoded = rows[1]
    inputs = {
        "dense": np.full((1, 3), np.nan, np.float32),
        "ids": encoded["ids"].numpy()[:1],
        "tags": np.int32([[1]]),
        "tags_weights": np.float32([[1]]),
    }
    with pytest.raises(RunError, match="input dense: NaN or infinite"):
        SavedModel(exported).run("encoded", inputs)


@pytest.mark.slow
def test_warmup_requests_run_for_every_signature(exported):
    model = SavedModel(exported)
    asked = set()
    for record in tf.data.TFRecordDataset(f"{exported}/assets.extra/tf_serving_warmup_requests"):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        kind = log.WhichOneof("log_type")
        request = getattr(log, kind).request
        name = request.model_spec.signature_name
        asked.add(name)
        if kind == "predict_log":
            model.run(name, {k: tf.make_ndarray(v) for k, v in request.inputs.items()})
        else:
            examples = [e.SerializeToString() for e in request.input.example_list.examples]
            model.run(name, {"inputs": strings(examples)})
    assert asked == model.signatures.keys()


def test_manifest_says_what_is_there(exported):
    manifest = read_manifest(exported)
    assert (manifest.name, manifest.checkpoint, manifest.context) == (
        "clicks",
        "step-40",
        ("age", "user", "tags"),
    )
    for name, said in manifest.files.items():
        with open(os.path.join(exported, name), "rb") as f:
            content = f.read()
        assert said == {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "crc32c": f"{google_crc32c.value(content):08x}",
        }, name
    found = {os.path.relpath(os.path.join(d, n), exported) for d, _, names in os.walk(exported) for n in names}
    assert found - manifest.files.keys() == {"assets.extra/bundle.json"}
    signatures = SavedModel(exported).signatures
    assert manifest.signatures.keys() == signatures.keys()
    for name, said in manifest.signatures.items():
        assert signatures[name].method == f"tensorflow/serving/{said['method']}"
        specs = signatures[name].inputs
        assert {k: (v["dtype"], v["shape"]) for k, v in said["inputs"].items()} == {
            k: ("string" if v.dtype == object else v.dtype.name, list(v.shape)) for k, v in specs.items()
        }
    price = manifest.features[0]
    assert price == BundleFeature("price", "dense", "float32", may_be_missing=True, example=price.example)


def test_reference_rows_have_the_training_side_s_probabilities(exported, rows):
    with open(f"{exported}/assets.extra/reference.jsonl") as f:
        lines = [json.loads(line) for line in f]
    np.testing.assert_allclose([line["probability"] for line in lines[:60]], rows[2], atol=1e-6)
    assert [line.get("odd", False) for line in lines] == [False] * (len(lines) - 3) + [True] * 3


@pytest.mark.parametrize("storage", matrix(["float16", "int8"], fast=["int8"]))
@pytest.mark.slow
def test_smaller_tables_say_what_they_cost(trained, tmp_path, storage):
    data, model, _ = trained
    path, comparison = export_model(model, data, str(tmp_path / "clicks"), ExportOptions(storage=storage))
    manifest = read_manifest(path)
    # Of dimension 8: 2 bytes a number, or 1 and two float32 a row.
    assert manifest.tables["bytes"] / manifest.tables["bytes_float32"] == {"float16": 0.5, "int8": 0.5}[storage]
    assert (
        manifest.accuracy["examples"] == PreparedManifest.load(data).rows("eval")
        and 0 < manifest.accuracy["largest_change"] < 0.02
    )
    assert 0 < comparison.largest_difference <= manifest.tolerance
    assert manifest.rounding == 1e-6 < manifest.tolerance  # rows and candidates agree, whatever the tables lost


def test_what_starts_tf_serving(exported):
    root = os.path.dirname(exported)
    config = model_server_config_pb2.ModelServerConfig()
    with open(f"{root}/deploy/models.config") as f:
        text_format.Parse(f.read(), config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("clicks", "/models/clicks", "tensorflow")
    with open(f"{root}/deploy/docker-compose.yml") as compose, open(f"{root}/deploy/kubernetes.yaml") as kubernetes:
        assert yaml.safe_load(compose)["services"]["clicks"]["volumes"] == ["..:/models/clicks:ro"]
        deployment, service, _ = yaml.safe_load_all(kubernetes)
    assert deployment["kind"] == "Deployment" and service["spec"]["selector"] == {"app": "clicks"}
    with open(f"{exported}/batching_params.pbtxt") as f:
        lines = f.read().splitlines()
    largest = next(int(line.split()[-2]) for line in lines if line.startswith("max_batch_size"))
    allowed = [int(line.split()[-1]) for line in lines if line.startswith("allowed_batch_sizes")]
    assert allowed == sorted(allowed) and allowed[-1] == largest


def test_the_card_names_everything_that_can_be_asked(exported):
    with open(f"{exported}/MODEL.md") as f:
        card = f.read()
    for name, signature in read_manifest(exported).signatures.items():
        assert f"### {name}\n" in card
        for tensor in [*signature["inputs"], *signature["outputs"]]:
            assert f" {tensor} |" in card.split(f"### {name}\n")[1].split("##")[0]
    assert '| tags | string, separated by `\\|` | "" | yes |' in card


@pytest.mark.matrix
def test_old_versions_go(trained, tmp_path):
    for version in (1, 2, 5, 10):
        (tmp_path / str(version)).mkdir()
        (tmp_path / str(version) / "saved_model.pb").touch()
    data, model, _ = trained
    path, _ = export_model(model, data, str(tmp_path), ExportOptions(keep=2))
    assert sorted(os.listdir(tmp_path)) == ["10", "11", "deploy"] and path.endswith("11")
    with pytest.raises(ValueError, match="keep=0; at least 1"):
        remove_old(str(tmp_path), 0)
