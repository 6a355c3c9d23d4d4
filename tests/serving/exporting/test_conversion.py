"""Conversions of a bundle: `encoded` in TensorFlow Lite and ONNX, and all of it as a layer of Keras 3."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tf2onnx
from any_model import any_model
from cases import matrix
from family import FORMS, OF_SEVERAL_LABELS, ONE_EACH

import tfrs_dlrm as td
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.schema import CategoricalFeature, Label
from tfrs_dlrm.serving.exporting.export import export_model
from tfrs_dlrm.serving.exporting.serving_model import ServingModel
from tfrs_dlrm.serving.exporting.signatures import make_encoded

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    data, model = trained
    return export_model(model, data, str(tmp_path_factory.mktemp("converted") / "clicks"))[0]


def inputs_of(specs, size):
    """Encoded rows; some ids are outside their tables, and lists are padded, the first is empty."""
    rng = np.random.default_rng(size)
    made = {}
    for name, spec in specs.items():
        shape = [size if i == 0 else n or 3 for i, n in enumerate(spec.shape)]
        if spec.dtype == tf.float32:
            made[name] = rng.normal(size=shape).astype(np.float32)
        else:
            made[name] = rng.integers(-1, 9 if name == "ids" else 4, shape).astype(np.int32)
            made[name][0] = -1
    if "users" in made:
        made["users"] = np.where(made["sites"] < 0, -1, np.maximum(made["users"], 0))
    return made


def with_histories(schema, pooling):
    """Two parallel histories, of which the last two events count."""
    sites = CategoricalFeature("sites", sequence_length=2, history_of="site", pooling=pooling)
    users = CategoricalFeature("users", history_of="user", parallel_to="sites")
    users = dataclasses.replace(users, pooling="sum") if pooling == "mean" else users
    return dataclasses.replace(schema, categorical=(*schema.categorical, sites, users))


def in_lite(converter):
    runner = tf.lite.Interpreter(model_content=converter.convert()).get_signature_runner()
    names = runner.get_input_details()  # without those that the model does not read
    return lambda inputs: runner(**{name: inputs[name] for name in names})


def in_onnx(function, specs):
    plain = tf.function(lambda *values: function(**dict(zip(specs, values, strict=True))))
    model, _ = tf2onnx.convert.from_function(plain, list(specs.values()), opset=18)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [x.name for x in session.get_inputs()]
    outputs = sorted(function.structured_outputs)  # which ONNX numbers
    return lambda inputs: dict(zip(outputs, session.run(None, {name: inputs[name] for name in names}), strict=True))


# DIN and BST read the events of histories, whatever their pooling.
POOLINGS = {"dlrm": "mean", "deepfm": "target_attention", "din": "mean", "bst": "mean"}
STORED = [*((form, "float32") for form in (*ONE_EACH, *OF_SEVERAL_LABELS)), ("dlrm", "int8"), ("deepfm", "int8")]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
@pytest.mark.parametrize(("form", "storage"), matrix(STORED, [("dlrm", "float32"), ("dlrm", "int8")]))
def test_encoded_runs_in_tensorflow_lite_and_onnx(trained, form, storage):
    data, _ = trained
    of_two = {"user": "user", "item": "site"} if form == "matrix_factorization" else {}
    config = any_model(form.split()[0], **(FORMS | OF_SEVERAL_LABELS)[form] | of_two)
    schema = td.Schema.load(f"{data}/schema.json")
    if form in OF_SEVERAL_LABELS:  # of which the second comes after the first
        schema = dataclasses.replace(schema, more_labels=(Label("bought", after=schema.label.column),))
    schema = with_histories(schema, POOLINGS[form]) if form in POOLINGS else schema
    model = config.build(config.schema(schema), seed=1)
    model.build()
    serving = ServingModel(model, Encoder.load(data), (), storage)
    encoded, specs = make_encoded(serving), serving.encoded_signature()
    lite = in_lite(tf.lite.TFLiteConverter.from_concrete_functions([encoded], serving))
    onnx = in_onnx(encoded, specs)
    for size in (1, 6):
        inputs = inputs_of(specs, size)
        expected = encoded(**{name: tf.constant(v) for name, v in inputs.items()})
        assert len(expected) == (3 if form in OF_SEVERAL_LABELS else 1)
        for run in (lite, onnx):
            found = run(inputs)
            assert found.keys() == expected.keys()
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, rtol=0, atol=TOLERANCE, err_msg=name)


class FirstTags(td.RankingModel):
    """Adds up the vectors of the first two tags, the second one twice."""

    def compute_logits(self, dense, embeddings, training):
        return tf.reduce_sum(embeddings[0] * [[[1.0], [2.0]]], axis=[1, 2])


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_sequences_with_weights_by_hand(trained):
    data, _ = trained
    schema = td.Schema.load(f"{data}/schema.json").select(["tags"])
    tags = dataclasses.replace(schema.categorical[0], sequence_length=2)
    model = FirstTags(dataclasses.replace(schema, categorical=(tags,)), seed=1)
    model.build()
    serving = ServingModel(model, Encoder.load(data))
    inputs = inputs_of(serving.encoded_signature(), 6) | {"tags": np.array(3 * [[3, -1, 1], [2, 1, 3]], np.int32)}
    inputs["tags"][5] = -1
    sums = model.embeddings.tables["tags"].numpy().sum(axis=1)
    logits = np.zeros(6)
    for i, (row, weights) in enumerate(zip(inputs["tags"], inputs["tags_weights"], strict=True)):
        present = [(w, sums[k]) for k, w in zip(row, weights, strict=True) if k >= 0][:2]
        logits[i] = sum(place * w * x for place, (w, x) in enumerate(present, 1))
    encoded = make_encoded(serving)
    lite = in_lite(tf.lite.TFLiteConverter.from_concrete_functions([encoded], serving))
    for found in (encoded(**{name: tf.constant(v) for name, v in inputs.items()}), lite(inputs)):
        np.testing.assert_allclose(found["probability"], 1 / (1 + np.exp(-logits)), rtol=0, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_a_bundle_is_converted_as_the_guide_says(bundle, tmp_path):
    lite = in_lite(tf.lite.TFLiteConverter.from_saved_model(bundle, signature_keys=["encoded"]))
    encoded = tf.saved_model.load(bundle).signatures["encoded"]
    inputs = inputs_of(encoded.structured_input_signature[1], 4)
    expected = encoded(**{name: tf.constant(v) for name, v in inputs.items()})["probability"].numpy()
    np.testing.assert_allclose(lite(inputs)["probability"], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.process
def test_the_command_of_tf2onnx_converts_a_bundle(bundle, tmp_path):
    file = str(tmp_path / "clicks.onnx")
    words = ["--saved-model", bundle, "--tag", "serve", "--signature_def", "encoded", "--opset", "18", "--output", file]
    ran = subprocess.run([sys.executable, "-m", "tf2onnx.convert", *words], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    encoded = tf.saved_model.load(bundle).signatures["encoded"]
    inputs = inputs_of(encoded.structured_input_signature[1], 4)
    expected = encoded(**{name: tf.constant(v) for name, v in inputs.items()})["probability"].numpy()
    (found,) = onnxruntime.InferenceSession(file).run(["probability"], inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


KERAS_3 = """
import json, sys
import keras
import tensorflow as tf

assert keras.__version__.startswith("3.") and "tfrs_dlrm" not in sys.modules

class Scores(keras.layers.TFSMLayer):
    def call(self, inputs):
        return self.call_endpoint_fn(**inputs)

layer = Scores(sys.argv[1], call_endpoint="serving_default", trainable=False)
signature = layer.call_endpoint_fn.structured_input_signature[1]
inputs = {name: keras.Input(spec.shape[1:], dtype=spec.dtype.name, name=name) for name, spec in signature.items()}
model = keras.Model(inputs, layer(inputs)["probability"])

rows = [json.loads(line) for line in open(sys.argv[1] + "/assets.extra/reference.jsonl")]
missing = {"float32": float("nan"), "string": "", "int64": -1}
columns = {
    name: tf.constant([missing[spec.dtype.name] if (v := r["inputs"][name]) is None else v for r in rows], spec.dtype)
    for name, spec in signature.items()
}
found = model(columns).numpy().tolist()
print(json.dumps([found, [r["probability"] for r in rows]]))
"""


@pytest.mark.process
def test_keras_3_takes_a_bundle_as_a_layer(bundle):
    environment = {
        k: v for k, v in os.environ.items() if k not in ("TF_USE_LEGACY_KERAS", "PYTHONPATH", "KERAS_BACKEND")
    }
    ran = subprocess.run(
        [sys.executable, "-c", KERAS_3, bundle], env=environment, capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stderr
    found, expected = json.loads(ran.stdout.splitlines()[-1])
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
